"""1 where a regular expression is found in the completion."""

import re
from dataclasses import dataclass, field

from plumb_sdk import Fault, Reward, Row, Score


@dataclass
class Config:
    """What a recipe may set."""

    pattern: str = field(
        default=r"[Aa]nswer is (?P<answer>-?\d+)", metadata={"description": "a regular expression of Python's `re`"}
    )
    column: str = field(default="completion", metadata={"description": "column that is searched"})


class Regex(Reward):
    """1 where the pattern is found, else 0. Groups with names that hold a number become parts."""

    name = "reward-regex"
    version = "0.1.0"

    def __init__(self, config: Config) -> None:
        try:
            self.pattern = re.compile(config.pattern)
        except re.error as error:
            raise Fault.bad_config(f"`pattern`: {error}") from None
        self.column = config.column

    def score_row(self, row: Row) -> float | Score:
        found = self.pattern.search(row.text(self.column))
        if found is None:
            return 0.0
        return Score(1.0, {name: float(text) for name, text in found.groupdict().items() if text and _is_number(text)})


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
