"""Lines for the run's log. Bounded per call; what is beyond the bound is dropped and counted."""

from __future__ import annotations

from typing import Literal

from . import _backend

Level = Literal["trace", "debug", "info", "warn", "error"]


def write(level: Level, message: str, **fields: object) -> None:
    """Writes a line with fields."""
    _backend.get().log(level, message, [(name, str(value)) for name, value in fields.items()])


def debug(message: str, **fields: object) -> None:
    """Something that helps to understand a run in detail."""
    write("debug", message, **fields)


def info(message: str, **fields: object) -> None:
    """Something worth knowing."""
    write("info", message, **fields)


def warn(message: str, **fields: object) -> None:
    """Something that may make results wrong."""
    write("warn", message, **fields)
