"""Writes a GGUF of the tiny Muse Glimmer checkpoint, as llama.cpp's converter writes it.

usage: muse_gguf.py TINY

Of TINY/muse-glimmer/hf: q and k rows in pairs, norms of 1 + w, the factor on queries as weights of their norm. A GGUF has no key for the
epsilon of norms after branches, which is 1e-8; logits for that one go to reference.safetensors as `BF16.logits`.
Needs gguf, numpy, torch, transformers and safetensors.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.torch import load_file, save_file
from tiny_checkpoints import make_model, tokenizer_json

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.gate_proj": "attn_gate",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def paired(weight, head_dim):
    """Rows of heads from halves to neighbours."""
    return weight.view(-1, 2, head_dim // 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def main():
    case = Path(sys.argv[1]) / "muse-glimmer"
    config = json.loads((case / "hf/config.json").read_text())["text_config"]
    weights = load_file(case / "hf/model.safetensors")
    path = case / "model.BF16.gguf"
    writer = gguf.GGUFWriter(path, "muse-glimmer")
    writer.add_name(case.name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_array("muse-glimmer.attention.sliding_window_pattern", [kind == "sliding_attention" for kind in config["layer_types"]])
    writer.add_logit_scale(config["output_multiplier"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    model = tokenizer_json()["model"]
    tokens = list(model["vocab"])
    tokens += [f"[PAD{index}]" for index in range(len(tokens), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kind = lambda index, token: gguf.TokenType.CONTROL if index < 3 else gguf.TokenType.UNUSED if token.startswith("[PAD") else gguf.TokenType.NORMAL
    writer.add_token_types([kind(index, token) for index, token in enumerate(tokens)])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name, tensor):
        if tensor.dim() == 1:
            writer.add_tensor(name, tensor.float().numpy())
        else:
            codes = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint8)
            writer.add_tensor(name, codes, raw_dtype=T.BF16)

    add("token_embd.weight", weights["model.language_model.embed_tokens.weight"])
    add("output.weight", weights["lm_head.weight"])
    add("output_norm.weight", weights["model.language_model.norm.weight"])
    for layer in range(config["num_hidden_layers"]):
        for name, stem in NAMES.items():
            tensor = weights[f"model.language_model.layers.{layer}.{name}.weight"]
            if name.endswith(("q_proj", "k_proj")):
                tensor = paired(tensor, config["head_dim"])
            add(f"blk.{layer}.{stem}.weight", tensor.float() + 1.0 if tensor.dim() == 1 else tensor)
        add(f"blk.{layer}.attn_q_norm.weight", torch.full((config["head_dim"],), config["qk_scale_factor"]))
        add(f"blk.{layer}.attn_k_norm.weight", torch.ones(config["head_dim"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    reference = load_file(case / "reference.safetensors")
    model = make_model("muse-glimmer", {"post_norm_eps": 1e-8})
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    with torch.no_grad():
        logits = model(reference["input_ids"][None].long()).logits[0]
    save_file({**reference, "BF16.logits": logits.contiguous()}, case / "reference.safetensors")


if __name__ == "__main__":
    main()
