"""See `tests/conformance/README.md`: the reward."""

import math
import os
import struct
from dataclasses import dataclass
from functools import reduce

from plumb_sdk import Batch, Fault, Rewards, Row, Score, Spans, StatefulReward, kv, log, metrics, random


@dataclass
class Config:
    bonus: float = 0.5
    marker: str = "é"


class Conformance(StatefulReward):
    name = "conformance-reward"
    version = "0.1.0"
    needs_columns = ("completion",)
    outputs = ("bytes", "words", "x", "negated", "list", "tokens", "logprobs", "blob", "count", "seen", "learnt", "draw", "uniform")
    state_version = 3

    def __init__(self, config: Config) -> None:
        if config.marker == "":
            raise Fault.bad_config("`marker` must not be empty")
        self.config = config
        self.scored, self.sum = 0, 0.0
        """Rows that earlier steps gave a value, and its sum."""

    def score(self, batch: Batch) -> Rewards:
        if batch.attr("fail") == "fault":
            raise Fault("told-to", f"step {batch.step}")
        before = kv.get("seen")
        (seen,) = struct.unpack("<Q", before) if before is not None else (0,)
        kv.set("seen", struct.pack("<Q", seen + batch.rows))
        kv.set(f"step/{batch.step}", b"")
        if batch.step > 0:
            kv.delete(f"step/{batch.step - 1}")
        rewards = Rewards()
        marks, tail = Spans("marks", "char", [], [], [], []), Spans("tail", "token", [], [], [], [])
        for row in batch:
            try:
                rewards.push(self.row(row, seen))
                self.spans(row, marks, tail)
            except Fault as fault:
                rewards.push(fault)
        metrics.count("texts", batch.rows)
        metrics.observe("chars", [float(len(text)) for text in batch.text("completion")])
        log.info(
            f"scored {batch.rows} rows ✓",
            columns=",".join(batch.columns()),
            groups=" ".join(f"{group.start}-{group.stop}" for group in batch.groups()),
            keys=",".join(kv.keys("s")),
            stage=batch.attr("recipe_stage") or "none",
        )
        rewards.spans = [spans for spans in (marks, tail) if spans.rows]
        return rewards

    def row(self, row: Row, seen: int) -> Score:
        text, batch, at = row.text("completion"), row.batch, row.index
        if text == "":
            raise Fault.abstain(f"row {row.id} is empty")
        if (place := text.find("FAIL")) >= 0:
            raise Fault("told-to", f"the text says FAIL at {place}", retryable=True)
        if "PANIC" in text:
            os._exit(1)  # ends the instance, as a panic does in Rust; an exception would be a fault of its own
        xs = batch.find_f64s("x")
        x = xs[at] if xs is not None else 0.0
        words = len([word for word in text.split(" ") if word])
        value = self.config.bonus * len(text) + words / 3 + (0.0 if math.isnan(x) else x)
        parts = {"bytes": float(len(text.encode()))}
        if words > 1:
            parts["words"] = float(words)
        if xs is not None:
            parts["x"] = x
            parts["negated"] = -x
        if (lists := batch.find_f64_lists("list")) is not None:
            parts["list"] = reduce(lambda total, x: total + x * 0.1, lists[at], 0.0)
        if (tokens := batch.find_tokens("completion_ids")) is not None:
            parts["tokens"] = reduce(lambda total, token: total * 0.5 + token, tokens[at], 0.0)
        if (logprobs := batch.find_token_f32s("old_logprobs")) is not None:
            parts["logprobs"] = reduce(lambda total, p: total + p, logprobs[at], 0.0)
        if (blobs := batch.find_bytes("blob")) is not None:
            parts["blob"] = reduce(lambda total, byte: total * 2.0 + byte, blobs[at], 0.0)
        if (counts := batch.find_u32s("count")) is not None:
            parts["count"] = float(counts[at])
        parts["seen"] = float(seen)
        parts["learnt"] = self.scored + self.sum / 2.0
        mixed = reduce(lambda mixed, draw: mixed ^ draw, random.draw("noise", row.id, 3), 0)
        parts["draw"] = (mixed >> 32) * 0.5 + (mixed & 0xFFFFFFFF)
        parts["uniform"] = random.uniform("noise", row.id, 1)[0]
        return Score(value, parts)

    def spans(self, row: Row, marks: Spans, tail: Spans) -> None:
        """A stretch for each marker, and one over the last token."""
        text, marker = row.text("completion"), self.config.marker
        start = text.find(marker)
        while start >= 0:
            push(marks, row.index, start, start + len(marker), start * 0.25)
            start = text.find(marker, start + len(marker))
        tokens = row.batch.find_tokens("completion_ids")
        length = len(tokens[row.index]) if tokens is not None else 0
        if length > 0:
            push(tail, row.index, length - 1, length, -1.0)

    def observe(self, batch: Batch, rewards: Rewards) -> None:
        faulty = {fault.row for fault in rewards.faults}
        for row, value in enumerate(rewards.values):
            if row not in faulty:
                self.scored += 1
                self.sum += value

    def save(self) -> bytes:
        return struct.pack("<Qd", self.scored, self.sum)

    def load(self, from_version: int, data: bytes) -> None:
        self.scored, self.sum = read(from_version, data)

    def merge(self, states: list[bytes]) -> None:
        before = self.scored, self.sum
        for state in states:
            scored, total = read(3, state)
            self.scored += scored - before[0]
            self.sum += total - before[1]
        if self.scored > 1000:
            raise Fault("told-to", f"{self.scored} rows are more than 1000")


def read(version: int, data: bytes) -> tuple[int, float]:
    if version != 3 or len(data) != 16:
        raise Fault("bad-state", f"{len(data)} bytes of version {version}")
    scored, total = struct.unpack("<Qd", data)
    return scored, total


def push(spans: Spans, row: int, start: int, stop: int, value: float) -> None:
    spans.rows.append(row)
    spans.starts.append(start)
    spans.stops.append(stop)
    spans.values.append(value)
