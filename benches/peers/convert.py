"""A GGUF of the Llama family as two Hugging Face folders, float32 and bfloat16: convert.py MODEL.gguf F32_DIR BF16_DIR"""

import json
import os
import sys

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(path: str, f32_dir: str, bf16_dir: str) -> None:
    folder, name = os.path.split(os.path.abspath(path))
    fields = GGUFReader(path).fields

    def field(key: str):
        return fields[key].contents() if key in fields else None

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # A model that is marked as quantized refuses to be saved: the same weights in one that is not.
    config = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    model = type(loaded)(type(loaded.config).from_dict(config)).float()
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()

    if field("tokenizer.ggml.pre") == "smollm":
        # transformers' reader of GGUF loses that this family splits numbers into digits first.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ])
    tokens = field("tokenizer.ggml.tokens")
    ids = {kind: field(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos", "padding")}
    ids["padding"] = ids["eos"] if ids["padding"] is None else ids["padding"]
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = (tokens[ids[kind]] for kind in ("bos", "eos", "padding"))
    tokenizer.chat_template = field("tokenizer.chat_template")
    tokenizer.model_max_length = field("llama.context_length")
    tokenizer.padding_side = "left"
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = ids["bos"], ids["eos"], ids["padding"]

    for out, dtype in ((f32_dir, torch.float32), (bf16_dir, torch.bfloat16)):
        model.to(dtype)
        model.config.dtype = dtype
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        # transformers 5 nests the rotary base; older readers look for it at the top.
        with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config.setdefault("rope_theta", field("llama.rope.freq_base"))
        with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2, sort_keys=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
