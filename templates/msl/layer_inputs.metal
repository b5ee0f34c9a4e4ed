// Every layer's own input: one simdgroup per layer and row adds the normed part of the embedding's projection and the
// layer's part of the token's row of a table.

// y[layer, row] = factor * (projected / rms * gamma + scale * table[token]), WIDTH elements each.
template <typename W, uint VOCAB, uint LAYERS, uint WIDTH>
inline void layer_inputs_row(device const uchar* table, device const uint* next_token, device const float* projected,
                             device const float* gamma, device float* y, float eps, float scale, float factor,
                             constant StepParams& params, uint2 group, uint simdgroup, uint lane) {
    const uint layer = group.x * 4 + simdgroup;
    const uint row = group.y;
    if (layer >= LAYERS) {
        return;
    }
    device const float* source = projected + (row * LAYERS + layer) * WIDTH;
    device float* target = y + (layer * params.rows + row) * WIDTH;
    const uint token = row_token(params, next_token);
    const float normed = elements_rms_scale<WIDTH>(source, eps, lane);
    for (uint i = lane * 4; i < WIDTH; i += 128) {
        const float4 looked_up = W::template load4<VOCAB, LAYERS * WIDTH>(table, token, layer * WIDTH + i);
        const float4 value = *(device const float4*)(source + i) * normed * *(device const float4*)(gamma + i);
        *(device float4*)(target + i) = factor * (value + scale * looked_up);
    }
}

// Epilogues of projections that the layer's own input multiplies.

// y = activation(acc) * multiplier.
template <uint NR, typename A>
inline void store_gated_by_rows(device float* y, device const float* multiplier, thread const float* acc, uint first,
                                uint end, uint lane) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r && first + r < end) {
            y[first + r] = A::apply(acc[r]) * A::linear(multiplier[first + r]);
        }
    }
}

// The same of a tile, WIDTH elements a token.
template <uint WIDTH, typename A>
struct GatedByTile {
    device float* y;
    device const float* multiplier;
    inline void put(uint token, uint row, float product, float) const {
        const uint at = token * WIDTH + row;
        y[at] = A::apply(product) * A::linear(multiplier[at]);
    }
};
