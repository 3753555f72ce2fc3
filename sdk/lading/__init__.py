"""The async SDK of Lading: stores and fetches data sets, checkpoints and models.

    async with lading.Client() as client:
        await client.put("digits/", "vision/digits", type="dataset", aliases=["reviewed"])
        version = await client.version("vision/digits:reviewed")
        root = await version.download()

Importing it opens nothing and starts no thread. Everything public is here, listed in lading._face, which is loaded when
the first name is used: a shell that asks `lading --help` need not wait for gRPC. Modules that begin with `_` are not
public.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lading._face import *  # noqa: F403
    from lading._face import __all__ as __all__
else:

    def __getattr__(name: str) -> object:
        """Load what is public, once (PEP 562). Hidden from type checkers, which then find names that are not there."""
        if name == "__all__" or not name.startswith("_"):
            face = import_module("lading._face")
            globals().update({public: getattr(face, public) for public in ("__all__", *face.__all__)})
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("lading._face").__all__})
