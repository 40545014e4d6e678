"""The glue of components, against bindings that only note what they are given."""

import enum
import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest

from plumb_sdk import (
    Ask,
    Decision,
    Fault,
    Filter,
    Judge,
    Pairs,
    Question,
    Ragged,
    Relabel,
    Reward,
    RowFault,
    Sampling,
    Score,
    Shaped,
    Shaper,
    State,
    StatefulReward,
    Tool,
    Verdicts,
    _backend,
    _imports,
    kv,
    tools,
)


class Record:
    """A record of the bindings: its fields in the order in which it was given them."""

    def __init__(self, *values, **fields):
        self.given = (*values, *fields.values())

    def __eq__(self, other):
        return isinstance(other, Record) and self.given == other.given

    def __repr__(self):
        return f"Record{self.given!r}"


class Err(Exception):
    def __init__(self, value):
        self.value = value


class Rows:
    """A batch of the host's."""

    rows = staticmethod(lambda: 2)
    step = staticmethod(lambda: 3)
    row_ids = staticmethod(lambda: [7, 8])
    group_ends = staticmethod(lambda: [2])
    columns = staticmethod(lambda: ["completion", "value"])
    attr = staticmethod({"stage": "raw"}.get)
    f64s = staticmethod({"value": [1.0, 2.0]}.get)
    u32s = staticmethod({}.get)
    bytes = staticmethod({}.get)
    token_f32s = staticmethod({}.get)
    f64_lists = staticmethod({}.get)
    text = staticmethod({"completion": SimpleNamespace(bytes="aé🙂".encode(), ends=[3, 7])}.get)
    tokens = staticmethod({"ids": SimpleNamespace(values=[1, 2, 3], ends=[1, 3])}.get)


