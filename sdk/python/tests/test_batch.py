import math

import pytest

from plumb_sdk import Fault, Ragged
from plumb_sdk.testing import BatchBuilder


def test_missing_column_lists_those_there_are():
    batch = BatchBuilder().text("prompt", ["p"]).text("completion", ["c"]).build()
    with pytest.raises(Fault) as caught:
        batch.text("answer")
    assert caught.value.code == Fault.MISSING_COLUMN
    assert caught.value.message == "no text column `answer`; the batch has `completion`, `prompt`"


def test_columns_are_fetched_once_and_by_type():
    batch = BatchBuilder().text("a", ["x", "yy"]).f64s("v", [1, math.nan]).tokens("ids", [[1, 2], []]).build()
    assert batch.text("a") is batch.text("a")
    assert batch.find_text("b") is None and batch.find_f64s("a") is None
    assert batch.row(1).text("a") == "yy" and math.isnan(batch.row(1).f64("v"))
    assert [row.text("a") for row in batch] == ["x", "yy"]
    assert batch.row(0).tokens("ids") == [1, 2]
    with pytest.raises(IndexError):
        batch.row(2)


def test_groups_are_ranges_of_rows_and_may_be_empty():
    batch = BatchBuilder().f64s("v", [1, 2, 3]).groups([2, 2, 3]).build()
    assert batch.groups() == [range(0, 2), range(2, 2), range(2, 3)]


def test_ragged_rows_are_read_from_both_ends():
    ragged = Ragged.of([[1, 2], [], [3]])
    assert list(ragged) == [[1, 2], [], [3]] and ragged[-1] == [3] and ragged[:2] == [[1, 2], []]
    assert ragged == Ragged([1, 2, 3], [2, 2, 3])
    with pytest.raises(IndexError):
        ragged[3]


@pytest.mark.parametrize(
    "builder",
    [
        BatchBuilder().text("a", ["x"]).text("b", ["x", "y"]),
        BatchBuilder().text("a", ["x"]).row_ids([1, 2]),
        BatchBuilder().text("a", ["x"]).groups([2]),
    ],
)
def test_batches_that_do_not_fit_together_are_refused(builder):
    with pytest.raises(ValueError):
        builder.build()
