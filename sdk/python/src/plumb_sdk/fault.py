"""Why there is no answer."""

from __future__ import annotations

import os.path
import traceback
from dataclasses import dataclass


class Fault(Exception):
    """Why there is no answer, for one row or for the whole batch. Raise it.

    Codes are open strings. `Fault.ABSTAIN` says "not my case"; every other code is a failure. Neither becomes a number unless the
    recipe has a rule for it, so a plugin never has to invent a score.
    """

    ABSTAIN = "abstain"
    """The row is not this plugin's case."""
    BAD_ARGUMENTS = "bad-arguments"
    """A tool was called with arguments that it does not take."""
    BAD_CONFIG = "bad-config"
    """The configuration is not valid."""
    MISSING_COLUMN = "missing-column"
    """The batch lacks a column."""
    MISSING_MODULE = "missing-module"
    """A module was imported that is not in the component."""
    UNPARSEABLE = "unparseable"
    """A text could not be read as what it should be."""
    EXCEPTION = "exception"
    """The plugin raised something else than a `Fault`."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(code, message)
        self.code = code
        """For programs: kebab-case, stable."""
        self.message = message
        """For people."""
        self.retryable = retryable
        """Whether the same call may succeed later."""

    @classmethod
    def abstain(cls, message: str) -> Fault:
        """'Not my case': the row gets no value, and that is no failure."""
        return cls(cls.ABSTAIN, message)

    @classmethod
    def bad_config(cls, message: str) -> Fault:
        """The configuration is not valid; `message` should name the key."""
        return cls(cls.BAD_CONFIG, message)

    @classmethod
    def unparseable(cls, message: str) -> Fault:
        """A text could not be read as what it should be."""
        return cls(cls.UNPARSEABLE, message)

    @classmethod
    def of_exception(cls, error: BaseException) -> Fault:
        """What an exception becomes: its type, its text and the line that raised it."""
        fault = cls(cls.EXCEPTION, f"{type(error).__name__}: {error}{_place(error)}")
        fault.__cause__ = error
        return fault

    def concerns_batch(self) -> bool:
        """Whether it concerns the batch although a single row met it: one column is missing for all rows."""
        return self.code in (self.MISSING_COLUMN, self.BAD_CONFIG)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fault):
            return NotImplemented
        return (self.code, self.message, self.retryable) == (other.code, other.message, other.retryable)

    __hash__ = Exception.__hash__

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def _place(error: BaseException) -> str:
    """The innermost line outside of this SDK."""
    own = os.path.dirname(__file__)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if os.path.dirname(file) != own:
            return f" ({os.path.basename(file)}:{line} in {frame.f_code.co_name})"
    return ""


@dataclass
class RowFault:
    """A fault of one row."""

    row: int
    """Row of the batch."""
    fault: Fault
    """Why it has no value."""
