#!/usr/bin/env python3
"""Writes crates/forge-formats/tests/fixtures/{E4M3_*,repack_*}.bin: matrices as other toolchains store them, and their weights.

Needs numpy, torch (E4M3 codes), and of PyPI, without their dependencies, `autoawq==0.2.9` and `compressed-tensors==0.20.0`, whose
own functions take AWQ's and compressed-tensors' words apart; GPTQ's are taken apart here, from the description of its tensors. The
fixtures are committed; run this only to add one.

  E4M3_G<G>.bin     u32 weights, u32 bytes, blocks, f32 weights
  repack_<NAME>.bin u32 rows, u32 columns, u32 group (or block rows, block columns), u32 parts, u32 length of each, parts, f32 weights

Codes are random, so that all occur; zero points are the smallest, the largest and random ones; scales are random, with the smallest
and largest of their type, a negative one and zero.
"""

import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).resolve().parents[2] / "crates/forge-formats/tests/fixtures"
ROWS, COLS = 16, 192
random = np.random.default_rng(14)


def module(path):
    """A file of a package, without the rest of it."""
    found = [Path(root) / path for root in sys.path if (Path(root) / path).exists()]
    spec = importlib.util.spec_from_file_location(Path(path).stem, found[0])
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def scales(shape, dtype):
    values = torch.tensor(random.uniform(-0.1, 0.1, shape), dtype=torch.float32).to(dtype)
    extremes = [0.0, torch.finfo(dtype).smallest_normal, 5.960464477539063e-08, 4000.0, -0.015625]
    values.view(-1)[: len(extremes)] = torch.tensor(extremes, dtype=torch.float32).to(dtype)
    return values


def words(shape):
    return torch.tensor(random.integers(-(2**31), 2**31, shape), dtype=torch.int32)


def fields(stream, bits):
    """The last axis of 32-bit words as codes of so many bits, low bits first."""
    octets = np.ascontiguousarray(stream.numpy()).view(np.uint8)
    flags = np.unpackbits(octets, axis=-1, bitorder="little")
    return (flags.reshape(*flags.shape[:-1], -1, bits).astype(np.int64) << np.arange(bits)).sum(axis=-1)


def octets(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def write(name, sizes, parts, weights):
    weights = np.asarray(weights, dtype=np.float32)
    parts = [octets(part) for part in parts]
    head = struct.pack(f"<{len(sizes) + 1 + len(parts)}I", *sizes, len(parts), *map(len, parts))
    (OUT / f"repack_{name}.bin").write_bytes(head + b"".join(parts) + weights.tobytes())


def integer(codes, zeros, scale, group):
    """scale * (code - zero), in f32; zeros and scales [rows, groups]."""
    each = np.arange(codes.shape[1]) // group
    return scale.float().numpy()[:, each] * (codes - zeros[:, each]).astype(np.float32)


def gptq():
    for bits, group, offset, dtype in [(4, 64, 1, torch.float16), (8, 192, 0, torch.float16), (3, 32, 1, torch.bfloat16), (2, 64, 0, torch.float16)]:
        groups = COLS // group
        # 32 outputs at least: of 3 bits, fewer fill no words.
        rows = 32
        qweight, qzeros = words((COLS * bits // 32, rows)), words((groups, rows * bits // 32))
        qzeros[0, 0], qzeros[-1, -1] = 0, -1
        scale = scales((groups, rows), dtype)
        codes = fields(qweight.T, bits)
        zeros = (fields(qzeros, bits) + offset) % 2**bits
        write(f"gptq{bits}", (rows, COLS, group), [qweight, scale, qzeros], integer(codes, zeros.T, scale.T, group))


def awq_words():
    packing, group = module("awq/utils/packing_utils.py"), 32
    qweight, qzeros = words((COLS, ROWS // 8)), words((COLS // group, ROWS // 8))
    qzeros[0, 0], qzeros[-1, -1] = 0, -1
    scale = scales((COLS // group, ROWS), torch.float16)
    weights = packing.dequantize_gemm(qweight, qzeros, scale.float(), 4, group).T
    write("awq4", (ROWS, COLS, group), [qweight, scale, qzeros], weights.numpy())


def compressed():
    unpack_from_int32 = module("compressed_tensors/compressors/pack_quantized/helpers.py").unpack_from_int32
    for name, bits, group, asymmetric in [("compressed4", 4, 32, False), ("compressed4z", 4, 64, True), ("compressed8", 8, 192, False)]:
        groups = COLS // group
        packed, scale = words((ROWS, COLS * bits // 32)), scales((ROWS, groups), torch.bfloat16)
        codes = unpack_from_int32(packed, bits, torch.Size([ROWS, COLS])).numpy().astype(np.int64)
        zeros, parts = np.zeros((ROWS, groups), dtype=np.int64), [packed, scale]
        if asymmetric:
            zero_words = words((ROWS * bits // 32, groups))
            zero_words[0, 0], zero_words[-1, -1] = 0, -1
            zeros = unpack_from_int32(zero_words, bits, torch.Size([ROWS, groups]), packed_dim=0).numpy().astype(np.int64)
            parts.append(zero_words)
        write(name, (ROWS, COLS, group), parts, integer(codes, zeros, scale, group))


def e4m3_codes(shape):
    """Random codes, all of those that are numbers among them."""
    codes = random.integers(0, 256, shape, dtype=np.uint8)
    numbers = np.array([code for code in range(256) if code & 127 != 127], dtype=np.uint8)
    codes.reshape(-1)[: len(numbers)] = numbers
    codes[codes & 127 == 127] ^= 1
    return torch.from_numpy(codes)


def e4m3():
    for group, count in [(128, 6), (32, 12)]:
        codes = e4m3_codes((count, group))
        scale = torch.tensor(random.uniform(-1, 1, (count, 1)), dtype=torch.float32)
        scale[0], scale[1], scale[2] = 1.0, 1e-41, 7.5e35
        weights = scale * codes.view(torch.float8_e4m3fn).float()
        blocks = np.concatenate([scale.numpy().view(np.uint8).reshape(count, 4), codes.numpy()], axis=1)
        head = struct.pack("<II", weights.numel(), blocks.size)
        (OUT / f"E4M3_G{group}.bin").write_bytes(head + blocks.tobytes() + weights.numpy().tobytes())
    # Partial blocks at both edges; blocks; a scale a channel; one for all; groups.
    for name, rows, cols, block, dtype in [
        ("fp8_edges", 20, 160, (16, 128), torch.float32),
        ("fp8_blocks", 16, 256, (8, 128), torch.bfloat16),
        ("fp8_channel", 12, 128, (1, 128), torch.bfloat16),
        ("fp8_tensor", 12, 96, (12, 96), torch.float32),
        ("fp8_groups", 6, 192, (1, 64), torch.float16),
    ]:
        codes = e4m3_codes((rows, cols))
        scale = torch.tensor(random.uniform(-1, 1, (-(-rows // block[0]), -(-cols // block[1]))), dtype=torch.float32).to(dtype)
        each = scale.float()[torch.arange(rows) // block[0]][:, torch.arange(cols) // block[1]]
        weights = each * codes.view(torch.float8_e4m3fn).float()
        write(name, (rows, cols, *block), [codes, scale], weights.numpy())


gptq()
awq_words()
compressed()
e4m3()
