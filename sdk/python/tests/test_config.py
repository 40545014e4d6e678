from dataclasses import dataclass, field
from typing import Any, Literal, Optional

import pytest

from plumb_sdk import Fault, Reward, testing
from plumb_sdk.config import parse, schema


@dataclass
class Inner:
    weight: float = 1.0


@dataclass
class Config:
    pattern: str
    limit: int = 3
    mode: Literal["exact", "loose"] = "exact"
    inner: Inner = field(default_factory=Inner)
    words: list[str] = field(default_factory=list, metadata={"description": "words to look for"})
    table: dict[str, float] = field(default_factory=dict)
    cap: Optional[float] = None
    free: Any = None


def test_json_becomes_typed_values():
    config = parse(Config, {"pattern": "a", "inner": {"weight": 2}, "words": ["x"], "table": {"k": 1}, "cap": 3})
    assert config == Config("a", inner=Inner(2.0), words=["x"], table={"k": 1.0}, cap=3.0)
    assert type(config.inner.weight) is float and type(config.cap) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"patern": "a"},
            "unknown field `patern`, expected one of `pattern`, `limit`, `mode`, `inner`, `words`, `table`, `cap`, `free`",
        ),
        ({}, "missing field `pattern`"),
        ({"pattern": 1}, "`pattern`: expected a string, got 1"),
        ({"pattern": "a", "limit": 2.5}, "`limit`: expected an integer, got 2.5"),
        ({"pattern": "a", "limit": True}, "`limit`: expected an integer, got true"),
        ({"pattern": "a", "mode": "odd"}, '`mode`: expected one of "exact", "loose", got "odd"'),
        ({"pattern": "a", "inner": {"wait": 1}}, "unknown field `wait` in `inner`, expected one of `weight`"),
        ({"pattern": "a", "inner": {"weight": "x"}}, '`inner.weight`: expected a number, got "x"'),
        ({"pattern": "a", "words": ["x", 1]}, "`words[1]`: expected a string, got 1"),
        ({"pattern": "a", "table": {"k": None}}, "`table.k`: expected a number, got null"),
    ],
)
def test_wrong_values_are_named_with_path_and_reason(value, message):
    with pytest.raises(Fault) as caught:
        parse(Config, value)
    assert (caught.value.code, caught.value.message) == (Fault.BAD_CONFIG, message)


def test_schema_says_types_defaults_and_that_nothing_else_is_allowed():
    found = schema(Config)
    assert found["required"] == ["pattern"] and found["additionalProperties"] is False
    properties = found["properties"]
    assert properties["limit"] == {"type": "integer", "default": 3}
    assert properties["mode"] == {"enum": ["exact", "loose"], "default": "exact"}
    assert properties["words"] == {"type": "array", "items": {"type": "string"}, "description": "words to look for"}
    assert properties["cap"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert properties["inner"]["properties"]["weight"] == {"type": "number", "default": 1.0}


def test_refused_values_of_a_constructor_are_bad_config():
    class Picky(Reward):
        def __init__(self, config: Inner) -> None:
            if config.weight < 0:
                raise ValueError("`weight` must not be negative")

    with pytest.raises(Fault) as caught:
        testing.configure(Picky, {"weight": -1})
    assert str(caught.value) == "bad-config: `weight` must not be negative"


def test_a_plugin_without_configuration_refuses_every_key():
    assert Reward.describe().config_schema == '{"type": "object", "properties": {}, "additionalProperties": false}'
    with pytest.raises(Fault, match="unknown field `x`, there are none"):
        testing.configure(Reward, {"x": 1})
