"""Typed configurations: JSON to dataclasses, and dataclasses to JSON schemas.

Fields may be `bool`, `int`, `float`, `str`, `list[T]`, `tuple[T, ...]`, `dict[str, T]`, `Literal`, unions, `Any` and further
dataclasses. `field(metadata={"description": "..."})` goes into the schema.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, Literal, Union

from .fault import Fault

_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def parse(kind: Any, value: Any, path: str = "") -> Any:
    """Reads `value`, as JSON gives it, as a `kind`. Raises a `bad-config` fault that names the path and the reason."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if kind in _SCALARS:
        return _scalar(kind, value, path)
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        raise _wrong(path, f"expected one of {', '.join(json.dumps(choice) for choice in arguments)}", value)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, path)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise _wrong(path, "expected a list", value)
        entries = [parse(arguments[0], entry, f"{path}[{index}]") for index, entry in enumerate(value)]
        return entries if origin is list else tuple(entries)
    if origin is dict or kind is dict:
        if not isinstance(value, dict):
            raise _wrong(path, "expected an object", value)
        if not arguments:
            return value
        return {key: parse(arguments[1], entry, f"{path}.{key}" if path else key) for key, entry in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, path)
    raise TypeError(f"`{path}`: a configuration cannot hold a `{kind}`")


def schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(argument) for argument in arguments]}
    if origin in (list, tuple):
        return {"type": "array", "items": schema(arguments[0])}
    if kind is dict:
        return {"type": "object"}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(arguments[1])}
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        raise TypeError(f"a configuration cannot hold a `{kind}`")
    hints = typing.get_type_hints(kind)
    properties = {}
    for field in _fields(kind):
        entry = schema(hints[field.name])
        if field.default is not dataclasses.MISSING and isinstance(field.default, (bool, int, float, str)):
            entry["default"] = field.default
        if "description" in field.metadata:
            entry["description"] = field.metadata["description"]
        properties[field.name] = entry
    whole: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [field.name for field in _fields(kind) if _required(field)]
    return {**whole, "required": required} if required else whole


def _scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    article = "an" if kind is int else "a"
    raise _wrong(path, f"expected {article} {_SCALARS[kind]}" if kind is not type(None) else "expected null", value)


def _union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    faults = []
    for kind in kinds:
        try:
            return parse(kind, value, path)
        except Fault as fault:
            faults.append(fault)
    # The fault that got furthest into the value says most.
    raise max(faults, key=lambda fault: len(fault.message.split(":")[0]))


def _record(kind: type, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(path, "expected an object", value)
    hints, fields = typing.get_type_hints(kind), _fields(kind)
    names = [field.name for field in fields]
    expected = f"expected one of `{'`, `'.join(names)}`" if names else "there are none"
    at = f" in `{path}`" if path else ""
    for key in value:
        if key not in names:
            raise Fault.bad_config(f"unknown field `{key}`{at}, {expected}")
    for field in fields:
        if field.name not in value and _required(field):
            raise Fault.bad_config(f"missing field `{field.name}`{at}")
    inside = f"{path}." if path else ""
    return kind(**{name: parse(hints[name], entry, f"{inside}{name}") for name, entry in value.items()})


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _wrong(path: str, expected: str, value: Any) -> Fault:
    text = json.dumps(value, ensure_ascii=False)
    return Fault.bad_config(f"{f'`{path}`: ' if path else ''}{expected}, got {text if len(text) <= 60 else text[:60] + '…'}")
