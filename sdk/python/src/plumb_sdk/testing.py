"""Native tests of plugins: batches from memory, and a stand-in for the runtime.

batch = BatchBuilder().text("completion", ["a", "b"]).f64s("value", [1.0, 2.0]).groups([2]).build()
reward = testing.configure(Brevity, {"max_words": 2})
assert reward.score(batch).values == [1.0, 0.0]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .batch import Batch, Ragged
from .fault import Fault
from .models import Generated, Sampling
from .plugin import Plugin

P = TypeVar("P", bound=Plugin)


def configure(plugin: type[P], config: Mapping[str, Any] | None = None) -> P:
    """A plugin configured from JSON, as the runtime does it. Raises a `bad-config` fault."""
    return plugin.configure(json.dumps(dict(config or {})))


class BatchBuilder:
    """Collects a batch's columns."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str], Any] = {}
        self._attrs: dict[str, str] = {}
        self._groups: list[int] | None = None
        self._row_ids: list[int] | None = None
        self._step = 0

    def text(self, name: str, rows: Iterable[str]) -> BatchBuilder:
        """Adds a text column."""
        return self._column("text", name, list(rows))

    def f64s(self, name: str, rows: Iterable[float]) -> BatchBuilder:
        """Adds a column of numbers."""
        return self._column("f64", name, [float(value) for value in rows])

    def u32s(self, name: str, rows: Iterable[int]) -> BatchBuilder:
        """Adds a column of integers."""
        return self._column("u32", name, list(rows))

    def tokens(self, name: str, rows: Sequence[Sequence[int]]) -> BatchBuilder:
        """Adds a column of token ids."""
        return self._column("tokens", name, Ragged.of(rows))

    def token_f32s(self, name: str, rows: Sequence[Sequence[float]]) -> BatchBuilder:
        """Adds a column of numbers per token."""
        return self._column("token-f32", name, Ragged.of(rows))

    def f64_lists(self, name: str, rows: Sequence[Sequence[float]]) -> BatchBuilder:
        """Adds a column of numbers per row."""
        return self._column("f64-list", name, Ragged.of(rows))

    def bytes(self, name: str, rows: Iterable[bytes]) -> BatchBuilder:
        """Adds a column of raw bytes."""
        return self._column("bytes", name, list(rows))

    def attr(self, name: str, value: str) -> BatchBuilder:
        """Sets an attribute."""
        self._attrs[name] = value
        return self

    def groups(self, ends: Iterable[int]) -> BatchBuilder:
        """Sets the groups by their end rows; one group of all rows otherwise."""
        self._groups = list(ends)
        return self

    def row_ids(self, ids: Iterable[int]) -> BatchBuilder:
        """Sets the row ids; 0, 1, ... otherwise."""
        self._row_ids = list(ids)
        return self

    def step(self, step: int) -> BatchBuilder:
        """Sets the step; 0 otherwise."""
        self._step = step
        return self

    def build(self) -> Batch:
        """The batch. `ValueError` when columns, ids and groups do not have the same number of rows."""
        rows = len(next(iter(self._columns.values()), []))
        for (_, name), column in self._columns.items():
            if len(column) != rows:
                raise ValueError(f"column `{name}` has {len(column)} rows, others have {rows}")
        ids = list(range(rows)) if self._row_ids is None else self._row_ids
        ends = [rows] if self._groups is None else self._groups
        if len(ids) != rows:
            raise ValueError(f"{len(ids)} row ids for {rows} rows")
        if (ends[-1] if ends else 0) != rows or sorted(ends) != ends:
            raise ValueError(f"groups {ends} must rise to the number of rows, {rows}")
        return Batch(_Memory(self._columns, self._attrs, ends, ids, self._step, rows))

    def _column(self, kind: str, name: str, column: Any) -> BatchBuilder:
        self._columns[kind, name] = column
        return self


@dataclass
class _Memory:
    """A batch's data in memory."""

    _columns: dict[tuple[str, str], Any]
    _attrs: dict[str, str]
    _group_ends: list[int]
    _row_ids: list[int]
    _step: int
    _rows: int

    def rows(self) -> int:
        return self._rows

    def step(self) -> int:
        return self._step

    def row_ids(self) -> list[int]:
        return self._row_ids

    def group_ends(self) -> list[int]:
        return self._group_ends

    def columns(self) -> list[str]:
        return sorted({name for _, name in self._columns})

    def attr(self, name: str) -> str | None:
        return self._attrs.get(name)

    def text(self, column: str) -> Any:
        return self._columns.get(("text", column))

    def f64s(self, column: str) -> Any:
        return self._columns.get(("f64", column))

    def u32s(self, column: str) -> Any:
        return self._columns.get(("u32", column))

    def tokens(self, column: str) -> Any:
        return self._columns.get(("tokens", column))

    def token_f32s(self, column: str) -> Any:
        return self._columns.get(("token-f32", column))

    def f64_lists(self, column: str) -> Any:
        return self._columns.get(("f64-list", column))

    def bytes(self, column: str) -> Any:
        return self._columns.get(("bytes", column))


@dataclass
class Line:
    """A line that a plugin wrote to the log."""

    level: str
    message: str
    fields: list[tuple[str, str]]


