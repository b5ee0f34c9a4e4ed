// Experts over many rows. `pairs` are rows and experts in order of the experts: row * CHOSEN + place in the row's choice;
// a tile is up to TOKENS of them, all of one expert: {expert, first pair, pairs}. A stack has the same rows of every expert.

// The input of pairs: pair p has row p / PER.
template <uint COLS, uint PER>
struct PairRows {
    device const float* input;
    device const uint* pairs;
    inline device const float* row(uint pair) const { return input + ulong(pairs[pair] / PER) * COLS; }
    inline float scale(uint) const { return 1.0f; }
};

// A row each; with SCALED times a power of two, by which products are divided.
template <uint COLS, bool SCALED>
struct OwnRows {
    device const float* input;
    device const float* scales;
    device const uint* pairs;
    inline device const float* row(uint pair) const { return input + ulong(pairs[pair]) * COLS; }
    inline float scale(uint pair) const { return SCALED ? scales[pairs[pair]] : 1.0f; }
};

// activation(gate x) * up x, WIDTH elements a pair; biases of gates, those of ups SPLIT further on.
template <typename A, uint WIDTH, uint SPLIT, bool BIASED>
struct GatedPairs {
    device float* y;
    device const uint* pairs;
    device const float* biases;
    inline void put(uint pair, uint row, float gate, float up) const {
        if (BIASED) {
            gate += biases[row];
            up += biases[row + SPLIT];
        }
        y[ulong(pairs[pair]) * WIDTH + row] = A::apply(gate) * A::linear(up);
    }
};

template <uint WIDTH, bool BIASED, bool SCALED>
struct StorePairs {
    device float* y;
    device const float* scales;
    device const uint* pairs;
    device const float* biases;
    inline void put(uint pair, uint row, float product, float) const {
        if (SCALED) {
            product *= inverse(scales[pairs[pair]]);
        }
        y[ulong(pairs[pair]) * WIDTH + row] = BIASED ? product + biases[row] : product;
    }
};

// y[pair] = activation(gate x) * up x, WIDTH elements a pair.
template <typename W, typename W2, typename O, typename A, uint TOKENS, uint EXPERTS, uint CHOSEN, uint WIDTH, uint COLS,
          uint SPLIT, uint BIASED>
inline void experts_gate_up_tile(device const uchar* gate, device const uchar* up, device const float* biases,
                                 device const float* input, device const uint* pairs, device const uint* tiles,
                                 device float* y, threadgroup float* shared, uint2 group, uint simdgroup, uint lane) {
    constexpr uint STACK = SPLIT != 0 ? 2 * EXPERTS * WIDTH : EXPERTS * WIDTH;
    device const uint* tile = tiles + 3 * group.y;
    device const uint* own = pairs + tile[1];
    const uint base = tile[0] * WIDTH;
    const PairRows<COLS, CHOSEN> rows = {input, own};
    const GatedPairs<A, WIDTH, EXPERTS * WIDTH, BIASED != 0> results = {y, own, biases + base};
    product_tile<W, W2, O, TOKENS, STACK, WIDTH, COLS, true, SPLIT, true>(gate, up, rows, results, tile[2], base,
                                                                         group.x * 32, shared, simdgroup, lane);
}

// y[pair] = the expert's result, HIDDEN elements a pair.
template <typename W, typename O, uint TOKENS, uint EXPERTS, uint WIDTH, uint HIDDEN, uint BIASED, uint SCALED>
inline void experts_down_tile(device const uchar* stack, device const float* biases, device const float* input,
                              device const float* scales, device const uint* pairs, device const uint* tiles, device float* y,
                              threadgroup float* shared, uint2 group, uint simdgroup, uint lane) {
    device const uint* tile = tiles + 3 * group.y;
    device const uint* own = pairs + tile[1];
    const uint base = tile[0] * HIDDEN;
    const OwnRows<WIDTH, SCALED != 0> rows = {input, scales, own};
    const StorePairs<HIDDEN, BIASED != 0, SCALED != 0> results = {y, scales, own, biases + base};
    product_tile<W, W, O, TOKENS, EXPERTS * HIDDEN, HIDDEN, WIDTH, false, 0, true>(stack, stack, rows, results, tile[2],
                                                                                  base, group.x * 64, shared, simdgroup,
                                                                                  lane);
}

// x += factor * weighted sum of the results of a row's experts, in the order of its choice, and with SHARED of the one that
// every row takes; 1024 elements a threadgroup. Without ADDS the sum is stored.
template <uint CHOSEN, uint HIDDEN, uint SHARED, uint ADDS>
inline void experts_sum(device const float* input, device const float* weights, device const float* of_all,
                        device float* x, float factor, uint2 group, uint thread_index) {
    constexpr uint WEIGHTS = SHARED != 0 ? CHOSEN + 1 : CHOSEN;
    const uint i = group.x * 1024 + thread_index * 4;
    const uint row = group.y;
    if (i < HIDDEN) {
        float4 sum = float4(0.0f);
        for (uint place = 0; place < CHOSEN; ++place) {
            const float weight = weights[row * WEIGHTS + place];
            sum += weight * *(device const float4*)(input + ulong(row * CHOSEN + place) * HIDDEN + i);
        }
        if (SHARED != 0) {
            sum += weights[row * WEIGHTS + CHOSEN] * *(device const float4*)(of_all + ulong(row) * HIDDEN + i);
        }
        device float4* target = (device float4*)(x + ulong(row) * HIDDEN + i);
        *target = ADDS != 0 ? *target + factor * sum : sum;
    }
}
