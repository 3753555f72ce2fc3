"""Lineage as a tree, as Mermaid and as DOT. Pure.

In all three, arrows lead from a version to the run that used it, to the version that the run logged, and on to links.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import lading
from lading._cli.output import printable

_USED, _LOGGED, _LINKED = "used", "logged", "linked"


@dataclass(frozen=True, slots=True)
class _Node:
    """A version, a link or a run: its key, its name, and the rest in parentheses."""

    key: str
    name: str
    details: str
    shape: str

    @property
    def label(self) -> str:
        return f"{self.name} ({self.details})" if self.details else self.name


@dataclass(frozen=True, slots=True)
class _Graph:
    """Nodes by key, in the order of the lineage, and where each is reached from and leads to."""

    root: str
    nodes: Mapping[str, _Node]
    arrows: Sequence[tuple[str, str, str]]
    sources: dict[str, list[str]] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)


def tree(lineage: lading.Lineage) -> str:
    """Return the graph as two trees with the version in question at their roots: whence, and whither.

    What was shown before is shown again by its name alone, with `…`.
    """
    graph = _graph(lineage)
    lines = [graph.nodes[graph.root].label]
    directions = [("from", graph.sources), ("to", graph.targets)]
    present = [(word, next_) for word, next_ in directions if next_.get(graph.root)]
    for position, (word, next_) in enumerate(present):
        last = position == len(present) - 1
        lines.append(f"{'└' if last else '├'}── {word}")
        lines += _branches(graph, next_, graph.root, "    " if last else "│   ", {graph.root})
    return "\n".join(lines) + "\n"


def mermaid(lineage: lading.Lineage) -> str:
    """Return a Mermaid flow chart, as GitHub draws it in a block of Markdown that is marked `mermaid`."""
    graph = _graph(lineage)
    shapes = {"version": ("[", "]"), "link": ("[[", "]]"), "run": ("([", "])")}
    names = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for key, node in graph.nodes.items():
        opening, closing = shapes[node.shape]
        text = "<br>".join([_mermaid_text(part) for part in (node.name, node.details) if part])
        lines.append(f'    {names[key]}{opening}"{text}"{closing}')
    for start, end, kind in graph.arrows:
        lines.append(f"    {names[start]} {'-.->' if kind == _LINKED else '-->'} {names[end]}")
    lines.append(f"    style {names[graph.root]} stroke-width:3px")
    return "\n".join(lines) + "\n"


def dot(lineage: lading.Lineage) -> str:
    """Return a graph for Graphviz: `lading lineage … --format dot | dot -Tsvg`."""
    graph = _graph(lineage)
    shapes = {"version": "box", "link": "folder", "run": "ellipse"}
    lines = ["digraph lineage {", "    rankdir=LR;"]
    for key, node in graph.nodes.items():
        text = "\\n".join([_dot_text(part) for part in (node.name, node.details) if part])
        bold = " penwidth=2" if key == graph.root else ""
        lines.append(f'    "{_dot_text(key)}" [label="{text}" shape={shapes[node.shape]}{bold}];')
    for start, end, kind in graph.arrows:
        style = " [style=dashed]" if kind == _LINKED else ""
        lines.append(f'    "{_dot_text(start)}" -> "{_dot_text(end)}"{style};')
    lines.append("}")
    return "\n".join(lines) + "\n"


def _graph(lineage: lading.Lineage) -> _Graph:
    nodes = {version.uid: _version_node(version) for version in lineage.versions}
    nodes |= {_run_key(run.run_id): _run_node(run) for run in lineage.runs}
    arrows = [arrow for edge in lineage.edges if (arrow := _arrow(edge))[0] in nodes and arrow[1] in nodes]
    graph = _Graph(lineage.root_uid, nodes, arrows)
    for start, end, _ in arrows:
        graph.targets.setdefault(start, []).append(end)
        graph.sources.setdefault(end, []).append(start)
    return graph


def _arrow(edge: lading.LineageEdge) -> tuple[str, str, str]:
    """Return from where to where an edge leads, and its kind: from what was first to what was made of it."""
    if edge.kind.value == _USED:
        return edge.version_uid, _run_key(edge.run_id), _USED
    if edge.kind.value == _LOGGED:
        return _run_key(edge.run_id), edge.version_uid, _LOGGED
    return edge.version_uid, edge.link_uid, _LINKED


def _run_key(run_id: str) -> str:
    # A run may be called like the id of a version.
    return f"run {run_id}"


def _version_node(version: lading.Version) -> _Node:
    details = [version.type, *version.aliases]
    name = f"{version.project}/{version.name}"
    return _Node(version.uid, printable(name), ", ".join(details), "link" if version.is_link else "version")


def _run_node(run: lading.RunInfo) -> _Node:
    details = [part for part in (run.job_type, run.state.value) if part]
    return _Node(_run_key(run.run_id), printable(f"run {run.name}"), printable(", ".join(details)), "run")


def _branches(
    graph: _Graph, next_: Mapping[str, Sequence[str]], start: str, indent: str, seen: set[str]
) -> Iterator[str]:
    """Yield the lines below a node, depth first."""
    # Not recursive: a lineage may be longer than Python's stack.
    waiting = [(child, indent, last) for child, last in _marked(next_, start)]
    while waiting:
        key, indent, last = waiting.pop()
        again = key in seen and next_.get(key)
        yield f"{indent}{'└' if last else '├'}── {graph.nodes[key].label}{' …' if again else ''}"
        if key not in seen:
            seen.add(key)
            below = indent + ("    " if last else "│   ")
            waiting += [(child, below, is_last) for child, is_last in _marked(next_, key)]


def _marked(next_: Mapping[str, Sequence[str]], key: str) -> list[tuple[str, bool]]:
    """Return the children of a node, the last first and marked as such: they are taken from the end."""
    children = list(reversed(next_.get(key, ())))
    return [(child, position == 0) for position, child in enumerate(children)]


def _mermaid_text(text: str) -> str:
    """Return a text that Mermaid shows as it is, whatever it holds."""
    return "".join([one if one.isalnum() or one in " .,:/_-" else f"#{ord(one)};" for one in text])


def _dot_text(text: str) -> str:
    """Return a text for between double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
