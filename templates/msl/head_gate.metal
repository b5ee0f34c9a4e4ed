// Attention's result times the sigmoid of a gate for each element. A head's gates follow its queries.

template <uint HEADS, uint HEAD_DIM, uint WIDTH>
inline void head_gate(device const float* qkv, device float* y, uint2 group, uint thread_index) {
    const uint i = group.x * 256 + thread_index;
    if (i < HEADS * HEAD_DIM) {
        const float gate = qkv[group.y * WIDTH + (i / HEAD_DIM * 2 + 1) * HEAD_DIM + i % HEAD_DIM];
        y[group.y * (HEADS * HEAD_DIM) + i] /= 1.0f + precise::exp(-gate);
    }
}
