// The gated delta rule (Gated DeltaNet): a threadgroup works on one value head of one sequence, on its rows one after the other,
// with the head's state in registers. SHARE lanes side by side hold some rows of the state, of which each has four keys of every
// 4 * SHARE.
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

// Sums of each of COUNT numbers, a power of two up to SHARE, over SHARE lanes side by side: lane l of them gets that of number
// l * COUNT / SHARE.
template <uint COUNT, uint SHARE>
inline float delta_sums(thread float* x, uint lane) {
    #pragma clang loop unroll(full)
    for (uint bit = SHARE / 2; bit > 0; bit /= 2) {
        const uint left = COUNT * bit / SHARE;
        const bool upper = (lane & bit) != 0;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < left; ++i) {
            const float other = upper ? x[i] : x[i + left];
            x[i] = (upper ? x[i + left] : x[i]) + simd_shuffle_xor(other, ushort(bit));
        }
        if (left == 0) {
            x[0] += simd_shuffle_xor(x[0], ushort(bit));
        }
    }
    return x[0];
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

// Rows of the state that SHARE of THREADS lanes have: a power of two, or a multiple of SHARE / 2.
constexpr uint delta_rows(uint values, uint share, uint threads) {
    return values * share <= threads       ? 1
           : values * share <= threads * 2 ? 2
           : values * share <= threads * 4 ? 4
                                           : (2 * values + threads - 1) / threads * (share / 2);
}

// One row of the input for ROWS rows of a state. Value `v` is that of row lane % (SHARE / 2) * ROWS / (SHARE / 2); what is read
// of this row is returned to the upper half of the SHARE lanes.
template <uint ROWS, uint PARTS, uint SHARE>
inline float delta_row(thread float4* s, thread const float4* q, thread const float4* k, float4 factor, float product, float v,
                       uint lane) {
    float sums[2 * ROWS];
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        sums[j] = 0.0f;
        sums[ROWS + j] = 0.0f;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            sums[j] = fma4(s[j * PARTS + i], k[i], sums[j]);
            sums[ROWS + j] = fma4(s[j * PARTS + i], q[i], sums[ROWS + j]);
        }
    }
    const float sum = delta_sums<2 * ROWS, SHARE>(sums, lane);
    const float change = factor.y * v - factor.z * sum;
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        const float added = simd_shuffle(change, ushort(lane / SHARE * SHARE + j * (SHARE / 2 / ROWS)));
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            s[j * PARTS + i] = s[j * PARTS + i] * factor.x + added * k[i];
        }
    }
    return factor.w * sum + product * simd_shuffle_xor(change, ushort(SHARE / 2));
}

// One row of the input for all rows of the state that SHARE lanes have, `own` the first.
template <uint VALUE_DIM, uint ROWS, uint PARTS, uint SHARE>
inline void delta_values(thread float4* s, thread const float4* q, thread const float4* k, float4 factor, float product,
                         threadgroup const float* values, uint own, uint lane, threadgroup float* results) {
    constexpr uint HALF = SHARE / 2;
    constexpr uint TOGETHER = ROWS < HALF ? ROWS : HALF;
    #pragma clang loop unroll(full)
    for (uint first = 0; first < ROWS; first += TOGETHER) {
        const uint value = own + first + lane % HALF * TOGETHER / HALF;
        const float v = value < VALUE_DIM ? values[value] : 0.0f;
        const float read = delta_row<TOGETHER, PARTS, SHARE>(s + first * PARTS, q, k, factor, product, v, lane);
        if (value < VALUE_DIM && lane % SHARE >= HALF && lane * TOGETHER % HALF == 0) {
            results[value] = read;
        }
    }
}

// ROWS rows of a state from `first` on.
template <uint VALUE_DIM, uint KEY_DIM, uint ROWS, uint PARTS, uint SHARE>
inline void load_delta_state(device const float* state, bool held, uint first, uint lane, thread float4* s) {
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            const uint key = (i * SHARE + lane % SHARE) * 4;
            const bool inside = held && first + j < VALUE_DIM && key < KEY_DIM;
            s[j * PARTS + i] = inside ? *(device const float4*)(state + (first + j) * KEY_DIM + key) : float4(0.0f);
        }
    }
}

