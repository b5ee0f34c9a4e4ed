//! Names of projections, buffers and weight fields, from the roles of the weights they hold.

/// Name of the projection that computes these roles together: `attn_q, attn_k, attn_v` is `qkv_proj`.
pub fn projection(roles: &[&str]) -> String {
    match roles {
        ["attn_q", "attn_k", "attn_v"] => "qkv_proj".into(),
        ["attn_q", "attn_k"] => "qk_proj".into(),
        ["attn_k", "attn_v"] => "kv_proj".into(),
        ["attn_q"] => "q_proj".into(),
        ["attn_k"] => "k_proj".into(),
        ["attn_v"] => "v_proj".into(),
        ["attn_output"] => "o_proj".into(),
        ["ffn_gate", "ffn_up"] => "gate_up_proj".into(),
        ["ffn_gate"] => "gate_proj".into(),
        ["ffn_up"] => "up_proj".into(),
        ["ffn_down"] => "down_proj".into(),
        ["output"] | ["token_embd"] => "lm_head".into(),
        other => other.join("_"),
    }
}

/// Name of the buffer that a projection's stored result lies in: `qkv_proj` fills `qkv`.
pub fn result(projection: &str) -> String {
    match projection {
        // Queries without keys and values of their own lie where others have all three.
        "q_proj" | "qk_proj" => "qkv".into(),
        other => other.strip_suffix("_proj").unwrap_or(other).to_owned(),
    }
}
