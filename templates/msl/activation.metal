// Non-linearities of feed-forward layers. Arguments of exp and tanh are kept where no result overflows,
// since fast math knows no infinity. A gated layer multiplies what `apply` makes of the gate by what `linear` makes of the
// other branch.

struct Silu {
    static inline float apply(float x) { return x / (1.0f + precise::exp(min(-x, 80.0f))); }

    static inline float linear(float x) { return x; }
};

struct GeluTanh {
    static inline float apply(float x) {
        const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + precise::tanh(clamp(inner, -15.0f, 15.0f)));
    }

    static inline float linear(float x) { return x; }
};

struct ReluSquared {
    static inline float apply(float x) {
        const float positive = max(x, 0.0f);
        return positive * positive;
    }

    static inline float linear(float x) { return x; }
};

// ALPHA and LIMIT are thousandths.
template <uint ALPHA, uint LIMIT>
struct ClampedSwiglu {
    static constexpr constant float BOUND = LIMIT / 1000.0f;

    static inline float apply(float x) {
        x = min(x, BOUND);
        return x / (1.0f + precise::exp(min(-(ALPHA / 1000.0f) * x, 80.0f)));
    }

    static inline float linear(float x) { return clamp(x, -BOUND, BOUND) + 1.0f; }
};
