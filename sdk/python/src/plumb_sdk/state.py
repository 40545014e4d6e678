"""State that outlives a call."""

from __future__ import annotations

from abc import ABC, abstractmethod


class State(ABC):
    """State that the runtime saves with every checkpoint and hands over when the plugin is swapped: `class Damp(State, Shaper)`,
    with `state_version = 1`, and `state = true` under `[tool.plumb]` in pyproject.toml. A reward derives from `StatefulReward`.

    Without it, what a plugin keeps in `self` is lost when its instance is dropped, which may happen between any two calls.
    """

    @abstractmethod
    def save(self) -> bytes:
        """The state as bytes, the same for the same state. When it raises, the checkpoint fails."""

    @abstractmethod
    def load(self, from_version: int, data: bytes) -> None:
        """Takes back what `save` wrote at `state_version` `from_version`. When it raises, a swap is refused."""
