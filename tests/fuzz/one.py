"""One target under atheris, until libFuzzer's flags say that it is enough. For `python -m tests.fuzz`."""

from __future__ import annotations

import sys

import atheris

# Before the modules are imported that are to be watched.
with atheris.instrument_imports(include=["lading_format", "lading_server", "lading"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target that is named first."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
