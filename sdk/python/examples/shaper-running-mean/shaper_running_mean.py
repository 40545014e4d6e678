"""Subtracts a running mean of all values seen so far: the simplest baseline."""

import json
import math
from dataclasses import dataclass

from plumb_sdk import Batch, Fault, Shaper, State


@dataclass
class Config:
    """What a recipe may set."""

    momentum: float = 0.9
    """Share of the old mean in the new one."""


class RunningMean(State, Shaper):
    """`value - mean`, with the mean of the batches before; it is updated afterwards."""

    name = "shaper-running-mean"
    version = "0.1.0"
    needs_columns = ("value",)
    state_version = 1

    def __init__(self, config: Config) -> None:
        if not 0 <= config.momentum < 1:
            raise Fault.bad_config("`momentum` must be in [0, 1)")
        self.momentum = config.momentum
        self.mean: float | None = None

    def shape(self, batch: Batch) -> list[float]:
        values = batch.f64s("value")
        known = [value for value in values if not math.isnan(value)]
        shaped = [value - (self.mean or 0.0) for value in values]
        if known:
            now = math.fsum(known) / len(known)
            self.mean = now if self.mean is None else self.momentum * self.mean + (1 - self.momentum) * now
        return shaped

    def save(self) -> bytes:
        return json.dumps({"mean": self.mean}).encode()

    def load(self, from_version: int, data: bytes) -> None:
        self.mean = json.loads(data)["mean"]
