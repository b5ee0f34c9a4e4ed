// The experts of a row, each a matrix-vector product over its rows of a stack: the weights of EXPERTS experts of equally many
// rows, one after another.

// y[row, place] = activation(gate x) * up x of the expert in each place of a row's choice, WIDTH elements each. A threadgroup
// has some of one expert's rows; the first of a row leaves the choice and its weights. With SPLIT the rows of up lie so many
// rows below those of gate, else in a stack of their own.
template <typename G, typename U, typename A, typename R, uint EXPERTS, uint CHOSEN, uint LOGITS, uint WIDTH, uint COLS,
          uint NR, uint SIMDGROUPS, uint KS, uint SPLIT, uint PARTIALS>
inline void experts_gate_up(device const uchar* gate, device const uchar* up, device const float* input,
                            device const float* input_sums, device const float* logits, device const float* bias,
                            device uint* experts, device float* weights, device float* y, threadgroup float* shared,
                            float eps, float added, float scale, uint2 group, uint simdgroup, uint lane) {
    constexpr uint HALF = NR / 2;
    constexpr uint GROUP_ROWS = HALF * SIMDGROUPS / KS;
    constexpr uint GROUPS = (WIDTH + GROUP_ROWS - 1) / GROUP_ROWS;
    const uint place = group.x / GROUPS;
    const uint row = group.y;
    const uint first = group.x % GROUPS * GROUP_ROWS + simdgroup / KS * HALF;
    device const float* row_logits = logits + row * LOGITS;
    if (group.x == 0 && simdgroup == 0) {
        R::store(row_logits, bias, experts + row * CHOSEN, weights + row * CHOSEN, added, scale, lane);
    }
    const uint expert = R::at(row_logits, bias, place, lane);
    float acc[NR] = {};
    if (first < WIDTH) {
        device const float* x = input + row * COLS;
        const uint at = expert * WIDTH + first;
        if (SPLIT != 0) {
            G::template run<2 * EXPERTS * WIDTH, COLS, NR, KS, SPLIT>(gate, x, at, simdgroup % KS, lane, acc);
        } else {
            G::template run<EXPERTS * WIDTH, COLS, HALF, KS, 0>(gate, x, at, simdgroup % KS, lane, acc);
            U::template run<EXPERTS * WIDTH, COLS, HALF, KS, 0>(up, x, at, simdgroup % KS, lane, acc + HALF);
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
    store_gated_rows<HALF, A>(y + (row * CHOSEN + place) * WIDTH, acc, acc + HALF, first, WIDTH, lane);
}

// Weighted sums of the rows that a simdgroup has over the experts that it takes: of KS simdgroups each takes every KS-th
// place of the choice. Part 0 gets the sums of all.
template <typename D, uint EXPERTS, uint CHOSEN, uint WIDTH, uint HIDDEN, uint NR, uint KS>
inline void experts_sum_rows(device const uchar* stack, device const float* input, device const uint* experts,
                             device const float* weights, threadgroup float* shared, uint first, uint row,
                             uint simdgroup, uint lane, thread float* total) {
    for (uint r = 0; r < NR; ++r) {
        total[r] = 0.0f;
    }
    if (first < HIDDEN) {
        for (uint place = simdgroup % KS; place < CHOSEN; place += KS) {
            const uint at = row * CHOSEN + place;
            const float weight = weights[at];
            float acc[NR];
            D::template run<EXPERTS * HIDDEN, WIDTH, NR, 1, 0>(stack, input + at * WIDTH, experts[at] * HIDDEN + first, 0,
                                                              lane, acc);
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
template <typename D, uint EXPERTS, uint CHOSEN, uint WIDTH, uint HIDDEN, uint NR, uint SIMDGROUPS, uint KS, uint PARTIALS>
inline void experts_down(device const uchar* stack, device const float* input, device const uint* experts,
                         device const float* weights, device float* x, device const float* gamma, device float* scaled,
                         device float* sums, threadgroup float* shared, float factor, uint2 group, uint simdgroup,
                         uint lane) {
    constexpr uint GROUP_ROWS = NR * SIMDGROUPS / KS;
    const uint row = group.y;
    const uint first = group.x * GROUP_ROWS + simdgroup / KS * NR;
    float total[NR];
    experts_sum_rows<D, EXPERTS, CHOSEN, WIDTH, HIDDEN, NR, KS>(stack, input, experts, weights, shared, first, row,
                                                               simdgroup, lane, total);
    float square = 0.0f;
    if (simdgroup % KS == 0) {
        square = add_rows<NR>(x + row * HIDDEN, gamma, scaled + row * HIDDEN, total, factor, first, HIDDEN, lane);
    }
    store_partial_sum<SIMDGROUPS, (HIDDEN + GROUP_ROWS - 1) / GROUP_ROWS, PARTIALS>(
        sums + row * PARTIALS, shared + (KS > 1 ? SIMDGROUPS * NR : 0), square, group.x, simdgroup, lane);
}

// The same where no norm follows that is one factor.
template <typename D, uint EXPERTS, uint CHOSEN, uint WIDTH, uint HIDDEN, uint NR, uint SIMDGROUPS, uint KS>
inline void experts_accumulate(device const uchar* stack, device const float* input, device const uint* experts,
                               device const float* weights, device float* x, threadgroup float* shared, float factor,
                               uint2 group, uint simdgroup, uint lane) {
    const uint row = group.y;
    const uint first = group.x * (NR * SIMDGROUPS / KS) + simdgroup / KS * NR;
    float total[NR];
    experts_sum_rows<D, EXPERTS, CHOSEN, WIDTH, HIDDEN, NR, KS>(stack, input, experts, weights, shared, first, row,
                                                               simdgroup, lane, total);
    if (simdgroup % KS == 0) {
        accumulate_rows<NR>(x + row * HIDDEN, total, factor, first, HIDDEN, lane);
    }
}
