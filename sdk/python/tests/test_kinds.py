import json
import math
from dataclasses import dataclass

import pytest

from plumb_sdk import (
    Ask,
    Decision,
    Fault,
    Filter,
    Judge,
    Question,
    Reward,
    Rewards,
    Row,
    Sampling,
    Score,
    Shaper,
    State,
    Tool,
    Verdicts,
    call_rows,
    kv,
    log,
    metrics,
    models,
    random,
    testing,
    tools,
)
from plumb_sdk.testing import BatchBuilder, ScriptedModel


@dataclass
class Config:
    max_words: int = 50


class Brevity(Reward):
    name = "brevity"
    version = "0.1.0"
    needs_columns = ("completion",)

    def __init__(self, config: Config) -> None:
        self.config = config

    def score_row(self, row: Row) -> Score:
        words = row.text("completion").split()
        if not words:
            raise Fault.abstain("the completion is empty")
        return Score(float(len(words) <= self.config.max_words), {"first": float(words[0])} if words[0] != "-" else {})


def test_reward_keeps_the_rows_that_have_one():
    batch = BatchBuilder().text("completion", ["1", "", "- b c", "x", "2 b"]).build()
    rewards = testing.configure(Brevity, {"max_words": 2}).score(batch)
    assert rewards.values == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert [(fault.row, fault.fault.code) for fault in rewards.faults] == [(1, "abstain"), (3, "exception")]
    assert rewards.faults[1].fault.message.startswith("ValueError: could not convert string to float: 'x' (test_kinds.py:")
    first = rewards.parts["first"]
    assert (first[0], first[4]) == (1.0, 2.0) and all(math.isnan(value) for value in first[1:4])


def test_missing_column_ends_the_call():
    with pytest.raises(Fault, match="missing-column"):
        testing.configure(Brevity).score(BatchBuilder().text("prompt", ["p"]).build())


def test_memory_error_ends_the_call_since_it_depends_on_other_rows():
    class Greedy(Reward):
        def score_row(self, row: Row) -> float:
            raise MemoryError

    with pytest.raises(MemoryError):
        testing.configure(Greedy).score(BatchBuilder().text("completion", ["a"]).build())


def test_pushed_scores_keep_parts_as_long_as_the_rows():
    rewards = Rewards()
    for score in (1.0, Score(2.0, {"a": 0.5, "b": 0.25}), Fault.abstain("not mine"), Score(3, {"b": 0.75})):
        rewards.push(score)
    assert rewards.values == [1.0, 2.0, 0.0, 3.0] and rewards.faults[0].row == 2
    known = {name: [None if math.isnan(v) else v for v in values] for name, values in rewards.parts.items()}
    assert known == {"a": [None, 0.5, None, None], "b": [None, 0.25, None, 0.75]}


class Count(State, Shaper):
    state_version = 1
    seen = 0

    def shape(self, batch):
        self.seen += len(batch)
        return [value + self.seen for value in batch.f64s("value")]

    def save(self) -> bytes:
        return str(self.seen).encode()

    def load(self, from_version: int, data: bytes) -> None:
        self.seen = int(data)


def test_state_of_a_shaper_goes_from_one_instance_to_the_next():
    batch = BatchBuilder().f64s("value", [1, 2]).build()
    first = testing.configure(Count)
    first.shape(batch)
    second = testing.configure(Count)
    second.load(1, first.save())
    assert second.shape(batch) == [5.0, 6.0]


class Best(Filter):
    def select(self, batch) -> Decision:
        decision = Decision.keep_all(len(batch))
        for row, value in enumerate(batch.f64s("value")):
            if value < 1:
                decision.drop_row(row, "low")
        return decision


def test_filter_drops_rows_with_a_reason():
    decision = testing.configure(Best).select(BatchBuilder().f64s("value", [0, 1]).build())
    assert (decision.keep, decision.reasons) == ([False, True], [(0, "low")])


class YesNo(Judge):
    def begin(self, batch) -> Ask:
        return Ask([Question("policy", [f"Good? {text}" for text in batch.text("completion")], Sampling.greedy(1))], b"memo")

    def resume(self, batch, memo, answers) -> Verdicts:
        assert memo == b"memo"
        return Verdicts(scores=[float(text == "yes") for text in answers[0].text])


def test_judge_asks_and_is_resumed():
    judge, batch = testing.configure(YesNo), BatchBuilder().text("completion", ["a", "b"]).build()
    ask = judge.begin(batch)
    assert ask.questions[0].prompts == ["Good? a", "Good? b"]
    assert judge.resume(batch, ask.memo, [testing.generated(["yes", "no"])]).scores == [1.0, 0.0]


@dataclass
class Numbers:
    values: list[float]


class Sum(Tool):
    def call(self, arguments: Numbers) -> object:
        return sum(arguments.values) if arguments.values else int("x")


def test_tool_answers_each_call_and_tells_bad_ones():
    outputs = call_rows(testing.configure(Sum), ['{"values": [1, 2]}', "{", '{"values": 1}', '{"values": []}'])
    assert outputs.output == ["3.0", "", "", ""]
    codes = [(fault.row, fault.fault.code) for fault in outputs.faults]
    assert codes == [(1, "bad-arguments"), (2, "bad-arguments"), (3, "exception")]
    assert outputs.faults[1].fault.message == "`values`: expected a list, got 1"


def test_written_output_is_taken_once():
    testing.take_output()
    log.warn("odd", row=3)
    metrics.count("seen", 2)
    metrics.count("seen")
    metrics.observe("length", [1, 2])
    output = testing.take_output()
    assert output.log == [testing.Line("warn", "odd", [("row", "3")])]
    assert (output.counts, output.observed) == ({"seen": 3}, {"length": [1.0, 2.0]})
    assert testing.take_output() == testing.Output()


def test_random_numbers_are_those_of_the_rust_sdk_and_extend_their_prefix():
    assert random.draw("noise", 7, 2) == [1367928142263533279, 10318542356477720994]
    assert random.uniform("noise", 7, 2) == [0.07415553318230905, 0.559369301988842]
    assert random.draw("noise", 7, 4)[:2] == random.draw("noise", 7, 2)
    assert random.draw("noise", 8, 2) != random.draw("noise", 7, 2) != random.draw("other", 7, 2)


def test_kv_keys_are_found_by_prefix_until_deleted():
    testing.clear_kv()
    kv.set("a/1", b"x")
    kv.set("b/1", b"y")
    assert kv.keys("a/") == ["a/1"]
    kv.delete("a/1")
    assert kv.get("a/1") is None and kv.get("b/1") == b"y"


def test_scripted_models_and_tools_answer_and_others_are_faults():
    def choices(prompts, words):
        return [-float(len(prompt) + len(word)) for prompt in prompts for word in words]

    testing.memory.models["policy"] = ScriptedModel(choice_logprobs=choices)
    testing.memory.tools["upper"] = lambda text: json.dumps(json.loads(text).upper())
    assert models.choice_logprobs("policy", ["a"], ["b", "cc"]) == [-2.0, -3.0]
    assert tools.call("upper", ['"a"']) == ['"A"']
    for ask, code in [
        (lambda: models.embed("policy", ["a"]), "unsupported"),
        (lambda: models.embed("other", ["a"]), "unknown-model"),
        (lambda: tools.call("other", []), "denied"),
    ]:
        with pytest.raises(Fault) as caught:
            ask()
        assert caught.value.code == code
