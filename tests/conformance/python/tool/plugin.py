"""See `tests/conformance/README.md`: the tool."""

import os
from dataclasses import dataclass

from plumb_sdk import Fault, Tool, log


@dataclass
class Config:
    prefix: str = ">"


@dataclass
class Arguments:
    text: str
    times: int


class Conformance(Tool):
    name = "conformance-tool"
    version = "0.1.0"

    def __init__(self, config: Config) -> None:
        if config.prefix == "":
            raise Fault.bad_config("`prefix` must not be empty")
        self.prefix = config.prefix

    def call(self, arguments: Arguments) -> str:
        text, times = arguments.text, arguments.times
        if times < 0:
            raise Fault(Fault.BAD_ARGUMENTS, "`times` must not be negative")
        if text == "":
            raise Fault("nothing", "∅", retryable=True)
        if "PANIC" in text:
            os._exit(1)  # ends the instance, as a panic does in Rust; an exception would be a fault of its own
        log.info("repeats", text=text)
        return f"{self.prefix}{text * times} {len(text)}"
