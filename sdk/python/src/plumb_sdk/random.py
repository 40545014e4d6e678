"""Random numbers as a pure function of (run seed, plugin name, step, arguments): calls may be repeated, split and reordered without
changing them."""

from __future__ import annotations

from . import _backend


def draw(stream: str, row_id: int, count: int) -> list[int]:
    """`count` numbers of 64 bits from the row's stream of that name."""
    return _backend.get().draw(stream, row_id, count)


def uniform(stream: str, row_id: int, count: int) -> list[float]:
    """`count` numbers, uniform in [0, 1), with 53 random bits."""
    return [(bits >> 11) * 2.0**-53 for bits in draw(stream, row_id, count)]
