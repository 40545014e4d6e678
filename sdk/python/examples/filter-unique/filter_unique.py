"""Drops repetitions of a completion within its group: they weigh a sample twice and say nothing new."""

from plumb_sdk import Batch, Decision, Filter


class Unique(Filter):
    """Keeps the first of equal completions, white space aside."""

    name = "filter-unique"
    version = "0.1.0"
    needs_columns = ("completion",)

    def select(self, batch: Batch) -> Decision:
        decision = Decision.keep_all(len(batch))
        completions = batch.text("completion")
        for group in batch.groups():
            first: dict[str, int] = {}
            for row in group:
                same = first.setdefault(" ".join(completions[row].split()), row)
                if same != row:
                    decision.drop_row(row, f"the same as row {same}")
        return decision
