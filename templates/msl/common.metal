// Shared by every kernel family: loads, sums, and the skeleton of a matrix-vector product over packed weights.
//
// Packed weights. A row is cut into tiles of 256 columns. In a tile each of the 32 lanes of a simdgroup owns 8 columns
// of one block: with BLOCK columns a block, L = BLOCK / 8 lanes share it, and lane l owns two runs of four,
//     (l / L) * BLOCK + j * (BLOCK / 2) + 4 * (l % L) + 0..3,  j = 0, 1,
// so that a simdgroup reads whole lines of the input and a lane needs one scale for its 8 weights. Up to TILES tiles
// are stored together, a lane's words next to one another, so that a lane loads up to 16 bytes and neighbouring lanes
// continue. What is left of a row (fewer than TILES tiles) follows in groups of 4, 2 and 1, then a last partial tile
// with only its own lanes. Codes, scales and minimums are planes, each from a multiple of 256 bytes.
//
// Codes are decoded without integer conversions: masked into the low bits of a half, they read as subnormals, exactly
// code * 2^-24 (or 2^-20 from bit 4 on), and a factor puts that right at the end. Word layout: the codes of columns 2p
// are in bit 4p.. of the low half, those of columns 2p + 1 in the high half, so that one mask takes two.

constant constexpr uint LANES = 32;
constant constexpr uint TILE = 256;

constexpr ulong align_plane(ulong bytes) { return (bytes + 255) / 256 * 256; }

inline float bf16_to_float(ushort bits) { return as_type<float>(uint(bits) << 16); }

// A float4 product added to `sum`.
inline float fma4(float4 a, float4 b, float sum) {
    return fma(a.x, b.x, fma(a.y, b.y, fma(a.z, b.z, fma(a.w, b.w, sum))));
}

inline float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }

// BYTES bytes at `p`, aligned to the smaller of BYTES and 16, into words.
template <uint BYTES>
inline void load_words(device const uchar* p, thread uint* words) {
    if (BYTES % 16 == 0) {
        for (uint i = 0; i < BYTES / 16; ++i) {
            const uint4 v = ((device const uint4*)p)[i];
            words[4 * i] = v.x;
            words[4 * i + 1] = v.y;
            words[4 * i + 2] = v.z;
            words[4 * i + 3] = v.w;
        }
    } else if (BYTES == 8) {
        const uint2 v = *(device const uint2*)p;
        words[0] = v.x;
        words[1] = v.y;
    } else if (BYTES == 4) {
        words[0] = *(device const uint*)p;
    } else if (BYTES == 2) {
        words[0] = *(device const ushort*)p;
    } else {
        words[0] = *p;
    }
}

// COUNT words at `p`, aligned to ALIGN bytes at least.
template <uint COUNT, uint ALIGN>
inline void load_entries(device const uchar* p, thread uint* words) {
    if (COUNT % 4 == 0 && ALIGN % 16 == 0) {
        load_words<4 * COUNT>(p, words);
    } else if (COUNT % 2 == 0 && ALIGN % 8 == 0) {
        for (uint i = 0; i < COUNT / 2; ++i) {
            load_words<8>(p + 8 * i, words + 2 * i);
        }
    } else {
        for (uint i = 0; i < COUNT; ++i) {
            load_words<4>(p + 4 * i, words + i);
        }
    }
}

// COUNT halves at `p`, aligned to ALIGN bytes at least.
template <uint COUNT, uint ALIGN>
inline void load_halves(device const uchar* p, thread float* values) {
    if (COUNT % 4 == 0 && ALIGN % 8 == 0) {
        for (uint i = 0; i < COUNT / 4; ++i) {
            const half4 v = ((device const half4*)p)[i];
            values[4 * i] = v.x;
            values[4 * i + 1] = v.y;
            values[4 * i + 2] = v.z;
            values[4 * i + 3] = v.w;
        }
    } else if (COUNT % 2 == 0 && ALIGN % 4 == 0) {
        for (uint i = 0; i < COUNT / 2; ++i) {
            const half2 v = ((device const half2*)p)[i];
            values[2 * i] = v.x;
            values[2 * i + 1] = v.y;
        }
    } else {
        for (uint i = 0; i < COUNT; ++i) {
            values[i] = ((device const half*)p)[i];
        }
    }
}

