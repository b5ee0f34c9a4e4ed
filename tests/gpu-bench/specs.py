#!/usr/bin/env python3
"""Writes specs of bench-msl-cuda for the kernels of templates/msl, with forge-plan's geometry.

  specs.py OUT     run from the repository's root; build.py then takes --src templates/msl
"""
import json
import math
import os
import re
import sys

import grids
import mixers

SHAPES = [(4096, 4096), (12288, 4096), (4096, 12288), (1024, 4096), (151936, 2560)]
NAMES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_1": "Q4_1", "q5_0": "Q5_0",
         "q5_1": "Q5_1", "q2_k": "Q2K", "q3_k": "Q3K", "q4_k": "Q4K", "q5_k": "Q5K", "q6_k": "Q6K", "iq4_nl": "Iq4Nl",
         "mxfp4": "Mxfp4", "q1_0": "Q1_0", "tq2_0_g128": "Tq2_0G128", "iq4_xs": "Iq4Xs", "iq3_xxs": "Iq3Xxs", "iq3_s": "Iq3S",
         "iq2_xxs": "Iq2Xxs", "iq2_xs": "Iq2Xs", "iq2_s": "Iq2S", "iq1_s": "Iq1S", "iq1_m": "Iq1M",
         "nvfp4": "Nvfp4", "mxfp8": "Mxfp8", "e4m3_g128": "E4m3G128", "e4m3_g32": "E4m3G32", "tq1_0": "Tq1_0", "tq2_0": "Tq2_0",
         "q2_0": "Q2_0"}
# Kernels with a table in threadgroup memory for matrices of many rows: format: (source, floats of the table).
TABLES = {"q1_0": ("gemv_q1_0_sums", 4096), "tq1_0": ("gemv_tq1_0_sums", 4 * 2016), "iq1_s": ("gemv_iq1_s_sums", 2 * 2304 + 1024),
          "iq1_m": ("gemv_iq1_m_sums", 2 * 2304 + 1024), "iq2_xxs": ("gemv_iq2_xxs_shared", 544)}
# Formats with two tiles a group.
WIDE = ("f32", "f16", "bf16", "q8_0", "affine8_64", "mxfp8", "e4m3_g128", "e4m3_g32")
# Floats of 16 bits, of which a simdgroup has more rows.
HALVES = ("f16", "bf16")
# format: (its line in geometry.rs, sources besides common.metal, function, template arguments before the sizes)
FORMATS = {f: ("Format::" + name, ["gemv_" + f], "gemv_" + f, "") for f, name in NAMES.items()}
for bits in (2, 3, 4, 5, 6, 8):
    line = "Format::Affine { bits: 2 | 3, .. }" if bits < 4 else "Format::Affine { bits: %d, .. }" % bits if bits in (6, 8) else "Format::Affine { .. }"
    FORMATS["affine%d_64" % bits] = (line, ["codes_%d" % bits, "gemv_affine"], "gemv_affine", "Codes%d, 64, true, false, " % bits)

