// Matrix times five to eight tokens. Eight simdgroups of a threadgroup have rows of their own and the same columns, tile after tile: each
// stages a token's input of the next tile, with the sums that its lanes take of it, while all multiply this one's from threadgroup
// memory. So a simdgroup reads and decodes its weights once for all tokens, and prepares one token's input instead of eight. Four rows are as
// many as leave room: their sums are 32 registers of a thread, their weights of a tile 32 more, and a GPU that gives a thread 128
// keeps its simdgroups. Formats whose groups are summed apart would need as many again. Sums have the terms of the kernel for one token in its order; of simdgroups that share a row there, the
// parts come one after another here.

constant constexpr uint STAGED_TOKENS = 8;
// Floats of a tile of each token: two runs of four columns and a sum for each lane.
constant constexpr uint STAGE = STAGED_TOKENS * LANES * 9;

// The lane whose columns a lane has in a tile: those without columns stand in for lane 0, so that all stay together.
template <uint COLS>
inline uint lane_in_tile(uint tile, uint lane) {
    return COLS % TILE == 0 || tile < COLS / TILE || lane < COLS % TILE / 8 ? lane : 0;
}

// One token's input of a tile, from memory.
template <typename F, uint COLS>
inline void load_staged(device const float* x, uint tile, uint lane, thread float4* v) {
    load_input<F::BLOCK, 1>(x, tile, lane_in_tile<COLS>(tile, lane), v);
}

// Its columns, made to fit tile t of a group.
template <typename F>
inline void store_staged(threadgroup float* stage, thread float4* v, uint t, uint token, uint lane) {
    const float sum = Shared<F>::prepare(t, v);
    threadgroup float4* runs = (threadgroup float4*)stage;
    runs[token * LANES + lane] = v[0];
    runs[(STAGED_TOKENS + token) * LANES + lane] = v[1];
    if (!F::WEIGHTS) {
        stage[(2 * STAGED_TOKENS * 4 + token) * LANES + lane] = sum;
    }
}

template <typename F, uint ROWS, uint COLS, uint NR, uint SPLIT, uint T>
inline void load_rows(device const uchar* weights, uint row, uint tile, uint lane, thread typename F::Raw* raw) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        F::template load<ROWS, COLS, T>(weights, row, row_step<ROWS, NR, SPLIT>(row, r), tile, lane_in_tile<COLS>(tile, lane),
                                        raw[r]);
    }
}

