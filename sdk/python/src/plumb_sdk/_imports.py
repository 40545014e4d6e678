"""Imports that functions make when they are called: made while a component is built, refused in it.

A component has no files to import from later. Libraries import much of themselves late, in functions, and catch an import that fails:
sympy then compares with less, and a right answer becomes a wrong one. So `follow` reads such imports off the code of the modules that
are there and makes them beforehand, and a module that could have been there and is not makes the row fail that asked for it.

What a Python with the same packages would not find either, such as an optional dependency, is not found here in the same way.
"""

from __future__ import annotations

import dis
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from types import CodeType, ModuleType

from . import _backend
from .fault import Fault

_REMEDIES = {
    True: "name it with `--import {}` (`plumb plugin wrap`)",
    False: 'add "{}" to `imports` under `[tool.plumb]` in pyproject.toml',
}
_IN_FUNCTION = 2  # CO_NEWLOCALS: set for functions, not for modules and classes.
_NOT_FOLLOWED = {"plumb_sdk", "plumb_world", "plumb_entry", "componentize_py_types", "componentize_py_runtime", "componentize_py_async_support"}

_there: frozenset[str] = frozenset()
"""Top-level modules that could be imported while the component was built."""
_failed: set[str] = set()
"""Modules among them that could not: there is no such part, or it needs what is not there."""
_wrapped = False
_logged: set[str] = set()
_refused: list[Fault] = []


def take() -> Fault | None:
    """The first refused import since the last call of this function, as a fault; None without one."""
    first = _refused[0] if _refused else None
    _refused.clear()
    return first


def follow(*, wrapped: bool) -> None:
    """Makes the imports in functions of all modules that are there, and of those that come by it; of modules of the standard library
    only where a plugin or a package imports them, and no further. `wrapped` decides what messages advise."""
    global _there, _wrapped
    _there, _wrapped = frozenset(module.name for module in pkgutil.iter_modules()), wrapped
    done: set[str] = set()
    library: set[str] = set()
    while new := [name for name in sys.modules if name not in done and _is_followed(name)]:
        # By the name under which it was imported: a module may call itself otherwise.
        done.update(new)
        for name in new:
            library |= _make_imports(sys.modules[name])
    for name in sorted(library):
        if name in sys.modules:
            _make_imports(sys.modules[name])


def _is_followed(name: str) -> bool:
    top = name.partition(".")[0]
    return isinstance(sys.modules[name], ModuleType) and top not in sys.stdlib_module_names and top not in _NOT_FOLLOWED


def _make_imports(module: ModuleType) -> set[str]:
    """Makes the imports in the module's functions. Returns which modules of the standard library it imports, anywhere."""
    library = set()
    for inside, name, wanted, level in _imports(module):
        if level == 0 and name.partition(".")[0] in sys.stdlib_module_names:
            library.add(name)
        if not inside:
            continue
        try:
            full = importlib.util.resolve_name("." * level + name, module.__package__) if level else name
        except ImportError:
            continue
        try:
            __import__(name, vars(module), None, wanted, level)
        except (Exception, SystemExit):
            _failed.add(full)
            continue
        found = sys.modules.get(full)
        _failed.update(f"{full}.{part}" for part in wanted or () if not hasattr(found, part))
    return library


def _imports(module: ModuleType) -> Iterator[tuple[bool, str, Sequence[str] | None, int]]:
    """The module's imports: whether in a function, the module's name, the names wanted from it, and how many dots there are before."""
    try:
        code = module.__spec__.loader.get_code(module.__name__)  # type: ignore[union-attr]
    except Exception:
        code = None
    for inside, part in _codes(code, False) if code else ():
        before = []
        for instruction in dis.get_instructions(part):
            if instruction.opname == "IMPORT_NAME":
                yield inside, instruction.argval, before[-1].argval, before[-2].argval
            if instruction.opname != "EXTENDED_ARG":
                before.append(instruction)


def _codes(code: CodeType, inside: bool) -> Iterator[tuple[bool, CodeType]]:
    """The code and those of the functions and classes in it, as far as they import."""
    inside = inside or bool(code.co_flags & _IN_FUNCTION)
    if dis.opmap["IMPORT_NAME"] in code.co_code[::2]:
        yield inside, code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant, inside)


class Refusing:
    """The last finder in a component."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        """Raises for a module that would be there natively; finds no other."""
        absent = name.partition(".")[0] not in _there or any(f"{name}.".startswith(f"{failed}.") for failed in _failed)
        if absent:
            message = f"module `{name}` is not among the plugin's files and packages ({_importer()})"
        else:
            message = f"module `{name}` is not in the component ({_importer()}): {_REMEDIES[_wrapped].format(name)}, and build again"
            _refused.append(Fault(Fault.MISSING_MODULE, message))
        if name not in _logged:
            # Libraries often catch the exception and go on with less.
            _logged.add(name)
            _backend.get().log("warn", message, [])
        if not absent:
            raise ModuleNotFoundError(message, name=name)


def _importer() -> str:
    """Who imports: file, line and function."""
    frame = sys._getframe(2)
    while frame.f_back and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    file = frame.f_code.co_filename.rpartition("/")[2]
    return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