// The largest power of two up to 16 that divides a row of `pitch` bytes.
constexpr uint alignment(uint pitch) {
    return pitch % 16 == 0 ? 16 : pitch % 8 == 0 ? 8 : pitch % 4 == 0 ? 4 : pitch % 2 == 0 ? 2 : 1;
}

inline float load_half(device const uchar* plane, uint index) { return ((device const half*)plane)[index]; }

// A word moved so that its bit `from` comes to bit `to`.
inline uint move_bits(uint word, uint from, uint to) { return to >= from ? word << (to - from) : word >> (from - to); }

// Two codes at the bottom of halves, times 2^-24.
inline float2 small_halves(uint bits) { return float2(as_type<half2>(bits)); }

// What codes at bit 0 and at bit 4 of a half are short of.
constant constexpr float HALF_UNIT = 16777216.0f;

inline float4 scale_high_pair(float4 v) { return float4(v.x, v.y, 0.0625f * v.z, 0.0625f * v.w); }

// Codes of 8 columns, as halves from bit 0 and from bit 4 on, to weights scale * code + offset.
inline void scale_codes(thread float4* w, float scale, float offset) {
    const float4 scales = scale_high_pair(float4(HALF_UNIT * scale));
    w[0] = fma(w[0], scales, float4(offset));
    w[1] = fma(w[1], scales, float4(offset));
}

// A lane's 8 columns of a tile, added to `sum`.
inline float dot_run_pair(thread const float4* w, thread const float4* v, float sum) {
    return fma4(w[1], v[1], fma4(w[0], v[0], sum));
}

// Row number r of the NR rows that a simdgroup works on, counted from the first of them. SPLIT rows further down lies
// a second matrix, from which the second half of the rows comes; 0 when there is none.
template <uint ROWS, uint NR, uint SPLIT>
inline uint row_step(uint row, uint r) {
    const uint step = SPLIT == 0 || r < NR / 2 ? r : r - NR / 2 + SPLIT;
    const bool whole = SPLIT == 0 ? ROWS % NR == 0 : SPLIT % ((NR + 1) / 2) == 0;
    return whole ? step : min(step, ROWS - 1 - row);
}

// Start of a row of PITCH bytes in its plane.
template <uint PITCH>
inline device const uchar* plane_row(device const uchar* plane, uint row, uint step) {
    return plane + ulong(row) * PITCH + ulong(step) * PITCH;
}

// The 8 T columns of the input that a lane owns in T tiles from `tile` on.
template <uint BLOCK, uint T>
inline void load_input(device const float* x, uint tile, uint lane, thread float4* v) {
    constexpr uint L = BLOCK / 8;
    device const float4* p = (device const float4*)x + tile * (TILE / 4) + lane / L * (2 * L) + lane % L;
    for (uint t = 0; t < T; ++t) {
        v[2 * t] = p[t * (TILE / 4)];
        v[2 * t + 1] = p[t * (TILE / 4) + L];
    }
}

// Whether there is a token `n`: of TOKENS that a kernel has room for, `tokens` are there.
template <uint TOKENS>
inline bool has_token(uint n, uint tokens) {
    return TOKENS == 1 || n < tokens;
}

// A format that decodes its weights for each token anew, in F::dot: the first brings them from memory, the others find them
// in the core's cache. The codes are multiplied in units, less what a sum of the input makes up for.
template <typename F>
struct Repeated {
    static constexpr constant uint TILES = F::TILES;
    // What sums are short of.
    static constexpr constant float UNIT = F::Codes::UNIT;

