"""Specs of what mixes tokens, and of experts: attention over keys and values and over latents, the gated delta rule, the experts of
a row and of a tile. Kernels are wrapped as forge-plan's families call them, with their geometry; works.py has what is expected."""

ATTENTION = """
kernel void attention_parts(device const float* q [[buffer(0)]], device const CACHE* k [[buffer(1)]],
                            device const CACHE* v [[buffer(2)]], device float* y [[buffer(3)]],
                            device const uint* positions [[buffer(4)]], uint3 g [[threadgroup_position_in_grid]],
                            uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[B_FLOATS];
    attention_part<B_HEADS, B_KV_HEADS, B_DIM, B_SHARED, B_SIMDGROUPS, B_STEPS, B_ELEMENTS, B_SLICES, 0, 0, 256, 64, B_MOST>(
        q, k, v, y, shared, 0, positions[g.z], B_SCALE, 0.0f, g.x, g.y, g.z, simdgroup, lane);
}
kernel void attention_sum(device const float* p [[buffer(0)]], device float* y [[buffer(1)]],
                          device const uint* positions [[buffer(2)]], uint2 g [[threadgroup_position_in_grid]],
                          uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[B_COMBINE * B_DIM];
    attention_combine<B_HEADS, B_DIM, B_COMBINE, 0, 256, 64, B_MOST>(p, y, shared, positions[g.y], g.x, g.y, simdgroup, lane);
}
"""


