// Matrices of heads, as in steps, times tiles of 64 tokens: group.x is a tile of 64 results of head group.z.

// Weights of a matrix that is stored turned: of heads of ROWS elements each, [HEADS][COLS][ROWS].
template <typename W, uint HEADS, uint ROWS, uint COLS>
struct Turned {
    template <uint, uint>
    static inline float4 load4(device const uchar* weights, uint row, uint col) {
        float4 value = 0.0f;
        for (uint e = 0; e < 4; ++e) {
            const uint line = row / ROWS * COLS + min(col + e, COLS - 1);
            value[e] = W::template load4<HEADS * COLS, ROWS>(weights, line, row % ROWS / 4 * 4)[row % 4];
        }
        return value;
    }
};

// ROWS results of a head of COLS elements. Parts of a row of INPUT_WIDTH elements are INPUT apart, results OUTPUT in one of
// OUTPUT_WIDTH.
template <typename W, uint HEADS, uint ROWS, uint COLS, uint INPUT_WIDTH, uint INPUT, uint OUTPUT_WIDTH, uint OUTPUT>
inline void head_tile(device const uchar* weights, device const float* input, device float* y,
                      threadgroup float* shared, uint rows, uint3 group, uint simdgroup, uint lane) {
    const uint first_token = group.y * 64;
    const uint head = group.z;
    const TokenRows<INPUT_WIDTH> parts = {input + first_token * INPUT_WIDTH + head * INPUT};
    const StoreTile<OUTPUT_WIDTH> results = {y + first_token * OUTPUT_WIDTH + head * OUTPUT};
    gemm_tile<W, W, Floats, HEADS * ROWS, ROWS, COLS, false, 0>(weights, weights, parts, results,
                                                               min(64u, rows - first_token), head * ROWS, group.x * 64,
                                                               shared, simdgroup, lane);
}

// Queries over the cache, of rows from `position` on; the last threadgroup of a head rotates.
template <typename W, uint HEADS, uint NOPE, uint ROPE, uint LATENT, bool INTERLEAVED, uint WIDTH>
inline void latent_queries_tile(device const uchar* weights, device const float* input, device float* q,
                                threadgroup float* shared, constant float* inv_freq, uint position, uint rows,
                                float magnitude, uint3 group, uint simdgroup, uint lane) {
    constexpr uint POSITION = LATENT + ROPE;
    if (group.x < (LATENT + 63) / 64) {
        head_tile<W, HEADS, LATENT, NOPE, WIDTH, NOPE + ROPE, HEADS * POSITION, POSITION>(
            weights, input, q, shared, rows, group, simdgroup, lane);
    } else {
        for (uint row = group.y * 64 + simdgroup; row < min(group.y * 64 + 64, rows); row += 4) {
            rotate_query<HEADS, NOPE, ROPE, LATENT, INTERLEAVED>(
                input + row * WIDTH, q + row * (HEADS * POSITION), inv_freq, position + row, magnitude, group.z, lane);
        }
    }
}

// Values of latents.
template <typename W, uint HEADS, uint LATENT, uint VALUE>
inline void latent_values_tile(device const uchar* weights, device const float* input, device float* y,
                               threadgroup float* shared, uint rows, uint3 group, uint simdgroup, uint lane) {
    head_tile<W, HEADS, VALUE, LATENT, HEADS * LATENT, LATENT, HEADS * VALUE, VALUE>(
        weights, input, y, shared, rows, group, simdgroup, lane);
}
