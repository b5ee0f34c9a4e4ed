// Epilogues of feed-forwards without a gate.

// y = activation(acc).
template <uint NR, typename A>
inline void store_activated_rows(device float* y, thread const float* acc, A activation, uint first, uint end,
                                 uint lane) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r && first + r < end) {
            y[first + r] = activation.apply(acc[r]);
        }
    }
}

// The same of a tile, WIDTH elements a token.
template <uint WIDTH, typename A>
struct ActivatedTile {
    device float* y;
    A activation;
    inline void put(uint token, uint row, float product, float) const {
        y[token * WIDTH + row] = activation.apply(product);
    }
};

template <uint WIDTH, typename A>
inline ActivatedTile<WIDTH, A> activated_tile(device float* y, A activation) {
    return ActivatedTile<WIDTH, A>{y, activation};
}
