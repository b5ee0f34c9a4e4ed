"""Writes checkpoints with the headers that published models have, and no data: sparse files that `forge inspect --plan` and
`cargo xtask gpu --hollow` read.

usage: published_sizes.py OUT [--forge PROGRAM] [--only NAME]

With a program at hand, `forge inspect --plan` is run on each and held against what is published of the model: the bytes of
its file, its parameters, and the weights that a token is multiplied with, each within 2%. Needs numpy and gguf.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

# What is published: bytes of the GGUF files (ggml-org's on Hugging Face), parameters and active parameters (openai's model
# cards; those that a token is multiplied with, of the table of embeddings one row). Of the others what their names and
# model cards say.
PUBLISHED = {
    "gpt-oss-20b": {"bytes": 12.11e9, "parameters": 20.9e9, "active": 3.6e9},
    "gpt-oss-120b": {"bytes": 63.39e9, "parameters": 116.8e9, "active": 5.1e9},
    # Model cards; the folders of Qwen3.6-35B-A3B at 8 bits in groups of 64 have 37.7 GB with 0.9 GB of an image tower.
    "Qwen3.6-35B-A3B": {"bytes": 36.8e9, "parameters": 35e9},
    "Qwen3.8-27B": {"parameters": 27e9},
    "Gemma-4-26B-A4B": {"parameters": 25.2e9, "active": 3.8e9},
    "Qwen3-Coder-Next": {"parameters": 80e9},
    # Qwen's own Q4_K_M file and model card, which counts the table of embeddings as active; a token reads one row of its 151936.
    "Qwen3-30B-A3B": {"bytes": 18.56e9, "parameters": 30.5e9, "active": 3.3e9 - 151936 * 2048},
    "Qwen3.5-9B": {"parameters": 9e9},
    # bartowski's Q8_0 files; DeepSeek's and Z.ai's model cards, of which the latter rounds what is active to 3e9.
    "deepseek-v3": {"bytes": 713.29e9, "parameters": 671e9, "active": 37e9, "cache": 61 * 576 * 2},
    "glm-4.7-flash": {"bytes": 31.84e9, "parameters": 30e9, "cache": 47 * 576 * 2},
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


def matrices(block, shapes, kind=T.Q8_0):
    return [(f"{block}{name}.weight", list(shape), kind) for name, shape in shapes.items()]


def vectors(block, lengths):
    return [(f"{block}{name}", [length], T.F32) for name, length in lengths.items()]


def experts(block, count, hidden, width, shared):
    """Router, stacked experts, and with a width the shared expert behind its gate."""
    stacks = {"ffn_gate_exps": (count, width, hidden), "ffn_up_exps": (count, width, hidden), "ffn_down_exps": (count, hidden, width)}
    tensors = matrices(block, stacks) + matrices(block, {"ffn_gate_inp": (count, hidden)}, T.F32)
    if shared:
        one = {"ffn_gate_shexp": (shared, hidden), "ffn_up_shexp": (shared, hidden), "ffn_down_shexp": (hidden, shared)}
        tensors += matrices(block, one) + vectors(block, {"ffn_gate_inp_shexp.weight": hidden})
    return tensors


def qwen_delta(architecture, layers, hidden, vocab, heads, kv_heads, value_heads, ffn=None, mixture=None):
    """Qwen 3.5 to 3.8 and Qwen3-Next: every fourth layer attends."""
    head_dim, key_heads, dim, taps = 256, 16, 128, 4
    keys = {
        "block_count": layers, "context_length": 262144, "embedding_length": hidden, "attention.head_count": heads,
        "attention.head_count_kv": kv_heads, "attention.key_length": head_dim, "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e7, "rope.dimension_count": 64,
        "full_attention_interval": 4, "ssm.conv_kernel": taps, "ssm.state_size": dim, "ssm.group_count": key_heads,
        "ssm.time_step_rank": value_heads, "ssm.inner_size": value_heads * dim,
    }
    if ffn:
        keys["feed_forward_length"] = ffn
    if mixture:
        count, chosen, width = mixture
        keys |= {"expert_count": count, "expert_used_count": chosen, "expert_feed_forward_length": width, "expert_shared_feed_forward_length": width}
    values, channels = value_heads * dim, (2 * key_heads + value_heads) * dim
    tensors = matrices("", {"token_embd": (vocab, hidden), "output": (vocab, hidden)}) + vectors("", {"output_norm.weight": hidden})
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors += vectors(block, {"attn_norm.weight": hidden, "post_attention_norm.weight": hidden})
        if (layer + 1) % 4 == 0:
            tensors += matrices(block, {"attn_q": (2 * heads * head_dim, hidden), "attn_k": (kv_heads * head_dim, hidden), "attn_v": (kv_heads * head_dim, hidden), "attn_output": (hidden, heads * head_dim)})
            tensors += vectors(block, {"attn_q_norm.weight": head_dim, "attn_k_norm.weight": head_dim})
        else:
            gates = {"ssm_ba": (2 * value_heads, hidden)} if architecture == "qwen3next" else {"ssm_beta": (value_heads, hidden), "ssm_alpha": (value_heads, hidden)}
            tensors += matrices(block, {"attn_qkv": (channels, hidden), "attn_gate": (values, hidden), **gates, "ssm_out": (hidden, values)})
            tensors += matrices(block, {"ssm_conv1d": (channels, taps)}, T.F32)
            tensors += vectors(block, {"ssm_a": value_heads, "ssm_dt.bias": value_heads, "ssm_norm.weight": dim})
        if mixture:
            tensors += experts(block, mixture[0], hidden, mixture[2], mixture[2])
        else:
            tensors += matrices(block, {"ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)})
    return architecture, keys, tensors


def more_bits(layer, layers):
    """llama.cpp's rule for layers of which Q4_K_M keeps values and down projections in Q6_K"""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def q4_k_m(tensors, layers):
    """Q8_0 matrices in the formats that Q4_K_M mixes"""
    def kind(name):
        part = name.split(".")
        if name == "output.weight":
            return T.Q6_K
        more = part[0] == "blk" and part[2] in ("attn_v", "ffn_down", "ffn_down_exps") and more_bits(int(part[1]), layers)
        return T.Q6_K if more else T.Q4_K
    return [(name, shape, kind(name) if stored == T.Q8_0 else stored) for name, shape, stored in tensors]


