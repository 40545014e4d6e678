"""Rewards: completions to numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from . import _imports
from .batch import Batch, Row
from .fault import Fault, RowFault
from .plugin import Plugin
from .state import State


@dataclass
class Score:
    """One row's reward, with named components if there are any."""

    value: float
    """The reward. Must be finite: the runtime refuses NaN and infinities."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components."""


@dataclass
class Spans:
    """Rewards of stretches: stretch `i` is `[starts[i], stops[i])` of row `rows[i]`. All lists are equally long."""

    name: str
    """Name of the component."""
    unit: Literal["char", "token"]
    """What the bounds count: Unicode scalar values of the completion, or generated tokens."""
    rows: list[int]
    """Row of each stretch."""
    starts: list[int]
    """First unit of each stretch."""
    stops: list[int]
    """One past its last unit."""
    values: list[float]
    """Its reward."""


@dataclass
class Rewards:
    """A batch's rewards."""

    values: list[float] = field(default_factory=list)
    """One value per row; that of a row with a fault is ignored."""
    parts: dict[str, list[float]] = field(default_factory=dict)
    """Named components, one value per row; NaN is "no value"."""
    spans: list[Spans] = field(default_factory=list)
    """Rewards of stretches of the completions, besides `values`."""
    faults: list[RowFault] = field(default_factory=list)
    """Rows without a value."""

    def push(self, score: float | Score | Fault) -> None:
        """Adds the next row. Rows that a part leaves out have NaN there."""
        row = len(self.values)
        if isinstance(score, Score):
            self.values.append(float(score.value))
            for name, value in score.parts.items():
                if name not in self.parts:
                    self.parts[name] = [math.nan] * row
                self.parts[name].append(float(value))
        elif isinstance(score, Fault):
            self.values.append(0.0)
            self.faults.append(RowFault(row, score))
        else:
            self.values.append(float(score))
        for values in self.parts.values():
            if len(values) == row:
                values.append(math.nan)


def outcome_of(score: Callable[..., float | Score | Fault], *arguments: object) -> float | Score | Fault:
    """What `score(*arguments)` returns for a row, or the fault that it raises. It is a fault, too, when an import was refused: whoever caught that
    went on with less, and answered something else than where the module is there.
    """
    outcome: float | Score | Fault
    try:
        outcome = score(*arguments)
    except Fault as fault:
        outcome = fault
    except MemoryError:
        # How much memory is left depends on the rows before: the runtime searches for the row that needs too much.
        raise
    except (Exception, SystemExit) as error:
        outcome = Fault.of_exception(error)
    return _imports.take() or outcome


class Reward(Plugin):
    """A reward looks at one row at a time: write `score_row`.

    Rows whose call raises have no value; the others keep theirs. A fault about the whole batch, such as a missing column, ends the
    call.

    Whoever works faster on many rows at once writes `score` instead. For the sake of speed only: the runtime may split a batch
    anywhere, also within a group, and calls again with parts of it after a fault. So a row's value may depend on that row alone;
    what compares the rows of a group belongs into a `Shaper`.
    """

    kind: ClassVar[str] = "reward"

    def score_row(self, row: Row) -> float | Score:
        """The row's reward. Raise a `Fault` where there is none; `Fault.abstain` where it is not this reward's case."""
        raise NotImplementedError(f"`{type(self).__name__}` has neither `score_row` nor `score`")

    def score(self, batch: Batch) -> Rewards:
        """One value per row. Raise what concerns the whole batch; faults of single rows stand in `Rewards.faults`."""
        rewards = Rewards()
        for row in batch:
            outcome = outcome_of(self.score_row, row)
            if isinstance(outcome, Fault) and outcome.concerns_batch():
                raise outcome
            rewards.push(outcome)
        return rewards


class StatefulReward(State, Reward):
    """A reward that learns from what it scored, such as one that counts which answers it has seen in the run.

    Calls of a step are made side by side, on parts of its batches: each begins with the state as it was when the step began, scores,
    then observes its own rows, and saves. When the step ends, the states of its calls become one. So a row's value still depends on
    that row alone, besides what the steps before left, and the state at the end is the same whatever ran first.
    """

    @abstractmethod
    def observe(self, batch: Batch, rewards: Rewards) -> None:
        """Takes note of rows that were just scored. Rows with a fault have no value. When it raises, the call fails."""

    @abstractmethod
    def merge(self, states: list[bytes]) -> None:
        """Adds up what the calls of a step learnt: `states` are what `save` gave after each, in the order of their rows, `self` is the
        state that they all began with. When it raises, the step's are lost, and the state stays that of the step before.
        """
