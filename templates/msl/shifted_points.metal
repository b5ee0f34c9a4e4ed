// needs: codes_2
// Points whose coordinates are -1, 0 and 1, stored as codes of 2 bits from 0 up, with an eighth added to each or, where
// `lower` is 1, taken from it.
inline float shift_of(uint lower) { return lower != 0 ? -0.125f : 0.125f; }

// A point times a lane's columns, in units; `sum` is that of the columns.
inline float dot_shifted(ushort codes, uint lower, thread const float4* v, float sum) {
    const uint word = spread_short(codes);
    return fma(shift_of(lower), sum, Codes2::dot<2, 1>(&word, 0, v, sum));
}

// Four coordinates of a point.
inline float4 shifted_point(ushort codes, uint j, uint lower) {
    return four_codes(spread_short(codes), j, 3) + (shift_of(lower) - 1.0f);
}
