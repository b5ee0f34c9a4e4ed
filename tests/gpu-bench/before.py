#!/usr/bin/env python3
"""Specs of what one row of one sequence cost before steps took rows of several: products of a matrix and a vector, attention of a step and
the highest logit, the kernels of then beside those of now.

  before.py SRC SPECS     from the repository's root; build.py then takes --src SRC, works.py --only 'before/|now/'

Of sample_best there is nothing to compare with: it is timed alone, and works.py reports it as not passed.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import mixers

BEFORE = "312a58a^"
POSITIONS = (512, 1024, 4096, 8192, 32768)
VOCAB, GROUPS = 128256, 64
MULHI = "inline uint mulhi(uint a, uint b) { return uint((ulong(a) * ulong(b)) >> 32); }\n"
RECORD = {
    "before": "uint position, rows; float inverse_temperature, repeat_penalty; uint top_k, top_p, min_p, seed_low, seed_high, draw_low, draw_high;",
    "now": "uint position, slot, rows, context, token, chooses; float inverse_temperature, repeat_penalty, presence_penalty, "
           "frequency_penalty; uint biased, masked, top_k, top_p, min_p, seed_low, seed_high, draw_low, draw_high;"}
ATTENTION = """
kernel void attention_parts(device const float* q [[buffer(0)]], device const half* k [[buffer(1)]],
                            device const half* v [[buffer(2)]], device float* y [[buffer(3)]],
                            constant StepParams& step [[buffer(4)]], uint2 g [[threadgroup_position_in_grid]],
                            uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
                            uint2 n [[threadgroups_per_grid]]) {
    threadgroup float shared[8 * 4 * 130];
    attention_part<32, 8, 128, 4, 8, 4, 0, 0>(q, k, v, y, shared, step.position, 0.08838834764f, 0.0f, g.x, g.y, n.y, simdgroup, lane);
}
kernel void attention_sum(device const float* p [[buffer(0)]], device float* y [[buffer(1)]],
                          constant StepParams& step [[buffer(2)]], uint g [[threadgroup_position_in_grid]],
                          uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[8 * 128];
    attention_combine<32, 128, 8, 0, 64, 32>(p, y, shared, step.position, g, simdgroup, lane);
}
"""
SAMPLE = """
kernel void sample_best(device const float* logits [[buffer(0)]], device const uint* seen [[buffer(1)]], %s
                        uint2 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],
                        uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup uint shared[16];
    best_logit<%s>(logits, seen, %s, group%s, thread_index, simdgroup, lane);
}
"""
BEST = {
    "before": SAMPLE % ("device uint* best [[buffer(2)]], device atomic_uint* count [[buffer(3)]], device const StepParams* step [[buffer(4)]],",
                        "%d, %d" % (VOCAB, GROUPS), "best, count, shared, step[0].repeat_penalty", ".x"),
    "now": SAMPLE % ("device const float* logit_bias [[buffer(2)]], device const uint* times [[buffer(3)]], device const uint* allowed [[buffer(4)]],\n"
                     "device uint* best [[buffer(5)]], device atomic_uint* count [[buffer(6)]], device const StepParams* step [[buffer(7)]],",
                     "%d, %d, 1" % (VOCAB, GROUPS), "logit_bias, times, allowed, best, count, shared, step[group.y]", "")}


def bits(number):
    return struct.unpack("<i", struct.pack("<f", number))[0]


def text(version, name):
    path = "templates/msl/%s.metal" % name
    if version == "now":
        return open(path).read()
    return subprocess.run(["git", "show", BEFORE + ":" + path], check=True, capture_output=True, text=True).stdout


def attention_before():
    kernels = []
    for seq in POSITIONS:
        step = {"struct": [["u32", str(seq - 1)], ["u32", "1"], ["f32", "0"], ["f32", "1"]] + [["u32", "0"]] * 7}
        kernels.append({
            "id": "before/attention", "op": "attn", "kv": "f16", "x": "f32", "y": "f32", "layout": "32/8/128",
            "points": [{"seq": seq, "tokens": 1}], "tol": 1e-5,
            "launches": [{"kernel": "attention_parts", "args": ["q", "k", "v", "tmp0:%d" % (32 * 32 * 130 * 4), step],
                          "grid": [8, min(32, -(-seq // 64)), 1], "tg": [256, 1, 1]},
                         {"kernel": "attention_sum", "args": ["tmp0", "y", step], "grid": [32, 1, 1], "tg": [256, 1, 1]}]})
    record = {"text": "struct StepParams { %s };\n" % RECORD["before"] + ATTENTION}
    return {"source": [{"file": "before/common.metal"}, {"file": "before/attention_decode.metal"}, record], "kernels": kernels}


def sample(version):
    # Any floats do as logits; of the other buffers a row without wishes reads nothing.
    step = {"before": [5, 1, 0, bits(1.0)] + [0] * 7, "now": [5, 0, 1, 512, 0, 1, 0, bits(1.0)] + [0] * 11}[version]
    unread = ["y+4096"] * {"before": 1, "now": 4}[version]
    kernel = {
        "id": version + "/sample_best", "op": "gemv", "format": "f32", "x": "f32", "y": "f32", "points": [{"shape": ["%dx4" % VOCAB]}],
        "launches": [{"kernel": "sample_best", "args": ["w"] + unread + ["tmp0:4096", "zero:4096", {"i32s": step}],
                      "grid": [GROUPS, 1, 1], "tg": [256, 1, 1]}]}
    record = "struct StepParams { %s };\n" % RECORD[version]
    return {"source": [{"file": version + "/common.metal"}, {"text": MULHI + record + text(version, "sample") + BEST[version]}],
            "kernels": [kernel]}


def products(src):
    """What each version's own specs.py says of the formats that both have, with each version's geometry."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = ["templates/msl", "tests/gpu-bench", "crates/forge-plan/src/geometry.rs"]
        archive = subprocess.run(["git", "archive", BEFORE] + files, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        for version, root in (("before", folder), ("now", ".")):
            specs = "%s/specs-%s" % (folder, version)
            subprocess.run([sys.executable, os.path.abspath(root) + "/tests/gpu-bench/specs.py", specs], check=True, cwd=root)
            for name in sorted(os.listdir(specs)):
                spec = json.load(open("%s/%s" % (specs, name)))
                kernels = [k for k in spec["kernels"] if k["op"] == "gemv" and "shape" not in k.get("points", [{}])[0]]
                files = [part["file"] for part in spec["source"] if "file" in part]
                if not kernels:
                    continue
                for file in files:
                    with open("%s/%s/%s" % (src, version, file), "w") as to:
                        to.write(text(version, file[:-len(".metal")]))
                for kernel in kernels:
                    # The ternary format of then has another name.
                    kernel["format"] = "forge_tq2_0_g128" if (version, name) == ("before", "tq2_0.json") else kernel["format"]
                    kernel["id"] = version + "/" + kernel["format"][6:]
                source = [{"file": version + "/" + part["file"]} if "file" in part else part for part in spec["source"]]
                found.setdefault(kernels[0]["format"], {})[version] = {**spec, "source": source, "kernels": kernels}
    return {of + "_" + version: spec for of, both in found.items() if len(both) == 2 for version, spec in both.items()}


def main(src, specs):
    for version, names in (("before", ("common", "attention_decode")), ("now", ("common", "kv", "kv_f16", "attention_decode"))):
        os.makedirs("%s/%s" % (src, version), exist_ok=True)
        for name in names:
            with open("%s/%s/%s.metal" % (src, version, name), "w") as file:
                file.write(text(version, name))
    os.makedirs(specs, exist_ok=True)
    now = mixers.attention(32, 8, 128, "f16", [(seq, 1) for seq in POSITIONS], tag="now", folder="now/")
    others = {"before": attention_before(), "now": now, "sample_before": sample("before"), "sample_now": sample("now")}
    for name, spec in {**others, **products(src)}.items():
        with open("%s/%s.json" % (specs, name), "w") as file:
            json.dump(spec, file)


main(*sys.argv[1:])
