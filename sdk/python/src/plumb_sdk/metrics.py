"""Numbers for the run's metrics, as `plugin/<name>/<metric>`."""

from __future__ import annotations

from collections.abc import Iterable

from . import _backend


def count(name: str, delta: int = 1) -> None:
    """Adds to a counter."""
    _backend.get().count(name, delta)


def observe(name: str, values: Iterable[float]) -> None:
    """Adds values of which the run keeps the statistics."""
    _backend.get().observe(name, [float(value) for value in values])
