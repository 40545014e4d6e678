"""Judges: candidates to verdicts, by way of questions that the runtime puts to models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .batch import Batch
from .fault import RowFault
from .models import Generated, Sampling
from .plugin import Plugin


@dataclass
class Question:
    """Prompts for one model."""

    model: str
    """Name of the model in the recipe: `policy`, `reference`, ..."""
    prompts: list[str]
    """One or more prompts."""
    sampling: Sampling
    """How to sample."""


@dataclass
class Ask:
    """Questions of one turn."""

    questions: list[Question]
    """Answered all together."""
    memo: bytes = b""
    """Handed back to `Judge.resume` as it is."""


@dataclass
class PairVerdicts:
    """Preferences between rows `first` and `second`; all lists are equally long."""

    first: list[int] = field(default_factory=list)
    """One row of each pair."""
    second: list[int] = field(default_factory=list)
    """The other."""
    probability: list[float] = field(default_factory=list)
    """Probability that `first` is better: 0.5 is a tie."""


@dataclass
class MatrixVerdicts:
    """A G×G matrix for each group, row-major and skew-symmetric: entry (i, j) > 0 says i beats j."""

    values: list[float] = field(default_factory=list)
    """All groups' entries, one matrix after the other."""
    readable: list[bool] = field(default_factory=list)
    """For each entry whether the judge's answer could be read."""


@dataclass
class Verdicts:
    """A judge's verdicts, in whichever forms it has them."""

    scores: list[float] | None = None
    """One score per row."""
    pairs: PairVerdicts | None = None
    """Preferences between rows."""
    matrices: MatrixVerdicts | None = None
    """A matrix per group."""
    rationales: list[str] | None = None
    """A text per row."""
    parts: dict[str, list[float]] = field(default_factory=dict)
    """Named components."""
    faults: list[RowFault] = field(default_factory=list)
    """Rows without a verdict."""


class Judge(Plugin):
    """A judge has no input or output of its own: it asks, the runtime runs the models and resumes it, maybe in another instance.

    So what it needs to remember goes into `Ask.memo`, and no thread waits on a device.
    """

    kind: ClassVar[str] = "judge"

    def begin(self, batch: Batch) -> Ask | Verdicts:
        """The first questions, or the verdicts at once."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `begin`")

    def resume(self, batch: Batch, memo: bytes, answers: list[Generated]) -> Ask | Verdicts:
        """What follows from the answers, one for each question of the last turn."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `resume`")
