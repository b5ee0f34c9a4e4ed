// Keys and values of a layer as numbers of one type, [positions][KV_HEADS][HEAD_DIM] each. Other kv_*.metal have the same
// functions for other ways to store them. WIDTH is KV_HEADS * HEAD_DIM.

// Elements of a cache from one position to the next.
constexpr uint cache_stride(uint width) { return width; }

// What the head that starts with element `first` has at position `at`.
template <uint WIDTH, typename P, typename T>
inline device T* cache_head(device T* cache, P at, uint first) {
    return cache + at * cache_stride(WIDTH) + first;
}
