"""TRL's trainers with their own defaults on the CPU: trl_peer.py grpo|dpo|reward-model MODEL_DIR [options]; a worker of compare.py.

A round is an optimizer step, from its beginning to its end; the first warms up. `--float32` switches autocast and gradient
checkpointing off, which TRL has on.
"""

import argparse
import re
import tempfile
import time

import worker  # noqa: I001  first: it takes stdout

import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

parser = argparse.ArgumentParser()
parser.add_argument("work", choices=["grpo", "dpo", "reward-model"])
parser.add_argument("model")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--rounds", type=int, required=True)
parser.add_argument("--prompts", help="JSONL of `prompt` and `answer`, for grpo")
parser.add_argument("--new-tokens", type=int, default=64)
parser.add_argument("--length", type=int, default=192)
parser.add_argument("--float32", action="store_true")
args = parser.parse_args()

torch.set_num_threads(args.threads)
tokenizer = AutoTokenizer.from_pretrained(args.model)
settings = {
    "output_dir": tempfile.mkdtemp(), "max_steps": args.rounds + 1, "logging_steps": 1, "report_to": "none", "use_cpu": True,
    "save_strategy": "no", "disable_tqdm": True, "seed": 0,
}
if args.float32:
    settings |= {"bf16": False, "gradient_checkpointing": False}


class Turns(TrainerCallback):
    """A step for each round; the first is nobody's."""

    def on_step_begin(self, _args, state, control, **_):
        if state.global_step > 0 and not worker.wait():
            raise SystemExit
        self.start = time.perf_counter()

    def on_step_end(self, _args, state, control, **_):
        took = time.perf_counter() - self.start
        if state.global_step == 1:
            worker.ready("torch", "transformers", "trl")
        else:
            worker.result(took)


def random_text(tokens: int) -> str:
    text = tokenizer.decode(torch.randint(1000, 20000, (tokens,), generator=generator).tolist())
    return tokenizer.decode(tokenizer(text).input_ids[:tokens])


generator = torch.Generator().manual_seed(0)
pairs = 4 * (args.rounds + 1)
if args.work == "grpo":
    from trl import GRPOConfig, GRPOTrainer

    number = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

    def last_number_is_the_answer(completions, answer, **_):
        found = [number.findall(completion[0]["content"]) for completion in completions]
        return [float(bool(numbers) and numbers[-1].replace(",", "") == gold) for numbers, gold in zip(found, answer)]

    data = load_dataset("json", data_files=args.prompts, split="train")
    data = data.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    # 16 completions a step, which are 4 prompts; all are forced to their full length, as plumb's are.
    config = GRPOConfig(
        per_device_train_batch_size=16, num_generations=4, max_completion_length=args.new_tokens, beta=0.04, temperature=1.0,
        generation_kwargs={"min_new_tokens": args.new_tokens}, **settings,
    )
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    trainer = GRPOTrainer(model, reward_funcs=last_number_is_the_answer, args=config, train_dataset=data, processing_class=tokenizer)
elif args.work == "dpo":
    from trl import DPOConfig, DPOTrainer

    third = args.length // 3
    rows = [{"prompt": random_text(third), "chosen": random_text(args.length), "rejected": random_text(args.length)} for _ in range(pairs)]
    config = DPOConfig(per_device_train_batch_size=4, max_length=args.length, beta=0.1, **settings)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    trainer = DPOTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
else:
    from trl import RewardConfig, RewardTrainer

    # The trainer drops rows that are too long, so they stay a little below; an end-of-text token is added.
    rows = [{"chosen": random_text(args.length - 4), "rejected": random_text(args.length - 4)} for _ in range(pairs)]
    config = RewardConfig(per_device_train_batch_size=4, max_length=args.length, **settings)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = RewardTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)

trainer.add_callback(Turns())
trainer.train()
