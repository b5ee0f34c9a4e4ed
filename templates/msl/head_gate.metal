// Attention's result times the sigmoid of a gate for each element. The gates of head h begin at FIRST + h * STRIDE of a row.

template <uint HEADS, uint HEAD_DIM, uint FIRST, uint STRIDE, uint WIDTH>
inline void head_gate(device const float* qkv, device float* y, uint2 group, uint thread_index) {
    const uint i = group.x * 256 + thread_index;
    if (i < HEADS * HEAD_DIM) {
        const float gate = qkv[group.y * WIDTH + FIRST + i / HEAD_DIM * STRIDE + i % HEAD_DIM];
        y[group.y * (HEADS * HEAD_DIM) + i] /= 1.0f + precise::exp(-gate);
    }
}