@pytest.fixture
def guest(monkeypatch):
    """The glue, with bindings around it and without the sandbox, which would take this interpreter's system away."""

    def module(name, **attributes):
        made = ModuleType(name)
        # Packages have no `__path__` here, so that what is not in `imports` is not found.
        made.__getattr__ = lambda attribute: missing(name, attribute) if attribute.startswith("__") else Record
        vars(made).update(attributes)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    level = enum.Enum("Level", ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"])
    logged, kept = [], {}
    imports = {
        "config": {"json": lambda: "{}"},
        "data": {},
        "kv": {"get": kept.get, "set": kept.__setitem__},
        "log": {"Level": level, "write": lambda *line: logged.append(line)},
        "metrics": {"count": None, "observe": None},
        "types": {"Fault": lambda code, message, retryable: SimpleNamespace(code=code, message=message, retryable=retryable)},
        "random": {"draw": None},
        "tools": {"call": call_tool},
    }
    module("componentize_py_types", Err=Err)
    module("plumb_world")
    parts = {name: module(f"plumb_world.imports.{name}", **attributes) for name, attributes in imports.items()}
    module("plumb_world.imports", **parts)
    for name in ("lifecycle", "rewarding", "shaping", "filtering", "judging", "tooling"):
        module(f"plumb_world.exports.{name}")
    module("plumb_world.exports")
    monkeypatch.delitem(sys.modules, "plumb_sdk._guest", raising=False)
    sandbox = ModuleType("plumb_sdk._sandbox")
    sandbox.seal = sandbox.flush = lambda: None
    monkeypatch.setitem(sys.modules, "plumb_sdk._sandbox", sandbox)
    monkeypatch.setattr(sys.modules["plumb_sdk"], "_sandbox", sandbox, raising=False)
    monkeypatch.setattr(_imports, "follow", lambda *, wrapped: None)
    monkeypatch.setattr(_backend, "_current", _backend._current)
    found = importlib.import_module("plumb_sdk._guest")
    found.logged = logged
    yield found
    sys.modules.pop("plumb_sdk._guest", None)
    vars(sys.modules["plumb_sdk"]).pop("_guest", None)


def missing(module, attribute):
    raise AttributeError(f"{module}.{attribute}")


def call_tool(tool, texts):
    if tool != "upper":
        raise Err(SimpleNamespace(code="unknown-tool", message=tool, retryable=False))
    fault = SimpleNamespace(row=1, fault=SimpleNamespace(code="x", message="y", retryable=True))
    return SimpleNamespace(output=SimpleNamespace(bytes=b"A", ends=[1, 1]), faults=[fault])


def started(guest, plugin, kind, stateful=False):
    """The exported classes of a plugin, after `init`."""
    plugin.name, plugin.version = "p", "0.1.0"
    exported = guest.export(plugin, kind=kind, stateful=stateful)
    exported["Lifecycle"]().init()
    return exported


def test_reward_goes_out_as_flat_lists(guest):
    class Length(Reward):
        def score_row(self, row):
            if row.index == 1:
                raise Fault.abstain("odd")
            return Score(len(row.text("completion")), {"id": row.id})

    answer = started(guest, Length, "reward")["Rewarding"]().score(Rows())
    values, parts, spans, faults = answer.given
    assert (values, spans) == ([2.0, 0.0], [])
    assert parts[0].given[0] == "id" and parts[0].given[1][0] == 7.0
    assert faults[0].given[0] == 1 and faults[0].given[1].code == "abstain"


def test_shaper_and_its_state_go_out_and_come_back(guest):
    class Sum(State, Shaper):
        state_version = 1
        seen = 0.0

        def shape(self, batch):
            self.seen += sum(batch.f64s("value"))
            return Shaped([self.seen] * len(batch), Ragged.of([[0.5], [0.25]]))

        def save(self):
            return str(self.seen).encode()

        def load(self, from_version, data):
            self.seen = float(data)

    exported = started(guest, Sum, "shaper", stateful=True)
    exported["State"]().load(1, b"10")
    values, tokens, parts, faults = exported["Shaping"]().shape(Rows()).given
    assert (values, tokens, parts, faults) == ([13.0, 13.0], Record([0.5, 0.25], [1, 2]), [], [])
    assert exported["State"]().save() == b"13.0"


def test_reward_with_state_observes_its_rows_and_merges(guest):
    class Seen(StatefulReward):
        state_version = 1
        seen = 0

        def score_row(self, row):
            return float(self.seen)

        def observe(self, batch, rewards):
            self.seen += sum(value == self.seen for value in rewards.values)

        def save(self):
            return bytes([self.seen])

        def load(self, from_version, data):
            self.seen = data[0]

        def merge(self, states):
            self.seen += sum(state[0] - self.seen for state in states)

    exported = started(guest, Seen, "reward", stateful=True)
    exported["State"]().load(1, bytes([3]))
    assert exported["Rewarding"]().score(Rows()).given[0] == [3.0, 3.0]
    assert exported["State"]().save() == bytes([5])
    exported["State"]().load(1, bytes([3]))
    exported["Merging"]().merge([bytes([5]), bytes([4])])
    assert exported["State"]().save() == bytes([6])


def test_reward_with_plain_state_is_refused_with_the_change(guest):
    members = {"save": None, "load": None, "score_row": lambda self, row: 1.0, "name": "p", "version": "0.1.0", "state_version": 1}
    with pytest.raises(TypeError, match="derive from `StatefulReward`"):
        guest.export(type("Some", (State, Reward), members), kind="reward", stateful=True)


def test_filter_goes_out_with_bytes_for_truth(guest):
    class Some(Filter):
        def select(self, batch):
            pairs = Pairs([0], [1], [0.75], [1.0], [0])
            return Decision([True, False], pairs=pairs, relabels=[Relabel("completion", [1], ["é"])], reasons=[(1, "no")])

    decision = started(guest, Some, "filter")["Filtering"]().select(Rows())
    keep, weights, pairs, relabels, regenerate, parts, reasons = decision.given
    assert (keep, weights, regenerate, parts, reasons) == (b"\x01\x00", None, [], [], [(1, "no")])
    assert pairs == Record([0], [1], [0.75], [1.0], [0])
    assert relabels == [Record("completion", [1], Record("é".encode(), [2]))]


def test_judge_asks_and_decides(guest):
    class Grade(Judge):
        def begin(self, batch):
            return Ask([Question("policy", batch.text("completion"), Sampling.greedy(4))], b"m")

        def resume(self, batch, memo, answers):
            assert (memo, answers[0].text, answers[0].finish) == (b"m", ["x"], ["stop"])
            return Verdicts(scores=[1.0, 2.0], rationales=["a", "b"], faults=[RowFault(0, Fault("c", "d"))])

    judge = started(guest, Grade, "judge")["Judging"]()
    (ask,) = judge.begin(Rows()).given
    (question,), memo = ask.given
    assert memo == b"m"
    assert question == Record("policy", Record("aé🙂".encode(), [3, 7]), Record(4, 0.0, 1.0, 1, 0, [], []))
    flat = SimpleNamespace(values=[], ends=[0])
    answer = SimpleNamespace(text=SimpleNamespace(bytes=b"x", ends=[1]), tokens=flat, logprobs=flat, finish=["stop"])
    scores, pairs, matrices, rationales, parts, faults = judge.resume(Rows(), b"m", [answer]).given[0].given
    assert (scores, pairs, matrices, parts) == ([1.0, 2.0], None, None, [])
    assert rationales == Record(b"ab", [1, 2]) and faults[0].given[0] == 0


def test_tool_answers_texts(guest):
    class Echo(Tool):
        def call(self, arguments: dict) -> dict:
            return arguments

    outputs = started(guest, Echo, "tool")["Tooling"]().call(SimpleNamespace(bytes=b'{"a": 1}[]', ends=[8, 10]))
    texts, faults = outputs.given
    assert texts == Record(b'{"a": 1}', [8, 8])
    assert faults[0].given[1].message == "expected an object, got []"


def test_what_a_call_raises_is_a_fault_of_the_call_and_logged(guest):
    class Broken(Shaper):
        def shape(self, batch):
            return batch.tokens("ids")[2]

    shape = started(guest, Broken, "shaper")["Shaping"]().shape
    with pytest.raises(Err) as caught:
        shape(Rows())
    assert caught.value.value.code == "exception"
    assert caught.value.value.message.startswith("IndexError")
    assert [line[1] for line in guest.logged] == [caught.value.value.message]


def test_host_is_asked_through_the_sdk(guest):
    class Asks(Reward):
        def score_row(self, row):
            kv.set("k", b"v")
            assert tools.call("upper", ["a", "b"]) == ["A", Fault("x", "y", retryable=True)]
            tools.call("other", [])

    faults = started(guest, Asks, "reward")["Rewarding"]().score(Rows()).given[3]
    assert faults[0].given[1].code == "unknown-tool"


def test_calls_before_init_are_faults(guest):
    class Some(Reward):
        name, version = "p", "0.1.0"

        def score_row(self, row):
            return 1.0

    with pytest.raises(Err) as caught:
        guest.export(Some, kind="reward", stateful=False)["Rewarding"]().score(Rows())
    assert caught.value.value.code == "not-initialized"


@pytest.mark.parametrize(
    ("attributes", "kind", "stateful", "message"),
    [
        ({}, "shaper", False, 'is no `Shaper`, but plugin.toml says `kind = "shaper"`'),
        ({}, "reward", False, "has no `score_row`: write it"),
        ({"score_row": lambda self, row: 1.0, "name": ""}, "reward", False, "has no `name` or no `version`"),
        ({"score_row": lambda self, row: 1.0}, "reward", True, "`state = true` under"),
    ],
)
def test_classes_that_do_not_fit_are_refused_with_the_change(guest, attributes, kind, stateful, message):
    plugin = type("Some", (Reward,), {"name": "p", "version": "0.1.0", **attributes})
    with pytest.raises(TypeError, match=message):
        guest.export(plugin, kind=kind, stateful=stateful)