WRAPPER = """
kernel void bench_gemv(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                       device float* y [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    const uint row = (group * (B_NSG / B_KS) + simdgroup / B_KS) * B_NR;
    float acc[B_NR];
#if B_TABLE
    threadgroup float table[B_TABLE];
    WITH_TABLE<B_ROWS, B_COLS, B_NR, B_KS, 0, B_NSG>(weights, x, table, row, simdgroup % B_KS, simdgroup, lane, acc);
    #pragma clang loop unroll(full)
    for (uint r = 0; r < B_NR; ++r) if (lane == r && row + r < B_ROWS) y[row + r] = acc[r];
    return;
#endif
#if B_KS > 1
    threadgroup float shared[B_NSG * B_NR];
    if (row < B_ROWS) GEMV<ARGUMENTS B_ROWS, B_COLS, B_NR, B_KS, 0>(weights, x, row, simdgroup % B_KS, lane, acc);
    #pragma clang loop unroll(full)
    for (uint r = 0; r < B_NR; ++r) if (lane == r) shared[simdgroup * B_NR + r] = acc[r];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simdgroup % B_KS == 0 && lane < B_NR && row + lane < B_ROWS) {
        float sum = 0.0f;
        for (uint p = 0; p < B_KS; ++p) sum += shared[(simdgroup + p) * B_NR + lane];
        y[row + lane] = sum;
    }
#else
    if (row >= B_ROWS) return;
    GEMV<ARGUMENTS B_ROWS, B_COLS, B_NR, B_KS, 0>(weights, x, row, 0, lane, acc);
    #pragma clang loop unroll(full)
    for (uint r = 0; r < B_NR; ++r) if (lane == r && row + r < B_ROWS) y[row + r] = acc[r];
#endif
}
"""
# A few rows of a step: the kernels for two and for more, B_ROOM rows in a threadgroup.
ROWS_WRAPPER = """
kernel void bench_rows(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                       device float* y [[buffer(2)]], constant uint& rows [[buffer(3)]],
                       uint2 at [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[B_NSG * B_NR * B_ROOM];
    float acc[B_NR * B_ROOM] = {};
    x += at.x * B_ROOM * B_COLS;
    y += at.x * B_ROOM * B_ROWS;
    const uint tokens = min(uint(B_ROOM), rows - at.x * B_ROOM);
    const uint first = (at.y * (B_NSG / B_KS) + simdgroup / B_KS) * B_NR;
    if (first < B_ROWS) {
        GEMV<ARGUMENTS B_ROWS, B_COLS, B_NR, B_KS, 0, B_ROOM>(weights, x, first, simdgroup % B_KS, lane, acc, tokens);
    }
    const float result = B_KS > 1 ? combine_results<B_NR * B_ROOM, B_KS>(acc, shared, simdgroup, lane)
                                  : own_result<B_NR * B_ROOM>(acc, lane);
    const uint n = lane / B_NR;
    const uint row = first + lane % B_NR;
    if (simdgroup % B_KS == 0 && n < tokens && row < B_ROWS) y[n * B_ROWS + row] = result;
}
"""

def table():
    text = open("crates/forge-plan/src/geometry.rs").read()
    out = {}
    for names, row in re.findall(r"(Format::[^=]*?)=> row\((.*?)\),\n", text):
        choices = [tuple(map(int, e)) for e in re.findall(r"\((\d+), (\d+), (\d+)\)", row)]
        for name in [names] if "{" in names else names.split("|"):
            out[name.strip()] = choices
    # Formats without a row of their own have that of their width.
    narrow = [name for f, name in NAMES.items() if f.startswith("iq")] + ["Mxfp4", "Nvfp4", "Tq1_0", "Tq2_0", "Q2_0"]
    for width, names in (("0\\.\\.5", narrow), ("_", ("Q5_0", "Q5_1", "Mxfp8", "E4m3G128", "E4m3G32"))):
        row = re.search(r"\n\s+%s\s+=> row\((.*?)\),\n" % width, text).group(1)
        for name in names:
            out.setdefault("Format::" + name, [tuple(map(int, e)) for e in re.findall(r"\((\d+), (\d+), (\d+)\)", row)])
    return out


