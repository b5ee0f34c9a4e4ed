"""Writes tiny random checkpoints of the dense architectures, with transformers' logits for them.

usage: tiny_checkpoints.py OUT [--llama-cpp SOURCES] [--only NAME]

Each case becomes OUT/NAME/hf (bfloat16 weights), some also OUT/NAME/mlx (affine quantisation), and OUT/NAME/reference.safetensors: `input_ids` and `logits`, computed
in float32 on the rounded weights. gpt-oss comes in every form that it is published in. With llama.cpp's sources at hand its converter also writes OUT/NAME/model.BF16.gguf.
Needs torch, transformers and safetensors.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

TOKENS = 24
VOCAB = 88
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
MINISTRAL3 = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
GPT_OSS = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.25, 2.0],
    "long_factor": [1.0, 4.0, 16.0],
    "original_max_position_embeddings": 64,
}
GEMMA4 = {"head_dim": 16, "global_head_dim": 32, "sliding_window": 8, "vocab_size": 86, "vocab_size_per_layer_input": 86, "hidden_size_per_layer_input": 8}
NARROW = {"intermediate_size": 24}
MIXTURE = {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2}
MLA = {"num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 20, "moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2}
MSCALED = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.7, "mscale_all_dim": 0.7}
# The same but for the factor on the scores.
UNSCALED = {**MSCALED, "mscale_all_dim": 0.0, "attention_factor": 1.0}
GROUPS = {"n_group": 4, "topk_group": 2}
DELTA = {"head_dim": 16, "num_hidden_layers": 3, "layer_types": ["linear_attention", "linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 12, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}}
WIDER_ROTATION = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}
CASES = {
    "llama-biases-linear": ("Llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "mistral-window": ("Mistral", {"sliding_window": 8, "head_dim": 16}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen2-window-long": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "max_position_embeddings": 1024}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "num_hidden_layers": 3}),
    "gemma4": ("Gemma4Text", {**GEMMA4, "num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3, "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "final_logit_softcapping": 3.0}),
    "gemma4-keys-as-values": ("Gemma4Text", {**GEMMA4, "num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    "gemma4-moe": ("Gemma4Text", {**GEMMA4, "num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 24, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3Text", {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "num_hidden_layers": 7}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-vl": ("Qwen3VLText", {**NARROW, "head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}}),
    "qwen3-vl-moe": ("Qwen3VLMoeText", {**MIXTURE, "num_experts": 4, "head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}}),
    "phi3": ("Phi3", {"sliding_window": 8}),
    "phi3-longrope": ("Phi3", {"original_max_position_embeddings": 64, "rope_parameters": LONGROPE}),
    "phi3-longrope-long": ("Phi3", {"original_max_position_embeddings": 16, "rope_parameters": {**LONGROPE, "original_max_position_embeddings": 16}}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 4}),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", {"num_hidden_layers": 4, "sliding_window": 8, "rope_parameters": YARN}),
    "starcoder2": ("Starcoder2", {**NARROW}),
    "starcoder2-window": ("Starcoder2", {**NARROW, "sliding_window": 8, "use_bias": False, "tie_word_embeddings": False}),
    "cohere": ("Cohere", {**NARROW, "logit_scale": 0.25, "attention_bias": True}),
    "cohere2": ("Cohere2", {**NARROW, "rotary_pct": 1.0, "logit_scale": 0.25, "num_hidden_layers": 4, "sliding_window": 8}),
    "phi": ("Phi", {"intermediate_size": 128, "partial_rotary_factor": 0.75, "num_key_value_heads": 4}),
    "stablelm": ("StableLm", {**NARROW, "use_qkv_bias": True}),
    "stablelm-parallel": ("StableLm", {**NARROW, "use_parallel_residual": True, "partial_rotary_factor": 0.5}),
    "seed-oss": ("SeedOss", {**NARROW, "head_dim": 16, "attention_out_bias": True}),
    "glm4": ("Glm4", {**NARROW, "head_dim": 8}),
    "ernie4-5": ("Ernie4_5", {**NARROW, "head_dim": 8, "use_bias": True}),
    "exaone4": ("Exaone4", {**NARROW, "num_hidden_layers": 4, "sliding_window": 8}),
    "exaone4-full": ("Exaone4", {**NARROW, "sliding_window": None, "layer_types": ["full_attention"] * 2, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1000000.0, "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
    "arcee": ("Arcee", {**NARROW, "mlp_bias": True, "rope_parameters": YARN}),
    "apertus": ("Apertus", {**NARROW, "head_dim": 8, "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
    # The converter knows one base and two lengths of context.
    "hunyuan-dense": ("HunYuanDenseV1", {**NARROW, "head_dim": 16, "max_position_embeddings": 32768, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 50.0, "factor": 1.0}}),
    "ministral": ("Ministral", {**NARROW, "head_dim": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "ministral3": ("Ministral3", {**NARROW, "head_dim": 16, "rope_parameters": MINISTRAL3}),
    "gpt-oss": ("GptOss", {"head_dim": 16, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": GPT_OSS}),
    "qwen3-moe": ("Qwen3Moe", {**MIXTURE, "num_hidden_layers": 3, "head_dim": 16, "mlp_only_layers": [1], "norm_topk_prob": True}),
    "qwen2-moe": ("Qwen2Moe", {**MIXTURE, "shared_expert_intermediate_size": 20, "norm_topk_prob": False}),
    "mixtral": ("Mixtral", {**NARROW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmoe": ("Olmoe", {**NARROW, "num_experts": 6, "num_experts_per_tok": 3}),
    "granitemoe": ("GraniteMoe", {**NARROW, "num_local_experts": 4, "num_experts_per_tok": 2, "embedding_multiplier": 2.0, "attention_multiplier": 0.2, "residual_multiplier": 0.6, "logits_scaling": 2.0}),
    "glm4-moe": ("Glm4Moe", {"moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5, "head_dim": 8, "attention_bias": True, "use_qk_norm": True, "num_nextn_predict_layers": 0}),
    "deepseek-v2": ("DeepseekV2", {**MLA, **GROUPS, "topk_method": "group_limited_greedy", "first_k_dense_replace": 1, "routed_scaling_factor": 2.0, "rope_parameters": MSCALED}),
    "deepseek-v3": ("DeepseekV3", {**MLA, **GROUPS, "num_attention_heads": 33, "num_key_value_heads": 33, "q_lora_rank": 16, "qk_nope_head_dim": 4, "v_head_dim": 4, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "n_shared_experts": 1, "num_mtp_layers": 0, "max_position_embeddings": 1024, "rope_parameters": MSCALED}),
    # A latent so wide that long tiles make keys and values of it, of heads for more than one matrix; all layers are dense.
    "deepseek-v2-wide": ("DeepseekV2", {**MLA, "hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 9, "kv_lora_rank": 64, "qk_nope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 40, "first_k_dense_replace": 2, "rope_parameters": MSCALED}),
    "glm4-moe-lite": ("Glm4MoeLite", {**MLA, "kv_lora_rank": 32, "qk_rope_head_dim": 32, "num_attention_heads": 5, "num_key_value_heads": 5, "n_shared_experts": 1, "num_experts_per_tok": 2, "routed_scaling_factor": 1.8}),
    "lfm2": ("Lfm2", {"intermediate_size": 36, "block_multiple_of": 8, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}),
    "lfm2-moe": ("Lfm2Moe", {**MIXTURE, "num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_dense_layers": 1, "routed_scaling_factor": 1.5}),
    "qwen35": ("Qwen3_5Text", {**NARROW, **DELTA}),
    "qwen35-moe": ("Qwen3_5MoeText", {**MIXTURE, **DELTA, "shared_expert_intermediate_size": 20}),
    "qwen3-next": ("Qwen3Next", {**MIXTURE, **DELTA, "shared_expert_intermediate_size": 20, "num_experts_per_tok": 3, "mlp_only_layers": [1]}),
    # A GGUF has no key for the epsilon of norms after branches, which is 1e-8 as published.
    "muse-glimmer": ("MuseGlimmerText", {**NARROW, "head_dim": 8, "num_hidden_layers": 4, "sliding_window": 8, "qk_scale_factor": 2.5, "output_multiplier": 0.5, "final_logit_softcapping": 3.0, "post_norm_eps": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "granite": ("Granite", {"embedding_multiplier": 12.0, "attention_multiplier": 0.2, "residual_multiplier": 0.22, "logits_scaling": 8.0}),
}
# Changes of a case's configuration, each of which must change its logits: what they turn off is what the case is for.
# `biases` and `means` are turned off in the model: every bias, and the mean that a LayerNorm subtracts; `norms_last`: norms of
# q and k come before the rotation; `shared` is what every token's expert adds, `correction` what a router adds for the choice
# alone; `NAME=1`: parameters of this name become ones; `embed_norm` and `qk_norm` are norms without weights, left out; `taps` are those of convolutions, turned round; `decays` are those of recurrent states, all alike. Other names are of
# parameters and buffers that become zeros.
ABLATIONS = {
    "starcoder2": ["biases", "means", {"hidden_act": "silu"}],
    "starcoder2-window": ["means", {"sliding_window": None}],
    "cohere": ["biases", "means", {"logit_scale": 1.0}, {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}],
    "cohere2": ["means", {"logit_scale": 1.0}, {"sliding_window": 16}, {"layer_types": ["sliding_attention"] * 4}, {"layer_types": ["full_attention"] * 4}],
    "phi": ["biases", "means", {"partial_rotary_factor": 1.0}, {"hidden_act": "relu2"}],
    "stablelm": ["biases", "means", {"partial_rotary_factor": 0.5}],
    "stablelm-parallel": ["means", {"partial_rotary_factor": 0.25}, {"use_parallel_residual": False}],
    "qwen3-vl": [{"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}}],
    "qwen3-vl-moe": [{"num_experts_per_tok": 1}, "experts.down_proj", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}}],
    "gemma4-moe": ["router.scale=1", "per_expert_scale=1", "experts.down_proj", "mlp.down_proj.weight", "post_feedforward_layernorm_1.weight=1", "post_feedforward_layernorm_2.weight=1", "pre_feedforward_layernorm_2.weight=1", {"top_k_experts": 1}],
    "seed-oss": ["biases", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}],
    "glm4": ["biases", {"partial_rotary_factor": 1.0}],
    "ernie4-5": ["biases", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}],
    "exaone4": [{"sliding_window": 16}, {"layer_types": ["sliding_attention"] * 4}, {"layer_types": ["full_attention"] * 4}],
    "exaone4-full": [{"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}],
    "ministral": [{"sliding_window": 16}, {"layer_types": ["sliding_attention"] * 2}],
    "ministral3": [{"rope_parameters": YARN | {"llama_4_scaling_beta": 0.1}}, {"rope_parameters": MINISTRAL3 | {"llama_4_scaling_beta": 0.0}}],
    "apertus": ["alpha_p", "alpha_n", "beta", "eps", {"hidden_act": "relu2"}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}],
    "hunyuan-dense": ["norms_last", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}],
    "gpt-oss": ["biases", "q_proj.bias", "o_proj.bias", "router.bias", "gate_up_proj_bias", "down_proj_bias", "sinks", {"num_experts_per_tok": 1}, {"swiglu_limit": 1000.0}, {"swiglu_alpha": 1.0}, {"sliding_window": 16}, {"layer_types": ["sliding_attention"] * 2}, {"layer_types": ["full_attention"] * 2}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, {"rope_parameters": GPT_OSS | {"truncate": True}}],
    "qwen3-moe": [{"norm_topk_prob": False}, {"num_experts_per_tok": 1}],
    "qwen2-moe": [{"norm_topk_prob": True}, {"num_experts_per_tok": 3}, "shared"],
    "mixtral": [{"num_experts_per_tok": 1}],
    "olmoe": [{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
    "granitemoe": [{"num_experts_per_tok": 1}, {"residual_multiplier": 1.0}],
    "glm4-moe": ["shared", "correction", {"n_group": 1, "topk_group": 1}, {"topk_group": 1}, {"routed_scaling_factor": 1.0}, {"norm_topk_prob": False}],
    "deepseek-v2": ["shared", "kv_a_layernorm.weight", "q_a_layernorm.weight", {"topk_method": "greedy"}, {"topk_group": 1}, {"routed_scaling_factor": 1.0}, {"rope_parameters": UNSCALED}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, {"first_k_dense_replace": 0}],
    "deepseek-v3": ["shared", "correction", "kv_a_layernorm.weight", "q_a_layernorm.weight", {"n_group": 1, "topk_group": 1}, {"topk_group": 1}, {"routed_scaling_factor": 1.0}, {"norm_topk_prob": False}, {"rope_interleave": False}, {"rope_parameters": UNSCALED}],
    "deepseek-v2-wide": ["kv_a_layernorm.weight", "q_a_layernorm.weight", {"rope_parameters": UNSCALED}],
    "glm4-moe-lite": ["shared", "correction", {"routed_scaling_factor": 1.0}, {"norm_topk_prob": False}, {"rope_interleave": False}, {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}],
    "lfm2": ["taps", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}],
    "lfm2-moe": ["taps", "expert_bias", {"norm_topk_prob": False}, {"routed_scaling_factor": 1.0}, {"num_experts_per_tok": 1}],
    "qwen35": ["biases", "taps", "decays", WIDER_ROTATION],
    "qwen35-moe": ["biases", "taps", "decays", "shared", "shared_expert_gate.weight", {"num_experts_per_tok": 1}, WIDER_ROTATION],
    "qwen3-next": ["biases", "taps", "decays", "shared", "shared_expert_gate.weight", {"norm_topk_prob": False}, {"num_experts_per_tok": 2}, WIDER_ROTATION],
    "muse-glimmer": ["embed_norm", "qk_norm", "self_attn.gate_proj.weight", {"qk_scale_factor": 1.0}, {"output_multiplier": 1.0}, {"final_logit_softcapping": 30.0}, {"post_norm_eps": 1e-8}, {"sliding_window": 16}, {"layer_rope_theta": [0.0] * 4}, {"layer_rope_theta": [10000.0] * 4}, {"layer_types": ["sliding_attention"] * 4}, {"layer_types": ["full_attention"] * 4}],
    "arcee": ["biases", {"hidden_act": "silu"}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}],
}
# Least difference of logits that counts as one; the tests' bound is 2e-3.
ABLATED = 0.05
# Text models that transformers has inside others alone, with the smallest of those, and what else those are made of.
WRAPPED = {
    "MuseGlimmerText": {"patch_size": 2, "patch_temporal": 1, "merge_size": 1, "pos_emb_height": 2, "pos_emb_width": 2, "num_attention_heads": 1, "num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8},
    "Qwen3VLText": {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "patch_size": 2, "temporal_patch_size": 1, "spatial_merge_size": 1, "out_hidden_size": 32, "num_position_embeddings": 4, "deepstack_visual_indexes": [0]},
}
WRAPPED["Qwen3VLMoeText"] = WRAPPED["Qwen3VLText"]
BESIDE = {"MuseGlimmerText": {"out_hidden_size": 8, "projector_hidden_size": 8}}
# Contexts that projects are built for, where the default would not do.
CONTEXTS = {"phi3-longrope-long": 128, "hunyuan-dense": 128}
# Other seeds than the sum of a name's characters.
SEEDS = {"gpt-oss": 1, "gemma4-moe": 1, "lfm2-moe": 1, "qwen35-moe": 6, "qwen3-next": 1}
# Mixtures of experts: rounding must not change which experts are chosen.
MIXTURES = {"gpt-oss", "gemma4-moe", "lfm2-moe", "qwen35-moe", "qwen3-next", "qwen3-vl-moe", "deepseek-v2", "deepseek-v3", "glm4-moe-lite"}
# Those that are written as MLX folders too.
MLX = {"lfm2-moe", "qwen35-moe", "qwen3-next", "gemma4-moe"}
# What GGUFs have no key for: these windows, and a query_pre_attn_scalar other than the head's width.
NOT_IN_GGUF = {"gpt-oss", "starcoder2-window", "ministral", "mistral-window", "qwen2-window", "qwen2-window-long", "gemma2"}
# Longer than the cache of a windowed layer (the window and a prefill tile of 256), twice, so that it wraps in the middle of
# a tile; and longer than one part of decode attention. Of the other, longer than three times the context beyond which queries
# are scaled. Of the third, long enough for keys and values made of latents.
LONG = {"qwen2-window-long": 560, "ministral3": 100, "deepseek-v2-wide": 100}

# Prompts of which the logits after some tokens are kept, on both sides of where decode attention splits a context.
LONG_PROMPTS = {"deepseek-v3": [1, 2, 8, 65, 256, 257, 300, 330]}


def tokenizer_json():
    """A byte-level BPE of three special tokens, some characters and one merge; smaller than the vocabulary."""
    special = ["<pad>", "<s>", "</s>"]
    characters = [chr(c) for c in range(33, 33 + 78)] + ["\u0120", "ab"]
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for i, t in enumerate(special)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(special + characters)}, "merges": [["a", "b"]]}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}


def make_model(case, changes):
    family, settings = CASES[case]
    config = getattr(transformers, f"{family}Config")(**{**COMMON, **settings, **changes})
    config._attn_implementation = "eager"
    if family in WRAPPED:
        whole = family.removesuffix("Text")
        config = getattr(transformers, f"{whole}Config")(text_config=config.to_dict(), vision_config=WRAPPED[family], **BESIDE.get(family, {}))
        config._attn_implementation = "eager"
        return getattr(transformers, f"{whole}ForConditionalGeneration")(config).eval()
    return getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config).eval()


def without_means(module):
    """A LayerNorm's forward that leaves the mean in."""
    eps = getattr(module, "eps", None) or module.variance_epsilon
    bias = getattr(module, "bias", None)
    return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * module.weight + (0.0 if bias is None else bias)


