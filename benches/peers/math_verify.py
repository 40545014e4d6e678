"""Items a second of math-verify over a JSONL of `reference` and `completion`, the peer of the plugin `reward-math-answer`.

    pip install math-verify==0.9.0 "latex2sympy2_extended[antlr4_13_2]==1.11.0"
    python benches/peers/math_verify.py plugins/reward-math-answer/tests/math-answers.jsonl

Reference and completion are parsed for every item, as a trainer does. Where the file has `equal`, agreement is printed too.
"""

import json
import logging
import sys
import time

# This file has the name of the module it measures, and stands first in the search path.
sys.path.pop(0)
from math_verify import parse, verify  # noqa: E402


def main() -> None:
    logging.disable(logging.CRITICAL)
    with open(sys.argv[1], encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    # Grammar tables are built on the first use.
    verify(parse("$1$"), parse("$\\frac{1}{2}$"))
    started = time.perf_counter()
    verdicts = [bool(verify(parse(item["reference"]), parse(item["completion"]))) for item in items]
    seconds = time.perf_counter() - started
    known = [(item["equal"], verdict) for item, verdict in zip(items, verdicts) if "equal" in item]
    if known:
        print(f"agreement {sum(equal == verdict for equal, verdict in known)}/{len(known)}")
    print(f"{len(items) / seconds:.0f} items/s")


if __name__ == "__main__":
    main()
