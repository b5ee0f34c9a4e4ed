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

// y = activation(result), WIDTH elements a token.
template <uint WIDTH, typename A>
inline void store_activated_tile(device float* y, threadgroup const float* result, A activation, uint tokens,
                                 uint first_row, uint thread_index) {
    const uint row = first_row + thread_index % 64;
    for (uint token = thread_index / 64; token < tokens; token += 2) {
        if (row < WIDTH) {
            y[token * WIDTH + row] = activation.apply(result[token * 64 + thread_index % 64]);
        }
    }
}
