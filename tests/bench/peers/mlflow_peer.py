"""MLflow's own server over SQLite and a directory. The last argument is a directory for all that it writes."""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tests.bench.peers.talk import free_port, serve, start_server

_MODEL = "m"


def main() -> None:
    work = Path(sys.argv[1])
    logging.disable(logging.WARNING)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{work}/mlflow.db",
        "--artifacts-destination", str(work / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    server = start_server(command, port, work / "server.log")
    client = _connected(port)
    experiment = client.create_experiment("bench")

    def up(directory: str) -> str:
        run_id: str = client.create_run(experiment).info.run_id
        client.log_artifacts(run_id, directory)
        return run_id

    def down(run_id: str, out: str) -> None:
        client.download_artifacts(run_id, "", out)

    def registry(calls: int) -> dict[str, Any]:
        run = client.create_run(experiment).info
        client.create_registered_model(_MODEL)
        return {
            "create": _percentiles(
                calls, lambda _: client.create_model_version(_MODEL, f"{run.artifact_uri}/a", run.run_id)
            ),
            "move": _percentiles(
                calls, lambda i: client.set_registered_model_alias(_MODEL, "staging", str(i % calls + 1))
            ),
            "resolve": _percentiles(calls, lambda _: client.get_model_version_by_alias(_MODEL, "staging")),
        }

    try:
        serve(up, down, {"registry": registry})
    finally:
        server.terminate()
        server.wait()


def _connected(port: int) -> MlflowClient:
    for _ in range(120):
        try:
            client = MlflowClient(f"http://127.0.0.1:{port}")
            client.search_experiments()
        except Exception:
            time.sleep(0.5)
        else:
            return client
    return MlflowClient(f"http://127.0.0.1:{port}")


def _percentiles(calls: int, call: Callable[[int], object]) -> list[float]:
    milliseconds = []
    for number in range(calls):
        began = time.perf_counter()
        call(number)
        milliseconds.append((time.perf_counter() - began) * 1000)
    milliseconds.sort()
    return [statistics.median(milliseconds), milliseconds[int(calls * 0.99) - 1]]


if __name__ == "__main__":
    main()
