"""Who answers `log`, `metrics`, `random`, `kv`, `models` and `tools`: the host in a component, `plumb_sdk.testing` natively."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .batch import Ragged
    from .fault import Fault
    from .models import Generated, Sampling


class Backend(Protocol):
    """What a plugin may ask of the runtime besides its batch."""

    def log(self, level: str, message: str, fields: list[tuple[str, str]]) -> None: ...
    def count(self, name: str, delta: int) -> None: ...
    def observe(self, name: str, values: list[float]) -> None: ...
    def draw(self, stream: str, row_id: int, count: int) -> list[int]: ...
    def kv_get(self, key: str) -> bytes | None: ...
    def kv_set(self, key: str, value: bytes) -> None: ...
    def kv_delete(self, key: str) -> None: ...
    def kv_keys(self, prefix: str) -> list[str]: ...
    def generate(self, model: str, prompts: Sequence[str], sampling: Sampling) -> Generated: ...
    def logprobs(self, model: str, prompts: Sequence[str], continuations: Sequence[str]) -> Ragged[float]: ...
    def token_logprobs(self, model: str, prompts: Sequence[str], tokens: Ragged[int]) -> Ragged[float]: ...
    def choice_logprobs(self, model: str, prompts: Sequence[str], choices: Sequence[str]) -> list[float]: ...
    def model_score(self, model: str, prompts: Sequence[str], continuations: Sequence[str]) -> dict[str, list[float]]: ...
    def embed(self, model: str, inputs: Sequence[str]) -> tuple[int, list[float]]: ...
    def call_tool(self, tool: str, arguments: Sequence[str]) -> list[str | Fault]: ...


_current: Backend | None = None


def install(backend: Backend) -> None:
    """Makes `backend` the one that answers."""
    global _current
    _current = backend


def get() -> Backend:
    """The one that answers."""
    if _current is None:
        from . import testing

        install(testing.memory)
    assert _current is not None
    return _current
