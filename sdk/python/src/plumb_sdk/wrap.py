"""Reward functions written for other trainers, as plugins. `plumb plugin wrap rewards.py:function` uses this.

- TRL: `def f(prompts, completions, **columns) -> list[float | None]`, once per batch. Each parameter is a column, as a list in the
  batch's order; with `**kwargs` it gets all text columns.
- verl: `def f(data_source, solution_str, ground_truth, extra_info=None) -> float | dict`, once per row.

`None` is an abstention, an exception a fault of its row with the exception's text, NaN a fault. Where a function for batches raises,
that is logged, and its rows are tried one by one, so that a bad row does not fail the others. A list of another length than the batch's
fails the whole call.
"""

from __future__ import annotations

import inspect
import json
import math
import random
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from . import _imports, log, metrics
from .batch import Batch
from .fault import Fault
from .reward import Reward, Rewards, Score, outcome_of

Function = Callable[..., Any]
Style = Literal["trl", "verl"]


@dataclass
class Config:
    """What a recipe may set."""

    format: Literal["text", "messages"] = field(
        default="text",
        metadata={
            "description": "what prompts and completions are: texts, or lists of chat messages as TRL has them for chat data"
        },
    )
    json_columns: list[str] = field(
        default_factory=list,
        metadata={"description": "columns whose texts are JSON: numbers, lists, objects; `extra_info` always is"},
    )
    arguments: dict[str, Any] = field(
        default_factory=dict, metadata={"description": "constants for parameters that have a default"}
    )


class _Parameters:
    """A function's parameters, and the columns that they come from."""

    def __init__(self, function: Function, columns: Mapping[str, str], usual: Mapping[str, str]) -> None:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"`{_name(function)}` is `async`: it is meant to wait, and plugins have nothing to wait for")
        self.function = function
        self.columns = {**usual, **columns}
        found = list(inspect.signature(function).parameters.values())
        self.open = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found)
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self.names = [parameter.name for parameter in found if parameter.kind in named]
        self.required = [parameter.name for parameter in found if parameter.kind in named and parameter.default is parameter.empty]
        for parameter in found:
            if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
                raise TypeError(f"`{_name(function)}` has `{parameter}`: columns are passed by name")
        for name in columns:
            if name not in self.names and not self.open:
                raise TypeError(f"`{_name(function)}` has no parameter `{name}`; it has {', '.join(self.names)}")

    def column(self, name: str) -> str:
        """The column that a parameter comes from."""
        return self.columns.get(name, name)


def detect(function: Function) -> Style:
    """The style of a function, by its parameters. `TypeError` when they fit none."""
    names = list(inspect.signature(function).parameters)
    if "completions" in names:
        return "trl"
    if "solution_str" in names:
        return "verl"
    raise TypeError(
        f"`{_name(function)}({', '.join(names)})` has neither `completions` (TRL) nor `solution_str` (verl) among its parameters; "
        "say which it is with `--style`"
    )


def plugin(
    function: Function,
    *,
    name: str,
    version: str,
    style: Style | None = None,
    columns: Mapping[str, str] | None = None,
) -> type[Reward]:
    """A reward plugin of a function. `columns` names the columns of parameters that are called otherwise: `{"ground_truth": "answer"}`."""
    base = {"trl": TrlReward, "verl": VerlReward}[style or detect(function)]
    parameters = _Parameters(function, columns or {}, base.columns)
    needs = tuple(parameters.column(name) for name in parameters.required if name not in base.given)
    attributes = {"name": name, "version": version, "parameters": parameters, "needs_columns": needs, "__module__": __name__}
    return type("Wrapped", (base,), attributes)


class _Wrapped(Reward):
    """What both styles have in common."""

    config: Config
    parameters: ClassVar[_Parameters]
    columns: ClassVar[Mapping[str, str]] = {}
    """Columns of the parameters that the style knows under another name."""
    given: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are not columns."""

    def __init__(self, config: Config) -> None:
        parameters = self.parameters
        for name in config.arguments:
            if name in parameters.required or (name not in parameters.names and not parameters.open):
                raise Fault.bad_config(f"`arguments`: `{name}` is no parameter with a default of `{_name(parameters.function)}`")
        self.config = config
        self._json = {*config.json_columns, "extra_info"}

    def values(self, name: str, batch: Batch) -> list[Any] | None:
        """A parameter's values, one per row; None where the batch has no such column."""
        column = self.parameters.column(name)
        texts: list[Any] | None = batch.find_text(column)
        if texts is not None:
            return [_json(text, column) for text in texts] if column in self._json or name in self._json else texts
        tokens = batch.find_tokens(column)
        if tokens is not None:
            return [list(row) for row in tokens]
        return batch.find_f64s(column) or batch.find_u32s(column)

    def named(self, batch: Batch) -> dict[str, Any]:
        """The columns that the function gets, by parameter."""
        parameters = self.parameters
        found: dict[str, Any] = {}
        for name in parameters.names:
            if name in self.given or name in self.config.arguments:
                continue
            values = self.values(name, batch)
            if values is not None:
                found[name] = values
            elif name in parameters.required:
                batch.text(parameters.column(name))
        return found


