// Head norms, rotary position embedding and the append to the KV cache: one simdgroup per head and row.

// 1 / rms over `COUNT` elements.
template <uint COUNT>
inline float elements_rms_scale(device const float* source, float eps, uint lane) {
    float square = 0.0f;
    for (uint i = lane; i < COUNT; i += 32) {
        square += source[i] * source[i];
    }
    return precise::rsqrt(simd_sum(square) / float(COUNT) + eps);
}

struct Unnormed {
    inline float operator()(float value, uint) const { return value; }
};

struct Normed {
    float scale;
    inline float operator()(float value, uint) const { return value * scale; }
};

struct NormedByGamma {
    float scale;
    device const float* gamma;
    inline float operator()(float value, uint i) const { return value * scale * gamma[i]; }
};

// A norm and a factor.
template <typename N>
struct Scaled {
    N norm;
    float factor;
    inline float operator()(float value, uint i) const { return norm(value, i) * factor; }
};

// 1 + beta * ln(1 + floor(position / CONTEXT)).
template <uint CONTEXT>
inline float position_scale(uint position, float beta) {
    return 1.0f + beta * precise::log(float(1 + position / CONTEXT));
}

// Rotates the first ROTARY elements of a head and copies the rest. INTERLEAVED: pairs (2i, 2i + 1), else
// (i, i + ROTARY / 2).
template <uint HEAD_DIM, uint ROTARY, bool INTERLEAVED, typename N, typename T>
inline void rotate_head(device const float* source, device T* target, N norm, constant float* inv_freq, float position,
                        float magnitude, uint lane) {
    for (uint i = lane; i < ROTARY / 2; i += 32) {
        const uint a = INTERLEAVED ? 2 * i : i;
        const uint b = INTERLEAVED ? 2 * i + 1 : i + ROTARY / 2;
        const float angle = position * inv_freq[i];
        const float c = precise::cos(angle) * magnitude;
        const float s = precise::sin(angle) * magnitude;
        const float x = norm(source[a], a);
        const float y = norm(source[b], b);
        target[a] = T(x * c - y * s);
        target[b] = T(x * s + y * c);
    }
    for (uint i = ROTARY + lane; i < HEAD_DIM; i += 32) {
        target[i] = T(norm(source[i], i));
    }
}

// The same with the norm of the rotated head. Rotation keeps the sum of squares, so the norm's scale is that of the source.
template <uint HEAD_DIM, uint ROTARY, bool INTERLEAVED, typename N, typename T>
inline void rotate_then_norm(device const float* source, device T* target, N norm, constant float* inv_freq,
                             float position, uint lane) {
    for (uint i = lane; i < ROTARY / 2; i += 32) {
        const uint a = INTERLEAVED ? 2 * i : i;
        const uint b = INTERLEAVED ? 2 * i + 1 : i + ROTARY / 2;
        const float angle = position * inv_freq[i];
        const float c = precise::cos(angle);
        const float s = precise::sin(angle);
        const float x = source[a];
        const float y = source[b];
        target[a] = T(norm(x * c - y * s, a));
        target[b] = T(norm(x * s + y * c, b));
    }
    for (uint i = ROTARY + lane; i < HEAD_DIM; i += 32) {
        target[i] = T(norm(source[i], i));
    }
}

template <uint HEAD_DIM, typename N, typename T>
inline void copy_head(device const float* source, device T* target, N norm, uint lane) {
    for (uint i = lane; i < HEAD_DIM; i += 32) {
        target[i] = T(norm(source[i], i));
    }
}
