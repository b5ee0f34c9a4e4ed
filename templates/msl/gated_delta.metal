// The gated delta rule (Gated DeltaNet): a threadgroup works on one value head of one sequence, on its rows one after the other,
// with the head's state in registers. In a simdgroup eight lanes hold a row of the state, four keys of every 32 each.
//
// A row of the input is q, k, v of all heads, then a gate for each value, then of each value head the strength of its write and
// what its decay is made of. q, k and v go through a convolution of each channel over the last TAPS rows, and SiLU. The state of
// a head is [values, keys], then the last TAPS - 1 rows of its q, k and v before the convolution, the oldest first; value heads
// that share a key head have its rows each for themselves. There are two copies: after position p the state lies in copy p % 2,
// and before position 0 it is zeros.
//
// With a row's k and q as they are, K and Q what makes them of length 1 (and of q 1 / sqrt(keys)), D what is kept of the state S
// and W the strength of the write, what is added to S is change * k, and what is read of it by q
//     change = W K v - W K^2 D (S k),    Q D (S q) + Q (k . q) change,
// so that both products are with the state before, and what is made of q and k alone is made once a row.

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

// What makes q of length 1 / sqrt(KEY_DIM), of the sum of its squares, and k of length 1.
template <uint KEY_DIM>
inline float delta_q_scale(float square) { return precise::rsqrt((square + 1.0e-6f) * float(KEY_DIM)); }

inline float delta_k_scale(float square) { return precise::rsqrt(square + 1.0e-6f); }

// What a row's k and q and its gates come to: what is kept of the state; what a value is multiplied by, and S k, to make the
// change; what S q is multiplied by to be read.
inline float4 delta_factors(float keep, float write, float q_scale, float k_scale) {
    const float added = write * k_scale;
    return float4(keep, added, added * k_scale * keep, q_scale * keep);
}

// One row of the input for ROWS rows of a state, of which a lane has four keys of every 32: of each what is read for its value `v`.
template <uint ROWS, uint PARTS>
inline void delta_row(thread float4* s, thread const float4* q, thread const float4* k, float4 factor, float product,
                      thread const float* v, thread float* read) {
    float held[ROWS];
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        held[j] = 0.0f;
        read[j] = 0.0f;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            held[j] = fma4(s[j * PARTS + i], k[i], held[j]);
            read[j] = fma4(s[j * PARTS + i], q[i], read[j]);
        }
    }
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        held[j] = sum_eight(held[j]);
        read[j] = sum_eight(read[j]);
    }
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        const float change = factor.y * v[j] - factor.z * held[j];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            s[j * PARTS + i] = s[j * PARTS + i] * factor.x + change * k[i];
        }
        read[j] = factor.w * read[j] + product * change;
    }
}

// ROWS rows of a state from `first` on, of which a lane has four keys of every 32 from `element` on.
template <uint VALUE_DIM, uint KEY_DIM, uint ROWS, uint PARTS>
inline void load_delta_state(device const float* state, bool held, uint first, uint element, thread float4* s) {
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            const uint key = i * 32 + element;
            const bool inside = held && first + j < VALUE_DIM && key < KEY_DIM;
            s[j * PARTS + i] = inside ? *(device const float4*)(state + (first + j) * KEY_DIM + key) : float4(0.0f);
        }
    }
}

template <uint VALUE_DIM, uint KEY_DIM, uint ROWS, uint PARTS>
inline void store_delta_state(thread const float4* s, uint first, uint element, device float* state) {
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            const uint key = i * 32 + element;
            if (first + j < VALUE_DIM && key < KEY_DIM) {
                *(device float4*)(state + (first + j) * KEY_DIM + key) = s[j * PARTS + i];
            }
        }
    }
}

