//! Names of projections and weight fields, from the roles of the weights they hold.

/// Role and field of the embedding table.
pub const EMBEDDING: &str = "token_embd";

/// Name of the projection that computes these roles together: `attn_q, attn_k, attn_v` is `qkv_proj`.
pub fn projection(roles: &[&str]) -> String {
    match roles {
        ["attn_q", "attn_k", "attn_v"] => "qkv_proj".into(),
        ["attn_q", "attn_k", "attn_v", "attn_gate"] => "qkv_gate_proj".into(),
        ["attn_gate"] => "attn_gate_proj".into(),
        ["attn_q", "attn_k"] => "qk_proj".into(),
        ["attn_k", "attn_v"] => "kv_proj".into(),
        ["attn_q"] => "q_proj".into(),
        ["attn_k"] => "k_proj".into(),
        ["attn_v"] => "v_proj".into(),
        ["attn_q", "attn_kv_a"] => "q_kv_a_proj".into(),
        ["attn_q_a", "attn_kv_a"] => "qkv_a_proj".into(),
        ["attn_q_a"] => "q_a_proj".into(),
        ["attn_kv_a"] => "kv_a_proj".into(),
        ["attn_q_b"] => "q_b_proj".into(),
        ["attn_output"] => "o_proj".into(),
        ["conv_in"] => "conv_in_proj".into(),
        ["delta_qkv", "delta_z", "delta_b", "delta_a"] => "delta_in_proj".into(),
        ["delta_z", "delta_b", "delta_a"] => "delta_gates_proj".into(),
        ["delta_qkv"] => "delta_qkv_proj".into(),
        ["delta_z"] => "delta_z_proj".into(),
        ["delta_b", "delta_a"] => "delta_ba_proj".into(),
        ["delta_out"] => "delta_out_proj".into(),
        ["conv_out"] => "conv_out_proj".into(),
        ["ffn_gate", "ffn_up"] => "gate_up_proj".into(),
        ["ffn_gate"] => "gate_proj".into(),
        ["ffn_up"] => "up_proj".into(),
        ["ffn_down"] => "down_proj".into(),
        ["shared_gate", "shared_up"] => "shared_gate_up".into(),
        ["expert_gate", "expert_up"] => "expert_gate_up".into(),
        ["output"] | [EMBEDDING] => "lm_head".into(),
        other => other.join("_"),
    }
}

/// The name that GGUF has for the matrices of a role, of experts for the stack of all; the role itself where it has none.
pub fn gguf(role: &str) -> &str {
    match role {
        "expert_gate" => "ffn_gate_exps",
        "expert_up" => "ffn_up_exps",
        "expert_down" => "ffn_down_exps",
        "router" => "ffn_gate_inp",
        "shared_gate" => "ffn_gate_shexp",
        "shared_up" => "ffn_up_shexp",
        "shared_down" => "ffn_down_shexp",
        "shared_router" => "ffn_gate_inp_shexp",
        role => role,
    }
}

/// Name of the weight field that holds matrices of these roles: a table that is also the head keeps its own name.
pub fn field(roles: &[&str]) -> String {
    match roles {
        [EMBEDDING] => EMBEDDING.to_owned(),
        roles => projection(roles),
    }
}
