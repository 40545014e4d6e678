"""See `tests/conformance/README.md`: the filter."""

import math
from dataclasses import dataclass

from plumb_sdk import Batch, Decision, Filter, Pairs, Relabel


@dataclass
class Config:
    min_value: float = 0.25


class Conformance(Filter):
    name = "conformance-filter"
    version = "0.1.0"
    needs_columns = ("value", "completion")
    outputs = ("kept",)

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, batch: Batch) -> Decision:
        values, texts = batch.f64s("value"), batch.text("completion")
        decision, pairs, relabel = Decision.keep_all(batch.rows), Pairs(), Relabel("completion", [], [])
        kept = [0.0] * batch.rows
        for row, value in enumerate(values):
            if math.isnan(value):
                decision.drop_row(row, "no value")
            elif value < self.config.min_value:
                decision.drop_row(row, f"row {batch.row_ids[row]} is low ↓")
            if texts[row].endswith(" "):
                relabel.rows.append(row)
                relabel.texts.append(f"{texts[row][:-1]}é😀")
        for place, group in enumerate(batch.groups()):
            count = sum(decision.keep[row] for row in group)
            for row in group:
                kept[row] = float(count)
            if count == 0 and len(group) > 0:
                decision.regenerate.append(place)
            # The first of the best, and the first of the worst.
            known = [row for row in group if not math.isnan(values[row])]
            if not known:
                continue
            best, worst = max(known, key=lambda row: values[row]), min(known, key=lambda row: values[row])
            margin = values[best] - values[worst]
            if margin > 0:
                pairs.chosen.append(best)
                pairs.rejected.append(worst)
                pairs.probability.append(0.5 + margin / (2.0 * (1.0 + margin)))
                pairs.margin.append(margin)
                pairs.level.append(place)
        decision.weights = [0.0 if math.isnan(value) else 1.0 / (1.0 + abs(value)) for value in values]
        decision.pairs = pairs
        if relabel.rows:
            decision.relabels.append(relabel)
        decision.parts["kept"] = kept
        return decision
