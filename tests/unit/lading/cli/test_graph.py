"""Lineage in three forms, from graphs as the server gives them."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest

import lading
from lading import LineageEdge, LineageEdgeKind
from lading._cli import graph
from tests.unit.lading.cli import values

DATA = values.version("digits", 0, aliases=("latest",))
MODEL = values.version("mlp", 4, type="model", aliases=("best", "latest"), run_id="r1")
LINK = values.version(
    "Digit Reader", 1, project="model-registry", type="model", aliases=("staging",), is_link=True, source_uid=MODEL.uid
)
REPORT = values.version("report", 0, type="report", run_id="r2")
RUNS = (values.run("r1", name="train-7"), values.run("r2", name="deploy", job_type="deploy"))
EDGES = (
    LineageEdge(LineageEdgeKind.LOGGED, MODEL.uid, "r1"),
    LineageEdge(LineageEdgeKind.USED, DATA.uid, "r1"),
    LineageEdge(LineageEdgeKind.LINKED, MODEL.uid, link_uid=LINK.uid),
    LineageEdge(LineageEdgeKind.USED, LINK.uid, "r2"),
    LineageEdge(LineageEdgeKind.LOGGED, REPORT.uid, "r2"),
)
WHOLE = lading.Lineage(MODEL.uid, (MODEL, DATA, LINK, REPORT), RUNS, EDGES, False)
ALONE = lading.Lineage(DATA.uid, (DATA,), (), (), False)


def test_a_tree_tells_whence_and_whither() -> None:
    assert graph.tree(WHOLE) == (
        "vision/mlp:v4 (model, best, latest)\n"
        "├── from\n"
        "│   └── run train-7 (train, finished)\n"
        "│       └── vision/digits:v0 (dataset, latest)\n"
        "└── to\n"
        "    └── model-registry/Digit Reader:v1 (model, staging)\n"
        "        └── run deploy (deploy, finished)\n"
        "            └── vision/report:v0 (report)\n"
    )


def test_a_version_without_lineage_is_a_tree_of_one() -> None:
    assert graph.tree(ALONE) == "vision/digits:v0 (dataset, latest)\n"


def test_a_tree_keeps_the_order_of_siblings_and_joins_them() -> None:
    others = tuple(values.version("mlp", number, type="model") for number in range(3))
    edges = [LineageEdge(LineageEdgeKind.LOGGED, other.uid, "r1") for other in others]
    used = LineageEdge(LineageEdgeKind.USED, DATA.uid, "r1")
    told = graph.tree(lading.Lineage(DATA.uid, (DATA, *others), RUNS[:1], (used, *edges), False))
    assert told.splitlines()[2:] == [
        "    └── run train-7 (train, finished)",
        "        ├── vision/mlp:v0 (model)",
        "        ├── vision/mlp:v1 (model)",
        "        └── vision/mlp:v2 (model)",
    ]


def test_a_cycle_of_a_run_ends_and_says_so() -> None:
    edges = (
        LineageEdge(LineageEdgeKind.USED, DATA.uid, "r1"),
        LineageEdge(LineageEdgeKind.LOGGED, DATA.uid, "r1"),
    )
    told = graph.tree(lading.Lineage(DATA.uid, (DATA,), RUNS[:1], edges, False))
    assert told.splitlines()[1:4] == [
        "├── from",
        "│   └── run train-7 (train, finished)",
        "│       └── vision/digits:v0 (dataset, latest) …",
    ]


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    chain = [values.version("step", number) for number in range(3000)]
    edges: list[LineageEdge] = []
    for before, after in pairwise(chain):
        edges.append(LineageEdge(LineageEdgeKind.USED, before.uid, f"r{after.number}"))
        edges.append(LineageEdge(LineageEdgeKind.LOGGED, after.uid, f"r{after.number}"))
    runs = tuple(values.run(f"r{number}") for number in range(1, 3000))
    told = graph.tree(lading.Lineage(chain[0].uid, tuple(chain), runs, tuple(edges), False))
    assert len(told.splitlines()) == 2 + 2 * 2999


def test_mermaid_has_every_node_and_arrow() -> None:
    assert graph.mermaid(WHOLE) == (
        "flowchart LR\n"
        '    n0["vision/mlp:v4<br>model, best, latest"]\n'
        '    n1["vision/digits:v0<br>dataset, latest"]\n'
        '    n2[["model-registry/Digit Reader:v1<br>model, staging"]]\n'
        '    n3["vision/report:v0<br>report"]\n'
        '    n4(["run train-7<br>train, finished"])\n'
        '    n5(["run deploy<br>deploy, finished"])\n'
        "    n4 --> n0\n"
        "    n1 --> n4\n"
        "    n0 -.-> n2\n"
        "    n2 --> n5\n"
        "    n5 --> n3\n"
        "    style n0 stroke-width:3px\n"
    )


def test_dot_has_every_node_and_arrow() -> None:
    told = graph.dot(WHOLE)
    assert told.startswith("digraph lineage {\n")
    assert told.endswith("}\n")
    assert '"mlp-4" [label="vision/mlp:v4\\nmodel, best, latest" shape=box penwidth=2];' in told
    assert set(re.findall(r'"([^"]+)" -> "([^"]+)"', told)) == {
        ("run r1", "mlp-4"),
        ("digits-0", "run r1"),
        ("mlp-4", "Digit Reader-1"),
        ("Digit Reader-1", "run r2"),
        ("run r2", "report-0"),
    }


@pytest.mark.parametrize("draw", [graph.mermaid, graph.dot])
def test_a_name_cannot_leave_its_quotes(draw: Callable[[lading.Lineage], str]) -> None:
    odd = values.run("r1", name='a"] --> b\\', job_type="x\ny")
    used = LineageEdge(LineageEdgeKind.USED, DATA.uid, "r1")
    told = draw(lading.Lineage(DATA.uid, (DATA,), (odd,), (used,), False))
    plain = draw(lading.Lineage(DATA.uid, (DATA,), (values.run("r1"),), (used,), False))
    strings = re.compile(r'"(?:[^"\\]|\\.)*"')
    assert strings.sub("", told) == strings.sub("", plain)


def test_an_edge_to_what_the_graph_left_out_is_left_out() -> None:
    edge = LineageEdge(LineageEdgeKind.USED, DATA.uid, "beyond")
    assert graph.tree(lading.Lineage(DATA.uid, (DATA,), (), (edge,), True)).splitlines() == [
        "vision/digits:v0 (dataset, latest)"
    ]
