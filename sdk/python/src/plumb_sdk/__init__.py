"""Write plugins for the `plumb` alignment runtime: a class, a method, one command.

A plugin is one of `Reward`, `Shaper`, `Judge`, `Filter` and `Tool`. `plumb plugin build` makes a sandboxed WebAssembly
component of it, with the interpreter inside; natively it is plain Python, where `plumb_sdk.testing` stands in for the runtime::

    from dataclasses import dataclass

    from plumb_sdk import Fault, Reward, Row, Score


    @dataclass
    class Config:
        max_words: int = 50


    class Brevity(Reward):
        name = "brevity"
        version = "0.1.0"
        needs_columns = ("completion",)
        outputs = ("words",)

        def __init__(self, config: Config) -> None:
            if config.max_words < 1:
                raise Fault.bad_config("`max_words` must be at least 1")
            self.config = config

        def score_row(self, row: Row) -> Score:
            words = len(row.text("completion").split())
            if words == 0:
                raise Fault.abstain("the completion is empty")
            return Score(float(words <= self.config.max_words), {"words": words})
"""

from . import kv, log, metrics, models, random, tools
from .batch import Batch, Ragged, Row
from .fault import Fault, RowFault
from .filter import Decision, Filter, Pairs, Relabel
from .judge import Ask, Judge, MatrixVerdicts, PairVerdicts, Question, Verdicts
from .models import Generated, Sampling
from .plugin import Descriptor, Plugin
from .reward import Reward, Rewards, Score, Spans, StatefulReward
from .shaper import Shaped, Shaper
from .state import State
from .tool import Outputs, Tool, call_rows

__all__ = [
    "Ask",
    "Batch",
    "Decision",
    "Descriptor",
    "Fault",
    "Filter",
    "Generated",
    "Judge",
    "MatrixVerdicts",
    "Outputs",
    "PairVerdicts",
    "Pairs",
    "Plugin",
    "Question",
    "Ragged",
    "Relabel",
    "Reward",
    "Rewards",
    "Row",
    "RowFault",
    "Sampling",
    "Score",
    "Shaped",
    "Shaper",
    "Spans",
    "State",
    "StatefulReward",
    "Tool",
    "Verdicts",
    "call_rows",
    "kv",
    "log",
    "metrics",
    "models",
    "random",
    "tools",
]
