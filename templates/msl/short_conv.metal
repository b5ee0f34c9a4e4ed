// Short convolutions of each channel by itself, between two gates. A thread works on a channel.
//
// The state of a sequence holds the last TAPS - 1 rows of what is convolved, the oldest first, in two copies: after position p it
// lies in copy p % 2, and before position 0 it is zeros.

// B * x of a channel in a row of B, C and x.
template <uint CHANNELS>
inline float conv_input(device const float* input, uint row, uint channel) {
    device const float* source = input + row * (3 * CHANNELS) + channel;
    return source[0] * source[2 * CHANNELS];
}

// Row `index` of the state before a step that begins at `position`.
template <uint CHANNELS, uint TAPS>
inline float conv_held(device const float* state, uint position, uint index, uint channel) {
    return position == 0 ? 0.0f : state[((position + 1) % 2 * (TAPS - 1) + index) * CHANNELS + channel];
}

// Rows of any sequences: the threads of a sequence's first row work on all of its rows, in order.
template <uint CHANNELS, uint TAPS>
inline void conv_step_channel(device const float* input, device const float* taps, float bias, device float* state,
                              device float* y, constant StepParams* step, uint first, uint channel) {
    const uint slot = step[first].slot;
    for (uint row = 0; row < first; ++row) {
        if (step[row].slot == slot) {
            return;
        }
    }
    device float* own = state + slot * (2 * (TAPS - 1) * CHANNELS);
    // The last TAPS rows, the newest last.
    float window[TAPS];
    float weights[TAPS];
    #pragma clang loop unroll(full)
    for (uint tap = 0; tap < TAPS; ++tap) {
        weights[tap] = taps[channel * TAPS + tap];
        window[tap] = tap == 0 ? 0.0f : conv_held<CHANNELS, TAPS>(own, step[first].position, tap - 1, channel);
    }
    uint last = first;
    for (uint row = first; row < step->rows; ++row) {
        if (step[row].slot == slot) {
            float sum = bias;
            #pragma clang loop unroll(full)
            for (uint tap = 0; tap < TAPS; ++tap) {
                window[tap] = tap + 1 < TAPS ? window[tap + 1] : conv_input<CHANNELS>(input, row, channel);
                sum += weights[tap] * window[tap];
            }
            y[row * CHANNELS + channel] = input[row * (3 * CHANNELS) + CHANNELS + channel] * sum;
            last = row;
        }
    }
    device float* after = own + step[last].position % 2 * ((TAPS - 1) * CHANNELS) + channel;
    #pragma clang loop unroll(full)
    for (uint tap = 1; tap < TAPS; ++tap) {
        after[(tap - 1) * CHANNELS] = window[tap];
    }
}

template <uint CHANNELS, uint TAPS>
inline void conv_step(device const float* input, device const float* taps, device float* state, device float* y,
                      constant StepParams* step, uint2 group, uint thread_index) {
    const uint channel = group.x * 64 + thread_index;
    if (channel < CHANNELS) {
        conv_step_channel<CHANNELS, TAPS>(input, taps, 0.0f, state, y, step, group.y, channel);
    }
}

template <uint CHANNELS, uint TAPS>
inline void conv_biased_step(device const float* input, device const float* taps, device const float* bias,
                             device float* state, device float* y, constant StepParams* step, uint2 group,
                             uint thread_index) {
    const uint channel = group.x * 64 + thread_index;
    if (channel < CHANNELS) {
        conv_step_channel<CHANNELS, TAPS>(input, taps, bias[channel], state, y, step, group.y, channel);
    }
}

// A tile of one sequence: each thread has up to 16 rows. Of a channel the thread of the first rows alone reads and writes the
// state, so that both copies may be one.
template <uint CHANNELS, uint TAPS>
inline void conv_tile_channel(device const float* input, device const float* taps, float bias, device float* state,
                              device float* y, constant StepParams* step, uint first, uint channel) {
    const uint position = step->position;
    const uint rows = step->rows;
    device float* own = state + step->slot * (2 * (TAPS - 1) * CHANNELS);
    float window[TAPS];
    float weights[TAPS];
    #pragma clang loop unroll(full)
    for (uint tap = 0; tap < TAPS; ++tap) {
        weights[tap] = taps[channel * TAPS + tap];
        if (tap == 0) {
            window[tap] = 0.0f;
        } else if (first == 0) {
            window[tap] = conv_held<CHANNELS, TAPS>(own, position, tap - 1, channel);
        } else {
            window[tap] = conv_input<CHANNELS>(input, first + tap - TAPS, channel);
        }
    }
    if (first == 0) {
        // What is carried on, read before any of it is written.
        float carried[TAPS];
        #pragma clang loop unroll(full)
        for (uint tap = 1; tap < TAPS; ++tap) {
            const uint row = rows + tap; // TAPS rows further on
            carried[tap] = row < TAPS ? conv_held<CHANNELS, TAPS>(own, position, row - 1, channel)
                                      : conv_input<CHANNELS>(input, row - TAPS, channel);
        }
        device float* after = own + (position + rows + 1) % 2 * ((TAPS - 1) * CHANNELS) + channel;
        #pragma clang loop unroll(full)
        for (uint tap = 1; tap < TAPS; ++tap) {
            after[(tap - 1) * CHANNELS] = carried[tap];
        }
    }
    const uint end = min(first + 16, rows);
    for (uint row = first; row < end; ++row) {
        float sum = bias;
        #pragma clang loop unroll(full)
        for (uint tap = 0; tap < TAPS; ++tap) {
            window[tap] = tap + 1 < TAPS ? window[tap + 1] : conv_input<CHANNELS>(input, row, channel);
            sum += weights[tap] * window[tap];
        }
        y[row * CHANNELS + channel] = input[row * (3 * CHANNELS) + CHANNELS + channel] * sum;
    }
}

template <uint CHANNELS, uint TAPS>
inline void conv_tile(device const float* input, device const float* taps, device float* state, device float* y,
                      constant StepParams* step, uint2 group, uint thread_index) {
    const uint channel = group.x * 64 + thread_index;
    if (channel < CHANNELS) {
        conv_tile_channel<CHANNELS, TAPS>(input, taps, 0.0f, state, y, step, group.y * 16, channel);
    }
}

template <uint CHANNELS, uint TAPS>
inline void conv_biased_tile(device const float* input, device const float* taps, device const float* bias,
                             device float* state, device float* y, constant StepParams* step, uint2 group,
                             uint thread_index) {
    const uint channel = group.x * 64 + thread_index;
    if (channel < CHANNELS) {
        conv_tile_channel<CHANNELS, TAPS>(input, taps, bias[channel], state, y, step, group.y * 16, channel);
    }
}
