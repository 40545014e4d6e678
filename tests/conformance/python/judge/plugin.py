"""See `tests/conformance/README.md`: the judge."""

import math
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from plumb_sdk import (
    Ask, Batch, Fault, Generated, Judge, MatrixVerdicts, PairVerdicts, Question, RowFault, Sampling, Verdicts, kv, log, metrics,
)  # fmt: skip


@dataclass
class Config:
    form: str = "pointwise"
    model: str = "judge"


class Conformance(Judge):
    name = "conformance-judge"
    version = "0.1.0"
    needs_columns = ("prompt", "completion")
    outputs = ("tokens", "logprob", "rank")

    def __init__(self, config: Config) -> None:
        if config.form not in ("pointwise", "pairwise", "listwise", "matrix"):
            raise Fault.bad_config(f"no form `{config.form}`")
        self.form, self.model = config.form, config.model

    def begin(self, batch: Batch) -> Ask | Verdicts:
        told_to(batch, "begin")
        match self.form:
            case "pointwise":
                questions = [self.grades(batch)]
            case "pairwise":
                questions = self.comparisons(batch)
            case "listwise":
                questions = [self.rankings(batch)]
            case _:
                questions = self.edges(batch)
        if not any(question.prompts for question in questions):
            return self.read(batch, b"first", [])
        log.debug(f"asks {len(questions)} questions")
        return Ask(questions, b"first")

    def resume(self, batch: Batch, memo: bytes, answers: list[Generated]) -> Ask | Verdicts:
        told_to(batch, "resume")
        metrics.observe("answer", [float(len(text)) for answer in answers for text in answer.text])
        return self.read(batch, memo, answers)

    def grades(self, batch: Batch) -> Question:
        """A question about each row that has a completion, answered twice."""
        prompts, completions = batch.text("prompt"), batch.text("completion")
        sampling = Sampling(8, 0.75, 0.9, 2, batch.step + 7, ["\n", "。"], [("style", "brief é")])
        asked = [f"Grade „{completions[row]}“ for {prompts[row]}: " for row in written(batch)]
        return Question(self.model, asked, sampling)

    def comparisons(self, batch: Batch) -> list[Question]:
        """A question for each group of two rows or more, about each of its pairs."""
        texts = batch.text("completion")

        def question(place: int, group: range) -> Question:
            prompts = [f"A: {texts[i]}\nB: {texts[j]}\nBetter: " for i, j in upper(group)]
            return Question(self.model, prompts, Sampling(1, count=2, seed=place))

        return [question(place, group) for place, group in enumerate(batch.groups()) if len(group) > 1]

    def rankings(self, batch: Batch) -> Question:
        """A question about each group as a whole."""
        texts = batch.text("completion")
        lists = ["".join(f"{row - group.start}) {texts[row]}\n" for row in group) for group in batch.groups() if group]
        return Question(self.model, [f"{lines}Best first: " for lines in lists], Sampling.greedy(16))

    def edges(self, batch: Batch) -> list[Question]:
        """Two questions: how far a row is better than one behind it, and the reverse, which another model is asked."""
        texts = batch.text("completion")
        pairs = [pair for group in batch.groups() for pair in upper(group)]

        def ask(model: str, pairs: Iterable[tuple[int, int]]) -> Question:
            return Question(model, [f"{texts[i]} over {texts[j]}: " for i, j in pairs], Sampling.greedy(3))

        return [ask(self.model, pairs), ask("critic", [(j, i) for i, j in pairs])]

    def read(self, batch: Batch, memo: bytes, answers: list[Generated]) -> Ask | Verdicts:
        """What the answers of a turn say."""
        texts = [answer.text for answer in answers]
        match self.form:
            case "pointwise":
                verdicts = self.graded(batch, memo, answers)
                if isinstance(verdicts, Ask):
                    return verdicts
            case "pairwise":
                verdicts = compared(batch, texts)
            case "listwise":
                verdicts = ranked(batch, texts)
            case _:
                verdicts = weighed(batch, texts)
        before = kv.get("judged")
        (judged,) = struct.unpack("<Q", before) if before is not None else (0,)
        kv.set("judged", struct.pack("<Q", judged + batch.rows))
        metrics.count("rows", batch.rows)
        log.info(f"judged {batch.rows} rows ✓", form=self.form, before=judged)
        return verdicts

    def graded(self, batch: Batch, memo: bytes, answers: list[Generated]) -> Ask | Verdicts:
        """Grades, or a second question about the rows of which no answer can be read."""
        asked, grades = written(batch), [-1.0] * batch.rows
        samples = 2 if memo == b"first" else 1
        if memo == b"first":
            for place, row in enumerate(asked):
                read = [g for text in answers[0].text[2 * place : 2 * place + 2] if (g := grade(text)) is not None]
                if read:
                    grades[row] = reduce(lambda total, grade: total + grade, read, 0.0) / len(read)
            if again := [row for row in asked if grades[row] < 0]:
                question = Question("critic", [f"Row {row}, digits only: " for row in again], Sampling.greedy(2))
                return Ask([question], struct.pack(f"<{len(grades)}d", *grades))
        else:
            grades = list(struct.unpack(f"<{len(memo) // 8}d", memo))
            asked = [row for row in asked if grades[row] < 0]
            for place, row in enumerate(asked):
                read_again = grade(answers[0].text[place])
                grades[row] = -1.0 if read_again is None else read_again
        tokens, logprobs, rationales = [math.nan] * batch.rows, [math.nan] * batch.rows, [""] * batch.rows
        for place, row in enumerate(asked):
            answer, first = answers[0], place * samples
            tokens[row] = reduce(lambda total, token: total * 0.5 + token, answer.tokens[first], 0.0)
            logprobs[row] = reduce(lambda total, logprob: total + logprob, answer.logprobs[first], 0.0)
            rationales[row] = f"{answer.finish[first]}: {answer.text[first]}"
        faults = []
        for row, text in enumerate(batch.text("completion")):
            if grades[row] < 0:
                lost = Fault(Fault.UNPARSEABLE, f"row {row} has no grade", retryable=True)
                faults.append(RowFault(row, lost if text else Fault.abstain("∅")))
        scores = [math.nan if grade < 0 else grade for grade in grades]
        return Verdicts(scores, rationales=rationales, parts={"tokens": tokens, "logprob": logprobs}, faults=faults)


