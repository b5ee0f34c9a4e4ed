// Causal attention of one row and head over the KV cache, with online softmax: no row of scores in memory.
// Four simdgroups take turns at 32 keys each, one key a lane; partial results meet in threadgroup memory.

template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint WINDOW, uint WRAP, typename T>
inline void attend(device const float* q, device const T* keys, device const T* values, device float* y,
                   threadgroup float* shared, uint position, float scale, float softcap, uint head, uint simdgroup,
                   uint lane) {
    constexpr uint PER_LANE = (HEAD_DIM + 31) / 32;
    constexpr uint STRIDE = KV_HEADS * HEAD_DIM;
    const uint kv_head = head / (HEADS / KV_HEADS);
    const uint first = WINDOW != 0 && position + 1 > WINDOW ? position + 1 - WINDOW : 0;
    float acc[PER_LANE];
    for (uint i = 0; i < PER_LANE; ++i) {
        acc[i] = 0.0f;
    }
    float highest = -1.0e30f;
    float total = 0.0f;
    for (uint start = first + simdgroup * 32; start <= position; start += 128) {
        const uint key = start + lane;
        float score = -1.0e30f;
        if (key <= position) {
            device const T* k = keys + (WRAP != 0 ? key % WRAP : key) * STRIDE + kv_head * HEAD_DIM;
            float sum = 0.0f;
            for (uint i = 0; i < HEAD_DIM; ++i) {
                sum += q[i] * float(k[i]);
            }
            score = sum * scale;
            if (softcap != 0.0f) {
                score = softcap * precise::tanh(score / softcap);
            }
        }
        const float new_highest = max(highest, simd_max(score));
        const float correction = precise::exp(highest - new_highest);
        const float weight = key <= position ? precise::exp(score - new_highest) : 0.0f;
        highest = new_highest;
        total = total * correction + simd_sum(weight);
        for (uint i = 0; i < PER_LANE; ++i) {
            acc[i] *= correction;
        }
        const uint count = min(32u, position + 1 - start);
        for (uint j = 0; j < count; ++j) {
            const float p = simd_broadcast(weight, ushort(j));
            const uint slot = WRAP != 0 ? (start + j) % WRAP : start + j;
            device const T* v = values + slot * STRIDE + kv_head * HEAD_DIM;
            for (uint i = 0; i < PER_LANE; ++i) {
                const uint element = lane + i * 32;
                if (HEAD_DIM % 32 == 0 || element < HEAD_DIM) {
                    acc[i] += p * float(v[element]);
                }
            }
        }
    }
    threadgroup float* own = shared + simdgroup * (HEAD_DIM + 2);
    for (uint i = 0; i < PER_LANE; ++i) {
        const uint element = lane + i * 32;
        if (element < HEAD_DIM) {
            own[element] = acc[i];
        }
    }
    if (lane == 0) {
        own[HEAD_DIM] = highest;
        own[HEAD_DIM + 1] = total;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint element = simdgroup * 32 + lane; element < HEAD_DIM; element += 128) {
        float top = shared[HEAD_DIM];
        for (uint part = 1; part < 4; ++part) {
            top = max(top, shared[part * (HEAD_DIM + 2) + HEAD_DIM]);
        }
        float sum = 0.0f;
        float weight = 0.0f;
        for (uint part = 0; part < 4; ++part) {
            threadgroup const float* other = shared + part * (HEAD_DIM + 2);
            const float correction = precise::exp(other[HEAD_DIM] - top);
            sum += other[element] * correction;
            weight += other[HEAD_DIM + 1] * correction;
        }
        y[element] = sum / weight;
    }
}
