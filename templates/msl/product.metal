// Matrix times a tile of tokens: products[TOKENS][64] = input[tokens, COLS] x weights[64 rows, COLS]^T, by 128 threads in four
// simdgroups. O says what the operands of the 8x8 matrices are; sums are float.

// Stores eight elements of a row of an operand. Operands lie in threadgroup memory as the matrices that are loaded from it, 8x8
// after 8x8: eight lanes that store a matrix's rows, and the lanes that load it, meet in no bank.
inline void store8(threadgroup half* target, float4 low, float4 high) {
    const half4 a = half4(low);
    const half4 b = half4(high);
    *(threadgroup uint4*)target = uint4(as_type<uint2>(a), as_type<uint2>(b));
}

inline void store8(threadgroup float* target, float4 low, float4 high) {
    ((threadgroup float4*)target)[0] = low;
    ((threadgroup float4*)target)[1] = high;
}

// One over a power of two.
inline float inverse(float power) { return as_type<float>(0x7F000000u - as_type<uint>(power)); }

// Four elements of an input.
inline float4 elements4(device const float* elements) { return *(device const float4*)elements; }
inline float4 elements4(device const half* elements) { return float4(*(device const half4*)elements); }

// Operands of two steps have room side by side where they are halves; floats of one, once all simdgroups are done with it. So halves of
// one step are stored while other simdgroups multiply those of the step before, and floats are loaded AHEAD, before the products of
// the step before.
struct Halves {
    typedef half Element;
    static constexpr constant bool AHEAD = false;
    static inline void wait_for_room() {}
};

struct Floats {
    typedef float Element;
    static constexpr constant bool AHEAD = true;
    static inline void wait_for_room() { threadgroup_barrier(mem_flags::mem_threadgroup); }
};

// What a lane stores of the 32 columns from `k` on: its row of the strips `simdgroup` and `simdgroup` + 4 of the tokens and of the weights,
// the columns that lie in one word of packed codes, four and the four 16 further on. For WIDE and the others see below.
template <typename W, typename W2, uint WIDE, uint STACK, uint ROWS, uint COLS, bool GATED, uint OFFSET, typename X>
inline void load_operands(device const uchar* weights, device const uchar* second, X input, uint tokens, uint base,
                          uint first_row, uint k, uint simdgroup, uint lane, thread const float* scales, thread float4* x,
                          thread float4* w) {
    const uint column = k + lane / 8 * 4;
    #pragma clang loop unroll(full)
    for (uint turn = 0; turn < 2; ++turn) {
        const uint strip = simdgroup + turn * 4;
        const uint token = strip * 8 + lane % 8;
        x[2 * turn] = float4(0.0f);
        x[2 * turn + 1] = float4(0.0f);
        if (token < tokens) {
            const auto elements = input.row(token) + column;
            if (COLS % 32 == 0 || column < COLS) {
                x[2 * turn] = elements4(elements) * scales[turn];
            }
            if (COLS % 32 == 0 || column + 16 < COLS) {
                x[2 * turn + 1] = elements4(elements + 16) * scales[turn];
            }
        }
        const bool up = GATED && strip % WIDE >= WIDE / 2;
        const uint line = GATED ? (strip / WIDE * (WIDE / 2) + strip % (WIDE / 2)) * 8 : strip * 8;
        const uint row = first_row + line + lane % 8;
        w[2 * turn] = float4(0.0f);
        w[2 * turn + 1] = float4(0.0f);
        if (ROWS % (GATED ? 32 : 64) == 0 || row < ROWS) {
            if (COLS % 32 == 0 || column < COLS) {
                w[2 * turn] = up ? W2::template load4<STACK, COLS>(second, base + row + OFFSET, column)
                                 : W::template load4<STACK, COLS>(weights, base + row, column);
            }
            if (COLS % 32 == 0 || column + 16 < COLS) {
                w[2 * turn + 1] = up ? W2::template load4<STACK, COLS>(second, base + row + OFFSET, column + 16)
                                     : W::template load4<STACK, COLS>(weights, base + row, column + 16);
            }
        }
    }
}

// Weights are ROWS rows from row `base` of a stored matrix of STACK rows, a tile's from `first_row` of those on. With GATED it
// is 32 rows of `weights` and the same 32 rows of `second`, OFFSET further on, and each simdgroup has products of both.
// `input.row(token)` is where a token's elements are, `input.scale(token)` a factor on them;
// `result.put(token, row, product, up)` takes what is inside, with GATED
// the gate's product and that of `second`. With RAGGED matrices of eight tokens of which none is inside are left out, for tiles that
// are rarely full. `shared` holds (TOKENS + 64) * 32 floats: half operands of two steps, so that those of
// one are stored while those of the step before are multiplied, or float operands of one.
template <typename W, typename W2, typename O, uint TOKENS, uint STACK, uint ROWS, uint COLS, bool GATED, uint OFFSET,
          bool RAGGED, typename X, typename Y>