def qwen3_mixture(layers, hidden, heads, kv_heads, count, chosen, width, vocab):
    """Qwen3-MoE in Q4_K_M"""
    head_dim = 128
    keys = {
        "block_count": layers, "context_length": 40960, "embedding_length": hidden, "feed_forward_length": 3 * hidden,
        "attention.head_count": heads, "attention.head_count_kv": kv_heads, "attention.key_length": head_dim,
        "attention.value_length": head_dim, "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
        "expert_count": count, "expert_used_count": chosen, "expert_feed_forward_length": width,
    }
    tensors = matrices("", {"token_embd": (vocab, hidden), "output": (vocab, hidden)}) + vectors("", {"output_norm.weight": hidden})
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors += vectors(block, {"attn_norm.weight": hidden, "ffn_norm.weight": hidden, "attn_q_norm.weight": head_dim, "attn_k_norm.weight": head_dim})
        tensors += matrices(block, {"attn_q": (heads * head_dim, hidden), "attn_k": (kv_heads * head_dim, hidden), "attn_v": (kv_heads * head_dim, hidden), "attn_output": (hidden, heads * head_dim)})
        tensors += experts(block, count, hidden, width, 0)
    return "qwen3moe", keys, q4_k_m(tensors, layers)


def qwen_delta_q4_k_m(layers, *sizes, **options):
    architecture, keys, tensors = qwen_delta("qwen35", layers, *sizes, **options)
    return architecture, keys, q4_k_m(tensors, layers)


