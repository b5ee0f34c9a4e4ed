// Embedding lookup. A threadgroup of 256 threads handles 1024 elements of one row, four a thread.

// The token of a row: the host knows it, or the row's slot chose it in its last step.
inline uint row_token(constant StepParams& row, device const uint* next_token) {
    return row.token == 0xFFFFFFFFu ? next_token[row.slot] : row.token;
}

template <typename W, uint VOCAB, uint HIDDEN>
inline void embed_row(device const uchar* table, device const uint* next_token, device float* x,
                      constant StepParams& row, float scale, uint2 group, uint thread_index) {
    const uint column = group.x * 1024 + thread_index * 4;
    if (column < HIDDEN) {
        const float4 value = scale * W::template load4<VOCAB, HIDDEN>(table, row_token(row, next_token), column);
        *(device float4*)(x + group.y * HIDDEN + column) = value;
    }
}

// The same with what the first projection of a step needs: x * gamma and sums of squares.
template <typename W, uint VOCAB, uint HIDDEN, uint PARTIALS>
inline void embed_scaled_row(device const uchar* table, device const uint* next_token, device float* x,
                             device const float* gamma, device float* scaled, device float* sums,
                             constant StepParams& row, threadgroup float* shared, float scale, uint2 group,
                             uint thread_index, uint simdgroup, uint lane) {
    const uint column = group.x * 1024 + thread_index * 4;
    const uint at = group.y * HIDDEN + column;
    float square = 0.0f;
    if (column < HIDDEN) {
        const float4 value = scale * W::template load4<VOCAB, HIDDEN>(table, row_token(row, next_token), column);
        *(device float4*)(x + at) = value;
        *(device float4*)(scaled + at) = value * *(device const float4*)(gamma + column);
        square = dot(value, value);
    }
    store_partial_sum<8, (HIDDEN + 1023) / 1024, PARTIALS>(
        sums + group.y * PARTIALS, shared, square, group.x, simdgroup, lane);
}
