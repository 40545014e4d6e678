import pytest
from reward_regex import Regex

from plumb_sdk import Fault, testing
from plumb_sdk.testing import BatchBuilder


def test_completions_with_the_pattern_get_one_and_their_numbers():
    batch = BatchBuilder().text("completion", ["the answer is -7", "no idea"]).build()
    rewards = testing.configure(Regex).score(batch)
    assert rewards.values == [1.0, 0.0] and rewards.parts["answer"][0] == -7.0


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(Fault, match="`pattern`: missing \\)"):
        testing.configure(Regex, {"pattern": "("})
