"""Writes GGUFs of the tiny checkpoints with latent attention, as llama.cpp's converter has written them then and now.

usage: latent_ggufs.py TINY

Of TINY/deepseek-v2/hf the older kind, TINY/deepseek-v2/model.BF16.gguf: `attn_kv_b` holds keys and values of all heads, and sizes are those
of heads. Of TINY/glm4-moe-lite/hf and TINY/deepseek-v2-wide/hf the newer one: `attn_k_b`, turned, and `attn_v_b`, one head of keys and values, sizes of
the cache with those of heads beside them; and a block more, which predicts further tokens. Both say the same weights as the
folder beside them, whose logits hold for them too. Needs gguf, numpy, torch and safetensors.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.torch import load_file
from tiny_checkpoints import tokenizer_json

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}


def write(case, split):
    config = json.loads((case / "hf/config.json").read_text())
    weights = load_file(case / "hf/model.safetensors")
    writer = gguf.GGUFWriter(case / "model.BF16.gguf", "deepseek2")
    writer.add_name(case.name)
    heads, latent = config["num_attention_heads"], config["kv_lora_rank"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    layers = config["num_hidden_layers"]
    predictors = 1 if split else 0
    writer.add_block_count(layers + predictors)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(1 if split else heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(latent)
    writer.add_key_length(latent + rope if split else nope + rope)
    writer.add_value_length(latent if split else value)
    if split:
        writer.add_key_length_mla(nope + rope)
        writer.add_value_length_mla(value)
        writer.add_uint32("deepseek2.nextn_predict_layers", predictors)
    writer.add_rope_dimension_count(rope)
    parameters = config["rope_parameters"]
    writer.add_rope_freq_base(parameters["rope_theta"])
    if parameters["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_log_mul(0.1 * parameters["mscale_all_dim"])
    writer.add_leading_dense_block_count(config.get("first_k_dense_replace", 1))
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    sigmoid = any(name.endswith("e_score_correction_bias") for name in weights)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid else gguf.ExpertGatingFuncType.SOFTMAX)
    if (config["n_group"] or 1) > 1:
        writer.add_uint32("deepseek2.expert_group_count", config["n_group"])
        writer.add_uint32("deepseek2.expert_group_used_count", config["topk_group"])
    model = tokenizer_json()["model"]
    tokens = ["<pad>", "<s>", "</s>", *list(model["vocab"])[3:]]
    tokens += [f"<unused{i}>" for i in range(config["vocab_size"] - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if i < 3 else gguf.TokenType.NORMAL for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name, tensor):
        if tensor.dim() == 1 or "gate_inp" in name:
            writer.add_tensor(name, tensor.float().numpy())
        else:
            codes = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint8)
            writer.add_tensor(name, codes, raw_dtype=T.BF16)

    add("token_embd.weight", weights["model.embed_tokens.weight"])
    add("output.weight", weights["lm_head.weight"])
    add("output_norm.weight", weights["model.norm.weight"])
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        for name, stem in NAMES.items():
            if f"{name}.weight" in own:
                add(f"blk.{layer}.{stem}.weight", own[f"{name}.weight"])
        both = own["self_attn.kv_b_proj.weight"]
        if split:
            keys, values = both.view(heads, nope + value, latent).split([nope, value], dim=1)
            add(f"blk.{layer}.attn_k_b.weight", keys.transpose(1, 2))
            add(f"blk.{layer}.attn_v_b.weight", values)
        else:
            add(f"blk.{layer}.attn_kv_b.weight", both)
        if "mlp.gate.e_score_correction_bias" in own:
            add(f"blk.{layer}.exp_probs_b.bias", own["mlp.gate.e_score_correction_bias"])
        if "mlp.gate.weight" in own:
            for part in ["gate", "up", "down"]:
                each = [own[f"mlp.experts.{i}.{part}_proj.weight"] for i in range(config["n_routed_experts"])]
                add(f"blk.{layer}.ffn_{part}_exps.weight", torch.stack(each))
    for layer in range(layers, layers + predictors):
        add(f"blk.{layer}.nextn.eh_proj.weight", torch.zeros(config["hidden_size"], 2 * config["hidden_size"]))
        add(f"blk.{layer}.attn_norm.weight", torch.ones(config["hidden_size"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    tiny = Path(sys.argv[1])
    write(tiny / "deepseek-v2", split=False)
    write(tiny / "deepseek-v2-wide", split=True)
    write(tiny / "glm4-moe-lite", split=True)


if __name__ == "__main__":
    main()