    // Adds T tiles from `tile` on to acc.
    template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint TOKENS, uint T>
    static inline void add(device const uchar* weights, device const float* x, uint row, uint tile, uint lane,
                           thread float* acc, uint tokens) {
        #pragma clang loop unroll(full)
        for (uint n = 0; n < TOKENS; ++n) {
            if (has_token<TOKENS>(n, tokens)) {
                float4 v[2 * T];
                float sums[T];
                load_input<F::BLOCK, T>(x + n * COLS, tile, lane, v);
                for (uint t = 0; t < T; ++t) {
                    sums[t] = (sum4(v[2 * t]) + sum4(v[2 * t + 1])) * (1.0f / F::Codes::UNIT);
                    F::Codes::place_input(t, v + 2 * t);
                }
                #pragma clang loop unroll(full)
                for (uint r = 0; r < NR; ++r) {
                    const uint step = row_step<ROWS, NR, SPLIT>(row, r);
                    acc[n * NR + r] += F::template dot<ROWS, COLS, T>(weights, row, step, tile, lane, v, sums);
                }
            }
        }
    }
};

// A format that decodes its weights once for all tokens: F::load of a group, F::decode of a tile to floats, and F::add of one
// row and one token. What F::decode makes are WEIGHTS, or codes in units. A sum has the same terms in the same order however
// many tokens and rows there are.
template <typename F>
struct Shared {
    static constexpr constant uint TILES = F::TILES;
    static constexpr constant float UNIT = F::WEIGHTS ? 1.0f : F::Codes::UNIT;
    // Whether a group is summed apart, so that groups depend on one another by one addition; of larger groups these sums
    // cost more registers than they are worth.
    static constexpr constant bool APART = F::TILES <= 2;

    // Makes the two runs of a tile's input fit codes, and returns their sum, in units; weights need neither.
    static inline float prepare(uint t, thread float4* v) {
        if (F::WEIGHTS) {
            return 0.0f;
        }
        const float sum = (sum4(v[0]) + sum4(v[1])) * (1.0f / F::Codes::UNIT);
        F::Codes::place_input(t, v);
        return sum;
    }

    template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint TOKENS, uint T>
    static inline void add(device const uchar* weights, device const float* x, uint row, uint tile, uint lane,
                           thread float* acc, uint tokens) {
        if (TOKENS == 1) {
            float4 v[2 * T];
            float sums[T];
            load_input<F::BLOCK, T>(x, tile, lane, v);
            for (uint t = 0; t < T; ++t) {
                sums[t] = prepare(t, v + 2 * t);
            }
            #pragma clang loop unroll(full)
            for (uint r = 0; r < NR; ++r) {
                typename F::Raw raw;
                F::template load<ROWS, COLS, T>(weights, row, row_step<ROWS, NR, SPLIT>(row, r), tile, lane, raw);
                float sum = APART ? 0.0f : acc[r];
                for (uint t = 0; t < T; ++t) {
                    float4 w[2];
                    F::template decode<T>(raw, t, w);
                    sum = F::add(raw, t, w, v + 2 * t, sums[t], sum);
                }
                acc[r] = APART ? acc[r] + sum : sum;
            }
        } else {
            typename F::Raw raw[NR];
            float sums[NR * TOKENS];
            #pragma clang loop unroll(full)
            for (uint r = 0; r < NR; ++r) {
                F::template load<ROWS, COLS, T>(weights, row, row_step<ROWS, NR, SPLIT>(row, r), tile, lane, raw[r]);
            }
            #pragma clang loop unroll(full)
            for (uint i = 0; i < NR * TOKENS; ++i) {
                sums[i] = APART ? 0.0f : acc[i];
            }
            #pragma clang loop unroll(full)
            for (uint t = 0; t < T; ++t) {
                float4 w[2 * NR];
                #pragma clang loop unroll(full)
                for (uint r = 0; r < NR; ++r) {
                    F::template decode<T>(raw[r], t, w + 2 * r);
                }
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    // A token that is not there repeats the last, so that nothing branches.
                    float4 v[2];
                    load_input<F::BLOCK, 1>(x + min(n, tokens - 1) * COLS, tile + t, lane, v);
                    const float sum = prepare(t, v);
                    #pragma clang loop unroll(full)
                    for (uint r = 0; r < NR; ++r) {
                        sums[n * NR + r] = F::add(raw[r], t, w + 2 * r, v, sum, sums[n * NR + r]);
                    }
                }
            }
            #pragma clang loop unroll(full)
            for (uint i = 0; i < NR * TOKENS; ++i) {
                acc[i] = APART ? acc[i] + sums[i] : sums[i];
            }
        }
    }
};

