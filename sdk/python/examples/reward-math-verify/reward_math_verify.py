"""Whether the completion's answer equals the reference: math-verify (Kydlíček 2025, Apache-2.0) with sympy, unmodified.

sympy asks `ctypes` how wide a C `long` is; the SDK has a stand-in for that. math-verify bounds a comparison with `signal.alarm`; in
the sandbox an alarm never rings, and the plugin's fuel takes its place.
"""

from dataclasses import dataclass

from math_verify import parse, verify

from plumb_sdk import Fault, Reward, Row


@dataclass
class Config:
    """What a recipe may set."""

    reference: str = "answer"
    """Column that holds the right answer."""
    precision: int = 6
    """Digits to which numbers must agree."""


class MathVerify(Reward):
    """1 where they are equal, else 0; no value where the reference cannot be read."""

    name = "reward-math-verify"
    version = "0.1.0"
    needs_columns = ("completion",)

    def __init__(self, config: Config) -> None:
        self.config = config

    def score_row(self, row: Row) -> float:
        reference = row.text(self.config.reference)
        gold = parse(reference if "$" in reference or "\\boxed" in reference else f"${reference}$")
        if not gold:
            raise Fault.abstain(f"the reference {reference!r} is no formula")
        return float(verify(gold, parse(row.text("completion")), float_rounding=self.config.precision))
