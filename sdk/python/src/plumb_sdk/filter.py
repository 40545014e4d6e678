"""Filters: which rows the loss sees, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .batch import Batch
from .plugin import Plugin


@dataclass
class Pairs:
    """Preference pairs over rows of the batch; all lists are equally long."""

    chosen: list[int] = field(default_factory=list)
    """Preferred rows."""
    rejected: list[int] = field(default_factory=list)
    """The rows they are preferred to."""
    probability: list[float] = field(default_factory=list)
    """Probability that `chosen` is better."""
    margin: list[float] = field(default_factory=list)
    """By how much."""
    level: list[int] = field(default_factory=list)
    """Depth or grade of the comparison; 0 where there is none."""


@dataclass
class Relabel:
    """New texts for some rows of a text column."""

    column: str
    """Column they go to."""
    rows: list[int]
    """Rows that change."""
    texts: list[str]
    """Their new texts."""


@dataclass
class Decision:
    """A decision over a batch."""

    keep: list[bool]
    """One per row: whether the loss sees it."""
    weights: list[float] | None = None
    """Weight of each row in the loss; None means 1."""
    pairs: Pairs | None = None
    """Preference pairs over rows."""
    relabels: list[Relabel] = field(default_factory=list)
    """New texts for some rows."""
    regenerate: list[int] = field(default_factory=list)
    """Groups, by index, to sample again."""
    parts: dict[str, list[float]] = field(default_factory=dict)
    """Named numbers."""
    reasons: list[tuple[int, str]] = field(default_factory=list)
    """Why rows were dropped."""

    @classmethod
    def keep_all(cls, rows: int) -> Decision:
        """Keeps all of `rows` rows."""
        return cls(keep=[True] * rows)

    def drop_row(self, row: int, reason: str) -> None:
        """Drops a row and says why."""
        self.keep[row] = False
        self.reasons.append((row, reason))


class Filter(Plugin):
    """A filter sees all groups of a step at once.

    The column `value` holds what the attribute `stage` names: `raw`, `shaped` or `advantage`. A row without a value has NaN.
    """

    kind: ClassVar[str] = "filter"

    def select(self, batch: Batch) -> Decision:
        """Decides over all rows."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `select`")
