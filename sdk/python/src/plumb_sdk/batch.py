"""The batch: rows of named columns, grouped by prompt."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from .fault import Fault

T = TypeVar("T")


class Ragged(Sequence[Sequence[T]], Generic[T]):
    """One list of values a row: row `i` is `values[ends[i-1]:ends[i]]`, with `ends[-1] = 0`."""

    __slots__ = ("ends", "values")

    def __init__(self, values: Sequence[T], ends: Sequence[int]) -> None:
        self.values = values
        """All rows' values, one after the other."""
        self.ends = ends
        """End of each row in `values`."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[T]]) -> Ragged[T]:
        """Puts rows together."""
        values: list[T] = []
        ends = []
        for row in rows:
            values.extend(row)
            ends.append(len(values))
        return cls(values, ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> Sequence[T]: ...
    @overload
    def __getitem__(self, row: slice) -> list[Sequence[T]]: ...
    def __getitem__(self, row: int | slice) -> Sequence[T] | list[Sequence[T]]:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        index = range(len(self.ends))[row]
        return self.values[self.ends[index - 1] if index else 0 : self.ends[index]]

    def __iter__(self) -> Iterator[Sequence[T]]:
        start = 0
        for end in self.ends:
            yield self.values[start:end]
            start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ragged) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ragged.of({list(self)!r})"


class Source(Protocol):
    """Where a batch's data come from: the host in a component, memory in native tests. None stands for a column that is not there."""

    def rows(self) -> int: ...
    def step(self) -> int: ...
    def row_ids(self) -> list[int]: ...
    def group_ends(self) -> list[int]: ...
    def columns(self) -> list[str]: ...
    def attr(self, name: str) -> str | None: ...
    def text(self, column: str) -> list[str] | None: ...
    def f64s(self, column: str) -> list[float] | None: ...
    def u32s(self, column: str) -> list[int] | None: ...
    def tokens(self, column: str) -> Ragged[int] | None: ...
    def token_f32s(self, column: str) -> Ragged[float] | None: ...
    def f64_lists(self, column: str) -> Ragged[float] | None: ...
    def bytes(self, column: str) -> list[bytes] | None: ...


