"""Runs Python code and returns what it prints: a code runner for rewards and judges that needs no container.

The code runs in the plugin's own sandbox: no files, network, clock or processes. Fuel bounds its time, the manifest its memory. The
modules imported here are those it may import.
"""

import collections  # noqa: F401
import contextlib
import datetime  # noqa: F401
import decimal  # noqa: F401
import fractions  # noqa: F401
import functools  # noqa: F401
import heapq  # noqa: F401
import io
import itertools  # noqa: F401
import json  # noqa: F401
import math  # noqa: F401
import random
import re  # noqa: F401
import statistics  # noqa: F401
import string  # noqa: F401
import traceback
from dataclasses import dataclass

from plumb_sdk import Tool


@dataclass
class Config:
    """What a recipe may set."""

    max_output: int = 16384
    """Characters of printed text that are returned."""


@dataclass
class Arguments:
    """What it is called with."""

    code: str


class Python(Tool):
    """`{"code": "print(6 * 7)"}` gives `{"stdout": "42\\n", "error": null}`.

    An exception of the code is a result, too: `error` holds its type, text and line. Code that takes too much fuel or memory fails
    its call.
    """

    name = "tool-python"
    version = "0.1.0"

    def __init__(self, config: Config) -> None:
        self.config = config

    def call(self, arguments: Arguments) -> dict[str, str | None]:
        printed = io.StringIO()
        error = None
        random.seed(0)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(arguments.code, "<code>", "exec"), {"__name__": "__main__"})
            except MemoryError:
                raise
            except (Exception, SystemExit) as raised:
                error = _told(raised)
        stdout = printed.getvalue()
        return {"stdout": stdout[: self.config.max_output], "error": error}


def _told(raised: BaseException) -> str | None:
    """Type, text and line of what the code raised; None for an exit without a reason."""
    if isinstance(raised, SystemExit) and raised.code in (None, 0):
        return None
    lines = [line for frame, line in traceback.walk_tb(raised.__traceback__) if frame.f_code.co_filename == "<code>"]
    line = lines[-1] if lines else getattr(raised, "lineno", None)
    return f"{type(raised).__name__}: {raised}" + (f" (line {line})" if line else "")