inline void product_tile(device const uchar* weights, device const uchar* second, X input, Y result, uint tokens,
                         uint base, uint first_row, threadgroup float* shared, uint simdgroup, uint lane) {
    typedef typename O::Element Operand;
    // Simdgroups side by side over the rows; the matrices that each has down the tokens, and across the rows.
    constexpr uint ACROSS = TOKENS == 64 ? 2 : 4;
    constexpr uint TALL = TOKENS == 64 ? 4 : TOKENS / 8;
    constexpr uint WIDE = 8 / ACROSS;
    constexpr uint STEP = (TOKENS + 64) * 32;
    threadgroup Operand* token_tile = (threadgroup Operand*)shared;
    threadgroup Operand* weight_tile = token_tile + TOKENS * 32;
    const uint across = simdgroup % ACROSS;
    const uint down = simdgroup / ACROSS * TALL;
    simdgroup_matrix<float, 8, 8> sums[TALL][WIDE];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < TALL; ++i) {
        #pragma clang loop unroll(full)
        for (uint j = 0; j < WIDE; ++j) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
    }
    // Where a lane stores its row of matrix lane / 8 of each of its strips.
    const uint at = (simdgroup * 4 + lane / 8) * 64 + lane % 8 * 8;
    threadgroup Operand* own_tokens = token_tile + at;
    threadgroup Operand* own_weights = weight_tile + at;
    threadgroup const Operand* left = token_tile + down * 256;
    threadgroup const Operand* right = weight_tile + across * (WIDE * 256);
    float scales[2];
    #pragma clang loop unroll(full)
    for (uint turn = 0; turn < 2; ++turn) {
        const uint token = (simdgroup + turn * 4) * 8 + lane % 8;
        scales[turn] = input.scale(min(token, tokens - 1));
    }
    float4 x[4];
    float4 w[4];
    if (O::AHEAD) {
        load_operands<W, W2, WIDE, STACK, ROWS, COLS, GATED, OFFSET>(
            weights, second, input, tokens, base, first_row, 0, simdgroup, lane, scales, x, w);
    }
    uint buffer = 0;
    for (uint k = 0; k < COLS; k += 32) {
        if (!O::AHEAD) {
            load_operands<W, W2, WIDE, STACK, ROWS, COLS, GATED, OFFSET>(
                weights, second, input, tokens, base, first_row, k, simdgroup, lane, scales, x, w);
        }
        O::wait_for_room();
        #pragma clang loop unroll(full)
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup + turn * 4 < TOKENS / 8) {
                store8(own_tokens + buffer + turn * 1024, x[2 * turn], x[2 * turn + 1]);
            }
            store8(own_weights + buffer + turn * 1024, w[2 * turn], w[2 * turn + 1]);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (O::AHEAD && k + 32 < COLS) {
            load_operands<W, W2, WIDE, STACK, ROWS, COLS, GATED, OFFSET>(
                weights, second, input, tokens, base, first_row, k + 32, simdgroup, lane, scales, x, w);
        }
        #pragma clang loop unroll(full)
        for (uint part = 0; part < 4; ++part) {
            simdgroup_matrix<Operand, 8, 8> a[TALL];
            simdgroup_matrix<Operand, 8, 8> b[WIDE];
            #pragma clang loop unroll(full)
            for (uint i = 0; i < TALL; ++i) {
                simdgroup_load(a[i], left + buffer + (i * 4 + part) * 64, 8);
            }
            #pragma clang loop unroll(full)
            for (uint j = 0; j < WIDE; ++j) {
                simdgroup_load(b[j], right + buffer + (j * 4 + part) * 64, 8, ulong2(0, 0), true);
            }
            #pragma clang loop unroll(full)
            for (uint i = 0; i < TALL; ++i) {
                if (RAGGED && (down + i) * 8 >= tokens) {
                    break;
                }
                #pragma clang loop unroll(full)
                for (uint j = 0; j < WIDE; ++j) {
                    simdgroup_multiply_accumulate(sums[i][j], a[i], b[j], sums[i][j]);
                }
            }
        }
        buffer = sizeof(Operand) == 2 ? STEP - buffer : 0;
    }
    // Eight tokens at a time through 1280 bytes of each simdgroup's own, where the last step's operands are not, in lines of 40
    // floats: eight of those meet in no bank.
    O::wait_for_room();
    threadgroup float* products = (threadgroup float*)(token_tile + buffer) + simdgroup * 320;
    constexpr uint COLUMNS = GATED ? WIDE * 4 : WIDE * 8;
    #pragma clang loop unroll(full)
    for (uint i = 0; i < TALL; ++i) {
        #pragma clang loop unroll(full)
        for (uint j = 0; j < WIDE; ++j) {
            simdgroup_store(sums[i][j], products + j * 8, 40);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint t = lane / COLUMNS; t < 8; t += 32 / COLUMNS) {
            const uint token = (down + i) * 8 + t;
            const uint row = first_row + across * COLUMNS + lane % COLUMNS;
            if (token < tokens && row < ROWS) {
                threadgroup const float* product = products + t * 40 + lane % COLUMNS;
                result.put(token, row, product[0], GATED ? product[COLUMNS] : 0.0f);
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}