// acc[n * NR + r] = sum over this simdgroup's share of the columns of W[row + row_step(r), k] * x[n, k] for the tokens
// that are there, the same in every lane. KS simdgroups share the rows; `part` of them is this one. S is Repeated or Shared
// of a format.
template <typename S, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS>
inline void gemv_packed(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                        thread float* acc, uint tokens) {
    constexpr uint T = S::TILES;
    constexpr uint GROUPS = COLS / (TILE * T);
    constexpr uint LEFT = COLS / TILE % T;
    constexpr uint LAST = COLS / TILE;
    for (uint r = 0; r < NR * TOKENS; ++r) {
        acc[r] = 0.0f;
    }
    for (uint i = 0; i < GROUPS / KS; ++i) {
        S::template add<ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (i * KS + part) * T, lane, acc, tokens);
    }
    if (GROUPS % KS != 0 && part < GROUPS % KS) {
        S::template add<ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (GROUPS / KS * KS + part) * T, lane, acc, tokens);
    }
    // What is left goes to the first simdgroup that had a group less, if any had.
    if (COLS % (TILE * T) != 0 && part == GROUPS % KS) {
        if (LEFT & 4) {
            S::template add<ROWS, COLS, NR, SPLIT, TOKENS, 4>(weights, x, row, GROUPS * T, lane, acc, tokens);
        }
        if (LEFT & 2) {
            S::template add<ROWS, COLS, NR, SPLIT, TOKENS, 2>(weights, x, row, GROUPS * T + (LEFT & 4), lane, acc, tokens);
        }
        if (LEFT & 1) {
            S::template add<ROWS, COLS, NR, SPLIT, TOKENS, 1>(weights, x, row, GROUPS * T + (LEFT & 6), lane, acc, tokens);
        }
        if (COLS % TILE != 0) {
            // Lanes without columns stand in for lane 0, so that all stay together.
            const bool owns = lane < COLS % TILE / 8;
            float last[NR * TOKENS];
            for (uint r = 0; r < NR * TOKENS; ++r) {
                last[r] = 0.0f;
            }
            S::template add<ROWS, COLS, NR, SPLIT, TOKENS, 1>(weights, x, row, LAST, owns ? lane : 0, last, tokens);
            for (uint r = 0; r < NR * TOKENS; ++r) {
                acc[r] += owns ? last[r] : 0.0f;
            }
        }
    }
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR * TOKENS; ++r) {
        acc[r] = simd_sum(acc[r]) * S::UNIT;
    }
}

// Where four columns from `col` (a multiple of 4) lie in the packing.
struct Place {
    uint tile;  // first tile of the group
    uint count; // tiles in the group
    uint t;     // tile within the group
    uint lane;
    uint j; // which of the lane's two runs
};

