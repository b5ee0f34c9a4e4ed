"""Writes transformers' greedy continuations of raw prompts, for a GGUF file whose weights are dequantised.

usage: greedy_reference.py MODEL.gguf OUT --tokens N --prompt TEXT [--prompt TEXT ...]

The `gguf` package dequantises, transformers (its own reading of the file's metadata) computes in float32. Prompt number i
becomes OUT/i/reference.safetensors (`input_ids`, `logits` of the prompt, `greedy_ids`, `greedy_margin`: at each step the
top logit minus the second) and OUT/i/text.json (the prompt, and the decoded text after each step).
Needs torch, transformers and gguf.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def continuation(model, ids, tokens):
    """The prompt's logits, then the greedy tokens and their margins."""
    output = model(torch.tensor([ids]), use_cache=True)
    prompt_logits, cache = output.logits[0], output.past_key_values
    last, greedy, margins = prompt_logits[-1], [], []
    for _ in range(tokens):
        (first, second), (token, _) = (part.tolist() for part in torch.topk(last, 2))
        greedy.append(token)
        margins.append(first - second)
        output = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        last, cache = output.logits[0, -1], output.past_key_values
    return prompt_logits, greedy, margins


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--tokens", type=int, required=True)
    arguments.add_argument("--prompt", action="append", required=True)
    arguments = arguments.parse_args()
    source = {"pretrained_model_name_or_path": arguments.model.parent, "gguf_file": arguments.model.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, attn_implementation="eager").eval()
    for number, prompt in enumerate(arguments.prompt):
        ids = tokenizer(prompt)["input_ids"]
        logits, greedy, margins = continuation(model, ids, arguments.tokens)
        folder = arguments.out / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "input_ids": torch.tensor(ids, dtype=torch.int32),
            "logits": logits.to(torch.float32).contiguous(),
            "greedy_ids": torch.tensor(greedy, dtype=torch.int32),
            "greedy_margin": torch.tensor(margins, dtype=torch.float32),
        }
        save_file(tensors, folder / "reference.safetensors")
        texts = [tokenizer.decode(greedy[: step + 1]) for step in range(len(greedy))]
        (folder / "text.json").write_text(json.dumps({"prompt": prompt, "texts": texts}, ensure_ascii=False) + "\n")
        print(f"{prompt!r}: {len(ids)} tokens, {texts[-1]!r}, smallest margin {min(margins):.3f}", flush=True)


if __name__ == "__main__":
    main()
