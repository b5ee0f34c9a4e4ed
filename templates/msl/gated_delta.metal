// The gated delta rule (Gated DeltaNet): a threadgroup of 256 threads works on one value head of one sequence, on its rows one
// after the other, with the head's state in registers. In a simdgroup eight lanes hold a row of the state, four keys of every 32
// each, so that it works on four rows of the state at a time. While it works on one row of the input it prepares the next: there
// is one barrier a row. Rows of a step may be of any sequences; the threadgroups of a sequence's first row work on all of its rows.
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

// Sums over the eight lanes of a row of the state.
inline float sum_eight(float x) {
    x += simd_shuffle_xor(x, ushort(1));
    x += simd_shuffle_xor(x, ushort(2));
    return x + simd_shuffle_xor(x, ushort(4));
}

// TILED: value heads take key heads in turn; else neighbours share one. ONE_SLOT: all rows are of one sequence. `shared` holds what
// is made of the q, k and v of two rows, the results of two, and of two what is kept of the state and written to it.
template <uint KEY_HEADS, uint VALUE_HEADS, uint KEY_DIM, uint VALUE_DIM, uint TAPS, uint TILED, uint ONE_SLOT>
inline void gated_delta(device const float* input, device const float* taps, device const float* decay,
                        device const float* dt_bias, device const float* gamma, device float* state, device float* y,
                        constant StepParams* step, threadgroup float* shared, float eps, uint2 group, uint thread_index,
                        uint simdgroup, uint lane) {
    constexpr uint CHANNELS = 2 * KEY_DIM + VALUE_DIM;
    constexpr uint QKV = 2 * KEY_HEADS * KEY_DIM + VALUE_HEADS * VALUE_DIM;
    constexpr uint ROW = QKV + VALUE_HEADS * VALUE_DIM + 2 * VALUE_HEADS;
    constexpr uint HEAD_STATE = VALUE_DIM * KEY_DIM + (TAPS - 1) * CHANNELS;
    constexpr uint OWN_CHANNELS = (CHANNELS + 255) / 256;
    constexpr uint OWN_RESULTS = (VALUE_DIM + 255) / 256;
    constexpr uint OWN_VALUES = (VALUE_DIM + 31) / 32;
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
    threadgroup float* result = shared + 2 * CHANNELS;
    threadgroup float2* factors = (threadgroup float2*)(result + 2 * VALUE_DIM);
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
    // Keys i * 32 + element.. of the values (j * 8 + simdgroup) * 4 + lane / 8.
    const uint first_value = simdgroup * 4 + lane / 8;
    const uint element = lane % 8 * 4;
    float4 s[OWN_VALUES][OWN_KEYS];
    #pragma clang loop unroll(full)
    for (uint j = 0; j < OWN_VALUES; ++j) {
        const uint value = j * 32 + first_value;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            const uint key = i * 32 + element;
            const bool held = value < VALUE_DIM && key < KEY_DIM && position > 0;
            s[j][i] = held ? *(device const float4*)(before + value * KEY_DIM + key) : float4(0.0f);
        }
    }
    const float head_decay = decay[head];
    const float head_bias = dt_bias[head];

    // What is loaded of a row before its turn, and what comes of it.
    uint row = group.y;
    float arriving[OWN_CHANNELS];
    uint turn = 0;
    uint next = row;
    for (bool begun = false;; begun = true) {
        const bool more = next < step->rows;
        device const float* source = input + (more ? next : row) * ROW;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            arriving[i] = i * 256 + thread_index < CHANNELS ? source[columns[i]] : 0.0f;
        }
        const float2 gates = float2(source[QKV + VALUE_HEADS * VALUE_DIM + head],
                                    source[QKV + VALUE_HEADS * VALUE_DIM + VALUE_HEADS + head]);
        float output_gates[OWN_RESULTS];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_RESULTS; ++i) {
            const uint value = i * 256 + thread_index;
            output_gates[i] = value < VALUE_DIM ? input[row * ROW + QKV + head * VALUE_DIM + value] : 0.0f;
        }
        if (begun) {
            threadgroup const float* now = mixed + turn * CHANNELS;
            float4 q[OWN_KEYS];
            float4 k[OWN_KEYS];
            float q_square = 0.0f;
            float k_square = 0.0f;
            #pragma clang loop unroll(full)
            for (uint i = 0; i < OWN_KEYS; ++i) {
                const bool inside = KEY_DIM % 32 == 0 || i * 32 + element < KEY_DIM;
                q[i] = inside ? *(threadgroup const float4*)(now + i * 32 + element) : float4(0.0f);
                k[i] = inside ? *(threadgroup const float4*)(now + KEY_DIM + i * 32 + element) : float4(0.0f);
                q_square = fma4(q[i], q[i], q_square);
                k_square = fma4(k[i], k[i], k_square);
            }
            const float q_scale = precise::rsqrt((sum_eight(q_square) + 1.0e-6f) * float(KEY_DIM));
            const float k_scale = precise::rsqrt(sum_eight(k_square) + 1.0e-6f);
            const float2 factor = factors[turn];
            float held[OWN_VALUES];
            #pragma clang loop unroll(full)
            for (uint j = 0; j < OWN_VALUES; ++j) {
                held[j] = 0.0f;
                #pragma clang loop unroll(full)
                for (uint i = 0; i < OWN_KEYS; ++i) {
                    s[j][i] *= factor.x;
                    held[j] = fma4(s[j][i], k[i], held[j]);
                }
            }
            #pragma clang loop unroll(full)
            for (uint j = 0; j < OWN_VALUES; ++j) {
                held[j] = sum_eight(held[j]);
            }
            #pragma clang loop unroll(full)
            for (uint j = 0; j < OWN_VALUES; ++j) {
                const uint value = j * 32 + first_value;
                const float own_value = VALUE_DIM % 32 == 0 || value < VALUE_DIM ? now[2 * KEY_DIM + value] : 0.0f;
                const float change = factor.y * (own_value - held[j] * k_scale) * k_scale;
                held[j] = 0.0f;
                #pragma clang loop unroll(full)
                for (uint i = 0; i < OWN_KEYS; ++i) {
                    s[j][i] += change * k[i];
                    held[j] = fma4(s[j][i], q[i], held[j]);
                }
            }
            #pragma clang loop unroll(full)
            for (uint j = 0; j < OWN_VALUES; ++j) {
                const uint value = j * 32 + first_value;
                const float read = sum_eight(held[j]) * q_scale;
                if (value < VALUE_DIM && lane % 8 == 0) {
                    result[turn * VALUE_DIM + value] = read;
                }
            }
        }
        if (more) {
            threadgroup float* then = mixed + (begun ? 1 - turn : 0) * CHANNELS;
            #pragma clang loop unroll(full)
            for (uint i = 0; i < OWN_CHANNELS; ++i) {
                float sum = 0.0f;
                #pragma clang loop unroll(full)
                for (uint tap = 0; tap < TAPS; ++tap) {
                    window[i][tap] = tap + 1 < TAPS ? window[i][tap + 1] : arriving[i];
                    sum += weights[i][tap] * window[i][tap];
                }
                if (i * 256 + thread_index < CHANNELS) {
                    then[i * 256 + thread_index] = delta_silu(sum);
                }
            }
            if (simdgroup == 7) {
                const float keep = precise::exp(head_decay * delta_softplus(gates.y + head_bias));
                const float write = 1.0f / (1.0f + precise::exp(-gates.x));
                if (lane == 0) {
                    factors[begun ? 1 - turn : 0] = float2(keep, write);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (begun) {
            threadgroup const float* done = result + turn * VALUE_DIM;
            float square = 0.0f;
            for (uint value = lane; value < VALUE_DIM; value += 32) {
                square += done[value] * done[value];
            }
            const float scale = precise::rsqrt(simd_sum(square) / float(VALUE_DIM) + eps);
            #pragma clang loop unroll(full)
            for (uint i = 0; i < OWN_RESULTS; ++i) {
                const uint value = i * 256 + thread_index;
                if (value < VALUE_DIM) {
                    y[(row * VALUE_HEADS + head) * VALUE_DIM + value] =
                        done[value] * scale * gamma[value] * delta_silu(output_gates[i]);
                }
            }
            turn = 1 - turn;
        }
        if (!more) {
            break;
        }
        row = next;
        for (++next; ONE_SLOT == 0 && next < step->rows && step[next].slot != slot; ++next) {
        }
    }

    device float* after = own + step[row].position % 2 * (VALUE_HEADS * HEAD_STATE);
    #pragma clang loop unroll(full)
    for (uint j = 0; j < OWN_VALUES; ++j) {
        const uint value = j * 32 + first_value;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            const uint key = i * 32 + element;
            if (value < VALUE_DIM && key < KEY_DIM) {
                *(device float4*)(after + value * KEY_DIM + key) = s[j][i];
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