// Four keys of every 32 of a row in threadgroup memory.
template <uint KEY_DIM, uint PARTS>
inline void load_delta_keys(threadgroup const float* row, uint element, thread float4* keys) {
    #pragma clang loop unroll(full)
    for (uint i = 0; i < PARTS; ++i) {
        const bool inside = KEY_DIM % 32 == 0 || i * 32 + element < KEY_DIM;
        keys[i] = inside ? *(threadgroup const float4*)(row + i * 32 + element) : float4(0.0f);
    }
}

// Values of ROWS rows of the state from `first` on.
template <uint VALUE_DIM, uint ROWS>
inline void load_delta_values(threadgroup const float* values, uint first, thread float* v) {
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        v[j] = first + j < VALUE_DIM ? values[first + j] : 0.0f;
    }
}

template <uint VALUE_DIM, uint ROWS>
inline void put_delta_results(thread const float* read, uint first, uint lane, threadgroup float* results) {
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        if (first + j < VALUE_DIM && lane % 8 == 0) {
            results[first + j] = read[j];
        }
    }
}

// The gated norm of a head's results of one row; lanes have every 32nd.
template <uint VALUE_DIM, uint PARTS>
inline void delta_norm(threadgroup const float* results, thread const float* gates, thread const float* gamma, float eps,
                       uint lane, device float* y) {
    float own[PARTS];
    float square = 0.0f;
    #pragma clang loop unroll(full)
    for (uint i = 0; i < PARTS; ++i) {
        own[i] = VALUE_DIM % 32 == 0 || i * 32 + lane < VALUE_DIM ? results[i * 32 + lane] : 0.0f;
        square = fma(own[i], own[i], square);
    }
    const float scale = precise::rsqrt(simd_sum(square) / float(VALUE_DIM) + eps);
    #pragma clang loop unroll(full)
    for (uint i = 0; i < PARTS; ++i) {
        if (i * 32 + lane < VALUE_DIM) {
            y[i * 32 + lane] = own[i] * scale * gamma[i] * delta_silu(gates[i]);
        }
    }
}

// A head's places: columns of its channels in a row of the input, and what the head's state holds.
template <uint KEY_HEADS, uint VALUE_HEADS, uint KEY_DIM, uint VALUE_DIM, uint TAPS, uint TILED>
struct DeltaHead {
    static constexpr constant uint CHANNELS = 2 * KEY_DIM + VALUE_DIM;
    // What gates results, the first head's first, and what makes factors.
    static constexpr constant uint OUTPUT_GATES = 2 * KEY_HEADS * KEY_DIM + VALUE_HEADS * VALUE_DIM;
    static constexpr constant uint GATES = OUTPUT_GATES + VALUE_HEADS * VALUE_DIM;
    static constexpr constant uint ROW = GATES + 2 * VALUE_HEADS;
    // Rows before the convolution, behind the state's values by keys.
    static constexpr constant uint WINDOW = VALUE_DIM * KEY_DIM;
    static constexpr constant uint STATE = WINDOW + (TAPS - 1) * CHANNELS;
    static constexpr constant uint COPY = VALUE_HEADS * STATE;

    // TILED: value heads take key heads in turn; else neighbours share one.
    static inline uint column(uint head, uint channel) {
        const uint key_head = TILED ? head % KEY_HEADS : head / (VALUE_HEADS / KEY_HEADS);
        return channel < KEY_DIM       ? key_head * KEY_DIM + channel
               : channel < 2 * KEY_DIM ? (KEY_HEADS + key_head - 1) * KEY_DIM + channel
                                       : 2 * KEY_HEADS * KEY_DIM + head * VALUE_DIM + channel - 2 * KEY_DIM;
    }
};

