"""The SDK inside a component: from an exported function to a plugin's method, and from the SDK's functions to the host.

`plumb_world` are the bindings that componentize-py generates for the plugin's world. `export` stands in the entry module that
`plumb plugin build` writes, after `_sandbox.install()`; nothing else imports this module.
"""

from __future__ import annotations

import gc
import importlib
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from componentize_py_types import Err
from plumb_world.imports import config, data, kv, log, metrics, types
from plumb_world.imports import random as host_random

from . import _backend, _imports, _sandbox, testing
from .batch import Batch, Ragged
from .fault import Fault, RowFault
from .filter import Decision, Filter
from .judge import Ask, Judge, Verdicts
from .models import Generated, Sampling
from .plugin import Plugin
from .reward import Reward, Rewards, StatefulReward
from .shaper import Shaped, Shaper
from .state import State
from .tool import Tool, call_rows

_LEVELS = {level.name.lower(): level for level in log.Level}

_plugin: Plugin | None = None
"""The configured plugin, None before `init`."""

_kept: list[Plugin] = []
"""Plugins made while the component was built: they keep what caches refer to weakly."""


def export(plugin: type[Plugin], *, kind: str, stateful: bool, wrapped: bool = False, cases: str = "") -> dict[str, type]:
    """The classes that componentize-py looks for in the entry module, by name. `cases` is the text of the plugin's `cases.jsonl`;
    `wrapped` says that `plumb plugin wrap` made the plugin's module.

    Raises `TypeError` for a class that does not fit `kind` and `stateful`; the message says what to change.
    """
    _check(plugin, kind, stateful)
    interface, methods = _KINDS[kind]
    classes = {"Lifecycle": _lifecycle(plugin), interface: _class(interface, methods())}
    if stateful:
        classes["State"] = _class("State", _state())
    if stateful and kind == "reward":
        classes["Merging"] = _class("Merging", {"merge": lambda states: _configured().merge(states)})
    _rehearse(plugin, cases)
    _imports.follow(wrapped=wrapped)
    random.seed(0)
    # What is there now stays: later collections need not look at it, which would also copy its pages.
    gc.collect()
    gc.freeze()
    return classes


def _check(plugin: type[Plugin], kind: str, stateful: bool) -> None:
    name = f"{plugin.__module__}.{getattr(plugin, '__name__', plugin)}"
    base, methods = _BASES[kind]
    if not isinstance(plugin, type) or not issubclass(plugin, base):
        raise TypeError(f'`{name}` is no `{base.__name__}`, but plugin.toml says `kind = "{kind}"`: let the two agree')
    if all(getattr(plugin, method) is getattr(base, method) for method in methods):
        raise TypeError(f"`{name}` has no `{methods[0]}`: write it")
    if not plugin.name or not plugin.version:
        raise TypeError(f"`{name}` has no `name` or no `version`: set both as class attributes, as plugin.toml has them")
    if issubclass(plugin, State) != stateful:
        said, change = ("true", "drop it, or derive from `State`") if stateful else ("false", "add `state = true`")
        raise TypeError(f"`{name}` and `state = {said}` under `[tool.plumb]` in pyproject.toml contradict each other: {change}")
    if stateful and kind == "reward" and not issubclass(plugin, StatefulReward):
        raise TypeError(f"`{name}` is a reward with state: derive from `StatefulReward`, since its calls are made side by side")
    if stateful and plugin.state_version < 1:
        raise TypeError(f"`{name}` has state: set `state_version = 1`, and raise it when the saved bytes change")
    plugin.describe()


def _rehearse(plugin: type[Plugin], cases: str) -> None:
    """Makes the plugin, and calls rewards and tools with the rows of its cases, while the component is built: for what stays behind in
    caches, and for modules that are imported by names that no code shows.

    It need not work. Configurations may be wrong on purpose, columns be of another type, and the host is not there yet.
    """
    _backend.install(_Building())
    for case in [{}, *map(json.loads, filter(str.strip, cases.splitlines()))]:
        try:
            made = plugin.configure(json.dumps(case.get("config", {})))
            _kept.append(made)
            rows = case.get("rows", [])
            if isinstance(made, Reward) and rows:
                made.score(_text_batch(rows))
            elif isinstance(made, Tool) and rows:
                call_rows(made, [_cell(row.get("arguments", "")) for row in rows])
        except (Exception, SystemExit):
            continue


