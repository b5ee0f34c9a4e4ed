"""Writes the reference of a prompt longer than any tile for a Llama checkpoint, by a plain float64 forward pass.

usage: long_prompt.py CASE [--tokens 200]

CASE is a folder with hf/ (bfloat16 weights, rope scaling "llama3") and reference.safetensors, whose logits are
transformers': the pass here has to agree with them first. Writes CASE/long.safetensors: `input_ids` [tokens], and
`logits` [rows, vocab], those after as many tokens as `lengths` [rows] says. What a prefix of the prompt gives is among
them, since attention is causal. Needs numpy.
"""

import argparse
import json
import math
from pathlib import Path

import numpy

LENGTHS = [1, 2, 7, 8, 9, 63, 64, 65]
TYPES = {"BF16": "<u2", "F32": "<f4", "I32": "<i4"}


def read(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        values = numpy.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            values = (values.astype(numpy.uint32) << 16).view(numpy.float32)
        tensors[name] = values
    return tensors


def write(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        dtype = "I32" if values.dtype == numpy.int32 else "F32"
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def frequencies(config):
    """Rotations per position, scaled as Llama 3.1's are."""
    dim = config["head_dim"]
    plain = config["rope_theta"] ** -(numpy.arange(0, dim, 2) / dim)
    scaling = config["rope_scaling"]
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    wavelengths_in_context = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)
    smooth = numpy.clip((wavelengths_in_context - low) / (high - low), 0, 1)
    return (1 - smooth) * plain / factor + smooth * plain


def forward(config, weights, ids):
    """Logits [tokens, vocab]."""
    def norm(x, name):
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[name]

    def linear(x, name):
        return x @ weights[name].T

    tokens, dim = len(ids), config["head_dim"]
    angles = numpy.outer(numpy.arange(tokens), frequencies(config))
    cos, sin = numpy.cos(angles)[:, None], numpy.sin(angles)[:, None]

    def rotate(x):
        a, b = x[..., : dim // 2], x[..., dim // 2 :]
        return numpy.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    shared = config["num_attention_heads"] // config["num_key_value_heads"]
    future = numpy.triu(numpy.full((tokens, tokens), -numpy.inf), 1)
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        of = f"model.layers.{layer}."
        h = norm(x, of + "input_layernorm.weight")
        q, k, v = (linear(h, f"{of}self_attn.{n}_proj.weight").reshape(tokens, -1, dim) for n in "qkv")
        k, v = (numpy.repeat(a, shared, 1) for a in (rotate(k), v))
        scores = numpy.einsum("qhd,khd->hqk", rotate(q), k) / math.sqrt(dim) + future
        p = numpy.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + linear(numpy.einsum("hqk,khd->qhd", p, v).reshape(tokens, -1), of + "self_attn.o_proj.weight")
        h = norm(x, of + "post_attention_layernorm.weight")
        gate = linear(h, of + "mlp.gate_proj.weight")
        x = x + linear(gate / (1 + numpy.exp(-gate)) * linear(h, of + "mlp.up_proj.weight"), of + "mlp.down_proj.weight")
    return linear(norm(x, "model.norm.weight"), "lm_head.weight")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("case", type=Path)
    arguments.add_argument("--tokens", type=int, default=200)
    arguments = arguments.parse_args()
    config = json.loads((arguments.case / "hf/config.json").read_text())
    stored = read(arguments.case / "hf/model.safetensors")
    weights = {name: values.astype(numpy.float64) for name, values in stored.items()}
    reference = read(arguments.case / "reference.safetensors")
    difference = abs(forward(config, weights, reference["input_ids"]) - reference["logits"]).max()
    print(f"largest difference from the reference: {difference:.1e}")
    assert difference < 1e-4
    ids = numpy.random.default_rng(1).integers(0, config["vocab_size"], arguments.tokens, dtype=numpy.int32)
    lengths = numpy.array([*LENGTHS, arguments.tokens], numpy.int32)
    logits = forward(config, weights, ids)[lengths - 1].astype(numpy.float32)
    write(arguments.case / "long.safetensors", {"input_ids": ids, "lengths": lengths, "logits": logits})


if __name__ == "__main__":
    main()
