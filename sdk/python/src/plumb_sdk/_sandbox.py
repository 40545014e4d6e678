"""What is left of the system inside a component: nothing, told as ordinary Python exceptions.

`componentize-py --stub-wasi` takes the system away by stubs that trap, so a `print` or a lazy `import` would end the call without a
word. Here such calls are replaced before a plugin's modules are imported, and refuse from the first call on:

- the clock stands still at 0, and `sleep` returns at once;
- `print` goes to the run's log;
- `random` starts at a constant; `os.urandom` raises;
- `signal.alarm` never rings;
- files and sockets raise `PermissionError`; late imports are refused, see `_imports.py`.

`datetime` is the standard library's own Python version of it, since the one in C asks the clock past all of this. What other C code
does by itself cannot be replaced: `asyncio.run` and `os._exit` trap.
"""

from __future__ import annotations

import ast
import builtins
import errno
import importlib._bootstrap_external as bootstrap
import io
import os
import posix
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import _random

from . import _backend, _imports

_sealed = False

_FILES = (
    "access chdir chmod getcwd link listdir lstat mkdir open readlink remove rename replace rmdir scandir stat statvfs symlink truncate "
    "unlink utime"
).split()
_CLOCKS = "time monotonic perf_counter process_time thread_time".split()


def _refusing(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """`function` until the component is sealed."""

    def call(*arguments: Any, **named: Any) -> Any:
        if _sealed:
            raise PermissionError(errno.EPERM, f"plugins have no {what}")
        return function(*arguments, **named)

    return call


def install(*, docstrings: bool = False) -> None:
    """Replaces what would trap; called before any module of the plugin is imported, so that `from time import time` gets it too."""
    # Before the standard library, whose modules of these names cannot be imported here.
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "_stand_ins"))
    for name in _FILES:
        if hasattr(posix, name):
            refusing = _refusing(getattr(posix, name), f"files (`os.{name}`)")
            setattr(posix, name, refusing)
            setattr(os, name, refusing)
    builtins.open = io.open = _refusing(io.open, "files (`open`)")
    os.urandom = posix.urandom = _refusing(os.urandom, "source of chance (`os.urandom`); use `plumb_sdk.random`")
    for name in _CLOCKS:
        setattr(time, name, lambda: 0.0)
        setattr(time, f"{name}_ns", lambda: 0)
    time.sleep = lambda _: None
    sys.modules["_datetime"] = None
    for name in ("gmtime", "localtime", "ctime"):
        setattr(time, name, lambda seconds=None, at=getattr(time, name): at(seconds or 0))
    time.strftime = lambda format, t=None, at=time.strftime: at(format, time.gmtime(0) if t is None else t)
    _install_random()
    _install_alarm()
    if not docstrings:
        bootstrap.SourceLoader.source_to_code = _without_docstrings


def _without_docstrings(loader: object, data: Any, path: str, *, _optimize: int = -1) -> Any:
    """Compiles a module without its docstrings, as `python -OO` does, but with its `assert`s: nobody reads them in a component, and
    those of sympy alone are a third of it."""
    tree = compile(data, path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body[0] = ast.copy_location(ast.Pass(), first)
                if len(node.body) > 1:
                    del node.body[0]
    return compile(tree, path, "exec", dont_inherit=True)


def _install_alarm() -> None:
    """An alarm never rings: fuel and the deadline end what takes too long. Many rewards bound a comparison with one."""
    if hasattr(signal, "alarm"):
        return
    ring, on, of = 14, signal.signal, signal.getsignal
    signal.SIGALRM, signal.ITIMER_REAL = ring, 0
    signal.alarm = lambda _: 0
    signal.setitimer = lambda *_: (0.0, 0.0)
    signal.signal = lambda number, handler: signal.SIG_DFL if number == ring else on(number, handler)
    signal.getsignal = lambda number: signal.SIG_DFL if number == ring else of(number)


def _install_random() -> None:
    """Without an argument a generator starts at a constant; it would ask the system for a seed."""
    seed = random.Random.seed
    random.Random.__new__ = lambda cls, *_, **__: _random.Random.__new__(cls, 0)
    random.Random.seed = lambda self, a=None, version=2: seed(self, 0 if a is None else a, version)
    random.seed = random._inst.seed
    random.seed(0)


def seal() -> None:
    """Takes away what building a component may do and a plugin may not; called when the first call comes in."""
    global _sealed
    if _sealed:
        return
    _sealed = True
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    without_files = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") in ("BuiltinImporter", "FrozenImporter")]
    sys.meta_path[:] = [*without_files, _imports.Refusing]
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), _LogStream("info"), _LogStream("warn")
    if "socket" in sys.modules:
        socket = sys.modules["socket"]
        for name in ("socket", "create_connection", "create_server", "getaddrinfo", "gethostbyname", "socketpair"):
            if hasattr(socket, name):
                setattr(socket, name, _refusing(getattr(socket, name), f"network (`socket.{name}`)"))


def flush() -> None:
    """Writes what was printed to the log."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _LogStream):
            stream.flush()


class _LogStream(io.TextIOBase):
    """A text stream whose lines go to the run's log."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._parts: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = text.split("\n")
        for line in lines:
            _backend.get().log(self._level, "".join([*self._parts, line]), [])
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        return len(text)

    def flush(self) -> None:
        if self._parts:
            self.write("\n")