def _text_batch(rows: list[dict[str, Any]]) -> Batch:
    names = {name for row in rows for name in row}
    builder = testing.BatchBuilder()
    for name in sorted(names):
        builder.text(name, [_cell(row.get(name, "")) for row in rows])
    return builder.build()


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _Building:
    """There is no host while a component is built."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"`{name}` is asked of the runtime while the module is imported: ask in a method of the plugin")


def _class(name: str, methods: dict[str, Callable[..., Any]]) -> type:
    return type(name, (), {method: staticmethod(_entering(function)) for method, function in methods.items()})


def _entering(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as an export: what it raises becomes a fault of the call, and is logged where it says nothing by itself."""

    def call(*arguments: Any) -> Any:
        _enter()
        try:
            answer = function(*arguments)
            # Rows take their own; what is left concerns a method that sees many at once.
            if refused := _imports.take():
                raise refused
            return answer
        except Fault as fault:
            raise Err(_fault(fault)) from None
        except MemoryError:
            # Traps: whether there is memory is the host's to say.
            raise
        except (Exception, SystemExit) as error:
            fault = Fault.of_exception(error)
            _backend.get().log("error", fault.message, [])
            raise Err(_fault(fault)) from None
        finally:
            _sandbox.flush()

    return call


def _enter() -> None:
    _sandbox.seal()
    _backend.install(_HOST)


def _lifecycle(plugin: type[Plugin]) -> type:
    exports = importlib.import_module("plumb_world.exports.lifecycle")

    def describe() -> Any:
        about = plugin.describe()
        return exports.Descriptor(
            about.name, about.version, about.config_schema, about.needs_columns, about.outputs, about.state_version, []
        )

    def init() -> None:
        global _plugin
        _plugin = plugin.configure(config.json())

    return _class("Lifecycle", {"describe": describe, "init": init})


def _configured() -> Any:
    if _plugin is None:
        raise Fault("not-initialized", "called before `init` succeeded")
    return _plugin


def _rewarding() -> dict[str, Callable[..., Any]]:
    exports = importlib.import_module("plumb_world.exports.rewarding")

    def score(rows: data.Batch) -> Any:
        batch, reward = Batch(_HostBatch(rows)), _configured()
        rewards: Rewards = reward.score(batch)
        if isinstance(reward, StatefulReward):
            reward.observe(batch, rewards)
        spans = [types.NamedSpans(s.name, s.unit, s.rows, s.starts, s.stops, s.values) for s in rewards.spans]
        return exports.Rewards(rewards.values, _parts(rewards.parts), spans, _faults(rewards.faults))

    return {"score": score}


def _shaping() -> dict[str, Callable[..., Any]]:
    exports = importlib.import_module("plumb_world.exports.shaping")

    def shape(rows: data.Batch) -> Any:
        answer = _configured().shape(Batch(_HostBatch(rows)))
        shaped = answer if isinstance(answer, Shaped) else Shaped(answer)
        tokens = shaped.token_values
        token_values = None if tokens is None else types.RaggedF32(tokens.values, tokens.ends)
        return exports.Shaped(shaped.values, token_values, _parts(shaped.parts), _faults(shaped.faults))

    return {"shape": shape}


def _filtering() -> dict[str, Callable[..., Any]]:
    exports = importlib.import_module("plumb_world.exports.filtering")

    def select(rows: data.Batch) -> Any:
        decision: Decision = _configured().select(Batch(_HostBatch(rows)))
        pairs = decision.pairs
        return exports.Decision(
            keep=bytes(map(bool, decision.keep)),
            weights=decision.weights,
            pairs=pairs and exports.Pairs(pairs.chosen, pairs.rejected, pairs.probability, pairs.margin, pairs.level),
            relabels=[exports.Relabel(r.column, r.rows, _texts(r.texts)) for r in decision.relabels],
            regenerate=decision.regenerate,
            parts=_parts(decision.parts),
            reasons=decision.reasons,
        )

    return {"select": select}


