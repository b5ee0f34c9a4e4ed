// Keys and values of every head, made of latents, and queries over those: what attention needs that reads no latents. Worth it for
// tiles of so many rows that the shorter products of each with each position pay for making these once.

// Latents of a cache [position][WIDTH] as rows of an input.
template <uint WIDTH, typename T>
struct LatentRows {
    device const T* latents;
    inline device const T* row(uint position) const { return latents + position * WIDTH; }
    inline float scale(uint) const { return 1.0f; }
};

// Products become elements of a cache, WIDTH from one position to the next.
template <uint WIDTH, typename T>
struct StoreElements {
    device T* y;
    inline void put(uint position, uint row, float product, float) const { y[position * WIDTH + row] = T(product); }
};

// MADE elements of a head's key or value, and the SHARED last of each position behind them, of positions 0 to `position` + `rows` of
// the sequence that begins at position `start_of_slot` of the cache [position][LATENT + ROPE]; y is [position][HEADS][MADE + SHARED].
// group.x is a tile of 64 of these elements, the last one the shared ones, group.y one of 64 positions, group.z a head.
template <typename W, typename O, uint HEADS, uint MADE, uint SHARED, uint LATENT, uint ROPE, typename T>
inline void latent_expand(device const uchar* weights, device const T* latents, device T* y, threadgroup float* shared,
                          uint start_of_slot, uint position, uint rows, uint3 group, uint simdgroup, uint lane) {
    constexpr uint WIDTH = LATENT + ROPE;
    constexpr uint HEAD = MADE + SHARED;
    const uint first = group.y * 64;
    const uint count = min(64u, position + rows - first);
    device const T* source = latents + ulong(start_of_slot + first) * WIDTH;
    device T* target = y + ulong(first) * (HEADS * HEAD) + group.z * HEAD;
    if (group.x < (MADE + 63) / 64) {
        const LatentRows<WIDTH, T> input = {source};
        const StoreElements<HEADS * HEAD, T> result = {target};
        gemm_tile<W, W, O, HEADS * MADE, MADE, LATENT, false, 0>(weights, weights, input, result, count, group.z * MADE,
                                                                 group.x * 64, shared, simdgroup, lane);
    } else {
        for (uint at = simdgroup; at < count; at += 4) {
            for (uint i = lane; i < SHARED; i += 32) {
                target[at * (HEADS * HEAD) + MADE + i] = source[at * WIDTH + LATENT + i];
            }
        }
    }
}

// A row's queries, [HEADS][NOPE + ROPE], the first of WIDTH elements of its input, a simdgroup a head: the last ROPE of each rotate.
template <uint HEADS, uint NOPE, uint ROPE, bool INTERLEAVED, uint WIDTH, uint SIMDGROUPS>
inline void latent_rotate(device const float* input, device float* q, constant float* inv_freq, uint position,
                          float magnitude, uint2 group, uint simdgroup, uint lane) {
    const uint head = group.x * SIMDGROUPS + simdgroup;
    device const float* x = input + group.y * WIDTH;
    device float* y = q + group.y * (HEADS * (NOPE + ROPE));
    if (head < HEADS) {
        for (uint i = lane; i < NOPE; i += 32) {
            y[head * (NOPE + ROPE) + i] = x[head * (NOPE + ROPE) + i];
        }
        rotate_query<HEADS, NOPE, ROPE, NOPE, INTERLEAVED>(x, y, inv_freq, position, magnitude, head, lane);
    }
}
