"""What SQLite does to its files, written down: a layer (VFS) over the one that it has, by ctypes.

The SQLite that the sqlite3 module uses is the one that is watched, with the server's own connections over it: the layer
is registered as the default, passes every call on, and tells of writes, truncations, syncs, new files and removals.
The shared memory of the write-ahead log passes through untold: it survives no crash, and SQLite makes it anew.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.crashfs import Create, Recorder, Remove, Sync, SyncDirectory, Truncate, Write

_OK = 0
_MAIN_DB, _MAIN_JOURNAL, _WAL = 0x100, 0x800, 0x80000

_P = ctypes.c_void_p
# The name is passed on as the very pointer: SQLite keeps it, and what follows the name in memory are its parameters.
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _P, _P, _P, ctypes.c_int, _P)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, _P, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _P, _P, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _P, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _P, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_pathname", ctypes.c_int),
        ("next", _P),
        ("name", ctypes.c_char_p),
        ("app_data", _P),
        ("open", _OPEN),
        ("delete", _DELETE),
        ("others", _P * 14),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", _P),
        ("read", _P),
        ("write", _WRITE),
        ("truncate", _TRUNCATE),
        ("sync", _SYNC),
        ("others", _P * 13),
    )


class _File(ctypes.Structure):
    """sqlite3_file."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


class RecordedSqlite:
    """The layer. It tells one recorder at a time, or none."""

    def __init__(self) -> None:
        """Find the library. Raises AttributeError where Python was built so that its functions cannot be reached."""
        # A module that is built in has no file; then the program itself may have the functions.
        self._library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        self._library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._library.sqlite3_vfs_find.argtypes = (ctypes.c_char_p,)
        self._library.sqlite3_vfs_register.argtypes = (ctypes.POINTER(_Vfs), ctypes.c_int)
        self._library.sqlite3_vfs_unregister.argtypes = (ctypes.POINTER(_Vfs),)
        self._real = self._library.sqlite3_vfs_find(None)
        self._vfs = _Vfs.from_buffer_copy(self._real.contents)
        self._vfs.name = b"recorded"
        self._vfs.open = _OPEN(self._open)
        self._vfs.delete = _DELETE(self._delete)
        # By the address of what they replace.
        self._methods: dict[int, _Methods] = {}
        # By the address of the open file: whose log it is in, under which name, and whether its name is not synced yet.
        self._files: dict[int, tuple[Recorder, str]] = {}
        self._new: set[int] = set()
        self._recorder: Recorder | None = None

    @contextmanager
    def recording(self, recorder: Recorder) -> Iterator[None]:
        """Tell of every database below the recorder's root that is opened and closed inside the block."""
        self._recorder = recorder
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)
        try:
            yield
        finally:
            self._library.sqlite3_vfs_register(self._real, 1)
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
            self._recorder = None
            self._files.clear()

    def fault(self, call: str, path: str) -> int:
        """Return what SQLite is told instead of a `write` or `sync` of that file; 0 has it done. For subclasses."""
        return _OK

    def _open(self, _vfs: int, name: int | None, file: int, flags: int, flags_out: int | None) -> int:
        kept = name is not None and flags & (_MAIN_DB | _MAIN_JOURNAL | _WAL)
        path = os.fsdecode(ctypes.string_at(name)) if name is not None else ""
        recorder = self._recorder
        below = recorder.relative(path) if kept and recorder is not None else None
        is_new = below is not None and not os.path.exists(path)
        code: int = self._real.contents.open(ctypes.addressof(self._real.contents), name, file, flags, flags_out)
        if code == _OK and below is not None and recorder is not None:
            self._watch(file)
            self._files[file] = (recorder, below)
            self._new.discard(file)
            if is_new:
                recorder.add(Create(below))
                # SQLite syncs the directory with the first sync of a journal, and never for the database itself.
                if flags & (_MAIN_JOURNAL | _WAL):
                    self._new.add(file)
        return code

    def _delete(self, _vfs: int, name: bytes, syncs_directory: int) -> int:
        path = os.fsdecode(name)
        recorder = self._recorder
        below = recorder.relative(path) if recorder is not None else None
        code: int = self._real.contents.delete(ctypes.addressof(self._real.contents), name, 0)
        if code == _OK and below is not None and recorder is not None:
            recorder.add(Remove(below))
            if syncs_directory:
                recorder.add(SyncDirectory(os.path.dirname(below) or ".", recorder.position))
        return code

    def _watch(self, file: int) -> None:
        """Have the open file's calls come here first."""
        opened = _File.from_address(file)
        real = ctypes.addressof(opened.methods.contents)
        if real not in self._methods:
            self._methods[real] = self._watching(opened.methods.contents)
        opened.methods = ctypes.pointer(self._methods[real])

    def _watching(self, real: _Methods) -> _Methods:
        methods = _Methods.from_buffer_copy(real)

        def write(file: int, data: int, length: int, offset: int) -> int:
            recorder, path = self._files[file]
            if fault := self.fault("write", path):
                return fault
            code: int = real.write(file, data, length, offset)
            recorder.add(Write(path, offset, ctypes.string_at(data, length)))
            return code

        def truncate(file: int, length: int) -> int:
            code: int = real.truncate(file, length)
            recorder, path = self._files[file]
            recorder.add(Truncate(path, length))
            return code

        def sync(file: int, flags: int) -> int:
            recorder, path = self._files[file]
            if fault := self.fault("sync", path):
                return fault
            covers = recorder.position
            code: int = real.sync(file, flags) if recorder.syncs else _OK
            recorder.add(Sync(path, covers))
            if file in self._new:
                self._new.remove(file)
                recorder.add(SyncDirectory(os.path.dirname(path) or ".", covers))
            return code

        methods.write, methods.truncate, methods.sync = _WRITE(write), _TRUNCATE(truncate), _SYNC(sync)
        return methods
