// The gated delta rule (Gated DeltaNet): a threadgroup of 256 threads works on one value head of one sequence, on its rows one
// after the other, with the head's state in registers: a simdgroup holds some rows of it, keys over lanes. Rows of a step may be
// of any sequences; the threadgroups of a sequence's first row work on all of its rows.
//
// A row of the input is q, k, v of all heads, then a gate for each value, then of each value head the strength of its write and
// what its decay is made of. q, k and v go through a convolution of each channel over the last TAPS rows, and SiLU. The state of
// a head is [values, keys], then the last TAPS - 1 rows of its q, k and v before the convolution, the oldest first; value heads
// that share a key head have its rows each for themselves. There are two copies: after position p the state lies in copy p % 2,
// and before position 0 it is zeros.

inline float delta_silu(float x) { return x / (1.0f + precise::exp(-x)); }

// log(1 + exp(x)). Where the logarithm's argument is near 1 a series keeps its small part.
inline float delta_softplus(float x) {
    const float e = precise::exp(-abs(x));
    const float series = e * (1.0f - e * (0.5f - e * (1.0f / 3.0f - e * 0.25f)));
    return max(x, 0.0f) + (e < 0.03125f ? series : precise::log(1.0f + e));
}

// TILED: value heads take key heads in turn; else neighbours share one.
template <uint KEY_HEADS, uint VALUE_HEADS, uint KEY_DIM, uint VALUE_DIM, uint TAPS, uint TILED>
inline void gated_delta(device const float* input, device const float* taps, device const float* decay,
                        device const float* dt_bias, device const float* gamma, device float* state, device float* y,
                        constant StepParams* step, threadgroup float* shared, float eps, uint2 group, uint thread_index,
                        uint simdgroup, uint lane) {
    constexpr uint CHANNELS = 2 * KEY_DIM + VALUE_DIM;
    constexpr uint QKV = 2 * KEY_HEADS * KEY_DIM + VALUE_HEADS * VALUE_DIM;
    constexpr uint ROW = QKV + VALUE_HEADS * VALUE_DIM + 2 * VALUE_HEADS;
    constexpr uint HEAD_STATE = VALUE_DIM * KEY_DIM + (TAPS - 1) * CHANNELS;
    constexpr uint OWN_CHANNELS = (CHANNELS + 255) / 256;
    constexpr uint OWN_VALUES = (VALUE_DIM + 7) / 8;
    constexpr uint OWN_KEYS = (KEY_DIM + 31) / 32;
    const uint head = group.x;
    const uint slot = step[group.y].slot;
    for (uint row = 0; row < group.y; ++row) {
        if (step[row].slot == slot) {
            return;
        }
    }
    const uint position = step[group.y].position;
    device float* own = state + (slot * 2 * VALUE_HEADS + head) * HEAD_STATE;
    const uint key_head = TILED ? head % KEY_HEADS : head / (VALUE_HEADS / KEY_HEADS);
    threadgroup float* mixed = shared;
    threadgroup float* result = shared + CHANNELS;
    device const float* before = own + (position + 1) % 2 * (VALUE_HEADS * HEAD_STATE);

    float window[OWN_CHANNELS][TAPS];
    float weights[OWN_CHANNELS][TAPS];
    uint columns[OWN_CHANNELS];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < OWN_CHANNELS; ++i) {
        const uint channel = i * 256 + thread_index;
        columns[i] = channel < KEY_DIM       ? key_head * KEY_DIM + channel
                     : channel < 2 * KEY_DIM ? (KEY_HEADS + key_head - 1) * KEY_DIM + channel
                                             : 2 * KEY_HEADS * KEY_DIM + head * VALUE_DIM + channel - 2 * KEY_DIM;
        #pragma clang loop unroll(full)
        for (uint tap = 0; tap < TAPS; ++tap) {
            weights[i][tap] = channel < CHANNELS ? taps[columns[i] * TAPS + tap] : 0.0f;
            const bool held = channel < CHANNELS && tap > 0 && position > 0;
            window[i][tap] = held ? before[VALUE_DIM * KEY_DIM + (tap - 1) * CHANNELS + channel] : 0.0f;
        }
    }
    float s[OWN_VALUES][OWN_KEYS];
    #pragma clang loop unroll(full)
    for (uint j = 0; j < OWN_VALUES; ++j) {
        const uint value = simdgroup * OWN_VALUES + j;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            const uint key = i * 32 + lane;
            const bool held = value < VALUE_DIM && key < KEY_DIM && position > 0;
            s[j][i] = held ? before[value * KEY_DIM + key] : 0.0f;
        }
    }

    uint last = group.y;
    for (uint row = group.y; row < step->rows; ++row) {
        if (step[row].slot != slot) {
            continue;
        }
        last = row;
        device const float* source = input + row * ROW;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            const uint channel = i * 256 + thread_index;
            if (channel < CHANNELS) {
                float sum = 0.0f;
                #pragma clang loop unroll(full)
                for (uint tap = 0; tap < TAPS; ++tap) {
                    window[i][tap] = tap + 1 < TAPS ? window[i][tap + 1] : source[columns[i]];
                    sum += weights[i][tap] * window[i][tap];
                }
                mixed[channel] = delta_silu(sum);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        float q[OWN_KEYS];
        float k[OWN_KEYS];
        float q_square = 0.0f;
        float k_square = 0.0f;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            const uint key = i * 32 + lane;
            q[i] = key < KEY_DIM ? mixed[key] : 0.0f;
            k[i] = key < KEY_DIM ? mixed[KEY_DIM + key] : 0.0f;
            q_square += q[i] * q[i];
            k_square += k[i] * k[i];
        }
        const float q_scale = precise::rsqrt((simd_sum(q_square) + 1.0e-6f) * float(KEY_DIM));
        const float k_scale = precise::rsqrt(simd_sum(k_square) + 1.0e-6f);
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            q[i] *= q_scale;
            k[i] *= k_scale;
        }
        device const float* gates = source + QKV + VALUE_HEADS * VALUE_DIM;
        const float write = 1.0f / (1.0f + precise::exp(-gates[head]));
        const float keep = precise::exp(decay[head] * delta_softplus(gates[VALUE_HEADS + head] + dt_bias[head]));
        #pragma clang loop unroll(full)
        for (uint j = 0; j < OWN_VALUES; ++j) {
            const uint value = simdgroup * OWN_VALUES + j;
            if (value < VALUE_DIM) {
                float held = 0.0f;
                #pragma clang loop unroll(full)
                for (uint i = 0; i < OWN_KEYS; ++i) {
                    s[j][i] *= keep;
                    held += s[j][i] * k[i];
                }
                const float change = write * (mixed[2 * KEY_DIM + value] - simd_sum(held));
                float read = 0.0f;
                #pragma clang loop unroll(full)
                for (uint i = 0; i < OWN_KEYS; ++i) {
                    s[j][i] += change * k[i];
                    read += s[j][i] * q[i];
                }
                read = simd_sum(read);
                if (lane == 0) {
                    result[value] = read;
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        float square = 0.0f;
        for (uint value = lane; value < VALUE_DIM; value += 32) {
            square += result[value] * result[value];
        }
        const float scale = precise::rsqrt(simd_sum(square) / float(VALUE_DIM) + eps);
        for (uint value = thread_index; value < VALUE_DIM; value += 256) {
            const float gate = delta_silu(source[QKV + head * VALUE_DIM + value]);
            y[(row * VALUE_HEADS + head) * VALUE_DIM + value] = result[value] * scale * gamma[value] * gate;
        }
    }

    device float* after = own + step[last].position % 2 * (VALUE_HEADS * HEAD_STATE);
    #pragma clang loop unroll(full)
    for (uint j = 0; j < OWN_VALUES; ++j) {
        const uint value = simdgroup * OWN_VALUES + j;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            const uint key = i * 32 + lane;
            if (value < VALUE_DIM && key < KEY_DIM) {
                after[value * KEY_DIM + key] = s[j][i];
            }
        }
    }
    #pragma clang loop unroll(full)
    for (uint i = 0; i < OWN_CHANNELS; ++i) {
        const uint channel = i * 256 + thread_index;
        #pragma clang loop unroll(full)
        for (uint tap = 1; tap < TAPS; ++tap) {
            if (channel < CHANNELS) {
                after[VALUE_DIM * KEY_DIM + (tap - 1) * CHANNELS + channel] = window[i][tap];
            }
        }
    }
}
