"""Log-probabilities of small saved models by transformers (5.23, torch 2.15): `python architectures.py FOLDER > architectures.jsonl`.

FOLDER has one Hugging Face folder for each model of `tests/support/tiny.rs`, written by `plumb_model::save`.
Sequences of 150 tokens reach rotary positions on all branches of Llama 3's scaling.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM

for name in ["llama-biased", "llama3-rope", "mistral", "qwen2", "qwen3"]:
    model = AutoModelForCausalLM.from_pretrained(pathlib.Path(sys.argv[1]) / name, dtype=torch.float32).eval()
    tokens = [(7 * i * i + 3 * i + 1) % 40 for i in range(150)]
    with torch.no_grad():
        logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    chosen = logprobs[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    print(json.dumps({"id": name, "tokens": tokens, "logprobs": [round(x, 6) for x in chosen.tolist()]}))