def gemma4_mixture():
    """Gemma 4 26B-A4B: every sixth layer sees all, with keys for values; a dense feed-forward beside 128 experts."""
    layers, hidden, vocab, heads, kv_heads, ffn, count, width = 30, 2816, 262144, 16, 8, 2112, 128, 704
    keys = {
        "block_count": layers, "context_length": 262144, "embedding_length": hidden, "feed_forward_length": ffn,
        "attention.head_count": heads, "attention.head_count_kv": [2 if (layer + 1) % 6 == 0 else kv_heads for layer in range(layers)],
        "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256, "attention.value_length_swa": 256,
        "attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": 1024, "attention.shared_kv_layers": 0,
        "attention.sliding_window_pattern": [(layer + 1) % 6 != 0 for layer in range(layers)], "embedding_length_per_layer_input": 0,
        "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "rope.dimension_count": 512, "rope.dimension_count_swa": 256,
        "final_logit_softcapping": 30.0, "expert_count": count, "expert_used_count": 8, "expert_feed_forward_length": width,
    }
    tensors = matrices("", {"token_embd": (vocab, hidden)}) + vectors("", {"output_norm.weight": hidden})
    for layer in range(layers):
        block, sees_all = f"blk.{layer}.", (layer + 1) % 6 == 0
        head_dim, own_kv_heads = (512, 2) if sees_all else (256, kv_heads)
        norms = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"]
        tensors += vectors(block, {f"{norm}.weight": hidden for norm in norms})
        tensors += vectors(block, {"attn_q_norm.weight": head_dim, "attn_k_norm.weight": head_dim, "layer_output_scale.weight": 1})
        tensors += vectors(block, {"ffn_gate_inp.scale": hidden, "ffn_down_exps.scale": count})
        tensors += matrices(block, {"attn_q": (heads * head_dim, hidden), "attn_k": (own_kv_heads * head_dim, hidden), "attn_output": (hidden, heads * head_dim)})
        if not sees_all:
            tensors += matrices(block, {"attn_v": (own_kv_heads * head_dim, hidden)})
        tensors += matrices(block, {"ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)})
        tensors += matrices(block, {"ffn_gate_up_exps": (count, 2 * width, hidden), "ffn_down_exps": (count, hidden, width)})
        tensors += matrices(block, {"ffn_gate_inp": (count, hidden)}, T.F32)
    return "gemma4", keys, tensors


def latents(layers, dense, hidden, heads, nope, value, ffn, width, experts, chosen, vocab, query_latent, groups, scale, theta, yarn):
    """Keys and tensors of DeepSeek V3 and its like, as llama.cpp's converter writes them now, in Q8_0."""
    latent, rope = 512, 64
    keys = {
        "block_count": layers, "context_length": 163840 if yarn else 202752, "embedding_length": hidden, "feed_forward_length": ffn,
        "attention.head_count": heads, "attention.head_count_kv": 1, "attention.key_length": latent + rope,
        "attention.value_length": latent, "attention.key_length_mla": nope + rope, "attention.value_length_mla": value,
        "attention.q_lora_rank": query_latent, "attention.kv_lora_rank": latent, "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": rope, "rope.freq_base": theta, "leading_dense_block_count": dense, "expert_count": experts,
        "expert_used_count": chosen, "expert_shared_count": 1, "expert_feed_forward_length": width, "expert_gating_func": 2,
        "expert_weights_scale": scale, "expert_weights_norm": True,
    }
    if groups:
        keys |= {"expert_group_count": groups[0], "expert_group_used_count": groups[1]}
    if yarn:
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 4096, "rope.scaling.yarn_log_multiplier": 0.1}
    tensors = [
        ("token_embd.weight", [vocab, hidden], T.Q8_0),
        ("output_norm.weight", [hidden], T.F32),
        ("output.weight", [vocab, hidden], T.Q8_0),
    ]
    for layer in range(layers):
        block = f"blk.{layer}."
        matrices = [
            ("attn_q_a", [query_latent, hidden]), ("attn_q_b", [heads * (nope + rope), query_latent]),
            ("attn_kv_a_mqa", [latent + rope, hidden]), ("attn_k_b", [heads, latent, nope]), ("attn_v_b", [heads, value, latent]),
            ("attn_output", [hidden, heads * value]),
        ]
        parts = [("gate", [ffn, hidden]), ("up", [ffn, hidden]), ("down", [hidden, ffn])]
        if layer < dense:
            matrices += [(f"ffn_{part}", shape) for part, shape in parts]
        else:
            own = [("gate", [width, hidden]), ("up", [width, hidden]), ("down", [hidden, width])]
            matrices += [(f"ffn_{part}_exps", [experts, *shape]) for part, shape in own]
            matrices += [(f"ffn_{part}_shexp", shape) for part, shape in own]
            tensors += [
                (f"{block}ffn_gate_inp.weight", [experts, hidden], T.F32),
                (f"{block}exp_probs_b.bias", [experts], T.F32),
            ]
        tensors += [(f"{block}{name}.weight", shape, T.Q8_0) for name, shape in matrices]
        norms = [("attn_norm", hidden), ("attn_q_a_norm", query_latent), ("attn_kv_a_norm", latent), ("ffn_norm", hidden)]
        tensors += [(f"{block}{name}.weight", [size], T.F32) for name, size in norms]
    return "deepseek2", keys, tensors


MODELS = {
    "gpt-oss-20b": lambda: gpt_oss(24, 32),
    "gpt-oss-120b": lambda: gpt_oss(36, 128),
    "Qwen3.6-35B-A3B": lambda: qwen_delta("qwen35moe", 40, 2048, 248320, 16, 2, 32, mixture=(256, 8, 512)),
    "Qwen3.8-27B": lambda: qwen_delta("qwen35", 64, 5120, 248320, 24, 4, 48, ffn=17408),
    "Gemma-4-26B-A4B": gemma4_mixture,
    "Qwen3-Coder-Next": lambda: qwen_delta("qwen3next", 48, 2048, 151936, 16, 2, 32, mixture=(512, 10, 512)),
    "Qwen3-30B-A3B": lambda: qwen3_mixture(48, 2048, 32, 4, 128, 8, 768, 151936),
    "Qwen3.5-9B": lambda: qwen_delta_q4_k_m(32, 4096, 248320, 16, 4, 32, ffn=12288),
    "deepseek-v3": lambda: latents(61, 3, 7168, 128, 128, 128, 18432, 2048, 256, 8, 129280, 1536, (8, 4), 2.5, 10000.0, True),
    "glm-4.7-flash": lambda: latents(47, 1, 2048, 20, 192, 256, 10240, 1536, 64, 4, 154880, 768, None, 1.8, 1000000.0, False),
}


MLX = "llama-8b-affine4"


def write(name, out):
    """The file: header, keys, where tensors lie; its data is a hole. Returns its bytes."""
    architecture, keys, tensors = MODELS[name]()
    writer = gguf.GGUFWriter(out, architecture)
    writer.add_name(name)
    for key, value in keys.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool, list: writer.add_array}[type(value)]
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


