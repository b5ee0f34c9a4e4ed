"""Writes GGUF files with the headers that published models have, and no data: sparse files that `forge inspect --plan` reads.

usage: published_sizes.py OUT [--forge PROGRAM] [--only NAME]

With a program at hand, `forge inspect --plan` is run on each and held against what is published of the model: the bytes of
its file, its parameters, and the weights that a token is multiplied with, each within 2%. Needs numpy and gguf.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

# What is published: bytes of the GGUF files (ggml-org's on Hugging Face), parameters and active parameters (openai's model
# cards; those that a token is multiplied with, of the table of embeddings one row).
PUBLISHED = {
    "gpt-oss-20b": {"bytes": 12.11e9, "parameters": 20.9e9, "active": 3.6e9},
    "gpt-oss-120b": {"bytes": 63.39e9, "parameters": 116.8e9, "active": 5.1e9},
}
TOLERANCE = 0.02


def gpt_oss(layers, experts):
    """Keys and tensors of gpt-oss: name, shape from the outermost axis, type."""
    hidden, width, heads, kv_heads, head_dim, vocab = 2880, 2880, 64, 8, 64, 201088
    keys = {
        "block_count": layers, "context_length": 131072, "embedding_length": hidden, "feed_forward_length": width,
        "expert_feed_forward_length": width, "expert_count": experts, "expert_used_count": 4, "attention.head_count": heads,
        "attention.head_count_kv": kv_heads, "attention.key_length": head_dim, "attention.value_length": head_dim,
        "attention.sliding_window": 128, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 150000.0,
        "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0, "rope.scaling.original_context_length": 4096,
    }
    tensors = [
        ("token_embd.weight", [vocab, hidden], T.Q8_0),
        ("output_norm.weight", [hidden], T.F32),
        ("output.weight", [vocab, hidden], T.Q8_0),
    ]
    for layer in range(layers):
        block = f"blk.{layer}."
        for name, rows, cols in [("attn_q", heads * head_dim, hidden), ("attn_k", kv_heads * head_dim, hidden), ("attn_v", kv_heads * head_dim, hidden), ("attn_output", hidden, heads * head_dim)]:
            tensors += [(f"{block}{name}.weight", [rows, cols], T.Q8_0), (f"{block}{name}.bias", [rows], T.F32)]
        tensors += [
            (f"{block}attn_norm.weight", [hidden], T.F32),
            (f"{block}post_attention_norm.weight", [hidden], T.F32),
            (f"{block}attn_sinks.weight", [heads], T.F32),
            (f"{block}ffn_gate_inp.weight", [experts, hidden], T.F32),
            (f"{block}ffn_gate_inp.bias", [experts], T.F32),
        ]
        for name, rows, cols in [("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)]:
            tensors += [
                (f"{block}ffn_{name}_exps.weight", [experts, rows, cols], T.MXFP4),
                (f"{block}ffn_{name}_exps.bias", [experts, rows], T.F32),
            ]
    return "gpt-oss", keys, tensors


MODELS = {"gpt-oss-20b": lambda: gpt_oss(24, 32), "gpt-oss-120b": lambda: gpt_oss(36, 128)}


def write(name, out):
    """The file: header, keys, where tensors lie; its data is a hole. Returns its bytes."""
    architecture, keys, tensors = MODELS[name]()
    writer = gguf.GGUFWriter(out, architecture)
    writer.add_name(name)
    for key, value in keys.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture}.{key}", value)
    # The sizes do not depend on the tokenizer; a few tokens make one.
    tokens = [chr(c) for c in range(33, 127)] + ["\u0120", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    size = 0
    for tensor, shape, kind in tensors:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(shape, dtype=np.int64)) // block * block_bytes
        writer.add_tensor_info(tensor, shape, np.dtype(np.float32), count, raw_dtype=kind)
        size += (count + 31) // 32 * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = (out.stat().st_size + 31) // 32 * 32
    with open(out, "r+b") as file:
        file.truncate(header + size)
    return header + size


def number(text):
    value, unit = re.match(r"([\d.,]+)\s*(\w*)", text).groups()
    return float(value.replace(",", "")) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]


def compare(what, found, published):
    off = found / published - 1
    print(f"  {what}: {found / 1e9:.3f}e9, published {published / 1e9:.2f}e9, off by {100 * off:+.2f}%")
    return abs(off) <= TOLERANCE


def check(name, path, size, forge):
    published = PUBLISHED[name]
    print(name)
    right = [compare("bytes of the file", size, published["bytes"])]
    plan = subprocess.run([forge, "inspect", "--plan", str(path)], check=True, capture_output=True, text=True).stdout
    parameters = re.search(r"^ *parameters:? +(\S+)[^,]*, (\S+) active", plan, re.M)
    right.append(compare("parameters", number(parameters[1]), published["parameters"]))
    right.append(compare("active parameters", number(parameters[2]), published["active"]))
    print("\n".join("  " + line for line in plan.splitlines() if re.search(r"weights|token|state|memory", line)))
    return all(right)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--forge")
    arguments.add_argument("--only")
    arguments = arguments.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    right = True
    for name in MODELS:
        if arguments.only in (None, name):
            path = arguments.out / f"{name}.gguf"
            size = write(name, path)
            right &= check(name, path, size, arguments.forge) if arguments.forge else True
    sys.exit(0 if right else "not what is published")


if __name__ == "__main__":
    main()