// A row, or a few of any sequences: the threadgroups of a sequence's first row work on all of its rows. ONE_SLOT: all are of one.
// `shared` has what is made of a row's q, k and v, and the results. Simdgroups that convolve load their part of the state once
// they have done so, while the others' loads are under way; the last one makes the norm.
template <uint KEY_HEADS, uint VALUE_HEADS, uint KEY_DIM, uint VALUE_DIM, uint TAPS, uint TILED, uint ONE_SLOT, uint THREADS>
inline void gated_delta_step(device const float* input, device const float* taps, device const float* decay,
                             device const float* dt_bias, device const float* gamma, device float* state, device float* y,
                             constant StepParams* step, threadgroup float* shared, float eps, uint2 group,
                             uint thread_index, uint simdgroup, uint lane) {
    typedef DeltaHead<KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, TAPS, TILED> Head;
    constexpr uint CHANNELS = Head::CHANNELS;
    constexpr uint OWN_CHANNELS = (CHANNELS + THREADS - 1) / THREADS;
    constexpr uint OWN_VALUES = (VALUE_DIM + THREADS / 8 - 1) / (THREADS / 8);
    constexpr uint OWN_KEYS = (KEY_DIM + 31) / 32;
    constexpr uint RESULTS = (VALUE_DIM + 31) / 32;
    const uint head = group.x;
    threadgroup float* mixed = shared;
    threadgroup float* results = shared + CHANNELS;

    const uint slot = step[group.y].slot;
    const uint position = step[group.y].position;
    // What is loaded of the first row waits for nothing else.
    uint row = group.y;
    float weights[OWN_CHANNELS][TAPS];
    float arriving[OWN_CHANNELS];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < OWN_CHANNELS; ++i) {
        const uint channel = i * THREADS + thread_index;
        const uint column = Head::column(head, channel);
        arriving[i] = channel < CHANNELS ? input[row * Head::ROW + column] : 0.0f;
        #pragma clang loop unroll(full)
        for (uint tap = 0; tap < TAPS; ++tap) {
            weights[i][tap] = channel < CHANNELS ? taps[column * TAPS + tap] : 0.0f;
        }
    }
    float2 gates = float2(input[row * Head::ROW + Head::GATES + head], input[row * Head::ROW + Head::GATES + VALUE_HEADS + head]);
    const float head_decay = decay[head];
    const float head_bias = dt_bias[head];
    for (uint before = 0; before < group.y; ++before) {
        if (step[before].slot == slot) {
            return;
        }
    }

    device float* own = state + slot * (2 * Head::COPY) + head * Head::STATE;
    device const float* held = own + (position + 1) % 2 * Head::COPY;
    float window[OWN_CHANNELS][TAPS];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < OWN_CHANNELS; ++i) {
        const uint channel = i * THREADS + thread_index;
        #pragma clang loop unroll(full)
        for (uint tap = 0; tap < TAPS; ++tap) {
            const bool there = channel < CHANNELS && tap > 0 && position > 0;
            window[i][tap] = there ? held[Head::WINDOW + (tap - 1) * CHANNELS + channel] : 0.0f;
        }
    }
    const bool convolves = simdgroup * 32 < CHANNELS;
    const uint first_value = (simdgroup * 4 + lane / 8) * OWN_VALUES;
    const uint element = lane % 8 * 4;
    float4 s[OWN_VALUES * OWN_KEYS];
    if (!convolves) {
        load_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS>(held, position > 0, first_value, element, s);
    }

    for (bool begun = false;; begun = true) {
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            float sum = 0.0f;
            #pragma clang loop unroll(full)
            for (uint tap = 0; tap < TAPS; ++tap) {
                window[i][tap] = tap + 1 < TAPS ? window[i][tap + 1] : arriving[i];
                sum += weights[i][tap] * window[i][tap];
            }
            if (i * THREADS + thread_index < CHANNELS) {
                mixed[i * THREADS + thread_index] = delta_silu(sum);
            }
        }
        if (!begun && convolves) {
            load_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS>(held, position > 0, first_value, element, s);
        }
        const float keep = precise::exp(head_decay * delta_softplus(gates.y + head_bias));
        const float write = 1.0f / (1.0f + precise::exp(-gates.x));
        threadgroup_barrier(mem_flags::mem_threadgroup);

        // What is loaded before its turn: the sequence's next row, and what this one ends with.
        uint next = row + 1;
        while (ONE_SLOT == 0 && next < step->rows && step[next].slot != slot) {
            ++next;
        }
        const bool more = next < step->rows;
        device float* after = own + step[row].position % 2 * Head::COPY;
        device const float* source = input + (more ? next : row) * Head::ROW;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            const uint channel = i * THREADS + thread_index;
            arriving[i] = more && channel < CHANNELS ? source[Head::column(head, channel)] : 0.0f;
        }
        if (more) {
            gates = float2(source[Head::GATES + head], source[Head::GATES + VALUE_HEADS + head]);
        }
        float output_gates[RESULTS];
        float own_gamma[RESULTS];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < RESULTS; ++i) {
            const uint value = i * 32 + lane;
            const bool there = simdgroup == THREADS / 32 - 1 && value < VALUE_DIM;
            output_gates[i] = there ? input[row * Head::ROW + Head::OUTPUT_GATES + head * VALUE_DIM + value] : 0.0f;
            own_gamma[i] = there ? gamma[value] : 0.0f;
        }

        float4 q[OWN_KEYS];
        float4 k[OWN_KEYS];
        load_delta_keys<KEY_DIM, OWN_KEYS>(mixed, element, q);
        load_delta_keys<KEY_DIM, OWN_KEYS>(mixed + KEY_DIM, element, k);
        // Every eight lanes for themselves, which takes no barrier more.
        float q_square = 0.0f;
        float k_square = 0.0f;
        float both = 0.0f;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            q_square = fma4(q[i], q[i], q_square);
            k_square = fma4(k[i], k[i], k_square);
            both = fma4(q[i], k[i], both);
        }
        const float q_scale = delta_q_scale<KEY_DIM>(sum_eight(q_square));
        const float k_scale = delta_k_scale(sum_eight(k_square));
        float v[OWN_VALUES];
        float read[OWN_VALUES];
        load_delta_values<VALUE_DIM, OWN_VALUES>(mixed + 2 * KEY_DIM, first_value, v);
        delta_row<OWN_VALUES, OWN_KEYS>(s, q, k, delta_factors(keep, write, q_scale, k_scale), q_scale * sum_eight(both), v, read);
        if (!more) {
            store_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS>(s, first_value, element, after);
        }
        put_delta_results<VALUE_DIM, OWN_VALUES>(read, first_value, lane, results);
        if (!more) {
            #pragma clang loop unroll(full)
            for (uint i = 0; i < OWN_CHANNELS; ++i) {
                const uint channel = i * THREADS + thread_index;
                #pragma clang loop unroll(full)
                for (uint tap = 1; tap < TAPS; ++tap) {
                    if (channel < CHANNELS) {
                        after[Head::WINDOW + (tap - 1) * CHANNELS + channel] = window[i][tap];
                    }
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (simdgroup == THREADS / 32 - 1) {
            delta_norm<VALUE_DIM, RESULTS>(results, output_gates, own_gamma, eps, lane, y + (row * VALUE_HEADS + head) * VALUE_DIM);
        }
        if (!more) {
            break;
        }
        row = next;
    }
}

// A tile of one sequence, CHUNK rows at a time: they are convolved, while the rows before them are normed; then they get their
// factors; then the recurrence goes through them. The simdgroups from the last on have a row of a chunk each, of which they make
// the factors and the norm. `shared` has what is made of the q, k and v of a chunk, its results, and its factors.
template <uint KEY_HEADS, uint VALUE_HEADS, uint KEY_DIM, uint VALUE_DIM, uint TAPS, uint TILED, uint THREADS, uint CHUNK>
inline void gated_delta_tile(device const float* input, device const float* taps, device const float* decay,
                             device const float* dt_bias, device const float* gamma, device float* state, device float* y,
                             constant StepParams* step, threadgroup float* shared, float eps, uint2 group,
                             uint thread_index, uint simdgroup, uint lane) {
    typedef DeltaHead<KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, TAPS, TILED> Head;
    constexpr uint CHANNELS = Head::CHANNELS;
    constexpr uint OWN_CHANNELS = (CHANNELS + THREADS - 1) / THREADS;
    constexpr uint OWN_VALUES = (VALUE_DIM + THREADS / 8 - 1) / (THREADS / 8);
    constexpr uint OWN_KEYS = (KEY_DIM + 31) / 32;
    constexpr uint RESULTS = (VALUE_DIM + 31) / 32;
    const uint head = group.x;
    const uint rows = step->rows;
    const uint position = step->position;
    device float* own = state + step->slot * (2 * Head::COPY) + head * Head::STATE;
    device const float* held = own + (position + 1) % 2 * Head::COPY;
    threadgroup float* mixed = shared;
    threadgroup float* results = mixed + CHUNK * CHANNELS;
    threadgroup float* factors = results + CHUNK * VALUE_DIM;

    float window[OWN_CHANNELS][TAPS];
    float weights[OWN_CHANNELS][TAPS];
    uint columns[OWN_CHANNELS];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < OWN_CHANNELS; ++i) {
        const uint channel = i * THREADS + thread_index;
        columns[i] = Head::column(head, channel);
        #pragma clang loop unroll(full)
        for (uint tap = 0; tap < TAPS; ++tap) {
            const bool there = channel < CHANNELS && tap > 0 && position > 0;
            weights[i][tap] = channel < CHANNELS ? taps[columns[i] * TAPS + tap] : 0.0f;
            window[i][tap] = there ? held[Head::WINDOW + (tap - 1) * CHANNELS + channel] : 0.0f;
        }
    }
    const uint first_value = (simdgroup * 4 + lane / 8) * OWN_VALUES;
    const uint element = lane % 8 * 4;
    float4 s[OWN_VALUES * OWN_KEYS];
    load_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS>(held, position > 0, first_value, element, s);
    const float head_decay = decay[head];
    const float head_bias = dt_bias[head];
    const uint own_row = THREADS / 32 - 1 - simdgroup;
    const bool has_row = own_row < CHUNK;
    float own_gamma[RESULTS];
    float output_gates[RESULTS];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < RESULTS; ++i) {
        own_gamma[i] = has_row && i * 32 + lane < VALUE_DIM ? gamma[i * 32 + lane] : 0.0f;
        output_gates[i] = 0.0f;
    }

    // A turn has the recurrence of the chunk from `row` on, and loads, convolves and prepares the next; the first has no recurrence.
    for (uint next = 0;; next += CHUNK) {
        const uint row = next - CHUNK;
        const bool more = next < rows;
        float arriving[OWN_CHANNELS][CHUNK];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            #pragma clang loop unroll(full)
            for (uint r = 0; r < CHUNK; ++r) {
                const bool there = i * THREADS + thread_index < CHANNELS && next + r < rows;
                arriving[i][r] = there ? input[(next + r) * Head::ROW + columns[i]] : 0.0f;
            }
        }
        const bool prepares = has_row && next + own_row < rows;
        device const float* source = input + (prepares ? next + own_row : 0) * Head::ROW;
        float2 gates = float2(0.0f);
        float next_output_gates[RESULTS];
        if (prepares) {
            gates = float2(source[Head::GATES + head], source[Head::GATES + VALUE_HEADS + head]);
        }
        #pragma clang loop unroll(full)
        for (uint i = 0; i < RESULTS; ++i) {
            const uint value = i * 32 + lane;
            next_output_gates[i] =
                prepares && value < VALUE_DIM ? source[Head::OUTPUT_GATES + head * VALUE_DIM + value] : 0.0f;
        }
        if (next > 0) {
            #pragma clang loop unroll(full)
            for (uint r = 0; r < CHUNK; ++r) {
                threadgroup const float* now = mixed + r * CHANNELS;
                float4 q[OWN_KEYS];
                float4 k[OWN_KEYS];
                float v[OWN_VALUES];
                float read[OWN_VALUES];
                load_delta_keys<KEY_DIM, OWN_KEYS>(now, element, q);
                load_delta_keys<KEY_DIM, OWN_KEYS>(now + KEY_DIM, element, k);
                load_delta_values<VALUE_DIM, OWN_VALUES>(now + 2 * KEY_DIM, first_value, v);
                const float4 factor = *(threadgroup const float4*)(factors + 8 * r);
                delta_row<OWN_VALUES, OWN_KEYS>(s, q, k, factor, factors[8 * r + 4], v, read);
                put_delta_results<VALUE_DIM, OWN_VALUES>(read, first_value, lane, results + r * VALUE_DIM);
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            if (has_row && row + own_row < rows) {
                delta_norm<VALUE_DIM, RESULTS>(results + own_row * VALUE_DIM, output_gates, own_gamma, eps, lane,
                                               y + ((row + own_row) * VALUE_HEADS + head) * VALUE_DIM);
            }
        }
        if (!more) {
            break;
        }
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            const uint channel = i * THREADS + thread_index;
            if (channel < CHANNELS) {
                #pragma clang loop unroll(full)
                for (uint r = 0; r < CHUNK; ++r) {
                    float sum = 0.0f;
                    #pragma clang loop unroll(full)
                    for (uint tap = 0; tap < TAPS; ++tap) {
                        window[i][tap] = tap + 1 < TAPS ? window[i][tap + 1] : arriving[i][r];
                        sum += weights[i][tap] * window[i][tap];
                    }
                    mixed[r * CHANNELS + channel] = delta_silu(sum);
                }
            }
        }
        #pragma clang loop unroll(full)
        for (uint i = 0; i < RESULTS; ++i) {
            output_gates[i] = next_output_gates[i];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (has_row) {
            threadgroup const float* now = mixed + own_row * CHANNELS;
            float q_square = 0.0f;
            float k_square = 0.0f;
            float both = 0.0f;
            #pragma clang loop unroll(full)
            for (uint key = lane; key < KEY_DIM; key += 32) {
                const float q = now[key];
                const float k = now[KEY_DIM + key];
                q_square = fma(q, q, q_square);
                k_square = fma(k, k, k_square);
                both = fma(q, k, both);
            }
            const float q_scale = delta_q_scale<KEY_DIM>(simd_sum(q_square));
            const float k_scale = delta_k_scale(simd_sum(k_square));
            const float product = q_scale * simd_sum(both);
            const float keep = precise::exp(head_decay * delta_softplus(gates.y + head_bias));
            const float write = 1.0f / (1.0f + precise::exp(-gates.x));
            if (lane == 0) {
                // A row that is not there changes nothing.
                *(threadgroup float4*)(factors + 8 * own_row) =
                    prepares ? delta_factors(keep, write, q_scale, k_scale) : float4(1.0f, 0.0f, 0.0f, 0.0f);
                factors[8 * own_row + 4] = product;
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    device float* after = own + (position + rows + 1) % 2 * Head::COPY;
    store_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS>(s, first_value, element, after);
    for (uint channel = thread_index; channel < CHANNELS; channel += THREADS) {
        // The last rows of the state's and the input's, read before any of it is written.
        float carried[TAPS];
        #pragma clang loop unroll(full)
        for (uint tap = 1; tap < TAPS; ++tap) {
            const uint row = rows + tap; // TAPS rows further on
            if (row >= TAPS) {
                carried[tap] = input[(row - TAPS) * Head::ROW + Head::column(head, channel)];
            } else {
                carried[tap] = position == 0 ? 0.0f : held[Head::WINDOW + (row - 1) * CHANNELS + channel];
            }
        }
        #pragma clang loop unroll(full)
        for (uint tap = 1; tap < TAPS; ++tap) {
            after[Head::WINDOW + (tap - 1) * CHANNELS + channel] = carried[tap];
        }
    }
}
