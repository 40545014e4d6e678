from filter_unique import Unique

from plumb_sdk import testing
from plumb_sdk.testing import BatchBuilder


def test_the_first_of_equal_completions_is_kept_per_group():
    batch = BatchBuilder().text("completion", ["a b", "c", "a  b", "c"]).groups([3, 4]).build()
    decision = testing.configure(Unique).select(batch)
    assert decision.keep == [True, True, False, True] and decision.reasons == [(2, "the same as row 0")]
