"""What the judge asks, and what it makes of the answers."""

import re
from dataclasses import dataclass

from plumb_sdk import Ask, Batch, Fault, Generated, Judge, Question, RowFault, Sampling, Verdicts

GRADE = re.compile(r"\b(10|[0-9])\b")


@dataclass
class Config:
    """What a recipe may set."""

    model: str = "policy"
    """Name of the model that is asked."""


class Grade(Judge):
    """Asks a model for a grade between 0 and 10."""

    name = "judge-grade"
    version = "0.1.0"
    needs_columns = ("prompt", "completion")

    def __init__(self, config: Config) -> None:
        self.config = config

    def begin(self, batch: Batch) -> Ask:
        rows = zip(batch.text("prompt"), batch.text("completion"))
        prompts = [f"Task:\n{prompt}\n\nAnswer:\n{completion}\n\nGrade from 0 to 10: " for prompt, completion in rows]
        return Ask([Question(self.config.model, prompts, Sampling.greedy(4))])

    def resume(self, batch: Batch, memo: bytes, answers: list[Generated]) -> Verdicts:
        verdicts = Verdicts(scores=[], rationales=answers[0].text)
        for row, text in enumerate(answers[0].text):
            grade = GRADE.search(text)
            if grade is None:
                verdicts.faults.append(RowFault(row, Fault.unparseable(f"no grade in {text!r}")))
            verdicts.scores.append(float(grade[1]) / 10 if grade else 0.0)
        return verdicts
