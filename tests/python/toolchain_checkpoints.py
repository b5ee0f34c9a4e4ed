"""Writes tiny random Llama checkpoints as other toolchains store them, with transformers' logits for them.

usage: toolchain_checkpoints.py OUT [--only NAME]

OUT/NAME/hf is the folder and OUT/NAME/reference.safetensors holds `input_ids` and `logits`, in float32 on the weights that the
toolchain's formula gives: those are computed here before codes are packed. Needs torch, transformers and numpy.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tiny_checkpoints import VOCAB, tokenizer_json

TOKENS = 24
HIDDEN, FFN = 64, 96
GAIN = 1.5
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def stream(codes, bits):
    """Codes along the last axis as 32-bit words, low bits first."""
    flags = np.unpackbits(codes.astype(np.uint8)[..., None], axis=-1, bitorder="little")[..., :bits]
    flags = flags.reshape(*codes.shape[:-1], -1)
    flags = np.pad(flags, [(0, 0)] * (flags.ndim - 1) + [(0, -flags.shape[-1] % 32)])
    return torch.from_numpy(np.packbits(flags, axis=-1, bitorder="little").view("<i4").copy())


def integers(random, rows, cols, bits, group, symmetric, dtype):
    """Codes, zero points and scales `[rows, ..]`, and weights."""
    codes = random.integers(0, 2**bits, (rows, cols))
    groups = cols // group
    middle = 2 ** (bits - 1)
    zeros = np.full((rows, groups), middle) if symmetric else random.integers(0, 2**bits, (rows, groups))
    # Zero points that are far from the middle would give rows a large mean.
    if not symmetric:
        zeros = np.where(random.random(zeros.shape) < 0.1, zeros, np.clip(zeros, middle * 7 // 8, middle * 9 // 8))
    spread = GAIN / cols**0.5 * 3.4 / 2**bits
    scales = torch.tensor(spread * random.uniform(0.7, 1.3, (rows, groups)), dtype=torch.float32).to(dtype)
    each = np.arange(cols) // group
    weights = scales.float()[:, each] * torch.from_numpy(codes - zeros[:, each]).float()
    return codes, zeros, scales, weights


def gptq(bits, group, symmetric, offset, dtype=torch.float16, g_idx=True):
    def make(random, name, rows, cols):
        size = cols if group == -1 else group
        codes, zeros, scales, weights = integers(random, rows, cols, bits, size, symmetric, dtype)
        parts = {
            "qweight": stream(codes, bits).T.contiguous(),
            "qzeros": stream((zeros.T - offset) % 2**bits, bits),
            "scales": scales.T.contiguous(),
        }
        if g_idx:
            parts["g_idx"] = torch.arange(cols, dtype=torch.int32) // size
        return parts, weights

    settings = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": False,
                "checkpoint_format": "gptq" if offset else "gptq_v2"}  # fmt: skip
    return make, settings


def awq():
    def make(random, name, rows, cols):
        codes, zeros, scales, weights = integers(random, rows, cols, 4, 32, False, torch.float16)
        order = lambda matrix: matrix.reshape(len(matrix), -1, 8)[:, :, AWQ_ORDER].reshape(len(matrix), -1)
        parts = {"qweight": stream(order(codes.T), 4), "qzeros": stream(order(zeros.T), 4), "scales": scales.T.contiguous()}
        return parts, weights

    return make, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def compressed():
    """Modules of 4 bits with and without zero points, of 8 bits, and of E4M3."""

    def make(random, name, rows, cols):
        if "mlp" in name:
            return e4m3(random, rows, cols, (1, cols), "weight_scale", torch.bfloat16)
        bits, group, symmetric = {"q": (4, 32, True), "k": (4, 32, False), "v": (8, cols, True), "o": (4, 32, False)}[name.split(".")[-1][0]]
        codes, zeros, scales, weights = integers(random, rows, cols, bits, group, symmetric, torch.bfloat16)
        parts = {"weight_packed": stream(codes, bits), "weight_scale": scales, "weight_shape": torch.tensor([rows, cols])}
        if not symmetric:
            parts["weight_zero_point"] = stream(zeros.T, bits).T.contiguous()
        return parts, weights

    return make, {"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": {}}


def e4m3(random, rows, cols, block, suffix, dtype):
    codes = torch.tensor(random.standard_normal((rows, cols)) * 100, dtype=torch.float32).clamp(-448, 448).to(torch.float8_e4m3fn)
    shape = (-(-rows // block[0]), -(-cols // block[1]))
    scale = torch.tensor(GAIN / cols**0.5 / 100 * random.uniform(0.5, 1.5, shape), dtype=torch.float32).to(dtype)
    each = scale.float()[torch.arange(rows) // block[0]][:, torch.arange(cols) // block[1]]
    if block == (rows, cols):
        scale = scale.reshape(())
    return {"weight": codes, suffix: scale}, each * codes.float()


def fp8():
    """Blocks of 32 x 64 with partial ones at the edges, scales of channels, and one for all."""

    def make(random, name, rows, cols):
        if name.endswith("v_proj"):
            return e4m3(random, rows, cols, (rows, cols), "weight_scale", torch.float32)
        if name.endswith("o_proj"):
            return e4m3(random, rows, cols, (1, cols), "weight_scale", torch.bfloat16)
        parts, weights = e4m3(random, rows, cols, (24, 64), "weight_scale_inv", torch.float32)
        return {**parts, "input_scale": torch.tensor(1.0)}, weights

    return make, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [24, 64]}


CASES = {
    "toolchain-gptq": gptq(4, 32, True, 1),
    "toolchain-gptq-zeros": gptq(4, 32, False, 1, g_idx=False),
    "toolchain-gptq-v2": gptq(8, -1, False, 0, dtype=torch.bfloat16),
    "toolchain-gptq-3": gptq(3, 32, True, 1),
    "toolchain-awq": awq(),
    "toolchain-compressed": compressed(),
    "toolchain-fp8": fp8(),
}


def write(root, seed, make, settings):
    random = np.random.default_rng(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).eval()
    tensors = {}
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name == "lm_head.weight":
                continue
            module = name.removesuffix(".weight")
            if "proj" in name:
                parts, weights = make(random, module, *weight.shape)
                weight.copy_(weights)
                tensors.update({f"{module}.{part}": tensor for part, tensor in parts.items()})
                continue
            mean, spread = (1, 0.2) if "norm" in name else (0, 0.2)
            weight.copy_(torch.tensor(mean + spread * random.standard_normal(weight.shape)).to(torch.bfloat16))
            tensors[name] = weight.to(torch.bfloat16)
    folder = root / "hf"
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # A folder's type is that of what is not quantised: the numbers here are bounded as those of half precision.
    written = {**config.to_diff_dict(), "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True, "dtype": "float16",
               "quantization_config": settings}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False) + "\n")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n")
    return model


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--only")
    arguments = arguments.parse_args()
    for seed, (case, (make, settings)) in enumerate(CASES.items()):
        if arguments.only not in (None, case):
            continue
        root = arguments.out / case
        shutil.rmtree(root, ignore_errors=True)
        model = write(root, 20 + seed, make, settings)
        torch.manual_seed(3)
        ids = torch.randint(3, VOCAB, (1, TOKENS), dtype=torch.int64)
        with torch.no_grad():
            logits = model(ids).logits[0]
        save_file({"input_ids": ids[0].to(torch.int32), "logits": logits.float().contiguous()}, root / "reference.safetensors")
        print(f"{case}: standard deviation of the logits {logits.std():.2f}")


if __name__ == "__main__":
    main()
