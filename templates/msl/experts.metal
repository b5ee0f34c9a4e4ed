// The experts of a row, each a matrix-vector product over its rows of a stack: the weights of EXPERTS experts of equally many
// rows, one after another. An expert of SHARED rows that every row takes may follow them.

// acc = gate rows from `at` on, then up rows. With SPLIT these lie so many rows below those of gate, else in a stack of their
// own; a stack has ROWS rows.
template <typename G, typename U, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT>
inline void gate_up_rows(device const uchar* gate, device const uchar* up, device const float* x, uint at, uint part,
                         uint lane, thread float* acc) {
    if (SPLIT != 0) {
        G::template run<ROWS, COLS, NR, KS, SPLIT>(gate, x, at, part, lane, acc);
    } else {
        G::template run<ROWS, COLS, NR / 2, KS, 0>(gate, x, at, part, lane, acc);
        U::template run<ROWS, COLS, NR / 2, KS, 0>(up, x, at, part, lane, acc + NR / 2);
    }
}

// Adds to results of NR rows, all of which the expert has.
template <uint NR>
inline void add_expert_bias(thread float* acc, device const float* bias) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] += bias[r];
    }
}

// y[row, place] = activation(gate x) * up x of the expert in each place of a row's choice, WIDTH elements each, then those of
// the shared one. A threadgroup has some of one expert's rows; the first of a row leaves the choice and its weights.
template <typename G, typename U, typename S, typename A, typename R, uint EXPERTS, uint CHOSEN, uint LOGITS, uint WIDTH,
          uint COLS, uint NR, uint SIMDGROUPS, uint KS, uint SPLIT, uint PARTIALS, uint SHARED, uint SHARED_WEIGHT,
          uint BIASED>
inline void experts_gate_up(device const uchar* gate, device const uchar* up, device const uchar* shared_rows,
                            device const float* biases, device const float* input, device const float* input_sums,
                            device const float* logits, device const float* vector, device uint* experts,
                            device float* weights, device float* y, threadgroup float* shared, float eps, float added,
                            float scale, uint2 group, uint simdgroup, uint lane) {
    constexpr uint HALF = NR / 2;
    constexpr uint GROUP_ROWS = HALF * SIMDGROUPS / KS;
    constexpr uint GROUPS = (WIDTH + GROUP_ROWS - 1) / GROUP_ROWS;
    constexpr uint WEIGHTS = SHARED != 0 ? CHOSEN + 1 : CHOSEN;
    const uint place = min(group.x / GROUPS, CHOSEN);
    const bool of_all = SHARED != 0 && place == CHOSEN;
    const uint end = of_all ? SHARED : WIDTH;
    const uint row = group.y;
    const uint first = (group.x - place * GROUPS) * GROUP_ROWS + simdgroup / KS * HALF;
    device const float* row_logits = logits + row * LOGITS;
    if (group.x == 0 && simdgroup == 0) {
        R::template store<SHARED_WEIGHT>(row_logits, vector, experts + row * CHOSEN, weights + row * WEIGHTS, added, scale,
                                         lane);
    }
    float acc[NR] = {};
    device const float* x = input + row * COLS;
    uint at = first;
    if (of_all) {
        if (first < end) {
            S::template run<2 * SHARED, COLS, NR, KS, SHARED>(shared_rows, x, first, simdgroup % KS, lane, acc);
        }
    } else {
        at += R::at(row_logits, vector, place, lane) * WIDTH;
        if (first < end) {
            gate_up_rows<G, U, SPLIT != 0 ? 2 * EXPERTS * WIDTH : EXPERTS * WIDTH, COLS, NR, KS, SPLIT>(
                gate, up, x, at, simdgroup % KS, lane, acc);
        }
    }
    if (KS > 1) {
        combine_parts<NR, KS>(acc, shared, simdgroup, lane);
        if (simdgroup % KS != 0) {
            return;
        }
    }
    if (PARTIALS != 0) {
        scale_rows<NR>(acc, rms_scale<PARTIALS, COLS>(input_sums + row * PARTIALS, eps, lane));
    }
    if (BIASED != 0 && !of_all && first < end) {
        add_expert_bias<HALF>(acc, biases + at);
        add_expert_bias<HALF>(acc + HALF, biases + EXPERTS * WIDTH + at);
    }
    store_gated_rows<HALF, A>(y + row * (CHOSEN * WIDTH + SHARED) + place * WIDTH, acc, acc + HALF, first, end, lane);
}

// Weighted sums of the rows that a simdgroup has over the experts that it takes: of KS simdgroups each takes every KS-th
// place of the choice, with the shared expert in the last. Part 0 gets the sums of all.
template <typename D, typename S, uint EXPERTS, uint CHOSEN, uint WIDTH, uint HIDDEN, uint NR, uint KS, uint SHARED,
          uint BIASED>
