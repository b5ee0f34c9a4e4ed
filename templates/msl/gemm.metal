// Projections of a tile of up to 64 tokens.

// Rows of STRIDE elements.
template <uint STRIDE>
struct TokenRows {
    device const float* input;
    inline device const float* row(uint token) const { return input + token * STRIDE; }
    inline float scale(uint) const { return 1.0f; }
};

// The same, each times a power of two; products of those are divided by it.
template <uint STRIDE>
struct ScaledRows {
    device const float* input;
    device const float* scales;
    inline device const float* row(uint token) const { return input + token * STRIDE; }
    inline float scale(uint token) const { return scales[token]; }
};

template <typename Y>
struct ScaledTile {
    Y result;
    device const float* scales;
    inline void put(uint token, uint row, float product, float up) const {
        const float unscaled = inverse(scales[token]);
        result.put(token, row, product * unscaled, up * unscaled);
    }
};

template <typename Y>
inline ScaledTile<Y> scaled_tile(Y result, device const float* scales) {
    return ScaledTile<Y>{result, scales};
}

// What becomes of products, WIDTH elements a token.
template <uint WIDTH>
struct StoreTile {
    device float* y;
    inline void put(uint token, uint row, float product, float) const { y[token * WIDTH + row] = product; }
};

template <uint WIDTH>
struct AddTile {
    device float* x;
    float factor;
    inline void put(uint token, uint row, float product, float) const { x[token * WIDTH + row] += factor * product; }
};

template <uint WIDTH, typename A>
struct GatedTile {
    device float* y;
    inline void put(uint token, uint row, float gate, float up) const {
        y[token * WIDTH + row] = A::apply(gate) * A::linear(up);
    }
};

// Adds `bias[row]` first; up rows have theirs SPLIT further on.
template <uint SPLIT, typename Y>
struct BiasedTile {
    Y result;
    device const float* bias;
    inline void put(uint token, uint row, float product, float up) const {
        result.put(token, row, product + bias[row], SPLIT != 0 ? up + bias[row + SPLIT] : up);
    }
};

template <typename Y>
struct CappedTile {
    Y result;
    float cap;
    inline void put(uint token, uint row, float product, float up) const {
        result.put(token, row, cap * precise::tanh(product / cap), up);
    }
};

template <uint SPLIT, typename Y>
inline BiasedTile<SPLIT, Y> biased_tile(Y result, device const float* bias) {
    return BiasedTile<SPLIT, Y>{result, bias};
}

template <typename Y>
inline CappedTile<Y> capped_tile(Y result, float cap) {
    return CappedTile<Y>{result, cap};
}

// Up to 32 tokens take half of the work.
template <typename W, typename W2, typename O, uint STACK, uint ROWS, uint COLS, bool GATED, uint OFFSET, typename X,
          typename Y>
inline void gemm_tile(device const uchar* weights, device const uchar* second, X input, Y result, uint tokens, uint base,
                      uint first_row, threadgroup float* shared, uint simdgroup, uint lane) {
    if (tokens > 32) {
        product_tile<W, W2, O, 64, STACK, ROWS, COLS, GATED, OFFSET, false>(weights, second, input, result, tokens, base,
                                                                           first_row, shared, simdgroup, lane);
    } else {
        product_tile<W, W2, O, 32, STACK, ROWS, COLS, GATED, OFFSET, false>(weights, second, input, result, tokens, base,
                                                                           first_row, shared, simdgroup, lane);
    }
}
