"""plumb and its peers on the same work, in turns: ratios that survive a machine whose speed drifts.

    benches/peers/setup.sh DIR MODEL.gguf
    DIR/venv/bin/python benches/peers/compare.py DIR [--rounds 5] [--only decode,prefill,train,grpo,dpo,reward-model] [--plumb PATH]

Each row is some work. A round of it runs the peer and `plumb bench`, one after the other, and the next round in the other order; the ratio is
taken within a round. The table has the median of the ratios and their span. What fails is reported as failed, is not tried
again, and makes the exit code 1. Results go to stdout as Markdown, progress to stderr, every number to DIR/compare.jsonl.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
GROUPS = ["decode", "prefill", "train", "grpo", "dpo", "reward-model"]


class Failed(Exception):
    """A program did not do what it was asked; its message ends with the program's own words."""


@dataclasses.dataclass
class Round:
    """A figure of one program, and the most memory it held."""

    value: float
    peak_rss_mib: float


def run(command: list[str]) -> tuple[str, float]:
    """What a program prints and its peak memory, read while it runs: a child's ru_maxrss would begin with this process's size."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                return
            peak[0] = max([peak[0], *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = process.communicate()
    watcher.join()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {process.returncode}: {errors.strip()[-800:]}")
    return out, peak[0] / 1024


class Plumb:
    """One `plumb bench` a round."""

    def __init__(self, setup: argparse.Namespace, arguments: list[str], figure: Callable[[dict], float]):
        # Nothing here is held against ceilings, so they are measured over little.
        options = ["--rounds", "1", "--ceiling-mib", "8", "--threads", str(setup.threads), "--json"]
        self.command, self.figure = [setup.plumb, "bench", *arguments, *options], figure

    def round(self) -> Round:
        data = json.loads(run(self.command)[0])["data"]
        return Round(self.figure(data), data["peak_rss_mib"])

    def close(self) -> None:
        pass


class Llama:
    """One run of llama-batched-bench a round. It has no sampler: it decodes given tokens."""

    def __init__(self, setup: argparse.Namespace, weights: str, prompt: int, new: int, batch: int, figure: Callable[[dict], float], shared: bool = False):
        threads, context = str(setup.threads), batch * (prompt + new)
        model = next(iter(sorted((setup.dir / "gguf").glob(f"*-{weights}.gguf"))), None)
        if model is None:
            raise Failed(f"there is no *-{weights}.gguf in {setup.dir / 'gguf'}: run setup.sh")
        self.command = [
            str(setup.dir / "llama-build/bin/llama-batched-bench"), "-m", str(model), "-c", str(context), "-b", "2048", "-ub", "512",
            "-npp", str(prompt), "-ntg", str(new), "-npl", str(batch), "-t", threads, "-tb", threads, "--output-format", "jsonl",
            *(["-pps"] if shared else []),
        ]
        self.figure = figure

    def round(self) -> Round:
        out, peak = run(self.command)
        line = next((line for line in out.splitlines() if line.startswith("{")), None)
        if line is None:
            raise Failed(f"{' '.join(self.command)}: no result in {out[-300:]!r}")
        return Round(self.figure(json.loads(line)), peak)

    def close(self) -> None:
        pass


class Worker:
    """A peer in Python that stays loaded and does a round when it is asked: see worker.py."""

    versions: dict[str, str] = {}

    def __init__(self, setup: argparse.Namespace, script: str, arguments: list[str]):
        command = [sys.executable, str(HERE / script), *arguments, "--threads", str(setup.threads)]
        self.log = open(setup.dir / "compare-worker.log", "w+", encoding="utf-8")
        # Threads of an idle peer that spin would take plumb's turn.
        quiet = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(setup.threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **quiet}
        )
        Worker.versions |= self.answer()["versions"]

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise Failed(f"{' '.join(self.process.args)}: exit {self.process.returncode}: {self.log.read().strip()[-800:]}")
        return json.loads(line)

    def round(self) -> Round:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Round(**self.answer())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


@dataclasses.dataclass
class Row:
    """Work that both do. `better` says whether more or less of the figure is faster."""

    group: str
    name: str
    peer_name: str
    unit: str
    better: str
    plumb: Callable[[], Plumb]
    peer: Callable[[], Llama | Worker]
    note: int | None = None


NOTES = [
    "llama-batched-bench has no sampler and keeps no log-probabilities: it decodes given tokens. plumb's figure includes both. Its keys and values are float16, plumb's float32.",
    "Whole rollouts, prompts included. plumb has 4 prompts with 8 completions each. llama-batched-bench knows either one prompt that all 32 share (a quarter of plumb's prompt tokens) or 32 prompts.",
    "TRL's defaults: bfloat16 autocast and gradient checkpointing. plumb trains in float32; bf16 in the name means the weights that sample.",
    "plumb with `--precision medium`: the factors of matrix products are bfloat16, all else is float32. Where the processor has no matrix unit they are float32 too.",
]


def rows(setup: argparse.Namespace) -> list[Row]:
    hf = str(setup.dir / "hf")
    hf_bf16 = str(setup.dir / "hf-bf16")
    first = lambda name: lambda data: data["rows"][0][name]["median"]  # noqa: E731
    phase = lambda name: lambda data: next(row for row in data["rows"] if row["name"] == name)["s"]["median"]  # noqa: E731
    step = phase("step")
    all_rows: list[Row] = []

    def add(group: str, name: str, peer_name: str, unit: str, plumb: list[str], figure, peer, note: int | None = None) -> None:
        better = "less" if unit == "s" else "more"
        arguments = [plumb[0], "--model", hf, *plumb[1:]]
        all_rows.append(Row(group, name, peer_name, unit, better, lambda: Plumb(setup, arguments, figure), peer, note))

    def llama(weights: str, prompt: int, new: int, batch: int, figure, shared: bool = False):
        return lambda: Llama(setup, weights, prompt, new, batch, figure, shared)

    def torch(*arguments: str):
        return lambda: Worker(setup, "torch_peer.py", list(arguments))

    def trl(*arguments: str):
        return lambda: Worker(setup, "trl_peer.py", [*arguments, "--rounds", str(setup.rounds)])

    decode = lambda data: data["speed_tg"]  # noqa: E731
    for batch in (1, 16):
        for weights, model, dtype in (("f32", hf, "float32"), ("bf16", hf_bf16, "bfloat16")):
            ours = ["decode", "--batch", str(batch), "--weights", weights]
            figure = first("decode_tokens_per_s")
            name = f"decode, batch {batch}, {weights}"
            add("decode", name, "llama.cpp", "tokens/s", ours, figure, llama(weights, 64, 128, batch, decode), 0)
            peer = torch("decode", model, "--dtype", dtype, "--batch", str(batch))
            add("decode", name, "transformers", "tokens/s", ours, figure, peer)
    ours = ["decode", "--batch", "1", "--weights", "int8"]
    add("decode", "decode, batch 1, 8-bit", "llama.cpp q8_0", "tokens/s", ours, first("decode_tokens_per_s"), llama("q8_0", 64, 128, 1, decode), 0)
    for weights in ("f32", "bf16"):
        ours = ["decode", "--batch", "32", "--group", "8", "--prompt-tokens", "256", "--weights", weights]
        whole = lambda data: 32 * 128 / data["t"]  # noqa: E731
        for shared, what in ((True, "one prompt"), (False, "32 prompts")):
            peer = llama(weights, 256, 128, 32, whole, shared)
            add("decode", f"rollout, 4 × 8 of 256 + 128, {weights}", f"llama.cpp, {what}", "tokens/s", ours, first("tokens_per_s"), peer, 1)

    rate = first("prefill_tokens_per_s")
    peer = llama("f32", 512, 1, 1, lambda data: data["speed_pp"])
    add("prefill", "prefill 512, f32", "llama.cpp", "tokens/s", ["prefill", "--weights", "f32"], rate, peer)
    peer = torch("prefill", hf_bf16, "--dtype", "bfloat16", "--tokens", "512")
    add("prefill", "prefill 512, bf16", "transformers", "tokens/s", ["prefill", "--weights", "bf16"], rate, peer)

    ours = ["train-step", "--loss", "sft", "--batch", "8", "--length", "192"]
    sizes = ["--batch", "8", "--tokens", "192"]
    add("train", "cross-entropy step, 8 × 192, f32", "torch", "s", ours, step, torch("ce", hf, *sizes))
    narrow = [*ours, "--precision", "medium"]
    add("train", "cross-entropy step, 8 × 192, bf16", "torch autocast", "s", narrow, step, torch("ce", hf, *sizes, "--autocast"), 3)

    for weights in ("f32", "bf16"):
        ours = ["grpo-step", "--prompts", "4", "--group", "4", "--new-tokens", "64", "--input", str(setup.prompts), "--weights", weights]
        ours += ["--plugin", "reward-exact-match"]
        peer = trl("grpo", hf, "--prompts", str(setup.prompts))
        add("grpo", f"GRPO step, 4 × 4 × 64, {weights}", "TRL", "s", ours, step, peer, 2)
    for group in ("dpo", "reward-model"):
        # 8 sequences are 4 pairs.
        ours = ["train-step", "--loss", group, "--batch", "8", "--length", "192"]
        add(group, f"{group} step, 4 pairs of 192, f32", "TRL", "s", ours, step, trl(group, hf, "--float32"))
    return all_rows


def write_prompts(path: Path) -> None:
    """Problems of about a hundred tokens, the same every time; both trainers read this file."""
    names, things = ["Anna", "Ben", "Carla", "David", "Elena", "Farid"], ["apples", "books", "tickets", "marbles"]
    with path.open("w", encoding="utf-8") as file:
        for i in range(64):
            name, thing = names[i % len(names)], things[i % len(things)]
            start, boxes, each, given = 12 + i, 2 + i % 7, 6 + i % 5, 3 + i % 11
            prompt = (
                f"{name} keeps a collection of {thing} at home and begins the week with {start} of them. On Monday a friend brings {boxes} boxes, "
                f"and each of the boxes holds {each} {thing}. On Tuesday {name} sorts the whole collection by size and finds that none is missing. "
                f"On Wednesday {name} gives {given} {thing} to a neighbour, who is very happy about them. Nothing else changes until Sunday. "
                f"How many {thing} does {name} have on Sunday? Work it out step by step, and write the number at the end."
            )
            file.write(json.dumps({"prompt": prompt, "answer": str(start + boxes * each - given)}) + "\n")


def foreign_load() -> float:
    """Share of the machine that others use while nothing of this script runs, in percent."""

    def times() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    (all_before, idle_before), _, (all_after, idle_after) = times(), time.sleep(0.5), times()
    return 100 * (1 - (idle_after - idle_before) / max(1, all_after - all_before))


def measure(row: Row, rounds: int, out) -> list[str]:
    """The cells of the row's line."""
    plumb = row.plumb()
    peer = row.peer()
    results: list[tuple[Round, Round]] = []
    load = []
    try:
        for i in range(rounds):
            load.append(foreign_load())
            if i % 2 == 0:
                theirs, ours = peer.round(), plumb.round()
            else:
                ours, theirs = plumb.round(), peer.round()
            results.append((ours, theirs))
            record = {"row": row.name, "peer": row.peer_name, "unit": row.unit, "round": i, "foreign_load_percent": load[-1]}
            record |= {"plumb_value": ours.value, "peer_value": theirs.value}
            record |= {"plumb_peak_rss_mib": ours.peak_rss_mib, "peer_peak_rss_mib": theirs.peak_rss_mib}
            out.write(json.dumps(record) + "\n")
            out.flush()
            print(f"  round {i + 1}: plumb {ours.value:.4g}, {row.peer_name} {theirs.value:.4g} {row.unit}", file=sys.stderr)
    finally:
        peer.close()
    ratios = [ours.value / theirs.value if row.better == "more" else theirs.value / ours.value for ours, theirs in results]
    value = lambda which: statistics.median(result[which].value for result in results)  # noqa: E731
    memory = [max(result[which].peak_rss_mib for result in results) for which in (0, 1)]
    speed = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f})"
    note = "" if row.note is None else f" [{row.note + 1}]"
    return [
        row.name, row.peer_name + note, f"{value(0):.4g} {row.unit}", f"{value(1):.4g} {row.unit}", speed,
        f"{memory[0]:.0f} / {memory[1]:.0f} = {memory[0] / memory[1]:.2f}", f"{statistics.median(load):.0f} %",
    ]


