#!/usr/bin/env python3
"""Writes crates/forge-formats/tests/fixtures: stored weights and what independent decoders make of them.

Needs `pip install gguf==0.19.0 mlx[cpu]==0.32.4`; `--only NAME` writes that of one block format and needs no mlx. The fixtures
are committed; run this only to add one.

Files, little-endian:
  <FORMAT>.bin          u32 weights, u32 bytes, blocks, f32 weights     blocks are random, weights from the gguf package
  <FORMAT>.encode.bin   the same                                        weights are random, blocks from the gguf package
  affine<B>_g<G>.bin    u32 weights, u32 GGML type id of the scales, codes, scales, biases, f32 weights     from mlx
  <MODE>.mlx.bin        codes and scales apart, of MLX's floating modes; see floating_modes
  affine<B>_g<G>.encode.bin   f32 relative RMS error of mlx.core.quantize, then the f32 weights it was given
  <MODE>.encode.bin     the same of MLX's floating modes that have a quantiser here

The gguf package has no MXFP8, Q1_0, Q2_0 and TQ2_0_g128: their decoders are here, from the description of the blocks alone.
"""

import argparse
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

OUT = Path(__file__).resolve().parents[2] / "crates/forge-formats/tests/fixtures"

# name -> (bytes per block, weights per block, offsets of f16 fields, blocks in the fixture)
BLOCKS = {
    "F32": (4, 1, [], 64),
    "F16": (2, 1, [0], 128),
    "BF16": (2, 1, [], 128),
    "Q8_0": (34, 32, [0], 8),
    "Q4_0": (18, 32, [0], 8),
    "Q4_1": (20, 32, [0, 2], 8),
    "Q5_0": (22, 32, [0], 8),
    "Q5_1": (24, 32, [0, 2], 8),
    "Q2_K": (84, 256, [80, 82], 3),
    "Q3_K": (110, 256, [108], 3),
    "Q4_K": (144, 256, [0, 2], 3),
    "Q5_K": (176, 256, [0, 2], 3),
    "Q6_K": (210, 256, [208], 3),
    "IQ4_NL": (18, 32, [0], 8),
    "MXFP4": (17, 32, [], 8),
    "Q1_0": (18, 128, [0], 4),
    "TQ2_0_g128": (34, 128, [32], 4),
    "IQ4_XS": (136, 256, [0], 4),
    # Three blocks of extreme scales, then as many as it takes to have every point and every sign.
    "IQ3_XXS": (98, 256, [0], 3 + 4),
    "IQ3_S": (110, 256, [0], 3 + 8),
    "IQ2_XXS": (66, 256, [0], 3 + 8),
    "IQ2_XS": (74, 256, [0], 3 + 16),
    "IQ2_S": (82, 256, [0], 3 + 32),
    "IQ1_S": (50, 256, [0], 3 + 64),
    "IQ1_M": (56, 256, [], 3 + 64),
    "TQ2_0": (66, 256, [64], 4),
    "Q2_0": (18, 64, [0], 6),
    "TQ1_0": (54, 256, [52], 8),
    # As many as have every scale.
    "NVFP4": (36, 64, [], 64),
    "MXFP8": (33, 32, [], 16),
}


def decode_q1_0(blocks):
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    signs = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
    return np.where(signs == 1, d, -d)


def decode_tq2_0_g128(blocks):
    d = blocks[:, 32:].copy().view(np.float16).astype(np.float32)
    bits = np.unpackbits(blocks[:, :32], axis=1, bitorder="little").reshape(len(blocks), 128, 2)
    code = bits[:, :, 0] + 2 * bits[:, :, 1]
    return np.select([code == 0, code == 2], [-d, d], np.float32(0))


def decode_q2_0(blocks):
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").reshape(len(blocks), 64, 2)
    return d * (bits[:, :, 0] + 2 * bits[:, :, 1] - np.float32(1))


def decode_mxfp8(blocks):
    sign, exponent, fraction = blocks[:, 1:] >> 7, blocks[:, 1:] >> 3 & 15, blocks[:, 1:] & np.uint8(7)
    normal = (1 + fraction / 8) * 2.0 ** (exponent.astype(np.int32) - 7)
    size = np.where(exponent == 0, fraction / 8 * 2.0**-6, normal)
    return (np.where(sign == 1, -size, size) * 2.0 ** (blocks[:, :1].astype(np.int32) - 127)).astype(np.float32)


OWN = {"MXFP8": decode_mxfp8, "Q1_0": decode_q1_0, "Q2_0": decode_q2_0, "TQ2_0_g128": decode_tq2_0_g128}


