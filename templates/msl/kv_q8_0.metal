// needs: kv_blocks
// Q8_0: a signed code of a byte for each element, [KV_HEADS][HEAD_DIM]. WIDTH is KV_HEADS * HEAD_DIM.

// Bytes of a cache from one position to the next.
constexpr uint cache_stride(uint width) { return width + (width / 16 + 7) / 8 * 8; }

// What the head that starts with element `first` has at position `at`.
template <uint WIDTH, typename P>
inline CacheHead cache_head(device const uchar* cache, P at, uint first) {
    device const uchar* position = cache + at * cache_stride(WIDTH);
    return {position + first, (device const half*)(position + WIDTH) + first / 32};
}

template <uint WIDTH, typename P>
inline CacheTarget cache_head(device uchar* cache, P at, uint first) {
    device uchar* position = cache + at * cache_stride(WIDTH);
    return {position + first, (device half*)(position + WIDTH) + first / 32};
}

// Four elements of a head from element i on, and eight.
inline float4 load_cache4(CacheHead head, uint i) {
    return float(head.scales[i / 32]) * float4(*(device const char4*)(head.codes + i));
}

inline void load_cache8(CacheHead head, uint i, thread float4* v) {
    const uint2 codes = *(device const uint2*)(head.codes + i);
    const float scale = float(head.scales[i / 32]);
    v[0] = scale * float4(as_type<char4>(codes.x));
    v[1] = scale * float4(as_type<char4>(codes.y));
}

// Some elements of a head, as they are stored.
template <uint COUNT>
struct CacheElements {
    uint words[(COUNT + 3) / 4];
    half scale;
};

template <uint COUNT>
inline void load_elements(CacheHead head, uint i, thread CacheElements<COUNT>& stored) {
    load_words<COUNT>(head.codes + i, stored.words);
    stored.scale = head.scales[i / 32];
}

template <uint COUNT>
inline void decode_elements(thread const CacheElements<COUNT>& stored, thread float* v) {
    #pragma clang loop unroll(full)
    for (uint w = 0; w < (COUNT + 3) / 4; ++w) {
        const float4 four = float(stored.scale) * float4(as_type<char4>(stored.words[w]));
        v[4 * w] = four.x;
        v[4 * w + 1] = four.y;
        if (COUNT > 2) {
            v[4 * w + 2] = four.z;
            v[4 * w + 3] = four.w;
        }
    }
}

// Elements of a head from `first` on, one a lane. As ggml does it: codes come from the scale before that is rounded to half,
// ties go away from zero.
inline void store_block(CacheTarget target, uint first, float value, uint lane) {
    const float scale = simd_max(abs(value)) / 127.0f;
    // What is smaller has an infinite inverse, and is 0 as a half.
    const float inverse = scale > 1.0e-37f ? 1.0f / scale : 0.0f;
    target.codes[first + lane] = as_type<uchar>(char(round(value * inverse)));
    if (lane == 0) {
        target.scales[first / 32] = half(scale);
    }
}
