"""Shapers: rewards (or advantages) to shaped ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .batch import Batch, Ragged
from .fault import RowFault
from .plugin import Plugin


@dataclass
class Shaped:
    """A batch's shaped values."""

    values: list[float] | None = None
    """One value per row; None where only token values are given. NaN where the row had none."""
    token_values: Ragged[float] | None = None
    """One value per completion token."""
    parts: dict[str, list[float]] = field(default_factory=dict)
    """Named components, one value per row."""
    faults: list[RowFault] = field(default_factory=list)
    """Rows without a value."""


class Shaper(Plugin):
    """A shaper sees whole groups and may keep state in `self` (see `State`).

    It works on the column `value`; the attribute `stage` says whether that is a `reward` or an `advantage`. A row without a value
    has NaN there and is passed through.
    """

    kind: ClassVar[str] = "shaper"

    def shape(self, batch: Batch) -> Shaped | list[float]:
        """The batch's shaped values; a list stands for `Shaped(values=...)`."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `shape`")