def random_blocks(name, rng):
    size, _, halves, count = BLOCKS[name]
    blocks = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
    if name == "F32":
        blocks = rng.standard_normal(count).astype(np.float32).view(np.uint8).reshape(count, 4).copy()
    if name == "BF16":
        upper = rng.standard_normal(count).astype(np.float32).view(np.uint32) >> 16
        blocks = upper.astype(np.uint16).view(np.uint8).reshape(count, 2).copy()
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(100, 140, size=count)
        blocks[0, 0], blocks[1, 0], blocks[2, 0] = 0, 1, 2
    if name == "MXFP8":
        # Every code but those that are no numbers, and the smallest scales.
        codes = np.concatenate([np.arange(127), np.arange(128, 255), rng.integers(0, 127, 16 * 32 - 254)])
        blocks[:, 1:] = rng.permutation(codes).reshape(16, 32)
        blocks[:, 0] = [0, 1, 2, 3, *rng.integers(100, 140, size=11), 240]
    if name == "NVFP4":
        blocks[:, :4] = rng.permutation(256).reshape(64, 4)
    for at in halves:
        scale = rng.uniform(-0.1, 0.1, size=count).astype(np.float16)
        # A zero, a subnormal and a large one.
        scale[:3] = [0.0, 3e-7, -900.0]
        blocks[:, at : at + 2] = scale.view(np.uint8).reshape(count, 2)
    if name.startswith(("IQ1", "IQ2", "IQ3")):
        every_point(name, blocks[3:], rng)
        if name == "IQ1_M":
            # 0, the smallest subnormal, a large one.
            blocks[:3, 49::2] = np.array([[0, 0, 0, 0], [16, 0, 0, 0], [0, 0, 0, 0xE0]]) | blocks[:3, 49::2] & 15
    return blocks


def every_point(name, blocks, rng):
    """Puts every index of the grid into the blocks, and every index of seven signs."""
    count = len(blocks)
    if name == "IQ1_M":
        # The factor lies in the top nibbles of the last four shorts.
        scale = rng.uniform(-0.1, 0.1, size=count).astype(np.float16)
        shorts = blocks[:, 48:].view("<u2")
        shorts[:] = shorts & 0x0FFF | (scale.view(np.uint16)[:, None] >> np.array([0, 4, 8, 12]) & 15) << 12
    points = {"IQ3_XXS": 256, "IQ3_S": 512, "IQ2_XXS": 256, "IQ2_XS": 512, "IQ2_S": 1024}.get(name, 2048)
    each = 64 if name.startswith("IQ3") else 32
    index = np.resize(rng.permutation(points), (count, each))
    seven = np.resize(rng.permutation(128), (count, 32)).astype(np.uint32)
    group = index.reshape(count, 8, -1)
    if name in ("IQ3_XXS", "IQ3_S"):
        blocks[:, 2:66] = index & 255
    if name == "IQ3_S":
        blocks[:, 66:74] = np.packbits(index >> 8, axis=1, bitorder="little")
    if name == "IQ2_XXS":
        blocks[:, 2:].reshape(count, 8, 8)[:, :, :4] = group
    if name == "IQ2_XS":
        blocks[:, 2:66] = (index | seven << 9).astype("<u2").view(np.uint8)
    if name == "IQ2_S":
        blocks[:, 2:34] = index & 255
        blocks[:, 66:74] = (group >> 8 << np.array([0, 2, 4, 6])).sum(axis=2)
    if name == "IQ1_S":
        blocks[:, 2:34] = index & 255
        high = blocks[:, 34:].copy().view("<u2") & 0xF000 | (group >> 8 << np.array([0, 3, 6, 9])).sum(axis=2)
        blocks[:, 34:] = high.astype("<u2").view(np.uint8)
    if name == "IQ1_M":
        blocks[:, :32] = index & 255
        high = index >> 8 | rng.integers(0, 2, index.shape) << 3
        blocks[:, 32:48] = high[:, ::2] | high[:, 1::2] << 4
    if name in ("IQ3_XXS", "IQ2_XXS"):
        scale = np.resize(rng.permutation(16), (count, 8)).astype(np.uint32)
        words = (seven.reshape(count, 8, 4) << np.array([0, 7, 14, 21])).sum(axis=2).astype(np.uint32) | scale << 28
        places = blocks[:, 66:] if name == "IQ3_XXS" else blocks[:, 2:].reshape(count, 8, 8)[:, :, 4:]
        places[:] = words.astype("<u4").view(np.uint8).reshape(places.shape)


def decode(name, blocks):
    if name in OWN:
        return OWN[name](blocks)
    return gguf.quants.dequantize(blocks, T[name])


def write(name, *parts):
    (OUT / name).write_bytes(b"".join(parts))


def block_formats(only):
    for seed, name in enumerate(BLOCKS):
        if only not in (None, name):
            continue
        blocks = random_blocks(name, np.random.default_rng(seed))
        weights = decode(name, blocks).astype(np.float32).reshape(-1)
        assert np.isfinite(weights).all() and weights.size == blocks.shape[0] * BLOCKS[name][1]
        write(f"{name}.bin", struct.pack("<II", weights.size, blocks.size), blocks.tobytes(), weights.tobytes())


