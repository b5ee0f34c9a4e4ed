#!/usr/bin/env python3
"""Writes GGUF seeds of fuzz/corpus/gguf: mixtures, hybrids, latent attention, and matrices with tensors beside them, of one to four
layers 16 or 32 wide with zeros for weights. Needs `pip install gguf`. Seeds are committed; run this only to add one."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

OUT = Path(__file__).resolve().parents[2] / "fuzz/corpus/gguf"
VOCAB = ["<s>", "a", "b", "c", "ab", "abc", "Ġ", "<|im_end|>"]


def write(name, arch, keys, tensors):
    """`tensors` are names with their type and shape, rows first."""
    writer = gguf.GGUFWriter(OUT / name, arch)
    for key, value in {"context_length": 64, "attention.layer_norm_rms_epsilon": 1e-5, **keys}.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        add[type(value)](f"{arch}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(VOCAB)
    writer.add_token_types([3, 1, 1, 1, 1, 1, 1, 3])
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(7)
    for tensor, (kind, shape) in tensors.items():
        if kind == T.F32:
            writer.add_tensor(tensor, np.full(shape, 0.5, np.float32))
            continue
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        rows = np.zeros((*shape[:-1], shape[-1] // weights * size), np.uint8)
        writer.add_tensor(tensor, rows, raw_shape=rows.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def block(layer, tensors):
    return {f"blk.{layer}.{name}": tensor for name, tensor in tensors.items()}


def ends(hidden, kind=T.BF16, norm="output_norm.weight", head=True):
    table = (kind, (len(VOCAB), hidden))
    return {"token_embd.weight": table, norm: (T.F32, (hidden,)), **({"output.weight": table} if head else {})}


def attention(hidden, q, kv, kind=T.BF16):
    return {
        "attn_norm.weight": (T.F32, (hidden,)),
        "attn_q.weight": (kind, (q, hidden)),
        "attn_k.weight": (kind, (kv, hidden)),
        "attn_v.weight": (kind, (kv, hidden)),
        "attn_output.weight": (kind, (hidden, q)),
    }


def dense(hidden, width, kind=T.BF16):
    return {
        "ffn_norm.weight": (T.F32, (hidden,)),
        "ffn_gate.weight": (kind, (width, hidden)),
        "ffn_up.weight": (kind, (width, hidden)),
        "ffn_down.weight": (kind, (hidden, width)),
    }


def experts(hidden, width, count, kind=T.BF16, shared=0):
    tensors = {
        "ffn_gate_inp.weight": (T.F32, (count, hidden)),
        "ffn_gate_exps.weight": (kind, (count, width, hidden)),
        "ffn_up_exps.weight": (kind, (count, width, hidden)),
        "ffn_down_exps.weight": (kind, (count, hidden, width)),
    }
    if shared:
        tensors["ffn_gate_shexp.weight"] = tensors["ffn_up_shexp.weight"] = (kind, (shared, hidden))
        tensors["ffn_down_shexp.weight"] = (kind, (hidden, shared))
    return tensors


def qwen3_norms(head):
    return {"attn_q_norm.weight": (T.F32, (head,)), "attn_k_norm.weight": (T.F32, (head,))}


SIZES = {"block_count": 1, "embedding_length": 16, "feed_forward_length": 16, "attention.head_count": 4, "attention.head_count_kv": 2}
MIXTURE = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 16}
YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 16,
    "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
}  # fmt: skip


def main():
    keys = {**SIZES, **MIXTURE, "attention.key_length": 8, "attention.value_length": 8}
    layer = {**attention(16, 32, 16), **qwen3_norms(8), "ffn_norm.weight": (T.F32, (16,)), **experts(16, 16, 4)}
    write("qwen3-moe", "qwen3moe", keys, {**ends(16), **block(0, layer)})

    # Codes, biases and sinks; every second layer sees a window.
    keys = {**SIZES, **MIXTURE, **YARN, "block_count": 2, "embedding_length": 32, "expert_feed_forward_length": 32,
            "attention.head_count_kv": 1, "attention.key_length": 8, "attention.value_length": 8, "attention.sliding_window": 6}  # fmt: skip
    layer = {
        **attention(32, 32, 8), "attn_q.bias": (T.F32, (32,)), "attn_k.bias": (T.F32, (8,)), "attn_v.bias": (T.F32, (8,)),
        "attn_output.bias": (T.F32, (32,)), "attn_sinks.weight": (T.F32, (4,)), "post_attention_norm.weight": (T.F32, (32,)),
        **experts(32, 32, 4, T.MXFP4), "ffn_gate_inp.bias": (T.F32, (4,)), "ffn_gate_exps.bias": (T.F32, (4, 32)),
        "ffn_up_exps.bias": (T.F32, (4, 32)), "ffn_down_exps.bias": (T.F32, (4, 32)),
    }  # fmt: skip
    write("gpt-oss", "gpt-oss", keys, {**ends(32), **block(0, layer), **block(1, layer)})

    keys = {**SIZES, "block_count": 2, "attention.head_count_kv": [0, 1], "vocab_size": 8, "shortconv.l_cache": 3}
    convolution = {"attn_norm.weight": (T.F32, (16,)), "shortconv.conv.weight": (T.F32, (16, 3)),
                   "shortconv.in_proj.weight": (T.BF16, (48, 16)), "shortconv.out_proj.weight": (T.BF16, (16, 16))}  # fmt: skip
    layers = [{**convolution, **dense(16, 16)}, {**attention(16, 16, 4), **qwen3_norms(4), **dense(16, 16)}]
    tensors = {name: tensor for i, layer in enumerate(layers) for name, tensor in block(i, layer).items()}
    write("lfm2", "lfm2", keys, {**ends(16, norm="token_embd_norm.weight", head=False), **tensors})

    keys = {
        "block_count": 2, "embedding_length": 16, "attention.head_count": 2, "attention.head_count_kv": 1, **MIXTURE,
        "expert_shared_feed_forward_length": 16, "attention.key_length": 8, "attention.value_length": 8,
        "rope.dimension_count": 4, "rope.dimension_sections": [1, 1, 0, 0], "full_attention_interval": 2,
        "ssm.conv_kernel": 4, "ssm.state_size": 8, "ssm.group_count": 1, "ssm.time_step_rank": 2, "ssm.inner_size": 16,
    }  # fmt: skip
    mixture = {**experts(16, 16, 4, shared=16), "ffn_gate_inp_shexp.weight": (T.F32, (16,)), "post_attention_norm.weight": (T.F32, (16,))}
    delta = {
        "attn_norm.weight": (T.F32, (16,)), "attn_qkv.weight": (T.BF16, (32, 16)), "attn_gate.weight": (T.BF16, (16, 16)),
        "ssm_a": (T.F32, (2,)), "ssm_alpha.weight": (T.BF16, (2, 16)), "ssm_beta.weight": (T.BF16, (2, 16)),
        "ssm_conv1d.weight": (T.F32, (32, 4)), "ssm_dt.bias": (T.F32, (2,)), "ssm_norm.weight": (T.F32, (8,)),
        "ssm_out.weight": (T.BF16, (16, 16)),
    }  # fmt: skip
    gated = {**attention(16, 16, 8), **qwen3_norms(8), "attn_q.weight": (T.BF16, (32, 16))}
    write("qwen35-moe", "qwen35moe", keys, {**ends(16), **block(0, {**delta, **mixture}), **block(1, {**gated, **mixture})})

    keys = {
        **SIZES, **MIXTURE, **YARN, "block_count": 2, "attention.head_count": 2, "attention.head_count_kv": 1,
        "leading_dense_block_count": 1, "expert_shared_count": 1, "expert_weights_scale": 1.0, "expert_group_count": 1,
        "expert_group_used_count": 1, "expert_gating_func": 1, "attention.kv_lora_rank": 8, "attention.key_length": 16,
        "attention.value_length": 8, "attention.key_length_mla": 16, "attention.value_length_mla": 8, "rope.dimension_count": 8,
        "vocab_size": 8, "rope.scaling.yarn_log_multiplier": 0.08,
    }  # fmt: skip
    latent = {
        "attn_norm.weight": (T.F32, (16,)), "attn_q.weight": (T.BF16, (32, 16)), "attn_kv_a_mqa.weight": (T.BF16, (16, 16)),
        "attn_kv_a_norm.weight": (T.F32, (8,)), "attn_k_b.weight": (T.BF16, (2, 8, 8)), "attn_v_b.weight": (T.BF16, (2, 8, 8)),
        "attn_output.weight": (T.BF16, (16, 16)), "ffn_norm.weight": (T.F32, (16,)),
    }  # fmt: skip
    layers = [{**latent, **dense(16, 16)}, {**latent, **experts(16, 16, 4, shared=16)}]
    tensors = {name: tensor for i, layer in enumerate(layers) for name, tensor in block(i, layer).items()}
    write("deepseek2", "deepseek2", keys, {**ends(16), **tensors})

    # Factors beside the matrices: of one, and of each expert.
    keys = {**SIZES, **MIXTURE, "embedding_length": 64, "attention.key_length": 16, "attention.value_length": 16, "expert_feed_forward_length": 64}
    layer = {**attention(64, 64, 32, T.NVFP4), **qwen3_norms(16), "ffn_norm.weight": (T.F32, (64,)), **experts(64, 64, 2, T.NVFP4)}
    for name in ["attn_q", "attn_k", "attn_v", "attn_output"]:
        layer[f"{name}.scale"] = (T.F32, (1,))
    for name in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]:
        layer[f"{name}.scale"] = (T.F32, (2,))
    keys |= {"expert_count": 2, "expert_used_count": 1}
    write("nvfp4-scales", "qwen3moe", keys, {**ends(64), **block(0, layer)})


if __name__ == "__main__":
    main()