def _judging() -> dict[str, Callable[..., Any]]:
    exports = importlib.import_module("plumb_world.exports.judging")

    def turn(answer: Ask | Verdicts) -> Any:
        if isinstance(answer, Ask):
            questions = [exports.Question(q.model, _texts(q.prompts), _sampling(q.sampling)) for q in answer.questions]
            return exports.Turn_Ask(exports.Ask(questions, bytes(answer.memo)))
        pairs, matrices = answer.pairs, answer.matrices
        return exports.Turn_Done(
            exports.Verdicts(
                scores=answer.scores,
                pairs=pairs and exports.PairVerdicts(pairs.first, pairs.second, pairs.probability),
                matrices=matrices and exports.MatrixVerdicts(matrices.values, bytes(map(bool, matrices.readable))),
                rationales=None if answer.rationales is None else _texts(answer.rationales),
                parts=_parts(answer.parts),
                faults=_faults(answer.faults),
            )
        )

    def begin(rows: data.Batch) -> Any:
        return turn(_configured().begin(Batch(_HostBatch(rows))))

    def resume(rows: data.Batch, memo: bytes, answers: list[types.Generated]) -> Any:
        return turn(_configured().resume(Batch(_HostBatch(rows)), memo, [_generated(answer) for answer in answers]))

    return {"begin": begin, "resume": resume}


def _tooling() -> dict[str, Callable[..., Any]]:
    exports = importlib.import_module("plumb_world.exports.tooling")

    def call(arguments: types.Texts) -> Any:
        outputs = call_rows(_configured(), _read_texts(arguments))
        return exports.Outputs(_texts(outputs.output), _faults(outputs.faults))

    return {"call": call}


def _state() -> dict[str, Callable[..., Any]]:
    return {
        "save": lambda: bytes(_configured().save()),
        "load": lambda from_version, saved: _configured().load(from_version, saved),
    }


_KINDS: dict[str, tuple[str, Callable[[], dict[str, Callable[..., Any]]]]] = {
    "reward": ("Rewarding", _rewarding),
    "shaper": ("Shaping", _shaping),
    "filter": ("Filtering", _filtering),
    "judge": ("Judging", _judging),
    "tool": ("Tooling", _tooling),
}

_BASES: dict[str, tuple[type[Plugin], tuple[str, ...]]] = {
    "reward": (Reward, ("score_row", "score")),
    "shaper": (Shaper, ("shape",)),
    "filter": (Filter, ("select",)),
    "judge": (Judge, ("begin",)),
    "tool": (Tool, ("call",)),
}


class _HostBatch:
    """A batch of the host's. Each method is one call of the host."""

    def __init__(self, rows: data.Batch) -> None:
        self.rows = rows.rows
        self.step = rows.step
        self.row_ids = rows.row_ids
        self.group_ends = rows.group_ends
        self.columns = rows.columns
        self.attr = rows.attr
        self.f64s = rows.f64s
        self.u32s = rows.u32s
        self._batch = rows

    def text(self, column: str) -> list[str] | None:
        texts = self._batch.text(column)
        return None if texts is None else _read_texts(texts)

    def bytes(self, column: str) -> list[bytes] | None:
        texts = self._batch.bytes(column)
        return None if texts is None else [texts.bytes[s:e] for s, e in zip([0, *texts.ends], texts.ends)]

    def tokens(self, column: str) -> Ragged[int] | None:
        return _ragged(self._batch.tokens(column))

    def token_f32s(self, column: str) -> Ragged[float] | None:
        return _ragged(self._batch.token_f32s(column))

    def f64_lists(self, column: str) -> Ragged[float] | None:
        return _ragged(self._batch.f64_lists(column))