def write_mlx_llama(out):
    """Llama 3 8B as mlx_lm quantises it to 4 bits in groups of 64: a folder, its data a hole. Returns the bytes of its weights."""
    hidden, layers, heads, kv_heads, ffn, vocab = 4096, 32, 32, 8, 14336, 128256
    shapes = {"model.embed_tokens": (vocab, hidden), "lm_head": (vocab, hidden)}
    norms = ["model.norm"]
    for layer in range(layers):
        block = f"model.layers.{layer}."
        kv = kv_heads * hidden // heads
        shapes |= {f"{block}self_attn.{name}_proj": (rows, hidden) for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden))}
        shapes |= {f"{block}mlp.gate_proj": (ffn, hidden), f"{block}mlp.up_proj": (ffn, hidden), f"{block}mlp.down_proj": (hidden, ffn)}
        norms += [f"{block}input_layernorm", f"{block}post_attention_layernorm"]
    tensors = [(f"{name}.weight", "F16", [hidden], 2) for name in norms]
    for name, (rows, cols) in shapes.items():
        tensors += [(f"{name}.weight", "U32", [rows, cols // 8], 4)]
        tensors += [(f"{name}.{part}", "F16", [rows, cols // 64], 2) for part in ("scales", "biases")]
    header, at = {}, 0
    for name, dtype, shape, size in tensors:
        end = at + int(np.prod(shape, dtype=np.int64)) * size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": ffn, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 8192, "tie_word_embeddings": False,
        "hidden_act": "silu", "torch_dtype": "float16", "quantization": {"group_size": 64, "bits": 4},
    }
    (out / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer = Path(__file__).resolve().parents[1] / "fixtures/models/llama/hf"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            (out / name).write_bytes((tokenizer / name).read_bytes())
    return at


def number(text):
    value, unit = re.match(r"([\d.,]+)\s*(\w*)", text).groups()
    return float(value.replace(",", "")) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]


def compare(what, found, published):
    off = found / published - 1
    print(f"  {what}: {found:.4g}, published {published:.4g}, off by {100 * off:+.2f}%")
    return abs(off) <= TOLERANCE


def check(name, path, size, forge):
    published = PUBLISHED[name]
    print(name)
    right = [compare("bytes of the file", size, published["bytes"])] if "bytes" in published else []
    plan = subprocess.run([forge, "inspect", "--plan", str(path)], check=True, capture_output=True, text=True).stdout
    parameters = re.search(r"^ *parameters +([\d.]+ \w+)(?:, ([\d.]+ \w+) active)?", plan, re.M)
    right.append(compare("parameters", number(parameters[1]), published["parameters"]))
    if "active" in published:
        right.append(compare("active parameters", number(parameters[2]), published["active"]))
    if "cache" in published:
        per_token = re.search(r"KV cache .*?([\d.,]+ \w+) a token", plan)
        right.append(compare("bytes of cache a token", number(per_token[1]), published["cache"]))
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
    if arguments.only in (None, MLX):
        write_mlx_llama(arguments.out / MLX)
    sys.exit(0 if right else "not what is published")


if __name__ == "__main__":
    main()
