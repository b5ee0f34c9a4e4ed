// needs: kv
// Four elements of a head from element i on, and eight.
inline float4 load_cache4(device const float* head, uint i) { return *(device const float4*)(head + i); }

inline void load_cache8(device const float* head, uint i, thread float4* v) {
    v[0] = load_cache4(head, i);
    v[1] = load_cache4(head, i + 4);
}

// Some elements of a head, as they are stored.
template <uint COUNT>
struct CacheElements {
    uint words[COUNT];
};

template <uint COUNT>
inline void load_elements(device const float* head, uint i, thread CacheElements<COUNT>& stored) {
    load_words<4 * COUNT>((device const uchar*)(head + i), stored.words);
}

template <uint COUNT>
inline void decode_elements(thread const CacheElements<COUNT>& stored, thread float* v) {
    #pragma clang loop unroll(full)
    for (uint e = 0; e < COUNT; ++e) {
        v[e] = as_type<float>(stored.words[e]);
    }
}
