"""An environment of its own for each peer that comes from PyPI, made once below the directory of the benchmark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Debian's packages of what is no Python program.
_PROGRAMS = {"nginx": ("nginx", "curl"), "restic": ("restic",), "cp": ("cp", "sync")}
# Versions are pinned, so that a ratio is a ratio to something.
_PACKAGES = {"mlflow": ("mlflow==3.17.2",), "dvc": ("dvc==3.67.1",)}
_MODULES = {name: f"tests.bench.peers.{'copy' if name == 'cp' else name}_peer" for name in (*_PROGRAMS, *_PACKAGES)}

PEERS = ("mlflow", "nginx", "cp", "restic", "dvc")


class PeerMissing(Exception):
    """A peer cannot be had here; the message says what to install."""


@dataclass(frozen=True)
class Program:
    """How a contender is run, from the root of the work tree: its own directory comes last."""

    name: str
    version: str
    command: tuple[str, ...]


def project() -> Program:
    """The project itself, in the environment that runs this."""
    return Program("lading", "this tree", (sys.executable, "-m", "tests.bench.peers.lading_peer"))


def prepared(name: str, directory: Path) -> Program:
    """Return a peer that is ready to run; installs it where it comes from PyPI. Raises PeerMissing."""
    missing = [program for program in _PROGRAMS.get(name, ()) if shutil.which(program) is None]
    if missing:
        raise PeerMissing(f"{name} is left out: install {' and '.join(missing)} to have it in the table")
    if name not in _PACKAGES:
        return Program(name, _version_of(name), (sys.executable, "-m", _MODULES[name]))
    python = directory / name / "bin/python"
    if not python.exists():
        print(f"installing {' '.join(_PACKAGES[name])} in an environment of its own", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(directory / name)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        installed = subprocess.run([*pip, *_PACKAGES[name]])
        if installed.returncode:
            shutil.rmtree(directory / name)
            raise PeerMissing(f"{name} is left out: pip could not install {' '.join(_PACKAGES[name])}")
    return Program(name, _PACKAGES[name][0].partition("==")[2], (str(python), "-m", _MODULES[name]))


def _version_of(name: str) -> str:
    command = {"nginx": ["nginx", "-v"], "restic": ["restic", "version"], "cp": ["cp", "--version"]}[name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()
