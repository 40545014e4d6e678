from judge_grade import Grade

from plumb_sdk import testing
from plumb_sdk.testing import BatchBuilder


def test_answers_become_grades_and_unreadable_ones_faults():
    judge = testing.configure(Grade)
    batch = BatchBuilder().text("prompt", ["p", "p"]).text("completion", ["a", "b"]).build()
    ask = judge.begin(batch)
    assert "Answer:\na" in ask.questions[0].prompts[0]
    verdicts = judge.resume(batch, ask.memo, [testing.generated([" 7", "well"])])
    assert verdicts.scores == [0.7, 0.0]
    assert [fault.row for fault in verdicts.faults] == [1]
