// Codes of 1 bits. A single bit among bits 23 to 30 of a float, its exponent, reads as a power of two or as 0; the input of each
// column is scaled so that all products come to x * 2^-40.
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
        v[0] *= float4(factor(t), factor(t + 16), factor(t + 4), factor(t + 20));
        v[1] *= float4(factor(t + 8), factor(t + 24), factor(t + 12), factor(t + 28));
    }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        words[0] = load_1_bit<T>(plane_row<COLS / 8>(weights, row, step) + tile * (TILE / 8), lane);
    }

    // Where bit k is read: after a shift left by 0, 8, 16 or 24, or right by 1.
    static constexpr uint place(uint k) { return k == 31 ? 30 : k < 7 ? k + 24 : k < 15 ? k + 16 : k < 23 ? k + 8 : k; }

    static inline float factor(uint k) {
        // 2^(87 - e) with e = 2^(place - 23), the exponent that the bit makes.
        return as_type<float>((214u - (1u << (place(k) - 23))) << 23);
    }

    static inline float bit(uint word, uint k) { return as_type<float>(move_bits(word, k, place(k)) & 1u << place(k)); }

    // The sum of (code - HALVES / 2) * x over a lane's 8 columns of tile t, in units; `sum` is that of x.
    template <uint HALVES, uint T>
    static inline float dot(thread const uint* words, uint t, thread const float4* v, float sum) {
        const uint w = words[0];
        const float4 a = float4(bit(w, t), bit(w, t + 16), bit(w, t + 4), bit(w, t + 20));
        const float4 b = float4(bit(w, t + 8), bit(w, t + 24), bit(w, t + 12), bit(w, t + 28));
        return fma4(b, v[1], fma4(a, v[0], -0.5f * float(HALVES) * sum));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        return four_of_1_bit(plane_row<COLS / 8>(weights, row, 0) + p.tile * (TILE / 8), p);
    }
};
