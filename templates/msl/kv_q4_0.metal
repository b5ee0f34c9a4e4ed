// needs: kv_blocks
// Q4_0: a code of 0 to 15 for each element, which stands for the code less 8, two to a byte, the first in the low bits:
// [KV_HEADS][HEAD_DIM / 2]. WIDTH is KV_HEADS * HEAD_DIM.

// Bytes of a cache from one position to the next.
constexpr uint cache_stride(uint width) { return width / 2 + (width / 16 + 7) / 8 * 8; }

// What the head that starts with element `first` has at position `at`.
template <uint WIDTH, typename P>
inline CacheHead cache_head(device const uchar* cache, P at, uint first) {
    device const uchar* position = cache + at * cache_stride(WIDTH);
    return {position + first / 2, (device const half*)(position + WIDTH / 2) + first / 32};
}

template <uint WIDTH, typename P>
inline CacheTarget cache_head(device uchar* cache, P at, uint first) {
    device uchar* position = cache + at * cache_stride(WIDTH);
    return {position + first / 2, (device half*)(position + WIDTH / 2) + first / 32};
}

// What four codes stand for.
inline float4 cache_levels(uint bits) {
    return float4((uint4(bits) >> uint4(0, 4, 8, 12)) & 15) - 8.0f;
}

// Four elements of a head from element i on, and eight.
inline float4 load_cache4(CacheHead head, uint i) {
    return float(head.scales[i / 32]) * cache_levels(*(device const ushort*)(head.codes + i / 2));
}

inline void load_cache8(CacheHead head, uint i, thread float4* v) {
    const uint codes = *(device const uint*)(head.codes + i / 2);
    const float scale = float(head.scales[i / 32]);
    v[0] = scale * cache_levels(codes);
    v[1] = scale * cache_levels(codes >> 16);
}

// Some elements of a head, as they are stored.
template <uint COUNT>
struct CacheElements {
    uint word;
    half scale;
};

template <uint COUNT>
inline void load_elements(CacheHead head, uint i, thread CacheElements<COUNT>& stored) {
    load_words<COUNT / 2>(head.codes + i / 2, &stored.word);
    stored.scale = head.scales[i / 32];
}

template <uint COUNT>
inline void decode_elements(thread const CacheElements<COUNT>& stored, thread float* v) {
    #pragma clang loop unroll(full)
    for (uint e = 0; e < COUNT; ++e) {
        v[e] = float(stored.scale) * (float(stored.word >> (4 * e) & 15) - 8.0f);
    }
}

// Elements of a head from `first` on, one a lane. As ggml does it: what has the largest magnitude becomes -8, so that one more code is
// of its sign; codes come from the scale before that is rounded to half.
inline void store_block(CacheTarget target, uint first, float value, uint lane) {
    const float high = simd_max(value);
    const float low = simd_min(value);
    const float scale = (high > -low ? high : low) / -8.0f;
    // What is smaller has an infinite inverse, and is 0 as a half.
    const float inverse = abs(scale) > 1.0e-37f ? 1.0f / scale : 0.0f;
    const uint code = min(uint(value * inverse + 8.5f), 15u);
    const uint beside = simd_shuffle_xor(code, ushort(1));
    if (lane % 2 == 0) {
        target.codes[(first + lane) / 2] = uchar(code | beside << 4);
    }
    if (lane == 0) {
        target.scales[first / 32] = half(scale);
    }
}