def norm_first(attention):
    """Puts the norms of Hunyuan's heads before the rotation."""
    def normed(projection, norm):
        heads = lambda x: x.view(*x.shape[:-1], -1, attention.head_dim)
        return lambda x: norm(heads(projection(x))).flatten(-2)

    attention.q_proj.forward = normed(attention.q_proj.forward, attention.query_layernorm.forward)
    attention.k_proj.forward = normed(attention.k_proj.forward, attention.key_layernorm.forward)
    attention.query_layernorm.forward = attention.key_layernorm.forward = lambda x: x


def check_ablations(case, weights, ids, logits):
    for ablation in ABLATIONS.get(case, []):
        model = make_model(case, ablation if isinstance(ablation, dict) else {})
        # Changed configurations may have norms that the case lacks; they keep their ones.
        model.load_state_dict(weights, strict=False)
        turned_off = 0
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if isinstance(ablation, str) and ablation.endswith("=1") and name.endswith(f".{ablation[:-2]}"):
                    weight.fill_(1.0)
                    turned_off += 1
                shared = ablation == "shared" and "shared_expert" in name and "down" in name
                named = isinstance(ablation, str) and name.endswith(f".{ablation}")
                if ablation == "biases" and name.endswith("bias") or shared or named:
                    weight.zero_()
                    turned_off += 1
                if ablation == "taps" and "conv" in name and weight.dim() == 3:
                    weight.copy_(weight.flip(-1))
                    turned_off += 1
                if ablation == "decays" and name.endswith("A_log"):
                    weight.zero_()
                    turned_off += 1
            for name, buffer in model.named_buffers():
                named = isinstance(ablation, str) and name.endswith(f".{ablation}")
                if ablation == "correction" and name.endswith("correction_bias") or named:
                    buffer.zero_()
                    turned_off += 1
            for module in model.modules():
                if ablation in ("embed_norm", "qk_norm") and hasattr(module, ablation):
                    getattr(module, ablation).forward = lambda x: x
                    turned_off += 1
                if ablation == "means" and "LayerNorm" in type(module).__name__:
                    module.forward = without_means(module)
                    turned_off += 1
                if ablation == "norms_last" and hasattr(module, "query_layernorm"):
                    norm_first(module)
                    turned_off += 1
            difference = (model(ids).logits[0] - logits).abs().max().item()
        print(f"{case} without {ablation}: {difference:.2f}")
        if difference < ABLATED or isinstance(ablation, str) and turned_off == 0:
            sys.exit(f"{case}: {ablation} makes no difference")