template <uint COLS, uint BLOCK, uint TILES>
inline Place find_columns(uint col) {
    constexpr uint L = BLOCK / 8;
    constexpr uint WHOLE = COLS / TILE;
    const uint tile = col / TILE;
    const uint left = WHOLE - tile / TILES * TILES; // whole tiles from the group's start
    Place p;
    if (tile >= WHOLE) {
        p.tile = WHOLE;
        p.count = 1;
    } else if (left >= TILES) {
        p.tile = tile / TILES * TILES;
        p.count = TILES;
    } else {
        const uint start = tile / TILES * TILES;
        const uint at = tile - start;
        // Groups of 4, 2 and 1 cover what is left, the larger first.
        const uint four = left & 4;
        const uint two = left & 2;
        const bool in_four = at < four;
        const bool in_two = !in_four && at < four + two;
        p.tile = start + (in_four ? 0 : in_two ? four : four + two);
        p.count = in_four ? 4 : in_two ? 2 : 1;
    }
    p.t = tile - p.tile;
    const uint quad = col % TILE / 4;
    p.lane = quad / (2 * L) * L + quad % L;
    p.j = quad / L % 2;
    return p;
}

// The fields of BITS bits of block number `block` in T tiles, tile t's from bit BITS * t on.
template <uint T, uint BITS>
inline uint load_fields(device const uchar* group, uint block) {
    uint word;
    if (T * BITS >= 8) {
        load_words<T * BITS / 8>(group + block * (T * BITS / 8), &word);
        return word;
    }
    return group[block * (T * BITS) / 8] >> (block * (T * BITS) % 8);
}

// One of them, of 8 bits or less.
template <uint BITS>
inline uint one_field(device const uchar* group, Place p, uint block) {
    const uint bit = (block * p.count + p.t) * BITS;
    return group[bit / 8] >> (bit % 8) & ((1 << BITS) - 1);
}

// Planes of 1 and 2 bits: bit 4p.. of a half holds pair p of several tiles, the first lowest. Fewer tiles than fill a word
// are stored in less, columns 2p and 2p + 1 side by side.
inline uint spread_short(uint bits) { return (bits & 0x3333) | (bits & 0xCCCC) << 14; }

inline uint spread_byte(uint bits) {
    bits = (bits & 0x0F) | (bits & 0xF0) << 4;
    bits = (bits & 0x0303) | (bits & 0x0C0C) << 2;
    return (bits & 0x1111) | (bits & 0x2222) << 15;
}

// The lane's bits of T tiles in a plane of 1 bit a column: tile t at bit 4 p + t.
template <uint T>
inline uint load_1_bit(device const uchar* group, uint lane) {
    uint word;
    load_words<T>(group + lane * T, &word);
    return T == 4 ? word : T == 2 ? spread_short(word) : spread_byte(word);
}

// The lane's bits of T tiles in a plane of 2 bits a column: two tiles a word, at bits 4 p and 4 p + 2.
template <uint T>
inline void load_2_bits(device const uchar* group, uint lane, thread uint* words) {
    load_words<2 * T>(group + lane * (2 * T), words);
    if (T == 1) {
        words[0] = spread_short(words[0]);
    }
}

// Run j of a word whose codes are `bits` wide, shifted to the tile, as numbers.
inline float4 four_codes(uint word, uint j, uint mask) {
    word >>= 8 * j;
    return float4(word & mask, word >> 16 & mask, word >> 4 & mask, word >> 20 & mask);
}

inline float4 four_of_4_bits(device const uchar* group, Place p) {
    return four_codes(((device const uint*)group)[p.lane * p.count + p.t], p.j, 15);
}

inline float4 four_of_2_bits(device const uchar* group, Place p) {
    const uint word = p.count == 1 ? spread_short(((device const ushort*)group)[p.lane])
                                   : ((device const uint*)group)[(p.lane * p.count + p.t) / 2];
    return four_codes(word >> (p.t % 2 * 2), p.j, 3);
}

inline float4 four_of_1_bit(device const uchar* group, Place p) {
    const uint word = p.count == 4   ? ((device const uint*)group)[p.lane]
                      : p.count == 2 ? spread_short(((device const ushort*)group)[p.lane])
                                     : spread_byte(group[p.lane]);
    return four_codes(word >> p.t, p.j, 1);
}
