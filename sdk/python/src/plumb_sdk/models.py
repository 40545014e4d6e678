"""The models of the recipe: `policy`, `reference`, any other. A capability: `plugin.toml` asks for it (`[needs]`,
`capabilities = ["models"]`), and the recipe grants it.

All functions raise a `Fault` when the model cannot answer or is not granted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import _backend
from .batch import Ragged


@dataclass
class Sampling:
    """How to sample."""

    max_tokens: int
    """Most tokens per completion."""
    temperature: float = 1.0
    """0 takes the likeliest token; 1 leaves the distribution as it is."""
    top_p: float = 1.0
    """Nucleus; 1 leaves the distribution as it is."""
    count: int = 1
    """Completions per prompt."""
    seed: int = 0
    """Seed of the random stream."""
    stop: list[str] = field(default_factory=list)
    """Texts that end a completion."""
    extra: list[tuple[str, str]] = field(default_factory=list)
    """Further settings by name."""

    @classmethod
    def greedy(cls, max_tokens: int) -> Sampling:
        """One completion per prompt, the likeliest token at each place."""
        return cls(max_tokens, temperature=0.0)


@dataclass
class Generated:
    """Sampled completions, `Sampling.count` adjacent ones per prompt."""

    text: list[str]
    """Their texts."""
    tokens: Ragged[int]
    """Their token ids."""
    logprobs: Ragged[float]
    """Log-probability of each token, in nats."""
    finish: list[str]
    """`stop` or `length`, one per completion; for a judge also why an unreadable prompt has none: `too-long`, `untokenizable`, `empty-prompt`."""


def generate(model: str, prompts: Sequence[str], sampling: Sampling) -> Generated:
    """Completes each prompt; a prompt may hold the beginning of the answer."""
    return _backend.get().generate(model, prompts, sampling)


def logprobs(model: str, prompts: Sequence[str], continuations: Sequence[str]) -> Ragged[float]:
    """Log-probability of every token of each continuation, in nats."""
    return _backend.get().logprobs(model, prompts, continuations)


def token_logprobs(model: str, prompts: Sequence[str], tokens: Ragged[int]) -> Ragged[float]:
    """The same for given token ids, without tokenizing again."""
    return _backend.get().token_logprobs(model, prompts, tokens)


def choice_logprobs(model: str, prompts: Sequence[str], choices: Sequence[str]) -> list[float]:
    """Log-probabilities of candidate answers, prompts × choices, prompt by prompt."""
    return _backend.get().choice_logprobs(model, prompts, choices)


def score(model: str, prompts: Sequence[str], continuations: Sequence[str]) -> dict[str, list[float]]:
    """Scalar and multi-objective heads: one value per row and head."""
    return _backend.get().model_score(model, prompts, continuations)


def embed(model: str, inputs: Sequence[str]) -> tuple[int, list[float]]:
    """(width, row-major values)."""
    return _backend.get().embed(model, inputs)