def points(name):
    """The table of a grid, as `sources.rs` renders it."""
    coordinates = grids.grid(name, "cpu").long().tolist()
    packed = name == "iq1_s"
    kind = "ushort" if packed else "uint" if len(coordinates[0]) == 4 else "ulong"
    words = [sum((c + 1) << (i // 2 * 2 + i % 2 * 8) if packed else c << (8 * i) for i, c in enumerate(point)) for point in coordinates]
    return "constant %s %s_POINTS[%d] = {%s};\n" % (kind, name.capitalize(), len(words), ", ".join(map(hex, words)))


def sums(name):
    """Where the sums of a point of -1, 0 and 1 lie in tables of 27, 27 and 9: bits 7, 0 and 12."""
    coordinates = grids.grid(name, "cpu").long().tolist()
    words = [sum((c + 1) * 3 ** (i % 3) << (7, 0, 12)[i // 3] for i, c in enumerate(point)) for point in coordinates]
    return "constant ushort %s_SUMS[%d] = {%s};\n" % (name.capitalize(), len(words), ", ".join(map(hex, words)))


def needed(name, done):
    """A source after those that its first line names."""
    if name in done:
        return []
    done.add(name)
    if name.startswith("points_"):
        return [{"text": points(name[7:])}]
    if name.startswith("sums_"):
        return [{"text": sums(name[5:])}]
    first = open("templates/msl/%s.metal" % name).readline()
    names = first[len("// needs: "):].strip().split(", ") if first.startswith("// needs: ") else []
    return [source for other in names for source in needed(other, done)] + [{"file": name + ".metal"}]


def geometry(choices, columns_at_once, rows, cols):
    short, middle, long, tall, head = choices
    nr, nsg, split = (short if rows < 2048 else (long if cols >= 8192 else middle) if rows < 8192 else
                      tall if rows < 32768 else head)
    return nr, nsg, min(split, 1 << int(math.log2(max(1, cols // columns_at_once))))


def few_rows(f, choices, files, function, arguments):
    """The kernels for a few rows of a format that is decoded once for all of them."""
    kernels = []
    few = 8 if f in HALVES else 4
    for rows, cols in SHAPES[:3]:
        _, nsg, ks = geometry(choices, 512 if f in WIDE else 1024, rows, cols)
        nsg = mixers.fewest_simdgroups(nsg, ks)
        for tokens, room in ((2, 2), (4, 4), (8, 4), (16, 4)):
            kernels.append({
                "id": "forge/%s rows r%d sg%d ks%d room%d" % (f, few, nsg, ks, room), "op": "gemm", "format": "forge_" + f,
                "points": [{"shape": "%dx%d" % (rows, cols), "tokens": tokens}],
                "defines": {"B_ROWS": str(rows), "B_COLS": str(cols), "B_NR": str(few), "B_NSG": str(nsg), "B_KS": str(ks),
                            "B_ROOM": str(room)},
                "launches": [{"kernel": "bench_rows", "args": ["w", "x", "y", "u32:%d" % tokens],
                              "grid": [-(-tokens // room), "ceil(rows, %d)" % (few * nsg // ks), 1], "tg": [32 * nsg, 1, 1]}]})
    done = set()
    source = [part for name in ["common", "rows"] + files for part in needed(name, done)]
    source.append({"text": ROWS_WRAPPER.replace("GEMV", function).replace("ARGUMENTS ", arguments)})
    return {"source": source, "kernels": kernels}


TILES = """
struct Weights {
    template <uint ROWS, uint COLS>
    static inline float4 load4(device const uchar* weights, uint row, uint col) {
        return LOAD4<ARGUMENTS ROWS, COLS>(weights, row, col);
    }
};
kernel void bench_tile(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                       device float* y [[buffer(2)]], constant uint& rows [[buffer(3)]],
                       uint2 group [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[4096];
    const uint first = group.y * 64;
    const TokenRows<B_COLS> input = {x + first * B_COLS};
    const StoreTile<B_ROWS> result = {y + first * B_ROWS};
    gemm_tile<Weights, Weights, B_OPERAND, B_ROWS, B_ROWS, B_COLS, false, 0>(
        weights, weights, input, result, min(64u, rows - first), 0, group.x * 64, shared, simdgroup, lane);
}
"""
ATTENTION_TILE = """
kernel void bench_attention(device const float* q [[buffer(0)]], device const half* keys [[buffer(1)]],
                            device const half* values [[buffer(2)]], device float* y [[buffer(3)]],
                            constant uint& position [[buffer(4)]], constant uint& rows [[buffer(5)]],
                            uint2 group [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                            uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[3584];
    attention_tile<32, 8, 128, 128, 4, 1, 32, 0, 0, HalfWeights>(q, keys, values, y, shared, 0, position, rows, 0.08838834764f, 0.0f,
                                                     group.x, group.y, simdgroup, lane);
}
"""


def tiles(f, files, function, arguments):
    """Products of tiles; float operands are checked where 8x8 products are exact, and timed as the unit has them."""
    kernels = []
    for operand in ("half", "float"):
        for rows, cols in SHAPES[:3]:
            kernels.append({
                "id": "forge/%s %s tile" % (f, operand), "op": "gemm", "format": "forge_" + f, "tol": 2e-3,
                "points": [{"shape": "%dx%d" % (rows, cols), "tokens": [16, 32, 64, 256, 512]}],
                "exact": "tokens == 64" if operand == "float" and rows == cols else "0",
                "issue": "rows == cols and tokens >= 64",
                "defines": {"B_ROWS": str(rows), "B_COLS": str(cols), "B_OPERAND": "'%s'" % {"half": "Halves", "float": "Floats"}[operand]},
                "launches": [{"kernel": "bench_tile", "args": ["w", "x", "y", "u32:tokens"],
                              "grid": ["ceil(rows, 64)", "ceil(tokens, 64)", 1], "tg": [128, 1, 1]}]})
    done = set()
    source = [part for name in ["common", "rows"] + files + ["product", "gemm"] for part in needed(name, done)]
    text = TILES.replace("LOAD4", function.replace("gemv", "load4")).replace("ARGUMENTS ", arguments)
    return {"source": source + [{"text": text}], "kernels": kernels}


def attention_tiles():
    kernel = {"id": "forge/attention tile", "op": "prefill", "kv": "f16", "layout": "seq_kvh_hd", "tol": 0.1,
              "points": [{"tokens": 512, "past": past} for past in (0, 4096, 32768)],
              "exact": "past == 0", "exact_tol": 2e-3, "issue": "1",
              "launches": [{"kernel": "bench_attention", "args": ["q", "k", "v", "y", "u32:past", "u32:tokens"],
                            "grid": ["ceil(tokens, 8)", 8, 1], "tg": [128, 1, 1]}]}
    files = ("common", "kv", "kv_f16", "product", "attention_tile")
    return {"source": [{"file": name + ".metal"} for name in files] + [{"text": ATTENTION_TILE}], "kernels": [kernel]}


def main():
    out, choices = sys.argv[1], table()
    os.makedirs(out, exist_ok=True)
    for f, (line, files, function, arguments) in FORMATS.items():
        kernels = []
        for rows, cols in SHAPES:
            nr, nsg, ks = geometry(choices[line], 512 if f in WIDE else 1024, rows, cols)
            floats = TABLES.get(f, ("", 0))[1] if rows >= 8192 else 0
            kernels.append({
                "id": "forge/%s r%d sg%d ks%d" % (f, nr, nsg, ks), "op": "gemv", "format": "forge_" + f,
                "when": "rows == %d and cols == %d" % (rows, cols),
                "defines": {"B_ROWS": str(rows), "B_COLS": str(cols), "B_NR": str(nr), "B_NSG": str(nsg), "B_KS": str(ks),
                            "B_TABLE": str(floats)},
                "launches": [{"kernel": "bench_gemv", "args": ["w", "x", "y"],
                              "grid": ["ceil(rows, %d)" % (nr * nsg // ks), 1, 1], "tg": [32 * nsg, 1, 1]}]})
        done = set()
        keeper, _ = TABLES.get(f, ("", 0))
        source = [part for name in ["common"] + files + [keeper] * (keeper != "") for part in needed(name, done)]
        source.append({"text": (WRAPPER if keeper else re.sub(r"#if B_TABLE.*?#endif\n", "", WRAPPER, flags=re.S))
                       .replace("GEMV", function).replace("WITH_TABLE", keeper).replace("ARGUMENTS ", arguments)})
        json.dump({"source": source, "kernels": kernels}, open(os.path.join(out, f + ".json"), "w"), indent=0)
        if f in mixers.MIXTURES:
            def sources(names):
                done = set()
                return [part for name in ["common"] + files + names for part in needed(name, done)]

            def of_shape(rows, cols):
                return geometry(choices[line], 1024, rows, cols)
            spec = mixers.experts(f, function, arguments, sources, of_shape)
            json.dump(spec, open(os.path.join(out, f + "_experts.json"), "w"), indent=0)
            spec = mixers.expert_tiles(f, function.replace("gemv", "load4"), arguments, sources)
            json.dump(spec, open(os.path.join(out, f + "_expert_tiles.json"), "w"), indent=0)
        if f in ("q8_0", "q4_0", "q4_k", "affine4_64", "e4m3_g128", "e4m3_g32", "q2_k", "q3_k", "iq4_nl", "iq4_xs", "f32") + HALVES:
            spec = few_rows(f, choices[line], files, function, arguments)
            json.dump(spec, open(os.path.join(out, f + "_rows.json"), "w"), indent=0)
        if f in ("f16", "q8_0", "q4_0", "q4_k", "affine4_64"):
            spec = tiles(f, files, function, arguments)
            json.dump(spec, open(os.path.join(out, f + "_tiles.json"), "w"), indent=0)
    for name, spec in mixers.specs().items():
        json.dump(spec, open(os.path.join(out, name + ".json"), "w"), indent=0)
    json.dump(attention_tiles(), open(os.path.join(out, "attention_tiles.json"), "w"), indent=0)


main()