@dataclass
class Output:
    """What plugins wrote since the last `take_output`."""

    log: list[Line] = field(default_factory=list)
    """Log lines in order."""
    counts: dict[str, int] = field(default_factory=dict)
    """Counters."""
    observed: dict[str, list[float]] = field(default_factory=dict)
    """Observed values."""


@dataclass
class ScriptedModel:
    """A model that answers as a test says. What is left out is a fault `unsupported`."""

    generate: Callable[[Sequence[str], Sampling], Generated] | None = None
    logprobs: Callable[[Sequence[str], Sequence[str]], Ragged[float]] | None = None
    token_logprobs: Callable[[Sequence[str], Ragged[int]], Ragged[float]] | None = None
    choice_logprobs: Callable[[Sequence[str], Sequence[str]], list[float]] | None = None
    score: Callable[[Sequence[str], Sequence[str]], dict[str, list[float]]] | None = None
    embed: Callable[[Sequence[str]], tuple[int, list[float]]] | None = None


def generated(texts: Sequence[str]) -> Generated:
    """An answer with those texts, without tokens."""
    empty: Sequence[Any] = [[] for _ in texts]
    return Generated(list(texts), Ragged.of(empty), Ragged.of(empty), ["stop"] * len(texts))


class Memory:
    """The runtime's imports, in memory."""

    def __init__(self) -> None:
        self.output = Output()
        self.kv: dict[str, bytes] = {}
        self.models: dict[str, ScriptedModel] = {}
        self.tools: dict[str, Callable[[str], str | Fault]] = {}

    def log(self, level: str, message: str, fields: list[tuple[str, str]]) -> None:
        self.output.log.append(Line(level, message, fields))

    def count(self, name: str, delta: int) -> None:
        self.output.counts[name] = self.output.counts.get(name, 0) + delta

    def observe(self, name: str, values: list[float]) -> None:
        self.output.observed.setdefault(name, []).extend(values)

    def draw(self, stream: str, row_id: int, count: int) -> list[int]:
        """As pure as the runtime's function, though with other numbers, those of the Rust SDK's tests: FNV-1a of the name, then
        SplitMix64."""
        name = 0xCBF29CE484222325
        for byte in stream.encode():
            name = (name ^ byte) * 0x100000001B3 & _MASK
        key = _split_mix(name ^ _split_mix(row_id))
        return [_split_mix(key ^ _split_mix(n)) for n in range(count)]

    def kv_get(self, key: str) -> bytes | None:
        return self.kv.get(key)

    def kv_set(self, key: str, value: bytes) -> None:
        self.kv[key] = bytes(value)

    def kv_delete(self, key: str) -> None:
        self.kv.pop(key, None)

    def kv_keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.kv if key.startswith(prefix))

    def generate(self, model: str, prompts: Sequence[str], sampling: Sampling) -> Generated:
        answer: Generated = self._model(model, "generate")(prompts, sampling)
        return answer

    def logprobs(self, model: str, prompts: Sequence[str], continuations: Sequence[str]) -> Ragged[float]:
        answer: Ragged[float] = self._model(model, "logprobs")(prompts, continuations)
        return answer

    def token_logprobs(self, model: str, prompts: Sequence[str], tokens: Ragged[int]) -> Ragged[float]:
        answer: Ragged[float] = self._model(model, "token_logprobs")(prompts, tokens)
        return answer

    def choice_logprobs(self, model: str, prompts: Sequence[str], choices: Sequence[str]) -> list[float]:
        answer: list[float] = self._model(model, "choice_logprobs")(prompts, choices)
        return answer

    def model_score(self, model: str, prompts: Sequence[str], continuations: Sequence[str]) -> dict[str, list[float]]:
        answer: dict[str, list[float]] = self._model(model, "score")(prompts, continuations)
        return answer

    def embed(self, model: str, inputs: Sequence[str]) -> tuple[int, list[float]]:
        answer: tuple[int, list[float]] = self._model(model, "embed")(inputs)
        return answer

    def call_tool(self, tool: str, arguments: Sequence[str]) -> list[str | Fault]:
        if tool not in self.tools:
            raise Fault("denied", f"no tool `{tool}` is granted")
        return [self.tools[tool](text) for text in arguments]

    def _model(self, name: str, method: str) -> Callable[..., Any]:
        if name not in self.models:
            raise Fault("unknown-model", f"no model `{name}` is granted")
        answer: Callable[..., Any] | None = getattr(self.models[name], method)
        if answer is None:
            raise Fault("unsupported", f"the test's model `{name}` has no `{method}`")
        return answer


memory = Memory()
"""What answers plugins in native tests. Set `memory.models["policy"] = ScriptedModel(...)` and `memory.tools["sum"] = function`."""

_MASK = (1 << 64) - 1


def _split_mix(x: int) -> int:
    x = x + 0x9E3779B97F4A7C15 & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def take_output() -> Output:
    """Takes what was written to `plumb_sdk.log` and `plumb_sdk.metrics`."""
    taken, memory.output = memory.output, Output()
    return taken


def clear_kv() -> None:
    """Empties `plumb_sdk.kv`."""
    memory.kv.clear()
