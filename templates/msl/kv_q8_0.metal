// Keys and values of a layer as Q8_0: a signed code of a byte for each element, and a half scale for each 32 of a head. A
// position has the codes of all heads, [KV_HEADS][HEAD_DIM], then all scales, [KV_HEADS][HEAD_DIM / 32], and is filled up to
// a multiple of 8 bytes: so that codes are loaded eight at a time, and what a position has lies together wherever its cache
// ends. WIDTH is KV_HEADS * HEAD_DIM.

// Bytes of a cache from one position to the next.
constexpr uint cache_stride(uint width) { return width + (width / 16 + 7) / 8 * 8; }

struct CacheHead {
    device const char* codes;
    device const half* scales;
};

struct CacheTarget {
    device char* codes;
    device half* scales;
};

// What the head that starts with element `first` has at position `at`.
template <uint WIDTH, typename P>
inline CacheHead cache_head(device const uchar* cache, P at, uint first) {
    device const uchar* position = cache + at * cache_stride(WIDTH);
    return {(device const char*)position + first, (device const half*)(position + WIDTH) + first / 32};
}

template <uint WIDTH, typename P>
inline CacheTarget cache_head(device uchar* cache, P at, uint first) {
    device uchar* position = cache + at * cache_stride(WIDTH);
    return {(device char*)position + first, (device half*)(position + WIDTH) + first / 32};
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

// Elements of a head from `first` on, one a lane. As ggml does it: codes come from the scale before that is rounded to half,
// ties go away from zero.
inline void store_block(CacheTarget target, uint first, float value, uint lane) {
    const float scale = simd_max(abs(value)) / 127.0f;
    // What is smaller has an infinite inverse, and is 0 as a half.
    const float inverse = scale > 1.0e-37f ? 1.0f / scale : 0.0f;
    target.codes[first + lane] = char(round(value * inverse));
    if (lane == 0) {
        target.scales[first / 32] = half(scale);
    }
}

// Rotates a head like the function of this name for numbers, one element a lane rather than one pair.
template <uint HEAD_DIM, uint ROTARY, bool INTERLEAVED, typename N>
inline void rotate_head(device const float* source, CacheTarget target, N norm, constant float* inv_freq,
                        float position, float magnitude, uint lane) {
    for (uint first = 0; first < HEAD_DIM; first += 32) {
        const uint i = first + lane;
        float value = norm(source[i], i);
        if (i < ROTARY) {
            const bool second = INTERLEAVED ? i % 2 == 1 : i >= ROTARY / 2;
            const uint other = INTERLEAVED ? i ^ 1 : second ? i - ROTARY / 2 : i + ROTARY / 2;
            const float angle = position * inv_freq[INTERLEAVED ? i / 2 : i % (ROTARY / 2)];
            const float c = precise::cos(angle) * magnitude;
            const float s = precise::sin(angle) * magnitude;
            const float beside = norm(source[other], other);
            value = second ? beside * s + value * c : value * c - beside * s;
        }
        store_block(target, first, value, lane);
    }
}

template <uint HEAD_DIM, typename N>
inline void copy_head(device const float* source, CacheTarget target, N norm, uint lane) {
    for (uint first = 0; first < HEAD_DIM; first += 32) {
        store_block(target, first, norm(source[first + lane], first + lane), lane);
    }
}