def check_margins(case, model, ids, logits):
    """Weights that are off by their last bits leave the logits nearly as they are: no choice of an expert is close."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for _ in range(4):
            noise = {name: weight * (1 + 1e-4 * torch.randn_like(weight)) if weight.is_floating_point() else weight for name, weight in weights.items()}
            model.load_state_dict(noise)
            difference = (model(ids).logits[0] - logits).abs().max().item()
            print(f"{case} with noise of 1e-4: {difference:.1e}")
            if difference > ABLATED:
                sys.exit(f"{case}: an expert is chosen by a hair")
    model.load_state_dict(weights)


def write_hf(case, folder):
    torch.manual_seed(SEEDS.get(case, sum(map(ord, case))))
    model = make_model(case, {})
    config = model.config
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if name.endswith("norm.weight") or "layernorm_" in name:
                weight.add_(noise * 0.2)
            elif name.endswith(("router.scale", "per_expert_scale")):
                weight.copy_(1 + noise * 0.4)
            elif name.endswith("bias"):
                weight.copy_(noise * 0.5)
            elif "embed" in name:
                # Other lengths than a norm's, where one follows.
                weight.copy_(noise * (3.0 if case == "muse-glimmer" else 1.0))
            elif name.endswith("experts.gate_up_proj") and case == "gpt-oss":
                # Wide enough for the clamp to matter.
                weight.copy_(noise * 5.0 / weight.shape[1] ** 0.5)
            else:
                weight.copy_(noise * 1.5 / weight.shape[-1] ** 0.5)
            if case == "gpt-oss" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                weight.copy_(mxfp4_values(*mxfp4(weight.transpose(1, 2))).transpose(1, 2))
            weight.copy_(weight.to(torch.bfloat16).to(torch.float32))
        for name, buffer in model.named_buffers():
            if name.endswith(("correction_bias", "expert_bias")):
                buffer.copy_((torch.randn_like(buffer) * 0.3).to(torch.bfloat16).to(torch.float32))
        for name, scalar in model.named_buffers():
            if name.endswith("layer_scalar"):
                scalar.copy_((torch.rand_like(scalar) + 0.5).to(torch.bfloat16).to(torch.float32))
            # Of xIELU. Models have an eps of -1e-6, which no test would see.
            if name.endswith("act_fn.beta"):
                scalar.copy_((torch.rand_like(scalar) + 0.2).to(torch.bfloat16).to(torch.float32))
            if name.endswith("act_fn.eps"):
                scalar.copy_((-torch.rand_like(scalar) - 0.2).to(torch.bfloat16).to(torch.float32))
        ids = torch.randint(3, config.get_text_config().vocab_size, (1, LONG.get(case, TOKENS)), dtype=torch.int64)
        logits = model(ids).logits[0]
    if case in MIXTURES:
        check_margins(case, model, ids, logits)
    check_ablations(case, model.state_dict(), ids, logits)
    if case in LONG_PROMPTS:
        lengths = LONG_PROMPTS[case]
        with torch.no_grad():
            long_ids = torch.randint(3, config.vocab_size, (1, lengths[-1]), dtype=torch.int64)
            rows = model(long_ids).logits[0][[length - 1 for length in lengths]].contiguous()
        long = {"input_ids": long_ids[0].to(torch.int32), "lengths": torch.tensor(lengths, dtype=torch.int32), "logits": rows}
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_file(long, folder.parent / "long.safetensors")
    tensors = {"input_ids": ids[0].to(torch.int32), "logits": logits.to(torch.float32).contiguous()}
    if case == "gpt-oss":
        # Before the model becomes bfloat16.
        tensors["mlx.logits"] = gpt_oss_mlx(model, ids)
    folder.mkdir(parents=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(folder)
    if case == "gpt-oss":
        gpt_oss_forms(folder)
    save_file(tensors, folder.parent / "reference.safetensors")
    if case == "qwen3-vl-moe":
        turn_experts(folder, type(model), ids, logits)
    if case in CONTEXTS:
        (folder.parent / "case.json").write_text(json.dumps({"context": CONTEXTS[case]}) + "\n")


def turn_experts(folder, model, ids, logits):
    """The folder as it is published, `hf-turned`: experts' matrices lie turned, which transformers undoes."""
    turned = folder.with_name("hf-turned")
    shutil.copytree(folder, turned)
    weights = load_file(folder / "model.safetensors")
    experts = lambda name: name.endswith(("experts.gate_up_proj", "experts.down_proj"))
    save_file({name: weight.transpose(1, 2).contiguous() if experts(name) else weight for name, weight in weights.items()}, turned / "model.safetensors", metadata={"format": "pt"})
    loaded = model.from_pretrained(turned, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        assert (loaded(ids).logits[0] - logits).abs().max() < 1e-4


def write_tokenizer(folder):
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False) + "\n")
    tokenizer_config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n")


LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def mxfp4(weights):
    """Codes and E8M0 scales of blocks of 32 along the last axis (OCP Microscaling Formats 1.0)."""
    blocks = weights.to(torch.float32).reshape(*weights.shape[:-1], -1, 32)
    exponent = blocks.abs().amax(-1).clamp(min=1e-30).log2().floor() - 2
    codes = (blocks[..., None] / exponent[..., None, None].exp2() - LEVELS).abs().argmin(-1)
    return codes.reshape(weights.shape).to(torch.uint8), (exponent + 127).to(torch.uint8)


def mxfp4_values(codes, scales):
    return LEVELS[codes.long()] * torch.repeat_interleave((scales.float() - 127).exp2(), 32, -1)


def affine_8(weights, group):
    """MLX's affine quantisation of 8 bits: codes, scales, biases."""
    groups = weights.to(torch.float32).reshape(*weights.shape[:-1], -1, group)
    bias = groups.amin(-1).to(torch.bfloat16)
    scale = ((groups.amax(-1) - bias.float()) / 255).to(torch.bfloat16)
    codes = ((groups - bias.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 255)
    return codes.reshape(weights.shape).to(torch.uint8), scale, bias


def affine_values(codes, scales, biases, group):
    return codes.float() * torch.repeat_interleave(scales.float(), group, -1) + torch.repeat_interleave(biases.float(), group, -1)


# Modules that the MLX form has in 8 bits, as mlx-community's MXFP4-Q8 folders do; in groups of 32.
AFFINE = ("q_proj", "k_proj", "v_proj", "o_proj", "router", "embed_tokens", "lm_head")


def is_affine(name):
    return name.endswith(".weight") and name.split(".")[-2] in AFFINE


def gpt_oss_mlx(model, ids):
    """Logits with the numbers that the MLX form has."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    quantized = {name: affine_values(*affine_8(weight, 32), 32) if is_affine(name) else weight for name, weight in weights.items()}
    with torch.no_grad():
        model.load_state_dict(quantized)
        logits = model(ids).logits[0]
        model.load_state_dict(weights)
    return logits.to(torch.float32).contiguous()


def gpt_oss_forms(plain):
    """gpt-oss' forms beside `hf`, which transformers has written and which becomes `hf-bf16`: codes and scales in two tensors as
    published (`hf`), MLX's MXFP4-Q8 (`mlx`), and a GGUF. All but `mlx` hold the same numbers."""
    root = plain.parent
    floats = root / "hf-bf16"
    plain.rename(floats)
    weights = load_file(floats / "model.safetensors")
    config = json.loads((floats / "config.json").read_text())
    packed, mlx, gguf = {}, {}, {}
    for name, weight in weights.items():
        layer, part = name.rsplit(".experts.", 1) if ".experts." in name else (name, "")
        gguf_name = "blk." + name.split(".")[2] if ".layers." in name else ""
        if part in ("gate_up_proj", "down_proj"):
            codes, scales = mxfp4(weight.transpose(1, 2))
            assert torch.equal(mxfp4_values(codes, scales), weight.transpose(1, 2).float())
            nibbles = codes.reshape(*codes.shape[:-1], -1, 16, 2)
            packed[f"{name}_blocks"] = (nibbles[..., 0] | nibbles[..., 1] << 4).contiguous()
            packed[f"{name}_scales"] = scales
            halves = [("gate", codes[:, 0::2], scales[:, 0::2]), ("up", codes[:, 1::2], scales[:, 1::2])]
            for stem, codes, scales in halves if part == "gate_up_proj" else [("down", codes, scales)]:
                nibbles = codes.reshape(*codes.shape[:-1], -1, 2)
                words = (nibbles[..., 0] | nibbles[..., 1] << 4).contiguous()
                mlx[f"{layer}.experts.{stem}_proj.weight"] = words.view(torch.uint32)
                mlx[f"{layer}.experts.{stem}_proj.scales"] = scales.contiguous()
                halves = codes.reshape(*codes.shape[:-1], -1, 2, 16)
                blocks = torch.cat([scales[..., None], halves[..., 0, :] | halves[..., 1, :] << 4], -1)
                gguf[f"{gguf_name}.ffn_{stem}_exps.weight"] = blocks.flatten(-2).numpy()
            continue
        packed[name] = weight
        if part:
            halves = [("gate", weight[:, 0::2]), ("up", weight[:, 1::2])] if part == "gate_up_proj_bias" else [("down", weight)]
            for stem, bias in halves:
                mlx[f"{layer}.experts.{stem}_proj.bias"] = bias.contiguous()
                gguf[f"{gguf_name}.ffn_{stem}_exps.bias"] = bias.float().numpy()
            continue
        if is_affine(name):
            codes, scales, biases = affine_8(weight, 32)
            mlx[name] = codes.view(torch.uint32)
            mlx[name.replace(".weight", ".scales")] = scales
            mlx[name.replace(".weight", ".biases")] = biases
        else:
            mlx[name] = weight
        stems = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.sinks": "attn_sinks.weight", "mlp.router": "ffn_gate_inp"}
        outside = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
        if name in outside:
            gguf[outside[name]] = weight
        else:
            inner = name.split(".", 3)[3]
            stem = next(stem for stem in stems if inner.startswith(stem))
            gguf[f"{gguf_name}.{stems[stem]}{inner[len(stem):]}"] = weight
    bf16 = lambda tensors: {name: tensor.contiguous() for name, tensor in tensors.items()}
    not_converted = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    modules = sorted(name.removesuffix(".weight") for name in mlx if is_affine(name))
    forms = {
        "hf": (packed, {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": not_converted}}),
        "mlx": (mlx, {"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4", **{name: {"group_size": 32, "bits": 8} for name in modules}}}),
    }
    for form, (tensors, settings) in forms.items():
        folder = root / form
        folder.mkdir()
        save_file(bf16(tensors), folder / "model.safetensors", metadata={"format": "pt" if form == "hf" else "mlx"})
        (folder / "config.json").write_text(json.dumps(config | settings, indent=2, sort_keys=True) + "\n")
        write_tokenizer(folder)
    gpt_oss_gguf(config, gguf, root / "model.MXFP4.gguf")


def gpt_oss_gguf(config, tensors, out):
    """Keys and tensors under llama.cpp's names; there is no key for YaRN's `truncate`."""
    import gguf

    writer = gguf.GGUFWriter(out, "gpt-oss")
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    tokenizer = tokenizer_json()
    tokens = list(tokenizer["model"]["vocab"])
    # The table has more rows than there are tokens.
    tokens += [f"[PAD{index}]" for index in range(len(tokens), config["vocab_size"])]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.UNUSED if token.startswith("[PAD") else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray) and tensor.dtype == np.uint8:
            writer.add_tensor(name, tensor, raw_dtype=gguf.GGMLQuantizationType.MXFP4)
        elif isinstance(tensor, np.ndarray):
            writer.add_tensor(name, tensor)
        elif tensor.dim() == 1 or "ffn_gate_inp" in name:
            writer.add_tensor(name, tensor.float().numpy())
        else:
            writer.add_tensor(name, tensor.contiguous().view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def affine(weight, bits):
    """Codes, scales and biases of MLX's affine quantisation in groups of 32, and the weights that they stand for."""
    groups = weight.float().unflatten(-1, (-1, 32))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scales = ((high - low) / (2**bits - 1)).clamp(min=1e-6).to(torch.bfloat16).float()
    biases = low.to(torch.bfloat16).float()
    codes = ((groups - biases) / scales).round().clamp(0, 2**bits - 1)
    words = codes.to(torch.int64).flatten(-2).unflatten(-1, (-1, 32 // bits))
    words = (words << torch.arange(0, 32, bits)).sum(-1)
    words = (words & 0xFFFFFFFF).numpy().astype("uint32")
    return [torch.from_numpy(words), scales.squeeze(-1).to(torch.bfloat16), biases.squeeze(-1).to(torch.bfloat16)], (codes * scales + biases).flatten(-2)


def mlx_name(name):
    """The name that mlx-lm gives a tensor, without its expert's number."""
    name = re.sub(r"\.experts\.\d+\.", ".switch_mlp.", name)
    for old, new in [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")]:
        name = name.replace(f"feed_forward.{old}.", f"feed_forward.{new}.").replace(f"switch_mlp.{old}.", f"switch_mlp.{new}.")
    return name


def write_mlx(case, hf, out):
    """The folder as mlx-lm writes it: matrices of 4 bits, routers and gates of shared experts of 8, experts stacked, convolutions
    turned, norms of 1 + w. Its logits are those of transformers with the weights that are left."""
    from safetensors.torch import load_file

    prefix = "language_model." if case == "qwen35-moe" else ""
    centred = case in ("qwen35-moe", "qwen3-next")
    config = json.loads((hf / "config.json").read_text())
    quantization = {"group_size": 32, "bits": 4, "mode": "affine"}
    weights, left, tensors = load_file(hf / "model.safetensors"), {}, {}

    def put(name, parts, bits=None):
        module = prefix + mlx_name(name).removesuffix(".weight")
        suffixes = ["weight"] if bits is None else ["weight", "scales", "biases"]
        for suffix, part in zip(suffixes, parts):
            tensors.setdefault(f"{module}.{suffix}" if suffix != "weight" or name.endswith(".weight") else module, []).append(part)
        if bits not in (None, 4):
            quantization[module] = {"group_size": 32, "bits": bits}

    for name, weight in sorted(weights.items(), key=lambda item: [int(part) if part.isdigit() else part for part in item[0].split(".")]):
        weight = weight.float()
        stacked = re.search(r"\.experts\.(gate_up_proj|down_proj)$", name)
        if weight.dim() == 2 and weight.shape[-1] % 32 == 0 or stacked and weight.shape[-1] % 32 == 0:
            bits = 8 if name.endswith(("gate.weight", "router.proj.weight")) else 4
            parts, left[name] = affine(weight, bits)
        else:
            bits, left[name] = None, weight
            turned = weight.transpose(1, 2).contiguous() if "conv" in name and weight.dim() == 3 else weight
            parts = [turned + 1 if centred and name.endswith("norm.weight") and "linear_attn" not in name else turned]
        if not stacked:
            put(name, parts, bits)
            continue
        # Gemma's experts: gate and up apart.
        stem = name[: stacked.start()] + ".experts.switch_glu."
        if stacked[1] == "down_proj":
            put(stem + "down_proj.weight", parts, bits)
        else:
            halves = [part.chunk(2, 1) for part in parts]
            put(stem + "gate_proj.weight", [half[0].contiguous() for half in halves], bits)
            put(stem + "up_proj.weight", [half[1].contiguous() for half in halves], bits)
    out.mkdir(parents=True)
    save_file({name: torch.stack(parts) if "switch_mlp" in name else parts[0] for name, parts in tensors.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps({**config, "quantization": quantization}, indent=1) + "\n")
    for file in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(hf / file, out / file)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(hf / "config.json", folder)
        save_file(left, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model = type(make_model(case, {})).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    reference = load_file(out.parent / "reference.safetensors")
    with torch.no_grad():
        logits = model(reference["input_ids"][None].long()).logits[0]
    save_file({**reference, "mlx.logits": logits.contiguous()}, out.parent / "reference.safetensors")


def write_gguf(sources, folder, out):
    """llama.cpp's own converter, told that the tokenizer is GPT-2's (it knows tokenizers by hash)."""
    sys.path[:0] = [str(sources), str(sources / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    hparams = ModelBase.load_hparams(folder, False)
    model_class = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    # That of Mistral 3 hands on to a class of its own.
    getattr(model_class, "Ministral3Model", model_class).set_vocab = TextModel._set_vocab_gpt2
    with torch.inference_mode():
        model_class(folder, gguf.LlamaFileType.MOSTLY_BF16, out).write()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--llama-cpp", type=Path)
    arguments.add_argument("--only")
    arguments = arguments.parse_args()
    for case in CASES:
        if arguments.only not in (None, case):
            continue
        root = arguments.out / case
        shutil.rmtree(root, ignore_errors=True)
        write_hf(case, root / "hf")
        if case in MLX:
            write_mlx(case, root / "hf", root / "mlx")
        if arguments.llama_cpp and case not in NOT_IN_GGUF:
            write_gguf(arguments.llama_cpp, root / "hf", root / "model.BF16.gguf")
        print(case)


if __name__ == "__main__":
    main()
