"""See `tests/conformance/README.md`: the shaper with state."""

import math
import os
import struct
from dataclasses import dataclass

from plumb_sdk import Batch, Fault, Ragged, RowFault, Shaped, Shaper, State, log


@dataclass
class Config:
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("`share` must be in [0, 1]")


class Conformance(State, Shaper):
    name = "conformance-shaper"
    version = "0.1.0"
    needs_columns = ("value",)
    outputs = ("running", "group_mean")
    state_version = 2

    def __init__(self, config: Config) -> None:
        self.share, self.count, self.mean = config.share, 0, 0.0

    def shape(self, batch: Batch) -> Shaped:
        values = batch.f64s("value")
        before = self.mean
        shaped, means, faults = list(values), [math.nan] * batch.rows, []
        for place, group in enumerate(batch.groups()):
            known = [row for row in group if not math.isnan(values[row])]
            total = 0.0
            for row in known:
                total += values[row]
                self.count += 1
                self.mean += (values[row] - self.mean) / self.count
            if not known:
                log.warn(f"group {place} has no value")
            for row in known:
                means[row] = total / len(known)
                shaped[row] = values[row] + self.share * (means[row] - values[row])
                if abs(values[row]) > 1e9:
                    faults.append(RowFault(row, Fault("too-large", "beyond 1e9")))
        if batch.attr("fail") == "fault":
            raise Fault("told-to", "after it counted")
        if batch.attr("fail") == "panic":
            os._exit(1)  # ends the instance, as a panic does in Rust; an exception would be a fault of its own
        logprobs = batch.find_token_f32s("old_logprobs")
        tokens = None if logprobs is None else Ragged.of([[p * self.share for p in row] for row in logprobs])
        return Shaped(shaped, tokens, {"running": [before] * batch.rows, "group_mean": means}, faults)

    def save(self) -> bytes:
        return struct.pack("<Qd", self.count, self.mean)

    def load(self, from_version: int, data: bytes) -> None:
        if from_version != 2 or len(data) != 16:
            raise Fault("bad-state", f"{len(data)} bytes of version {from_version}")
        self.count, self.mean = struct.unpack("<Qd", data)
