"""nginx with PUT, and curl with eight transfers at a time. What it stores is not synced."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from tests.bench.peers.talk import files_of, free_port, serve, start_server

_CONFIGURATION = """user root; daemon off; pid {work}/pid; error_log {work}/errors;
events {{}}
http {{
  access_log off; client_body_temp_path {work}/bodies; client_max_body_size 0; sendfile on;
  server {{
    listen 127.0.0.1:{port}; root {work}/www;
    location / {{ dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""


def main() -> None:
    work, port, numbers = Path(sys.argv[1]), free_port(), itertools.count()
    (work / "www").mkdir()
    (work / "bodies").mkdir()
    (work / "nginx.conf").write_text(_CONFIGURATION.format(work=work, port=port))
    server = start_server(["nginx", "-c", str(work / "nginx.conf")], port, work / "server.log")

    def curl(lines: list[str]) -> None:
        (work / "curl.conf").write_text("\n".join(lines))
        flags = ["--no-progress-meter", "--fail", "--parallel", "--parallel-max", "8", "--create-dirs"]
        subprocess.run(["curl", *flags, "-K", str(work / "curl.conf")], check=True)

    def up(directory: str) -> tuple[str, list[str]]:
        base, files = f"http://127.0.0.1:{port}/{next(numbers)}", files_of(directory)
        curl([f'upload-file = "{directory}/{name}"\nurl = "{base}/{name}"\noutput = "/dev/null"' for name in files])
        return base, files

    def down(stored: tuple[str, list[str]], out: str) -> None:
        base, files = stored
        curl([f'url = "{base}/{name}"\noutput = "{out}/{name}"' for name in files])

    try:
        serve(up, down)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
