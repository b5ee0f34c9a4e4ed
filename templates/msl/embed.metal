// Embedding lookup. A threadgroup of 256 threads handles 1024 elements of one row, four a thread.

template <typename W, uint VOCAB, uint HIDDEN>
inline void embed_row(device const uchar* table, device const uint* tokens, device float* x, float scale,
                      uint2 group, uint thread_index) {
    const uint column = group.x * 1024 + thread_index * 4;
    if (column < HIDDEN) {
        const float4 value = scale * W::template load4<VOCAB, HIDDEN>(table, tokens[group.y], column);
        *(device float4*)(x + group.y * HIDDEN + column) = value;
    }
}

// The same for the one row of a decode step, with what the first projection needs: x * gamma and sums of squares.
template <typename W, uint VOCAB, uint HIDDEN, uint PARTIALS>
inline void embed_scaled_row(device const uchar* table, device const uint* tokens, device float* x,
                             device const float* gamma, device float* scaled, device float* sums,
                             threadgroup float* shared, float scale, uint group, uint thread_index, uint simdgroup,
                             uint lane) {
    const uint column = group * 1024 + thread_index * 4;
    float square = 0.0f;
    if (column < HIDDEN) {
        const float4 value = scale * W::template load4<VOCAB, HIDDEN>(table, tokens[0], column);
        *(device float4*)(x + column) = value;
        *(device float4*)(scaled + column) = value * *(device const float4*)(gamma + column);
        square = dot(value, value);
    }
    store_partial_sum<8, (HIDDEN + 1023) / 1024, PARTIALS>(sums, shared, square, group, simdgroup, lane);
}