class TrlReward(_Wrapped):
    """A function for batches."""

    columns = {"prompts": "prompt", "completions": "completion"}
    given = frozenset({"trainer_state", "log_extra", "log_metric", "environments"})

    def score(self, batch: Batch) -> Rewards:
        arguments, rows = self._arguments(batch), len(batch)
        rewards = Rewards()
        try:
            values = self._call(arguments)
            failure = _imports.take()
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            failure = _imports.take() or Fault.of_exception(error)
        if failure is None:
            for value in self._counted(values, rows):
                rewards.push(outcome_of(_value, value))
            return rewards
        if rows > 1:
            log.warn(f"{failure.message}: the {rows} rows of this call are tried one by one")
        for row in range(rows):
            one = {name: value[row : row + 1] if name in self._lists else value for name, value in arguments.items()}
            rewards.push(outcome_of(lambda: _value(self._counted(self._call(one), 1)[0])))
        return rewards

    def _call(self, arguments: dict[str, Any]) -> Any:
        # Where rows cannot be kept apart, at least the call repeats.
        random.seed(0)
        return self.parameters.function(**arguments)

    def _counted(self, answer: Any, rows: int) -> list[Any]:
        """The answer as a list, if it has a value for each row. Without that nobody knows which value is whose."""
        try:
            values = list(answer)
        except TypeError:
            values = None
        if values is None or len(values) != rows:
            found = f"a value of type `{type(answer).__name__}`" if values is None else f"{len(values)} values"
            raise Fault(
                "wrong-count", f"`{_name(self.parameters.function)}` returned {found} for {rows} completions: return a list, one value for each"
            )
        return values

    def _arguments(self, batch: Batch) -> dict[str, Any]:
        parameters = self.parameters
        found = self.named(batch)
        if parameters.open:
            taken = {parameters.column(name) for name in parameters.names}
            for name in ("prompts", "completions"):
                if name not in found and (values := self.values(name, batch)) is not None:
                    found[name] = values
            for column in batch.columns():
                if column not in taken and column not in ("prompt", "completion") and batch.find_text(column) is not None:
                    found[column] = self.values(column, batch)
        if self.config.format == "messages":
            for name, role in (("prompts", "user"), ("completions", "assistant")):
                if name in found:
                    found[name] = [_messages(text, role) for text in found[name]]
        self._lists = set(found)
        found.update(self.config.arguments)
        extras = {
            "trainer_state": types.SimpleNamespace(global_step=batch.step),
            "log_metric": lambda name, value: metrics.observe(name, [value]),
            "log_extra": lambda column, values: log.debug(f"`log_extra({column!r}, ...)` is not kept"),
            "environments": None,
        }
        found.update({name: value for name, value in extras.items() if name in parameters.names or parameters.open})
        return found


class VerlReward(_Wrapped):
    """A function for rows."""

    columns = {"solution_str": "completion"}

    def score(self, batch: Batch) -> Rewards:
        columns = self.named(batch)
        rewards = Rewards()
        for row in range(len(batch)):
            arguments = {name: values[row] for name, values in columns.items()}
            rewards.push(outcome_of(self._score_one, arguments))
        return rewards

    def _score_one(self, arguments: dict[str, Any]) -> Score | Fault:
        random.seed(0)
        return _value(self.parameters.function(**arguments, **self.config.arguments))


def _value(value: Any) -> Score | Fault:
    """A function's answer for a row: a number, None, or verl's `{"score": number, <extra>: ...}`, of which numbers become parts."""
    parts = {}
    if isinstance(value, Mapping):
        parts = {str(name): float(part) for name, part in value.items() if name != "score" and _is_number(part)}
        value = value.get("score")
    if value is None:
        return Fault.abstain("the function returned None")
    number = float(value)
    if not math.isfinite(number):
        return Fault("non-finite", f"the function returned {number}")
    return Score(number, parts)


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float)) and math.isfinite(value)


def _json(text: str, column: str) -> Any:
    """The value of a text of JSON; an empty text, as rows without the column have, is None."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Fault.bad_config(f"`json_columns`: `{column}` holds a text that is not JSON: {error}") from None


def _messages(text: str, role: str) -> Any:
    """A text as chat messages: the list it holds as JSON, else one message."""
    if text.startswith("["):
        try:
            messages = json.loads(text)
        except ValueError:
            messages = None
        if isinstance(messages, list) and all(isinstance(message, dict) and "role" in message for message in messages):
            return messages
    return [{"role": role, "content": text}]


def _name(function: Function) -> str:
    return getattr(function, "__name__", repr(function))
