"""The calls that the README shows for grpcurl, made with `buf curl`, over the server's own reflection."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess
from tests.support.wire import Wire, file_entry, text_digest

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture
async def tree(shared_server: ServerProcess) -> AsyncIterator[str]:
    async with Wire(shared_server.target) as wire:
        session = await wire.session()
        await wire.put_blob(session, b"hello\n")
        response = await wire.put_tree(session, [file_entry("docs/hello.txt", b"hello\n")])
        yield response.tree.digest


def buf_curl(target: str, method: str, request: dict[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    if not BUF.exists():
        pytest.skip("buf is not installed; `pip install buf-bin` brings it")
    done = subprocess.run(
        [
            str(BUF),
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "--data",
            json.dumps(request),
            f"http://{target}/{method}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "NO_PROXY": "*", "no_proxy": "*"},
    )
    assert done.returncode == 0, done.stderr
    decoder, text, answers = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:].lstrip()
    return answers


def test_health_is_answered(shared_server: ServerProcess, tmp_path: Path) -> None:
    for service in ("", "lading.ingest.v1.IngestService", "lading.registry.v1.RegistryService"):
        answers = buf_curl(shared_server.target, "grpc.health.v1.Health/Check", {"service": service}, tmp_path)
        assert answers == [{"status": "SERVING"}]


def test_a_tree_is_listed(shared_server: ServerProcess, tree: str, tmp_path: Path) -> None:
    request = {"entity": "acme", "tree_digest": tree}
    (answer,) = buf_curl(shared_server.target, "lading.ingest.v1.IngestService/ListTree", request, tmp_path)
    assert answer["entries"] == [
        {
            "path": "docs/hello.txt",
            "kind": "ENTRY_KIND_FILE",
            "blobDigest": text_digest(b"hello\n"),
            "sizeBytes": "6",
        }
    ]


def test_a_file_is_read(shared_server: ServerProcess, tree: str, tmp_path: Path) -> None:
    request = {"entity": "acme", "tree_path": {"tree_digest": tree, "path": "docs/hello.txt"}}
    answers = buf_curl(shared_server.target, "lading.ingest.v1.IngestService/ReadFile", request, tmp_path)
    assert b"".join(base64.b64decode(answer["data"]) for answer in answers) == b"hello\n"


def test_the_server_introduces_itself(shared_server: ServerProcess, tmp_path: Path) -> None:
    (info,) = buf_curl(shared_server.target, "lading.registry.v1.RegistryService/GetServerInfo", {}, tmp_path)
    assert info["serverVersion"]
    (capabilities,) = buf_curl(shared_server.target, "lading.ingest.v1.IngestService/GetCapabilities", {}, tmp_path)
    assert capabilities["digestFunction"] == "DIGEST_FUNCTION_BLAKE3_256"
    assert {"max_chunk_bytes", "max_message_bytes", "window_bytes"} <= {
        limit["name"] for limit in capabilities["limits"]
    }