def versions(setup: argparse.Namespace) -> str:
    found = [f"{name} {version}" for name, version in sorted(Worker.versions.items())]
    source = next(iter(sorted((setup.dir / "src").glob("llama_cpp_python-*/"))), None)
    if source is not None:
        libraries = sorted((setup.dir / "llama-build/bin").glob("libggml.so.*.*"))
        ggml = libraries[0].name.removeprefix("libggml.so.") if libraries else "?"
        found.append(f"llama.cpp of {source.name.replace('_', '-')} (ggml {ggml})")
    return ", ".join([run([setup.plumb, "--version"])[0].strip(), *found])


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, help="the folder that setup.sh filled")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--filter", default="", help="only rows whose name or peer has this text in it")
    parser.add_argument("--plumb", default=str(HERE.parents[1] / "target/release/plumb"), help="the program")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    setup = parser.parse_args()
    only = setup.only.split(",")
    if unknown := [group for group in only if group not in GROUPS]:
        parser.error(f"there is no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    if setup.rounds < 1:
        parser.error("--rounds must be at least 1")
    setup.dir = setup.dir.resolve()
    for needed in (Path(setup.plumb), setup.dir / "hf/config.json"):
        if not needed.exists():
            parser.error(f"there is no {needed}: build plumb with `cargo build --release`, and run setup.sh")
    help_of = {command: run([setup.plumb, "bench", command, "--help"])[0] for command in ("train-step",)}
    setup.has = lambda command, word: word in help_of[command]
    setup.prompts = setup.dir / "prompts.jsonl"
    write_prompts(setup.prompts)

    chosen = [row for row in rows(setup) if row.group in only and setup.filter in f"{row.name} {row.peer_name}"]
    table, problems = [], []
    with (setup.dir / "compare.jsonl").open("a", encoding="utf-8") as out:
        for row in chosen:
            if row.group in ("dpo", "reward-model") and not setup.has("train-step", row.group):
                problems.append(f"{row.name}: left out, this plumb has no `bench train-step --loss {row.group}`")
                continue
            print(f"{row.name} against {row.peer_name}", file=sys.stderr)
            try:
                table.append(measure(row, setup.rounds, out))
            except Failed as failure:
                problems.append(f"{row.name} against {row.peer_name}: failed: {failure}")
                print(problems[-1], file=sys.stderr)

    print(f"{cpu()}, {setup.threads} threads, {setup.rounds} rounds; ratio above 1: plumb is faster.\n")
    print(f"{versions(setup)}\n")
    print("| work | peer | plumb | peer | speed, median (span) | peak MiB, plumb / peer | load of others |\n|---|---|---|---|---|---|---|")
    for cells in table:
        print(f"| {' | '.join(cells)} |")
    used = sorted({row.note for row in chosen if row.note is not None})
    print("\n" + "\n".join(f"[{note + 1}] {NOTES[note]}" for note in used))
    if problems:
        print("\nNot measured:\n" + "\n".join(f"- {problem}" for problem in problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
