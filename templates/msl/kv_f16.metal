// needs: kv
// Four elements of a head from element i on, eight, and two.
inline float4 load_cache4(device const half* head, uint i) { return float4(*(device const half4*)(head + i)); }

inline void load_cache8(device const half* head, uint i, thread float4* v) {
    const uint4 bits = *(device const uint4*)(head + i);
    v[0] = float4(as_type<half4>(uint2(bits.x, bits.y)));
    v[1] = float4(as_type<half4>(uint2(bits.z, bits.w)));
}

inline float2 load_cache2(device const half* head, uint i) { return float2(*(device const half2*)(head + i)); }