// Adds T tiles from `tile` on to acc. Their weights are in `raw`, and the first one's input in the stage that `buffer` is in; the
// input of tile `next` follows theirs where there is `more`.
template <typename F, uint ROWS, uint COLS, uint NR, uint SPLIT, uint T>
inline void add_staged(device const uchar* weights, device const float* x, uint row, bool works, uint tile, uint next,
                       bool more, thread typename F::Raw* raw, threadgroup float* stage, thread uint& buffer,
                       uint simdgroup, uint lane, thread float* acc) {
    #pragma clang loop unroll(full)
    for (uint t = 0; t < T; ++t) {
        const bool follows = t + 1 < T || more;
        float4 input[2];
        if (follows) {
            load_staged<F, COLS>(x, t + 1 < T ? tile + t + 1 : next, lane, input);
        }
        if (works) {
            float4 w[2 * NR];
            #pragma clang loop unroll(full)
            for (uint r = 0; r < NR; ++r) {
                F::template decode<T>(raw[r], t, w + 2 * r);
            }
            threadgroup const float4* runs = (threadgroup const float4*)(stage + buffer) + lane;
            threadgroup const float* sums = stage + buffer + 2 * STAGED_TOKENS * 4 * LANES + lane;
            #pragma clang loop unroll(full)
            for (uint n = 0; n < STAGED_TOKENS; ++n) {
                const float4 v[2] = {runs[n * LANES], runs[(STAGED_TOKENS + n) * LANES]};
                const float sum = F::WEIGHTS ? 0.0f : sums[n * LANES];
                #pragma clang loop unroll(full)
                for (uint r = 0; r < NR; ++r) {
                    acc[n * NR + r] = F::add(raw[r], t, w + 2 * r, v, sum, acc[n * NR + r]);
                }
            }
        }
        buffer = STAGE - buffer;
        if (follows) {
            store_staged<F>(stage + buffer, input, t + 1 < T ? t + 1 : 0, simdgroup, lane);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

// W[row + row_step(r), :] * x[n, :] for the tokens that are there, in lane n * NR + r. In the kernel for one token KS simdgroups share the
// rows. `stage` has room for two tiles of each token; all simdgroups of the threadgroup call this, also those without rows.
template <typename F, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT>
inline float gemv_staged(device const uchar* weights, device const float* x, uint row, threadgroup float* stage, uint tokens,
                         uint simdgroup, uint lane) {
    constexpr uint T = F::TILES;
    constexpr uint GROUPS = COLS / (TILE * T);
    constexpr uint LEFT = COLS / TILE % T;
    constexpr bool PARTIAL = COLS % TILE != 0;
    constexpr uint END = SPLIT == 0 ? ROWS : SPLIT;
    const bool works = END % (STAGED_TOKENS * NR) == 0 || row < END;
    // A token that is not there repeats the last, so that nothing branches.
    device const float* own = x + min(simdgroup, tokens - 1) * COLS;
    typename F::Raw raw[NR];
    float4 input[2];
    load_staged<F, COLS>(own, 0, lane, input);
    store_staged<F>(stage, input, 0, simdgroup, lane);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint buffer = 0;
    float result = 0.0f;
    for (uint part = 0; part < KS; ++part) {
        float acc[NR * STAGED_TOKENS];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < NR * STAGED_TOKENS; ++i) {
            acc[i] = 0.0f;
        }
        const bool parts_left = part + 1 < KS;
        // What is left goes to the first part that had a group less, if any had.
        const bool tail = (LEFT != 0 || PARTIAL) && part == GROUPS % KS;
        const uint groups = GROUPS / KS + (part < GROUPS % KS ? 1 : 0);
        for (uint i = 0; i < groups; ++i) {
            const uint tile = (i * KS + part) * T;
            if (works) {
                load_rows<F, ROWS, COLS, NR, SPLIT, T>(weights, row, tile, lane, raw);
            }
            const bool last = i + 1 == groups;
            const uint next = !last ? tile + KS * T : tail ? GROUPS * T : (part + 1) * T;
            add_staged<F, ROWS, COLS, NR, SPLIT, T>(weights, own, row, works, tile, next, !last || tail || parts_left, raw, stage,
                                                    buffer, simdgroup, lane, acc);
        }
        if (tail) {
            const uint after = (part + 1) * T;
            if (LEFT & 2) {
                constexpr bool MORE = (LEFT & 1) != 0 || PARTIAL;
                if (works) {
                    load_rows<F, ROWS, COLS, NR, SPLIT, 2>(weights, row, GROUPS * T, lane, raw);
                }
                add_staged<F, ROWS, COLS, NR, SPLIT, 2>(weights, own, row, works, GROUPS * T, MORE ? GROUPS * T + 2 : after,
                                                        MORE || parts_left, raw, stage, buffer, simdgroup, lane, acc);
            }
            if (LEFT & 1) {
                constexpr uint AT = GROUPS * T + (LEFT & 2);
                if (works) {
                    load_rows<F, ROWS, COLS, NR, SPLIT, 1>(weights, row, AT, lane, raw);
                }
                add_staged<F, ROWS, COLS, NR, SPLIT, 1>(weights, own, row, works, AT, PARTIAL ? AT + 1 : after,
                                                        PARTIAL || parts_left, raw, stage, buffer, simdgroup, lane, acc);
            }
            if (PARTIAL) {
                float end[NR * STAGED_TOKENS];
                #pragma clang loop unroll(full)
                for (uint i = 0; i < NR * STAGED_TOKENS; ++i) {
                    end[i] = 0.0f;
                }
                if (works) {
                    load_rows<F, ROWS, COLS, NR, SPLIT, 1>(weights, row, COLS / TILE, lane, raw);
                }
                add_staged<F, ROWS, COLS, NR, SPLIT, 1>(weights, own, row, works, COLS / TILE, after, parts_left, raw, stage,
                                                        buffer, simdgroup, lane, end);
                #pragma clang loop unroll(full)
                for (uint i = 0; i < NR * STAGED_TOKENS; ++i) {
                    acc[i] += lane < COLS % TILE / 8 ? end[i] : 0.0f;
                }
            }
        }
        const float sum = sum_of_parts<NR * STAGED_TOKENS>(acc, lane) * Shared<F>::UNIT;
        result = part == 0 ? sum : result + sum;
    }
    return result;
}
