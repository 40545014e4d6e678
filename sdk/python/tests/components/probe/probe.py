"""Does what a completion says: what each row gets, and what the sandbox answers."""

import asyncio  # noqa: F401
import datetime
import importlib
import logging
import math
import os
import random as chance
import signal
import socket
import subprocess
import threading
import time
from ctypes import c_long, sizeof

import late
from plumb_sdk import Fault, Reward, Row, Score, kv, log, metrics, random


def imports_of_functions():
    """Both are in the component, since they stand in the code."""
    from colorsys import rgb_to_hsv

    return rgb_to_hsv(0.5, 0.5, 0.5)[2] + late.half()


def late_import():
    return importlib.import_module("wave")


def caught_import():
    """As libraries do it: with less, and another answer."""
    try:
        return late_import()
    except ImportError:
        return 0.0


def optional_import():
    """A Python with the same packages has it neither."""
    try:
        import no_such_package
    except ImportError:
        return 1.0
    return no_such_package


def deep(n=0):
    return deep(n + 1)


def fill():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def spin():
    while True:
        pass


ACTIONS = {
    "length": lambda row: float(len(row.text("completion"))),
    "parts": lambda row: Score(1.0, {"two": 2.0, "three": 3.0}),
    "uniform": lambda row: random.uniform("noise", row.id, 1)[0],
    "chance": lambda row: chance.Random().random(),
    "raise": lambda row: int("x"),
    "abstain": lambda row: abstain(),
    "exit": lambda row: exit_(),
    "nan": lambda row: math.nan,
    "missing": lambda row: row.f64("no such column"),
    "imports of functions": lambda row: imports_of_functions(),
    "late import": lambda row: late_import(),
    "caught import": lambda row: caught_import(),
    "optional import": lambda row: optional_import(),
    "deep": lambda row: deep(),
    "fill": lambda row: fill(),
    "spin": lambda row: spin(),
    "open": lambda row: open("/etc/passwd").read(),
    "stat": lambda row: os.stat("/"),
    "urandom": lambda row: os.urandom(1),
    "socket": lambda row: socket.socket(),
    "thread": lambda row: threading.Thread(target=print).start(),
    "process": lambda row: subprocess.run(["ls"]),
    "clock": lambda row: time.time() + time.monotonic() + datetime.datetime.now(datetime.timezone.utc).timestamp(),
    "sleep": lambda row: time.sleep(3600) or 1.0,
    "alarm": lambda row: float(signal.signal(signal.SIGALRM, print) == signal.SIG_DFL and signal.alarm(1)),
    "ctypes": lambda row: float(sizeof(c_long)),
    "print": lambda row: print("printed", 1, end="") or 1.0,
    "log": lambda row: log.warn("odd", row=row.index) or logging.warning("by logging") or metrics.count("seen") or 1.0,
    "kv": lambda row: kv.set("k", b"v") or float(kv.get("k") == b"v"),
}


def abstain():
    raise Fault.abstain("not mine")


def exit_():
    raise SystemExit(3)


class Probe(Reward):
    """The value of the completion's action."""

    name = "python-probe"
    version = "0.1.0"
    needs_columns = ("completion",)
    outputs = ("two", "three")

    def score_row(self, row: Row) -> float | Score:
        action = ACTIONS.get(row.text("completion"))
        if action is None:
            raise Fault("no-such-action", row.text("completion"))
        return action(row)
