// needs: kv
// Four elements of a head from element i on, and eight.
inline float4 load_cache4(device const float* head, uint i) { return *(device const float4*)(head + i); }

inline void load_cache8(device const float* head, uint i, thread float4* v) {
    v[0] = load_cache4(head, i);
    v[1] = load_cache4(head, i + 4);
}

inline float2 load_cache2(device const float* head, uint i) { return *(device const float2*)(head + i); }
