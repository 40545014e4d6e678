"""transformers and torch: torch_peer.py decode|prefill|ce MODEL_DIR [options]; a worker of compare.py.

decode: tokens/s of `generate` at temperature 1 without cuts, a fixed number of new tokens, prefill taken off by a second call.
prefill: tokens/s of one forward pass with the last position's logits. ce: seconds of forward, backward, clipping and fused AdamW.
"""

import argparse
import time

import worker  # noqa: I001  first: it takes stdout

import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("work", choices=["decode", "prefill", "ce"])
parser.add_argument("model")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--dtype", default="float32")
parser.add_argument("--autocast", action="store_true", help="float32 weights, bfloat16 products")
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--tokens", type=int, default=64, help="of a prompt, or of a sequence to train on")
parser.add_argument("--new-tokens", type=int, default=128)
args = parser.parse_args()

torch.set_num_threads(args.threads)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
ids = torch.randint(100, model.config.vocab_size, (args.batch, args.tokens))


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def generate(new_tokens: int) -> None:
    with torch.inference_mode():
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), min_new_tokens=new_tokens, max_new_tokens=new_tokens,
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True,
        )


def decode() -> float:
    whole, first = seconds(lambda: generate(args.new_tokens)), seconds(lambda: generate(1))
    return args.batch * (args.new_tokens - 1) / (whole - first)


def prefill() -> float:
    with torch.inference_mode():
        return args.batch * args.tokens / seconds(lambda: model(ids, logits_to_keep=1))


def ce() -> float:
    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.autocast):
            loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return seconds(step)


if args.work == "ce":
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
else:
    model.eval()
measure = {"decode": decode, "prefill": prefill, "ce": ce}[args.work]
measure()
worker.ready("torch", "transformers")
while worker.wait():
    worker.result(measure())
