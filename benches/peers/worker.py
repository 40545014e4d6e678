"""What the peers in Python share: a round for each line on stdin, its result as a line of JSON on stdout.

compare.py starts a worker once, so imports and warm-up are paid once, and lets it take turns with plumb. A worker prints
`{"versions": {...}}` when it is ready, then for each round `{"value": ..., "peak_rss_mib": ...}`.
"""

import importlib.metadata
import json
import os
import resource
import sys

# Whatever libraries print goes to stderr; stdout is the protocol's.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def say(answer: dict) -> None:
    print(json.dumps(answer), file=_answers, flush=True)


def ready(*packages: str) -> None:
    """Says which versions are measured, once all is loaded and warm."""
    say({"versions": {package: importlib.metadata.version(package) for package in packages}})


def wait() -> bool:
    """Waits for a round to be asked for; False when there are no more."""
    return bool(sys.stdin.readline())


def result(value: float) -> None:
    """Answers a round: seconds or a rate, as compare.py expects of this worker."""
    say({"value": value, "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