template <uint VALUE_DIM, uint KEY_DIM, uint ROWS, uint PARTS, uint SHARE>
inline void store_delta_state(thread const float4* s, uint first, uint lane, device float* state) {
    #pragma clang loop unroll(full)
    for (uint j = 0; j < ROWS; ++j) {
        #pragma clang loop unroll(full)
        for (uint i = 0; i < PARTS; ++i) {
            const uint key = (i * SHARE + lane % SHARE) * 4;
            if (first + j < VALUE_DIM && key < KEY_DIM) {
                *(device float4*)(state + (first + j) * KEY_DIM + key) = s[j * PARTS + i];
            }
        }
    }
}

// What a lane has of q or k.
template <uint KEY_DIM, uint PARTS, uint SHARE>
inline void load_delta_keys(threadgroup const float* row, uint lane, thread float4* keys) {
    #pragma clang loop unroll(full)
    for (uint i = 0; i < PARTS; ++i) {
        const uint key = (i * SHARE + lane % SHARE) * 4;
        keys[i] = KEY_DIM % (4 * SHARE) == 0 || key < KEY_DIM ? *(threadgroup const float4*)(row + key) : float4(0.0f);
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

// The row of a step after `row` that is of the same sequence; `rows` where none is.
template <uint ONE_SLOT>
inline uint delta_next_row(constant StepParams* step, uint row, uint slot, uint rows) {
    uint next = row + 1;
    while (ONE_SLOT == 0 && next < rows && step[next].slot != slot) {
        ++next;
    }
    return next;
}

// A row, or a few of any sequences: the threadgroups of a sequence's first row work on all of its rows. ONE_SLOT: all are of one.
// `shared` has what is made of a row's q, k and v, and the results. The state is loaded once the first row is convolved, so that
// what that takes is not behind it in the memory's queue. The last simdgroup makes the norm.
template <uint KEY_HEADS, uint VALUE_HEADS, uint KEY_DIM, uint VALUE_DIM, uint TAPS, uint TILED, uint ONE_SLOT, uint THREADS>
inline void gated_delta_step(device const float* input, device const float* taps, device const float* decay,
                             device const float* dt_bias, device const float* gamma, device float* state, device float* y,
                             constant StepParams* step, threadgroup float* shared, float eps, uint2 group,
                             uint thread_index, uint simdgroup, uint lane) {
    typedef DeltaHead<KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, TAPS, TILED> Head;
    constexpr uint SHARE = 16;
    constexpr uint CHANNELS = Head::CHANNELS;
    constexpr uint OWN_CHANNELS = (CHANNELS + THREADS - 1) / THREADS;
    constexpr uint OWN_VALUES = delta_rows(VALUE_DIM, SHARE, THREADS);
    constexpr uint OWN_KEYS = (KEY_DIM + 4 * SHARE - 1) / (4 * SHARE);
    constexpr uint RESULTS = (VALUE_DIM + 31) / 32;
    const uint head = group.x;
    threadgroup float* mixed = shared;
    threadgroup float* results = shared + CHANNELS;

    // What the memory is asked for first: what waits for nothing else, and what all wait for.
    const uint slot = step[group.y].slot;
    uint position = step[group.y].position;
    const uint rows = step->rows;
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
    device const float* first_gates = input + row * Head::ROW + Head::GATES + head;
    float2 gates = float2(first_gates[0], first_gates[VALUE_HEADS]);
    const float head_decay = decay[head];
    const float head_bias = dt_bias[head];
    const bool norms = simdgroup == THREADS / 32 - 1;
    float output_gates[RESULTS];
    float own_gamma[RESULTS];
    #pragma clang loop unroll(full)
    for (uint i = 0; i < RESULTS; ++i) {
        const uint value = i * 32 + lane;
        const bool there = norms && value < VALUE_DIM;
        output_gates[i] = there ? input[row * Head::ROW + Head::OUTPUT_GATES + head * VALUE_DIM + value] : 0.0f;
        own_gamma[i] = there ? gamma[value] : 0.0f;
    }
    uint next = delta_next_row<ONE_SLOT>(step, row, slot, rows);
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
    const uint first_value = thread_index / SHARE * OWN_VALUES;
    float4 s[OWN_VALUES * OWN_KEYS];

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
        const float keep = precise::exp(head_decay * delta_softplus(gates.y + head_bias));
        const float write = 1.0f / (1.0f + precise::exp(-gates.x));
        if (!begun) {
            load_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS, SHARE>(held, position > 0, first_value, lane, s);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        const bool more = next < rows;
        float4 q[OWN_KEYS];
        float4 k[OWN_KEYS];
        load_delta_keys<KEY_DIM, OWN_KEYS, SHARE>(mixed, lane, q);
        load_delta_keys<KEY_DIM, OWN_KEYS, SHARE>(mixed + KEY_DIM, lane, k);
        // SHARE lanes for themselves, which takes no barrier more.
        float squares[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_KEYS; ++i) {
            squares[0] = fma4(q[i], q[i], squares[0]);
            squares[1] = fma4(k[i], k[i], squares[1]);
            squares[2] = fma4(q[i], k[i], squares[2]);
        }
        const float square = delta_sums<4, SHARE>(squares, lane);
        const uint from = lane / SHARE * SHARE;
        const float q_scale = delta_q_scale<KEY_DIM>(simd_shuffle(square, ushort(from)));
        const float k_scale = delta_k_scale(simd_shuffle(square, ushort(from + SHARE / 4)));
        const float product = q_scale * simd_shuffle(square, ushort(from + SHARE / 2));
        delta_values<VALUE_DIM, OWN_VALUES, OWN_KEYS, SHARE>(s, q, k, delta_factors(keep, write, q_scale, k_scale), product,
                                                             mixed + 2 * KEY_DIM, first_value, lane, results);
        if (!more) {
            device float* after = own + position % 2 * Head::COPY;
            store_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS, SHARE>(s, first_value, lane, after);
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
        if (norms) {
            delta_norm<VALUE_DIM, RESULTS>(results, output_gates, own_gamma, eps, lane,
                                           y + (row * VALUE_HEADS + head) * VALUE_DIM);
        }
        if (!more) {
            break;
        }
        row = next;
        position = step[row].position;
        next = delta_next_row<ONE_SLOT>(step, row, slot, rows);
        device const float* source = input + row * Head::ROW;
        gates = float2(source[Head::GATES + head], source[Head::GATES + VALUE_HEADS + head]);
        #pragma clang loop unroll(full)
        for (uint i = 0; i < OWN_CHANNELS; ++i) {
            const uint channel = i * THREADS + thread_index;
            arriving[i] = channel < CHANNELS ? source[Head::column(head, channel)] : 0.0f;
        }
        #pragma clang loop unroll(full)
        for (uint i = 0; i < RESULTS; ++i) {
            const uint value = i * 32 + lane;
            output_gates[i] = norms && value < VALUE_DIM ? source[Head::OUTPUT_GATES + head * VALUE_DIM + value] : 0.0f;
        }
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
    constexpr uint SHARE = 8;
    constexpr uint OWN_VALUES = delta_rows(VALUE_DIM, SHARE, THREADS);
    constexpr uint OWN_KEYS = (KEY_DIM + 4 * SHARE - 1) / (4 * SHARE);
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
    const uint first_value = thread_index / SHARE * OWN_VALUES;
    float4 s[OWN_VALUES * OWN_KEYS];
    load_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS, SHARE>(held, position > 0, first_value, lane, s);
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

    // A turn has the recurrence of the chunk from `row` on, but the first, and loads, convolves and prepares the next.
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
                load_delta_keys<KEY_DIM, OWN_KEYS, SHARE>(now, lane, q);
                load_delta_keys<KEY_DIM, OWN_KEYS, SHARE>(now + KEY_DIM, lane, k);
                delta_values<VALUE_DIM, OWN_VALUES, OWN_KEYS, SHARE>(
                    s, q, k, *(threadgroup const float4*)(factors + 8 * r), factors[8 * r + 4], now + 2 * KEY_DIM, first_value,
                    lane, results + r * VALUE_DIM);
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
    store_delta_state<VALUE_DIM, KEY_DIM, OWN_VALUES, OWN_KEYS, SHARE>(s, first_value, lane, after);
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
