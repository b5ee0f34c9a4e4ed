// Keys and values stored in blocks of 32 elements of a head: each has codes and a half scale. A position has the codes of all heads, then
// all scales, [KV_HEADS][HEAD_DIM / 32], and is filled up to a multiple of 8 bytes: so that codes are loaded eight elements at a
// time, and what a position has lies together wherever its cache ends. kv_<type>.metal says what codes are.
struct CacheHead {
    device const uchar* codes;
    device const half* scales;
};

struct CacheTarget {
    device uchar* codes;
    device half* scales;
};

// Stores elements of a head from `first` on, one a lane.
inline void store_block(CacheTarget target, uint first, float value, uint lane);

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