def compared(batch: Batch, answers: list[list[str]]) -> Verdicts:
    """The share of a pair's two votes; a pair without a vote that can be read has no verdict."""
    pairs = PairVerdicts()
    for group, texts in zip([group for group in batch.groups() if len(group) > 1], answers):
        for place, (i, j) in enumerate(upper(group)):
            votes = [v for text in texts[2 * place : 2 * place + 2] if (v := vote(text)) is not None]
            if not votes:
                metrics.count("unreadable")
                continue
            pairs.first.append(i)
            pairs.second.append(j)
            pairs.probability.append(reduce(lambda total, vote: total + vote, votes, 0.0) / len(votes))
    return Verdicts(pairs=pairs)


def ranked(batch: Batch, answers: list[list[str]]) -> Verdicts:
    """1 for the best of a group and 0 for its last."""
    scores, ranks, rationales, faults = [0.0] * batch.rows, [math.nan] * batch.rows, [""] * batch.rows, []
    for place, group in enumerate(group for group in batch.groups() if group):
        order = ranking(answers[0][place], len(group))
        for row in group:
            rationales[row] = answers[0][place]
            if order:
                rank = order.index(row - group.start)
                ranks[row] = float(rank)
                scores[row] = 1.0 - (rank / (len(group) - 1) if len(group) > 1 else 0.0)
            else:
                faults.append(RowFault(row, Fault.unparseable(f"group {place} has no ranking")))
    return Verdicts(scores, rationales=rationales, parts={"rank": ranks}, faults=faults)


def weighed(batch: Batch, answers: list[list[str]]) -> Verdicts:
    """Half the difference of the two answers about a pair, where both can be read."""
    matrices = MatrixVerdicts()
    pairs = zip(*answers)
    for group in batch.groups():
        n, start = len(group), len(matrices.values)
        matrices.values += [0.0] * (n * n)
        matrices.readable += [True] * (n * n)
        for i, j in upper(range(n)):
            ij, ji = start + i * n + j, start + j * n + i
            over, under = map(grade, next(pairs))
            if over is None or under is None:
                matrices.readable[ij] = matrices.readable[ji] = False
            else:
                matrices.values[ij] = (over - under) / 2
                matrices.values[ji] = (under - over) / 2
    return Verdicts(matrices=matrices)


def told_to(batch: Batch, export: str) -> None:
    """Fails or breaks if the batch says so of this export."""
    if batch.attr("fail") == f"{export}: fault":
        raise Fault("told-to", f"step {batch.step}")
    if batch.attr("fail") == f"{export}: panic":
        os._exit(1)  # ends the instance, as a panic does in Rust; an exception would be a fault of its own


def written(batch: Batch) -> list[int]:
    """Rows that have a completion."""
    return [row for row, text in enumerate(batch.text("completion")) if text]


def upper(group: range) -> list[tuple[int, int]]:
    """The pairs of a group, each once."""
    return [(i, j) for i in group for j in range(i + 1, group.stop)]


def grade(text: str) -> float | None:
    """The digits that a text begins with, three at most, in tenths."""
    digits = re.match(r" *([0-9]{1,3})", text)
    return int(digits[1]) / 10 if digits else None


def vote(text: str) -> float | None:
    """1 for A, 0 for B and 0.5 for a tie."""
    return {"A": 1.0, "B": 0.0, "=": 0.5}.get(text.lstrip(" ")[:1])


def ranking(text: str, n: int) -> list[int]:
    """`1 > 0 > 2` as places; empty unless it names each of `n` rows once."""
    places = [place.strip(" ") for place in text.split(">")]
    complete = len(places) == n and all(str(row) in places for row in range(n))
    return list(map(int, places)) if complete else []
