// needs: kv
// Four elements of a head from element i on, and eight.
inline float4 load_cache4(device const half* head, uint i) { return float4(*(device const half4*)(head + i)); }

inline void load_cache8(device const half* head, uint i, thread float4* v) {
    const uint4 bits = *(device const uint4*)(head + i);
    v[0] = float4(as_type<half4>(uint2(bits.x, bits.y)));
    v[1] = float4(as_type<half4>(uint2(bits.z, bits.w)));
}

// Some elements of a head, as they are stored.
template <uint COUNT>
struct CacheElements {
    uint words[COUNT / 2];
};

template <uint COUNT>
inline void load_elements(device const half* head, uint i, thread CacheElements<COUNT>& stored) {
    load_words<2 * COUNT>((device const uchar*)(head + i), stored.words);
}

template <uint COUNT>
inline void decode_elements(thread const CacheElements<COUNT>& stored, thread float* v) {
    #pragma clang loop unroll(full)
    for (uint w = 0; w < COUNT / 2; ++w) {
        const float2 two = float2(as_type<half2>(stored.words[w]));
        v[2 * w] = two.x;
        v[2 * w + 1] = two.y;
    }
}