class _Host:
    """The runtime's imports."""

    draw = staticmethod(host_random.draw)
    count = staticmethod(metrics.count)
    observe = staticmethod(metrics.observe)
    kv_get = staticmethod(kv.get)
    kv_delete = staticmethod(kv.delete)
    kv_keys = staticmethod(kv.keys)

    def log(self, level: str, message: str, fields: list[tuple[str, str]]) -> None:
        log.write(_LEVELS[level], message, fields)

    def kv_set(self, key: str, value: bytes) -> None:
        _asking(kv.set, key, bytes(value))

    def generate(self, model: str, prompts: Sequence[str], sampling: Sampling) -> Generated:
        return _generated(_asking(_capability("models").generate, model, _texts(prompts), _sampling(sampling)))

    def logprobs(self, model: str, prompts: Sequence[str], continuations: Sequence[str]) -> Ragged[float]:
        found = _asking(_capability("models").logprobs, model, _texts(prompts), _texts(continuations))
        return Ragged(found.values, found.ends)

    def token_logprobs(self, model: str, prompts: Sequence[str], tokens: Ragged[int]) -> Ragged[float]:
        flat = types.RaggedU32(tokens.values, tokens.ends)
        found = _asking(_capability("models").token_logprobs, model, _texts(prompts), flat)
        return Ragged(found.values, found.ends)

    def choice_logprobs(self, model: str, prompts: Sequence[str], choices: Sequence[str]) -> list[float]:
        found: list[float] = _asking(_capability("models").choice_logprobs, model, _texts(prompts), list(choices))
        return found

    def model_score(self, model: str, prompts: Sequence[str], continuations: Sequence[str]) -> dict[str, list[float]]:
        found = _asking(_capability("models").score, model, _texts(prompts), _texts(continuations))
        return {head.name: head.values for head in found}

    def embed(self, model: str, inputs: Sequence[str]) -> tuple[int, list[float]]:
        found: tuple[int, list[float]] = _asking(_capability("models").embed, model, _texts(inputs))
        return found

    def call_tool(self, tool: str, arguments: Sequence[str]) -> list[str | Fault]:
        results = _asking(_capability("tools").call, tool, _texts(arguments))
        outputs: list[str | Fault] = list(_read_texts(results.output))
        for fault in results.faults:
            outputs[fault.row] = _read_fault(fault.fault)
        return outputs


_HOST = _Host()


def _capability(name: str) -> Any:
    module = sys.modules.get(f"plumb_world.imports.{name}")
    if module is None:
        raise Fault("denied", f'the plugin does not ask for `{name}`: add `capabilities = ["{name}"]` to `[needs]` in plugin.toml')
    return module


for _name in ("models", "tools"):
    # Only there when plugin.toml asks for it; importing is not possible later.
    try:
        importlib.import_module(f"plumb_world.imports.{_name}")
    except ModuleNotFoundError:
        pass


def _asking(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Err as error:
        raise _read_fault(error.value) from None


def _texts(rows: Iterable[str]) -> types.Texts:
    parts = [row.encode() for row in rows]
    ends, end = [], 0
    for part in parts:
        end += len(part)
        ends.append(end)
    return types.Texts(b"".join(parts), ends)


def _read_texts(texts: types.Texts) -> list[str]:
    view = memoryview(texts.bytes)
    rows, start = [], 0
    for end in texts.ends:
        rows.append(str(view[start:end], "utf-8"))
        start = end
    return rows


def _ragged(found: Any) -> Any:
    return None if found is None else Ragged(found.values, found.ends)


def _parts(parts: dict[str, list[float]]) -> list[types.NamedF64]:
    return [types.NamedF64(name, values) for name, values in parts.items()]


def _fault(fault: Fault) -> types.Fault:
    return types.Fault(fault.code, fault.message, fault.retryable)


def _read_fault(fault: types.Fault) -> Fault:
    return Fault(fault.code, fault.message, retryable=fault.retryable)


def _faults(faults: list[RowFault]) -> list[types.RowFault]:
    return [types.RowFault(fault.row, _fault(fault.fault)) for fault in faults]


def _sampling(s: Sampling) -> types.Sampling:
    return types.Sampling(s.max_tokens, s.temperature, s.top_p, s.count, s.seed, s.stop, s.extra)


def _generated(answer: types.Generated) -> Generated:
    return Generated(
        _read_texts(answer.text),
        Ragged(answer.tokens.values, answer.tokens.ends),
        Ragged(answer.logprobs.values, answer.logprobs.ends),
        answer.finish,
    )