inline void experts_sum_rows(device const uchar* stack, device const uchar* shared_rows, device const float* biases,
                             device const float* input, device const uint* experts, device const float* weights,
                             threadgroup float* shared, uint first, uint row, uint simdgroup, uint lane,
                             thread float* total) {
    constexpr uint WEIGHTS = SHARED != 0 ? CHOSEN + 1 : CHOSEN;
    device const float* x = input + row * (CHOSEN * WIDTH + SHARED);
    for (uint r = 0; r < NR; ++r) {
        total[r] = 0.0f;
    }
    if (first < HIDDEN) {
        for (uint place = simdgroup % KS; place < WEIGHTS; place += KS) {
            float acc[NR];
            if (SHARED != 0 && place == CHOSEN) {
                S::template run<HIDDEN, SHARED != 0 ? SHARED : WIDTH, NR, 1, 0>(shared_rows, x + place * WIDTH, first, 0, lane,
                                                                                acc);
            } else {
                const uint at = experts[row * CHOSEN + place] * HIDDEN + first;
                D::template run<EXPERTS * HIDDEN, WIDTH, NR, 1, 0>(stack, x + place * WIDTH, at, 0, lane, acc);
                if (BIASED != 0) {
                    add_expert_bias<NR>(acc, biases + at);
                }
            }
            const float weight = weights[row * WEIGHTS + place];
            for (uint r = 0; r < NR; ++r) {
                total[r] = fma(weight, acc[r], total[r]);
            }
        }
    }
    if (KS > 1) {
        combine_parts<NR, KS>(total, shared, simdgroup, lane);
    }
}

// x += factor * weighted sum of the experts' results, and what the next projection needs.
template <typename D, typename S, uint EXPERTS, uint CHOSEN, uint WIDTH, uint HIDDEN, uint NR, uint SIMDGROUPS, uint KS,
          uint SHARED, uint BIASED, uint PARTIALS>
inline void experts_down(device const uchar* stack, device const uchar* shared_rows, device const float* biases,
                         device const float* input, device const uint* experts, device const float* weights,
                         device float* x, device const float* gamma, device float* scaled, device float* sums,
                         threadgroup float* shared, float factor, uint2 group, uint simdgroup, uint lane) {
    constexpr uint GROUP_ROWS = NR * SIMDGROUPS / KS;
    const uint row = group.y;
    const uint first = group.x * GROUP_ROWS + simdgroup / KS * NR;
    float total[NR];
    experts_sum_rows<D, S, EXPERTS, CHOSEN, WIDTH, HIDDEN, NR, KS, SHARED, BIASED>(
        stack, shared_rows, biases, input, experts, weights, shared, first, row, simdgroup, lane, total);
    float square = 0.0f;
    if (simdgroup % KS == 0) {
        square = add_rows<NR>(x + row * HIDDEN, gamma, scaled + row * HIDDEN, total, factor, first, HIDDEN, lane);
    }
    store_partial_sum<SIMDGROUPS, (HIDDEN + GROUP_ROWS - 1) / GROUP_ROWS, PARTIALS>(
        sums + row * PARTIALS, shared + (KS > 1 ? SIMDGROUPS * NR : 0), square, group.x, simdgroup, lane);
}

// The same where no norm follows that is one factor; without ADDS the sum is stored.
template <typename D, typename S, uint EXPERTS, uint CHOSEN, uint WIDTH, uint HIDDEN, uint NR, uint SIMDGROUPS, uint KS,
          uint SHARED, uint BIASED, uint ADDS>
inline void experts_accumulate(device const uchar* stack, device const uchar* shared_rows, device const float* biases,
                               device const float* input, device const uint* experts, device const float* weights,
                               device float* x, threadgroup float* shared, float factor, uint2 group, uint simdgroup,
                               uint lane) {
    const uint row = group.y;
    const uint first = group.x * (NR * SIMDGROUPS / KS) + simdgroup / KS * NR;
    float total[NR];
    experts_sum_rows<D, S, EXPERTS, CHOSEN, WIDTH, HIDDEN, NR, KS, SHARED, BIASED>(
        stack, shared_rows, biases, input, experts, weights, shared, first, row, simdgroup, lane, total);
    if (simdgroup % KS == 0) {
        if (ADDS != 0) {
            accumulate_rows<NR>(x + row * HIDDEN, total, factor, first, HIDDEN, lane);
        } else {
            store_rows<NR>(x + row * HIDDEN, total, first, HIDDEN, lane);
        }
    }
}