def encoded_formats():
    for seed, name in enumerate(["Q8_0", "Q4_0", "Q4_1"]):
        rng = np.random.default_rng(100 + seed)
        weights = rng.standard_normal(8 * 32).astype(np.float32) * np.float32(0.02)
        # All zero, constant, ties of magnitude, and one outlier.
        weights[:32], weights[32:64] = 0.0, -0.75
        weights[64:96] = np.where(np.arange(32) % 3 == 1, -0.5, 0.5)
        weights[100] = 3.0
        blocks = gguf.quants.quantize(weights, T[name])
        write(f"{name}.encode.bin", struct.pack("<II", weights.size, blocks.size), blocks.tobytes(), weights.tobytes())


def affine_formats():
    import mlx.core as mx

    mx.set_default_device(mx.cpu)

    def to_bytes(array):
        """The bytes of an mlx array; bfloat16 has no numpy counterpart."""
        return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array).tobytes()

    scale_types = {32: (T.F32, mx.float32), 64: (T.BF16, mx.bfloat16), 128: (T.F16, mx.float16)}
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            rng = np.random.default_rng(1000 * bits + group)
            cols = 256
            name = f"affine{bits}_g{group}"
            codes = mx.array(rng.integers(0, 2**32, size=(1, cols * bits // 32), dtype=np.uint32))
            id, dtype = scale_types[group]
            scales = mx.array(rng.uniform(-0.1, 0.1, size=(1, cols // group)).astype(np.float32)).astype(dtype)
            biases = mx.array(rng.uniform(-1, 1, size=(1, cols // group)).astype(np.float32)).astype(dtype)
            f32 = mx.float32
            weights = mx.dequantize(codes, scales.astype(f32), biases.astype(f32), group_size=group, bits=bits)
            write(
                f"{name}.bin",
                struct.pack("<II", cols, int(id)),
                *map(to_bytes, (codes, scales, biases, weights)),
            )
            plain = mx.array(rng.standard_normal((1, cols)).astype(np.float32) * 0.02)
            back = mx.dequantize(*mx.quantize(plain, group_size=group, bits=bits), group_size=group, bits=bits)
            error = mx.sqrt(mx.sum((back - plain) ** 2) / mx.sum(plain**2)).item()
            write(f"{name}.encode.bin", struct.pack("<f", error), to_bytes(plain))


def floating_modes(only):
    """<MODE>.mlx.bin: u32 weights, u32 bytes of codes, f32 factor of all scales, codes, scales, f32 weights with that factor, and
    without it. Codes are random; of the scales every one is there that is a number."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    for mode, group, bits, scales in MODES:
        if only not in (None, mode):
            continue
        rng = np.random.default_rng(7)
        cols = len(scales) * group
        codes = rng.integers(0, 256, size=(1, cols * bits // 8), dtype=np.uint8)
        if bits == 8:
            codes[codes & 127 == 127] = 126
        words, factor = mx.array(codes.view(np.uint32)), np.float32(0)
        settings = dict(mode=mode, group_size=group, bits=bits, dtype=mx.float32)
        parts = [np.array(mx.dequantize(words, mx.array(scales[None]), **settings))]
        if mode == "nvfp4":
            largest = mx.array(3.7, dtype=mx.float32)
            factor = np.float32(3.7) / np.float32(448 * 6)
            parts.append(np.array(mx.dequantize(words, mx.array(scales[None]), global_scale=largest, **settings)))
        assert all(np.isfinite(part).all() for part in parts)
        heads = struct.pack("<IIf", cols, codes.size, factor)
        write(f"{mode}.mlx.bin", heads, codes.tobytes(), scales.tobytes(), *(part.tobytes() for part in parts))


def encoded_modes(only):
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    for mode, group, bits in [("mxfp4", 32, 4), ("nvfp4", 16, 4)]:
        if only not in (None, mode):
            continue
        # Of a size that scales of E4M3 have all their digits at.
        plain = mx.array(np.random.default_rng(8).standard_normal((1, 1024)).astype(np.float32))
        settings = dict(mode=mode, group_size=group, bits=bits)
        back = mx.dequantize(*mx.quantize(plain, **settings), dtype=mx.float32, **settings)
        error = mx.sqrt(mx.sum((back - plain) ** 2) / mx.sum(plain**2)).item()
        write(f"{mode}.encode.bin", struct.pack("<f", error), np.array(plain).tobytes())


EVERY = np.arange(256, dtype=np.uint8)
# Groups, bits, scales. The largest powers of two take large codes out of the range of f32.
MODES = [
    ("mxfp4", 32, 4, EVERY[:252:3]),
    ("nvfp4", 16, 4, EVERY[EVERY & 127 != 127]),
    ("mxfp8", 32, 8, EVERY[:246:6]),
]


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=[*BLOCKS, *(mode for mode, *_ in MODES)])
    only = arguments.parse_args().only
    OUT.mkdir(parents=True, exist_ok=True)
    block_formats(only)
    if only is None or only in [mode for mode, *_ in MODES]:
        floating_modes(only)
        encoded_modes(only)
    if only is None:
        encoded_formats()
        affine_formats()