class Batch:
    """Rows with named columns. The rows of one prompt are adjacent and form a group.

    A column is copied out of the runtime when it is first asked for, and kept until the call ends; asking again is cheap. One name
    may be asked for as several types. Iterating yields the rows.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows = source.rows()
        self._cache: dict[tuple[str, str], Any] = {}

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Row]:
        return map(Row, [self] * self._rows, range(self._rows))

    def row(self, index: int) -> Row:
        """One row. `IndexError` when there is no such row."""
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of a batch of {self._rows}")
        return Row(self, index)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._rows

    @property
    def step(self) -> int:
        """The optimizer step this batch belongs to; 0 outside training."""
        return self._source.step()

    @property
    def row_ids(self) -> list[int]:
        """Stable ids of the rows, the keys for `plumb_sdk.random`."""
        ids: list[int] = self._get("row ids", "", lambda _: self._source.row_ids())
        return ids

    def groups(self) -> list[range]:
        """The groups, each the rows of one prompt, as ranges of rows."""
        ends: list[int] = self._get("groups", "", lambda _: self._source.group_ends())
        return [range(start, end) for start, end in zip([0, *ends], ends)]

    def columns(self) -> list[str]:
        """Names of the columns there are."""
        return self._source.columns()

    def attr(self, name: str) -> str | None:
        """A fact about the batch or a column: `recipe_stage` (the stage's name in the recipe), and for shapers and filters `stage`
        (what `value` holds)."""
        return self._source.attr(name)

    def text(self, column: str) -> list[str]:
        """A text per row: `prompt`, `completion`, `answer`, `finish`, ...

        Raises a `missing-column` fault, naming the columns there are; so for all types.
        """
        return self._need("text", column, self.find_text(column))

    def f64s(self, column: str) -> list[float]:
        """A number per row: `value`, `raw`, `reward/<name>`, ... NaN where the row has none."""
        return self._need("f64", column, self.find_f64s(column))

    def u32s(self, column: str) -> list[int]:
        """An integer per row: `completion_tokens`, ..."""
        return self._need("u32", column, self.find_u32s(column))

    def tokens(self, column: str) -> Ragged[int]:
        """Token ids per row: `prompt_ids`, `completion_ids`."""
        return self._need("tokens", column, self.find_tokens(column))

    def token_f32s(self, column: str) -> Ragged[float]:
        """A number per token: `old_logprobs`, ..."""
        return self._need("token-f32", column, self.find_token_f32s(column))

    def f64_lists(self, column: str) -> Ragged[float]:
        """Numbers per row: `judge/<name>/matrix` holds row i of its group's matrix of verdicts."""
        return self._need("f64-list", column, self.find_f64_lists(column))

    def bytes(self, column: str) -> list[builtins.bytes]:
        """Raw bytes per row; dtype and shape stand in `attr`."""
        return self._need("bytes", column, self.find_bytes(column))

    def find_text(self, column: str) -> list[str] | None:
        """A text column that may be absent; so the other `find_` methods for their types."""
        found: list[str] | None = self._get("text", column, self._source.text)
        return found

    def find_f64s(self, column: str) -> list[float] | None:
        found: list[float] | None = self._get("f64", column, self._source.f64s)
        return found

    def find_u32s(self, column: str) -> list[int] | None:
        found: list[int] | None = self._get("u32", column, self._source.u32s)
        return found

    def find_tokens(self, column: str) -> Ragged[int] | None:
        found: Ragged[int] | None = self._get("tokens", column, self._source.tokens)
        return found

    def find_token_f32s(self, column: str) -> Ragged[float] | None:
        found: Ragged[float] | None = self._get("token-f32", column, self._source.token_f32s)
        return found

    def find_f64_lists(self, column: str) -> Ragged[float] | None:
        found: Ragged[float] | None = self._get("f64-list", column, self._source.f64_lists)
        return found

    def find_bytes(self, column: str) -> list[builtins.bytes] | None:
        found: list[builtins.bytes] | None = self._get("bytes", column, self._source.bytes)
        return found

    def _get(self, kind: str, column: str, fetch: Callable[[str], Any]) -> Any:
        key = (kind, column)
        if key not in self._cache:
            self._cache[key] = fetch(column)
        return self._cache[key]

    def _need(self, kind: str, column: str, found: T | None) -> T:
        if found is None:
            names = self.columns()
            there = "`" + "`, `".join(names) + "`" if names else "no columns at all"
            raise Fault(Fault.MISSING_COLUMN, f"no {kind} column `{column}`; the batch has {there}")
        return found


class Row:
    """One row of a `Batch`."""

    __slots__ = ("batch", "index")

    def __init__(self, batch: Batch, index: int) -> None:
        self.batch = batch
        """The batch it belongs to."""
        self.index = index
        """Its place in the batch."""

    @property
    def id(self) -> int:
        """Its stable id, the key for `plumb_sdk.random`."""
        return self.batch.row_ids[self.index]

    def text(self, column: str) -> str:
        """Its text in a column. Raises a `missing-column` fault, like the following ones."""
        return self.batch.text(column)[self.index]

    def find_text(self, column: str) -> str | None:
        """Its text in a column that may be absent."""
        texts = self.batch.find_text(column)
        return None if texts is None else texts[self.index]

    def f64(self, column: str) -> float:
        """Its number in a column; NaN where it has none."""
        return self.batch.f64s(column)[self.index]

    def u32(self, column: str) -> int:
        """Its integer in a column."""
        return self.batch.u32s(column)[self.index]

    def tokens(self, column: str) -> Sequence[int]:
        """Its token ids in a column."""
        return self.batch.tokens(column)[self.index]

    def token_f32s(self, column: str) -> Sequence[float]:
        """Its numbers per token in a column."""
        return self.batch.token_f32s(column)[self.index]