def attention_geometry(heads, kv_heads, dim, kv="f16"):
    """forge-plan's `decode_geometry`: heads that share a read, elements of a lane, slices of a head, simdgroups, steps"""
    group = heads // kv_heads
    for shared in (n for n in range(min(group, 16), 0, -1) if group % n == 0):
        for elements in (8, 4, 2):
            for slices in (1, 2, 4, 8):
                width = dim // slices
                vectors = -(-width // (elements * 32))
                lanes = min(32, 1 << (-(-width // elements) - 1).bit_length())
                if (dim % (slices * elements) == 0 and lanes >= 1 << (shared - 1).bit_length() and
                        shared * elements * vectors <= {8: 24 if kv == "f16" else 32, 4: 48, 2: 32}[elements]):
                    steps = 4 if elements == 8 or elements == 4 and shared >= 8 else 8
                    return shared, elements, slices, 8, max(1, steps // vectors)


def attention_floats(dim, g):
    shared, elements, slices, simdgroups, steps = g
    width = dim // slices
    at_once = max(1, min(shared, 4096 // (simdgroups * width)))
    results = (at_once * width + 2 * shared // slices) * simdgroups
    return max(-(-results // 4) * 4, 2 * simdgroups * steps * 32 if slices > 1 else 0)


def attention(heads, kv_heads, dim, kv, points, tag="forge", geometry=None, most=None, text=ATTENTION, folder="", combine=8):
    g = geometry or attention_geometry(heads, kv_heads, dim, kv)
    shared, elements, slices, simdgroups, steps = g
    most = most or max(32, min(128, 256 // (heads // shared)))
    kernels = []
    for seq, rows in points:
        parts = min(most, -(-seq // 64))
        kernels.append({
            "id": "%s/attention r%d h%d e%d s%d sg%d st%d m%d c%d" % (tag, rows, shared, elements, slices, simdgroups, steps, most, combine), "op": "attn",
            "kv": kv, "x": "f32", "y": "f32", "layout": "%d/%d/%d" % (heads, kv_heads, dim), "points": [{"seq": seq, "tokens": rows}],
            "tol": 1e-5 if kv == "f16" else 1e-4,
            "defines": {n: str(v) for n, v in dict(
                B_HEADS=heads, B_KV_HEADS=kv_heads, B_DIM=dim, B_SHARED=shared, B_SIMDGROUPS=simdgroups, B_STEPS=steps,
                B_ELEMENTS=elements, B_SLICES=slices, B_MOST=most, B_COMBINE=combine, B_FLOATS=attention_floats(dim, g),
                B_SCALE="'%.9gf'" % dim ** -0.5).items()},
            "launches": [{"kernel": "attention_parts", "args": ["q", "k", "v", "tmp0:%d" % (rows * most * heads * (dim + 2) * 4), "positions"],
                          "grid": [kv_heads * (heads // kv_heads) // shared, parts, rows], "tg": [32 * simdgroups, 1, 1]},
                         {"kernel": "attention_sum", "args": ["tmp0", "y", "positions"], "grid": [heads, rows, 1], "tg": [32 * combine, 1, 1]}]})
    files = ["common", "kv" if kv == "f16" else "kv_blocks", "kv_" + kv, "attention_decode"]
    source = [{"file": folder + name + ".metal"} for name in files]
    return {"source": source + [{"text": text.replace("CACHE", "half" if kv == "f16" else "uchar")}], "kernels": kernels}


LATENTS = """
kernel void attention_parts(device const float* q [[buffer(0)]], device const half* k [[buffer(1)]],
                            device float* y [[buffer(2)]], device const uint* positions [[buffer(3)]],
                            uint3 g [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                            uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[B_FLOATS];
    latents_part<B_HEADS, 512, 64, B_SHARED, 1, 8, B_KEYS, 256, 64, B_MOST, half>(
        q, k, y, shared, 0, positions[g.z], 0.0721687836f, g.x, g.y, g.z, simdgroup, lane);
}
kernel void attention_sum(device const float* p [[buffer(0)]], device float* y [[buffer(1)]],
                          device const uint* positions [[buffer(2)]], uint2 g [[threadgroup_position_in_grid]],
                          uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[8 * 512];
    attention_combine<B_HEADS, 512, 8, 0, 256, 64, B_MOST>(p, y, shared, positions[g.y], g.x, g.y, simdgroup, lane);
}
"""


def latents(heads, tag="forge", keys=None, most=None, folder=""):
    groups = max(1, heads // 16)
    shared = -(-heads // groups)
    most = most or max(32, min(128, 256 // groups))
    lines = -(-shared // 8) * 8
    for keys in (keys,) if keys else (32, 16, 8):  # forge-plan's `latent_geometry`
        size = 4 * (8 * lines * keys + 3 * lines + 512) + 2 * (keys * 584 + lines * keys)
        if size <= 32768:
            break
    kernels = [{
        "id": "%s/latents k%d m%d" % (tag, keys, most), "op": "attn", "kv": "f16", "x": "f32", "y": "f32", "layout": "latent/%d" % heads,
        "points": [{"seq": seq, "tokens": 1}], "tol": 5e-3,
        "defines": {"B_HEADS": str(heads), "B_SHARED": str(shared), "B_KEYS": str(keys), "B_MOST": str(most), "B_FLOATS": str(size // 4)},
        "launches": [{"kernel": "attention_parts", "args": ["q", "k", "tmp0:%d" % (most * heads * 514 * 4), "positions"],
                      "grid": [groups, most, 1], "tg": [256, 1, 1]},
                     {"kernel": "attention_sum", "args": ["tmp0", "y", "positions"], "grid": [heads, 1, 1], "tg": [256, 1, 1]}]}
        for seq in (8192, 32768)]
    files = ("common", "kv", "kv_f16", "attention_decode", "latent_attention")
    return {"source": [{"file": folder + name + ".metal"} for name in files] + [{"text": LATENTS}], "kernels": kernels}


LATENT_TILES = """
constant float FREQUENCIES[32] = {TABLE};
struct W {
    template <uint ROWS, uint COLS>
    static inline float4 load4(device const uchar* weights, uint row, uint col) { return load4_f16<ROWS, COLS>(weights, row, col); }
};
kernel void queries(device const uchar* keys [[buffer(0)]], device const float* x [[buffer(1)]], device float* q [[buffer(2)]],
                    constant uint& past [[buffer(3)]], constant uint& rows [[buffer(4)]], AT) {
    threadgroup float shared[4096];
    latent_queries_tile<W, B_HEADS, B_NOPE, 64, 512, true, B_HEADS * (B_NOPE + 64)>(
        keys, x, q, shared, FREQUENCIES, past, rows, 1.0f, g, simdgroup, lane);
}
kernel void over_latents(device const float* q [[buffer(0)]], device const half* latents [[buffer(1)]], device float* y [[buffer(2)]],
                         constant uint& past [[buffer(3)]], constant uint& rows [[buffer(4)]], AT) {
    threadgroup float shared[B_FLOATS];
    latents_tile<B_HEADS, 512, 64, B_SHARED, B_TOGETHER, 8, 8, half>(q, latents, y, shared, 0, past, rows, B_SCALE, g.x, g.y, simdgroup, lane);
}
kernel void values_of(device const uchar* values [[buffer(0)]], device const float* x [[buffer(1)]], device float* y [[buffer(2)]],
                      constant uint& rows [[buffer(3)]], AT) {
    threadgroup float shared[4096];
    latent_values_tile<W, B_HEADS, 512, B_VALUE>(values, x, y, shared, rows, g, simdgroup, lane);
}
kernel void expand_keys(device const uchar* keys [[buffer(0)]], device const half* latents [[buffer(1)]], device half* y [[buffer(2)]],
                        constant uint& past [[buffer(3)]], constant uint& rows [[buffer(4)]], AT) {
    threadgroup float shared[4096];
    latent_expand<Turned<W, B_HEADS, B_NOPE, 512>, Halves, B_HEADS, B_NOPE, 64, 512, 64>(
        keys, latents, y, shared, 0, past, rows, g, simdgroup, lane);
}
kernel void expand_values(device const uchar* values [[buffer(0)]], device const half* latents [[buffer(1)]], device half* y [[buffer(2)]],
                          constant uint& past [[buffer(3)]], constant uint& rows [[buffer(4)]], AT) {
    threadgroup float shared[4096];
    latent_expand<W, Halves, B_HEADS, B_VALUE, 0, 512, 64>(values, latents, y, shared, 0, past, rows, g, simdgroup, lane);
}
kernel void rotate(device const float* x [[buffer(0)]], device float* q [[buffer(1)]], constant uint& past [[buffer(2)]], AT) {
    latent_rotate<B_HEADS, B_NOPE, 64, true, B_HEADS * (B_NOPE + 64), 4>(
        x, q, FREQUENCIES, past + g.y, 1.0f, uint2(g.x, g.y), simdgroup, lane);
}
kernel void over_keys(device const float* q [[buffer(0)]], device const half* keys [[buffer(1)]], device const half* values [[buffer(2)]],
                      device float* y [[buffer(3)]], constant uint& past [[buffer(4)]], constant uint& rows [[buffer(5)]], AT) {
    threadgroup float shared[B_TILE_FLOATS];
    attention_tile<B_HEADS, B_HEADS, B_NOPE + 64, B_VALUE, 1, 1, 32, 0, 0, HalfWeights>(
        q, keys, values, y, shared, 0, past, rows, B_SCALE, 0.0f, g.x, g.y, simdgroup, lane);
}
""".replace("AT)", "uint3 g [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]], "
                     "uint lane [[thread_index_in_simdgroup]])").replace("TABLE", ", ".join("%.9ff" % (10000.0 ** (-i / 32)) for i in range(32)))


def latent_tiles(heads, nope, value, folder=""):
    """A tile of 512 rows from queries to heads' results: over latents, and over keys and values that are made of them."""
    groups = max(1, heads // 16)
    shared = -(-heads // groups)
    together = max(1, 32 // shared)
    lines = -(-shared * together // 8) * 8
    floats = 8 * lines * 8 + 3 * lines + 512 + (8 * 584 + lines * 8) // 2
    kernels = []
    for past, rows in ((0, 512), (4096, 512), (4096, 128), (4096, 64), (4096, 32)):
        end = past + rows
        common = {"op": "attn", "kv": "f16", "x": "f32", "y": "f32", "layout": "latent tile/%d/%d/%d" % (heads, nope, value),
                  "points": [{"seq": end, "tokens": rows}], "tol": 2e-2, "issue": 1,
                  "defines": {"B_HEADS": str(heads), "B_NOPE": str(nope), "B_VALUE": str(value), "B_SHARED": str(shared), "B_TOGETHER": str(together),
                              "B_FLOATS": str(floats), "B_TILE_FLOATS": str(16 * max(nope + 64, value) + 1536), "B_SCALE": "%.9f" % (nope + 64) ** -0.5}}
        at, sizes = ["u32:%d" % past, "u32:%d" % rows], "%d rows after %d" % (rows, past)
        tmp = lambda n, size: "tmp%d:%d" % (n, size)
        kernels.append({**common, "id": "forge/latents, %s" % sizes, "launches": [
            {"kernel": "queries", "args": ["keys", "x", tmp(0, rows * heads * 576 * 4)] + at, "grid": [9, -(-rows // 64), heads], "tg": [128, 1, 1]},
            {"kernel": "over_latents", "args": ["tmp0", "k", tmp(1, rows * heads * 512 * 4)] + at, "grid": [-(-rows // together), groups, 1], "tg": [256, 1, 1]},
            {"kernel": "values_of", "args": ["values", "tmp1", "y", at[1]], "grid": [-(-value // 64), -(-rows // 64), heads], "tg": [128, 1, 1]}]})
        kernels.append({**common, "id": "forge/keys and values, %s" % sizes, "launches": [
            {"kernel": "expand_keys", "args": ["keys", "k", tmp(0, end * heads * (nope + 64) * 2)] + at, "grid": [-(-nope // 64) + 1, -(-end // 64), heads], "tg": [128, 1, 1]},
            {"kernel": "expand_values", "args": ["values", "k", tmp(1, end * heads * value * 2)] + at, "grid": [-(-value // 64), -(-end // 64), heads], "tg": [128, 1, 1]},
            {"kernel": "rotate", "args": ["x", tmp(2, rows * heads * (nope + 64) * 4), at[0]], "grid": [-(-heads // 4), rows, 1], "tg": [128, 1, 1]},
            {"kernel": "over_keys", "args": ["tmp2", "tmp0", "tmp1", "y"] + at, "grid": [rows // 32, heads, 1], "tg": [128, 1, 1]}]})
    files = ("common", "gemv_f16", "kv", "kv_f16", "activation", "rows", "rope", "attention_decode", "product", "attention_tile", "latent_attention",
             "latent_heads", "gemm", "latent_tiles", "latent_expand")
    return {"source": [{"file": folder + name + ".metal"} for name in files] + [{"text": LATENT_TILES}], "kernels": kernels}


DELTA = """
struct StepParams { uint position; uint slot; uint rows; uint rest[16]; };
"""
DELTA_KERNEL = """
[[max_total_threads_per_threadgroup(512)]] kernel void WAY(
        device const float* x [[buffer(0)]], device const float* taps [[buffer(1)]], device const float* decay [[buffer(2)]],
        device const float* dt [[buffer(3)]], device const float* gamma [[buffer(4)]], device float* state [[buffer(5)]],
        device float* y [[buffer(6)]], device const StepParams* step [[buffer(7)]], uint2 group [[threadgroup_position_in_grid]],
        uint thread_index [[thread_index_in_threadgroup]], uint simdgroup [[simdgroup_index_in_threadgroup]],
        uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[FLOATS];
    WAY<16, 32, 128, 128, 4, 0, SIZES>(x, taps, decay, dt, gamma, state, y, step, shared, 1e-6f, group, thread_index, simdgroup, lane);
}
"""


def delta(folder="", tag="forge"):
    """one row, and a tile of 512; threads and rows at a time as forge-plan has them"""
    kernels, text = [], ""
    for way, tokens, sizes, floats in (("gated_delta_step", 1, "1, 512", 512), ("gated_delta_tile", 512, "512, 8", 8 * (512 + 8))):
        text += DELTA_KERNEL.replace("void WAY", "void bench_" + way).replace("WAY", way).replace("SIZES", sizes).replace("FLOATS", str(floats))
        kernels.append({"id": tag + "/" + way, "op": "delta", "layout": "forge", "points": [{"tokens": [tokens]}], "tol": 1e-4,
                        "launches": [{"kernel": "bench_" + way, "args": ["x", "taps", "decay", "dt", "gamma", "state", "y", "step"],
                                      "grid": [32, 1, 1], "tg": [512, 1, 1]}]})
    source = {"file": folder + "gated_delta.metal"}
    return {"source": [{"file": "common.metal"}, {"text": DELTA}, source, {"text": text}], "kernels": kernels}


EXPERTS = """
struct Gemv {
    template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT>
    static inline void run(device const uchar* weights, device const float* x, uint row, uint part, uint lane, thread float* acc) {
        GEMV<ARGUMENTS ROWS, COLS, NR, KS, SPLIT>(weights, x, row, part, lane, acc);
    }
};
typedef Routing<B_EXPERTS, B_CHOSEN, 1, 0, 1, 1, 1> Router;
kernel void bench_experts_up(device const uchar* w [[buffer(0)]], device const float* x [[buffer(1)]],
                             device const float* logits [[buffer(2)]], device uint* experts [[buffer(3)]],
                             device float* weights [[buffer(4)]], device float* y [[buffer(5)]],
                             uint2 group [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                             uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[B_NSG * B_NR];
    experts_gate_up<Gemv, Gemv, Gemv, Silu, Router, B_EXPERTS, B_CHOSEN, B_EXPERTS, B_ROWS, B_COLS, B_NR, B_NSG, B_KS,
                    B_EXPERTS * B_ROWS, 0, 0, 0, 0>(w, w, w, x, x, x, logits, logits, experts, weights, y, shared, 0.0f, -1.0f,
                                                    1.0f, group, simdgroup, lane);
}
kernel void bench_experts_down(device const uchar* w [[buffer(0)]], device const float* x [[buffer(1)]],
                               device const uint* experts [[buffer(2)]], device const float* weights [[buffer(3)]],
                               device float* y [[buffer(4)]], uint2 group [[threadgroup_position_in_grid]],
                               uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[B_NSG * B_NR];
    experts_accumulate<Gemv, Gemv, B_EXPERTS, B_CHOSEN, B_COLS, B_ROWS, B_NR, B_NSG, B_KS, 0, 0, 0>(
        w, w, x, x, experts, weights, y, shared, 1.0f, group, simdgroup, lane);
}
"""
EXPERT_TILES = """
struct Weights {
    template <uint ROWS, uint COLS>
    static inline float4 load4(device const uchar* weights, uint row, uint col) {
        return LOAD4<ARGUMENTS ROWS, COLS>(weights, row, col);
    }
};
kernel void bench_sort(device const uint* experts [[buffer(0)]], device uint* pairs [[buffer(1)]], device uint* tiles [[buffer(2)]],
                       device uint* counts [[buffer(3)]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
    threadgroup uint shared[8 * B_EXPERTS];
    sort_pairs<B_EXPERTS, B_CHOSEN, B_TILE, 1, 1, 8>(experts, pairs, tiles, counts, shared, 512, simdgroup, lane);
}
kernel void bench_experts_up(device const uchar* w [[buffer(0)]], device const float* x [[buffer(1)]],
                             device const uint* pairs [[buffer(2)]], device const uint* tiles [[buffer(3)]],
                             device const uint* counts [[buffer(4)]], device float* y [[buffer(5)]],
                             uint2 group [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                             uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[(B_TILE + 64) * 32];
    if (group.y >= counts[1]) return;
    experts_gate_up_tile<Weights, Weights, B_OPERAND, Silu, B_TILE, B_EXPERTS, B_CHOSEN, B_ROWS, B_COLS, B_EXPERTS * B_ROWS, 0>(
        w, w, x, x, pairs, tiles, y, shared, group, simdgroup, lane);
}
kernel void bench_experts_down(device const uchar* w [[buffer(0)]], device const float* x [[buffer(1)]],
                               device const uint* pairs [[buffer(2)]], device const uint* tiles [[buffer(3)]],
                               device const uint* counts [[buffer(4)]], device float* y [[buffer(5)]],
                               uint2 group [[threadgroup_position_in_grid]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                               uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[(B_TILE + 64) * 32];
    if (group.y >= counts[1]) return;
    experts_down_tile<Weights, B_OPERAND, B_TILE, B_EXPERTS, B_COLS, B_ROWS, 0>(w, x, x, pairs, tiles, y, shared, group, simdgroup, lane);
}
"""
# experts, chosen, width, hidden: Qwen3-30B-A3B and gpt-oss
MIXTURES = {"affine4_64": [(128, 8, 768, 2048), (32, 4, 2880, 2880)], "q4_0": [(128, 8, 768, 2048)], "q4_k": [(128, 8, 768, 2048)],
            "mxfp4": [(32, 4, 2880, 2880)]}


def fewest_simdgroups(nsg, ks):
    """As geometry.rs has it."""
    return min(nsg, max(4, ks))


def experts(f, function, arguments, sources, geometry):
    """One row; `geometry(rows, cols)` is that of a matrix of this format."""
    kernels = []
    for E, K, width, hidden in MIXTURES[f]:
        for layout, rows, cols in (("up", width, hidden), ("down", hidden, width)):
            up = layout == "up"
            nr, nsg, ks = geometry(2 * K * width, hidden) if up else geometry(hidden, K * width)
            while rows % (nr // 2 if up else nr):
                nr //= 2
            if up:
                nr = max(nr, 4 if ks == 1 else 2)
                while rows % (nr // 2):
                    nr //= 2
                grid = K * -(-rows // (nr // 2 * nsg // ks))
                args = ["w", "x", "logits", "tmp0:%d" % (4 * K), "tmp1:%d" % (4 * K), "y"]
            else:
                parts = 1 << (min(K, 8).bit_length() - 1)
                nsg = fewest_simdgroups(nsg, ks)
                nsg = max(nsg, parts) if nr >= 4 else nsg
                ks = min(parts, nsg)
                grid = -(-rows // (nr * nsg // ks))
                args = ["w", "x", "experts", "weights", "y"]
            kernels.append({
                "id": "forge/experts %s r%d sg%d ks%d" % (layout, nr, nsg, ks), "op": "moe", "format": "forge_" + f, "layout": layout,
                "points": [{"shape": "%dx%d" % (rows, cols), "tokens": 1, "experts": E, "topk": K}],
                "defines": {k: str(v) for k, v in dict(B_EXPERTS=E, B_CHOSEN=K, B_ROWS=rows, B_COLS=cols, B_NR=nr, B_NSG=nsg, B_KS=ks).items()},
                "launches": [{"kernel": "bench_experts_" + layout, "args": args, "grid": [grid, 1, 1], "tg": [32 * nsg, 1, 1]}]})
    text = EXPERTS.replace("GEMV", function).replace("ARGUMENTS ", arguments)
    return {"source": sources(["activation", "rows", "route", "experts"]) + [{"text": text}], "kernels": kernels}


def expert_tiles(f, load4, arguments, sources):
    """512 rows: the order of the pairs, then one product of all experts; up has two matrices, down one."""
    kernels = []
    for E, K, width, hidden in MIXTURES[f]:
        r = 512 * K // E
        tile = 16 if r < 48 else 32 if r < 96 else 64
        most = 512 * K // tile + E
        for layout, rows, cols in (("up", width, hidden), ("down", hidden, width)):
            columns = -(-rows // (32 if layout == "up" else 64))
            for operand in ("Halves", "Floats"):
                kernels.append({
                    "id": "forge/experts %s tile%d %s" % (layout, tile, operand.lower()), "op": "moe", "format": "forge_" + f, "layout": layout,
                    "points": [{"shape": "%dx%d" % (rows, cols), "tokens": 512, "experts": E, "topk": K}], "tol": 5e-3,
                    "defines": {k: str(v) for k, v in dict(B_EXPERTS=E, B_CHOSEN=K, B_ROWS=rows, B_COLS=cols, B_TILE=tile,
                                                           B_OPERAND="'%s'" % operand).items()},
                    "launches": [{"kernel": "bench_sort", "args": ["experts", "tmp0:%d" % (4 * 512 * K), "tmp1:%d" % (12 * most), "tmp2:24"],
                                  "grid": [1, 1, 1], "tg": [256, 1, 1]},
                                 {"kernel": "bench_experts_" + layout, "args": ["w", "x", "tmp0", "tmp1", "tmp2", "y"],
                                  "grid": [columns, most, 1], "tg": [128, 1, 1]}]})
    text = EXPERT_TILES.replace("LOAD4", load4).replace("ARGUMENTS ", arguments)
    return {"source": sources(["activation", "product", "route", "expert_tiles"]) + [{"text": text}], "kernels": kernels}


# heads, heads of keys, elements of a head
HEADS = [(8, 8, 128), (16, 8, 128), (24, 8, 128), (32, 8, 128), (40, 8, 128), (48, 8, 128), (56, 8, 128), (32, 4, 128), (48, 4, 128),
         (32, 2, 128), (32, 8, 64), (64, 8, 64), (16, 8, 256), (16, 2, 256), (32, 4, 512)]


def specs():
    """what needs no weights, by name"""
    long = [(8192, 1), (32768, 1)]
    llama = [(1024, 1)] + long + [(8192, rows) for rows in (2, 4, 8)]
    all_of = {"attention_%d_%d_%d" % s: attention(*s, "f16", llama if s == (32, 8, 128) else long) for s in HEADS}
    for kv in ("q8_0", "q4_0"):
        for kv_heads in (8, 4):
            all_of["attention_%s_%d" % (kv, kv_heads)] = attention(32, kv_heads, 128, kv, long)
    for heads in (16, 20, 128):
        all_of["latents_%d" % heads] = latents(heads)
    for sizes in ((128, 128, 128), (20, 192, 256)):
        all_of["latent_tiles_%d" % sizes[0]] = latent_tiles(*sizes)
    all_of["gated_delta"] = delta()
    return all_of
