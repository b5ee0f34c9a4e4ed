// Embedding lookup through a norm without weights. Each threadgroup of a row takes the sum of squares of the whole row, which costs
// little beside a dispatch.

// What the norm multiplies elements of the table by.
template <typename W, uint VOCAB, uint HIDDEN>
inline float embedding_factor(device const uchar* table, uint token, threadgroup float* shared, float scale, float eps,
                              uint thread_index, uint simdgroup, uint lane) {
    float square = 0.0f;
    for (uint column = thread_index * 4; column < HIDDEN; column += 1024) {
        const float4 value = scale * W::template load4<VOCAB, HIDDEN>(table, token, column);
        square += dot(value, value);
    }
    return scale * precise::rsqrt(threadgroup_sum(square, shared, simdgroup, lane) / float(HIDDEN) + eps);
}

template <typename W, uint VOCAB, uint HIDDEN>
inline void embed_normed_row(device const uchar* table, device const uint* next_token, device float* x,
                             constant StepParams& row, threadgroup float* shared, float scale, float eps, uint2 group,
                             uint thread_index, uint simdgroup, uint lane) {
    const float factor = embedding_factor<W, VOCAB, HIDDEN>(table, row_token(row, next_token), shared, scale, eps,
                                                            thread_index, simdgroup, lane);
    embed_row<W, VOCAB, HIDDEN>(table, next_token, x, row, factor, group, thread_index);
}

// `shared` holds two sums of 8 simdgroups.
template <typename W, uint VOCAB, uint HIDDEN, uint PARTIALS>
inline void embed_normed_scaled_row(device const uchar* table, device const uint* next_token, device float* x,
                                    device const float* gamma, device float* scaled, device float* sums,
                                    constant StepParams& row, threadgroup float* shared, float scale, float eps,
                                    uint2 group, uint thread_index, uint simdgroup, uint lane) {
    const float factor = embedding_factor<W, VOCAB, HIDDEN>(table, row_token(row, next_token), shared, scale, eps,
                                                            thread_index, simdgroup, lane);
    embed_scaled_row<W, VOCAB, HIDDEN, PARTIALS>(table, next_token, x, gamma, scaled, sums, row, shared + 8, factor, group,
                                                 thread_index, simdgroup, lane);
}
