//! Philox4x32-10, the counter-based random number generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3"
//! (2011).
//!
//! It has no state: a draw is a function of key and counter, so that a GPU kernel and the host draw the same numbers without
//! talking to each other. The sampler's number for token `t` of draw `d` under seed `k` is word 0 of
//! `philox([d & 0xffffffff, d >> 32, t, 0], [k & 0xffffffff, k >> 32])`.

/// Four random words for a counter and a key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    [c0, c1, c2, c3]
}

/// Standard Gumbel noise of one token in one draw: `-ln(-ln(u))`, where u is the upper 23 bits of word 0 plus a half,
/// times 2^-23, which is exact in f32 and never 0 or 1.
pub fn gumbel(seed: u64, draw: u64, token: u32) -> f32 {
    let [word, ..] = philox([draw as u32, (draw >> 32) as u32, token, 0], [seed as u32, (seed >> 32) as u32]);
    let uniform = ((word >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0);
    -(-uniform.ln()).ln()
}
