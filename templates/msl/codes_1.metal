// Codes of 1 bit, a byte a lane and tile with the 8 columns in order. A single bit among bits 23 to 30 of a float, its
// exponent, reads as a power of two or as 0; the input of each column is scaled so that all products come to 2 x * 2^-40.
// So the codes count as 0 and 2.
struct Codes1 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;
    // The factor that codes are short of.
    static constexpr constant float UNIT = 1099511627776.0f;

    static constexpr uint words(uint tiles) { return 1; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    // Makes the input of tile t fit where its codes are.
    static inline void place_input(uint t, thread float4* v) {
        v[0] *= float4(factor(8 * t), factor(8 * t + 1), factor(8 * t + 2), factor(8 * t + 3));
        v[1] *= float4(factor(8 * t + 4), factor(8 * t + 5), factor(8 * t + 6), factor(8 * t + 7));
    }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * (TILE / 8) + lane * T, words);
    }

    // Where bit k is read: after a shift left by 0, 8, 16 or 24, or right by 1.
    static constexpr uint place(uint k) { return k == 31 ? 30 : k < 7 ? k + 24 : k < 15 ? k + 16 : k < 23 ? k + 8 : k; }

    static inline float factor(uint k) {
        // 2^(88 - e) with e = 2^(place - 23), the exponent that the bit makes.
        return as_type<float>((215u - (1u << (place(k) - 23))) << 23);
    }

    static inline float bit(uint word, uint k) { return as_type<float>(move_bits(word, k, place(k)) & 1u << place(k)); }

    // The sum of (code - HALVES / 2) * x over a lane's 8 columns of tile t, in units; `sum` is that of x.
    template <uint HALVES, uint T>
    static inline float dot(thread const uint* words, uint t, thread const float4* v, float sum) {
        const uint w = words[0];
        const float4 a = float4(bit(w, 8 * t), bit(w, 8 * t + 1), bit(w, 8 * t + 2), bit(w, 8 * t + 3));
        const float4 b = float4(bit(w, 8 * t + 4), bit(w, 8 * t + 5), bit(w, 8 * t + 6), bit(w, 8 * t + 7));
        return fma4(b, v[1], fma4(a, v[0], -0.5f * float(HALVES) * sum));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* group = plane_row<COLS / 8>(weights, row, 0) + p.tile * (TILE / 8);
        const uint bits = group[p.lane * p.count + p.t] >> (4 * p.j);
        return 2.0f * float4(bits & 1, bits >> 1 & 1, bits >> 2 & 1, bits >> 3 & 1);
    }
};
