import math

import pytest

from plumb_sdk import Fault, testing, wrap
from plumb_sdk.testing import BatchBuilder


def wrapped(function, config=None, **options):
    plugin = wrap.plugin(function, name="w", version="0.1.0", **options)
    return plugin, testing.configure(plugin, config)


def batch(**columns):
    builder = BatchBuilder()
    for name, values in columns.items():
        builder.text(name, values)
    return builder.build()


def test_trl_function_gets_its_columns_as_lists_in_order():
    def exact(prompts, completions, answer, **kwargs):
        assert kwargs["level"] == ["1", "2", "3"]
        return [None if not c else float(c == a) for c, a in zip(completions, answer)]

    plugin, reward = wrapped(exact)
    assert plugin.needs_columns == ("prompt", "completion", "answer")
    rewards = reward.score(batch(prompt=["p"] * 3, completion=["4", "", "5"], answer=["4", "4", "4"], level=["1", "2", "3"]))
    assert rewards.values == [1.0, 0.0, 0.0]
    assert [(fault.row, fault.fault.code) for fault in rewards.faults] == [(1, Fault.ABSTAIN)]


def test_trl_function_that_raises_fails_its_bad_row_alone():
    calls = []

    def number(completions):
        calls.append(len(completions))
        return [float(text) for text in completions]

    _, reward = wrapped(number)
    rewards = reward.score(batch(completion=["1", "x", "3"]))
    assert (rewards.values, calls) == ([1.0, 0.0, 3.0], [3, 1, 1, 1])
    assert rewards.faults[0].row == 1 and "could not convert string to float: 'x'" in rewards.faults[0].fault.message


def test_trl_function_that_raises_says_in_the_log_that_rows_are_tried_one_by_one():
    _, reward = wrapped(lambda completions: [float(text) for text in completions])
    testing.take_output()
    reward.score(batch(completion=["1", "x"]))
    (line,) = testing.take_output().log
    assert line.level == "warn" and line.message.startswith("ValueError: could not convert string to float: 'x' (test_wrap.py:")
    assert line.message.endswith(": the 2 rows of this call are tried one by one")


@pytest.mark.parametrize(
    ("answer", "told"), [([1.0], "returned 1 values for 3"), ([0.0] * 4, "returned 4 values for 3"), (None, "a value of type `NoneType`")]
)
def test_trl_function_with_a_wrong_count_fails_the_batch_and_is_called_once(answer, told):
    calls = []

    def badlen(completions):
        calls.append(len(completions))
        return answer

    _, reward = wrapped(badlen)
    with pytest.raises(Fault, match=told) as raised:
        reward.score(batch(completion=["a", "b", "c"]))
    assert (raised.value.code, calls) == ("wrong-count", [3])


def test_trl_value_that_is_no_number_fails_its_row_alone():
    _, reward = wrapped(lambda completions: [1.0, "one", 3.0])
    rewards = reward.score(batch(completion=["a", "b", "c"]))
    assert [(fault.row, fault.fault.code) for fault in rewards.faults] == [(1, "exception")]
    assert (rewards.values[0], rewards.values[2]) == (1.0, 3.0)


def test_messages_are_lists_as_trl_has_them_for_chat_data():
    def content(prompts, completions):
        assert prompts[0] == [{"role": "user", "content": "p"}]
        assert prompts[1] == [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
        return [float(len(completion[0]["content"])) for completion in completions]

    _, reward = wrapped(content, {"format": "messages"})
    chat = '[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]'
    assert reward.score(batch(prompt=["p", chat], completion=["ab", "c"])).values == [2.0, 1.0]


def test_nan_and_infinities_are_faults_of_their_rows():
    _, reward = wrapped(lambda completions: [math.nan, 1.0, math.inf])
    faults = reward.score(batch(completion=["a", "b", "c"])).faults
    assert [(fault.row, fault.fault.code) for fault in faults] == [(0, "non-finite"), (2, "non-finite")]


def test_trl_extras_are_given_by_name():
    def extras(completions, trainer_state, log_metric, completion_ids=None):
        log_metric("seen", len(completions))
        return [trainer_state.global_step + len(completion_ids[0])]

    _, reward = wrapped(extras)
    rewards = reward.score(BatchBuilder().text("completion", ["a"]).tokens("completion_ids", [[5, 6]]).step(9).build())
    assert rewards.values == [11.0] and testing.take_output().observed == {"seen": [1.0]}


def test_verl_function_gets_one_row_and_its_numbers_become_parts():
    def compute_score(data_source, solution_str, ground_truth, extra_info=None, strict=False):
        right = solution_str == ground_truth["target"]
        return {"score": right, "acc": float(right), "level": extra_info["level"], "pred": solution_str, "strict": strict}

    plugin, reward = wrapped(
        compute_score, {"json_columns": ["answer"], "arguments": {"strict": True}}, columns={"ground_truth": "answer"}
    )
    assert plugin.needs_columns == ("data_source", "completion", "answer")
    rewards = reward.score(
        batch(data_source=["d"] * 2, completion=["4", "5"], answer=['{"target": "4"}'] * 2, extra_info=['{"level": 2}', ""])
    )
    assert rewards.values == [1.0, 0.0]
    assert {name: values[0] for name, values in rewards.parts.items()} == {"acc": 1.0, "level": 2.0, "strict": 1.0}
    assert "TypeError" in rewards.faults[0].fault.message


def test_missing_column_ends_the_call():
    _, reward = wrapped(lambda completions, answer: [])
    with pytest.raises(Fault, match="no text column `answer`"):
        reward.score(batch(completion=["a"]))


def test_functions_that_cannot_be_wrapped_are_told_apart():
    async def waits(completions):
        return []

    for function, options, message in [
        (waits, {}, "meant to wait"),
        (lambda x: [], {}, "neither `completions`"),
        (lambda completions, *rest: [], {}, "columns are passed by name"),
        (lambda completions: [], {"columns": {"truth": "answer"}}, "no parameter `truth`; it has completions"),
    ]:
        with pytest.raises(TypeError, match=message):
            wrapped(function, **options)
    with pytest.raises(Fault, match="`arguments`: `completions` is no parameter with a default"):
        wrapped(lambda completions: [], {"arguments": {"completions": []}})
