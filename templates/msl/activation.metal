// Non-linearities of feed-forward layers. Arguments of exp and tanh are kept where no result overflows,
// since fast math knows no infinity.

struct Silu {
    static inline float apply(float x) { return x / (1.0f + precise::exp(min(-x, 80.0f))); }
};

struct GeluTanh {
    static inline float apply(float x) {
        const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + precise::tanh(clamp(inner, -15.0f, 15.0f)));
    }
};

struct ReluSquared {
    static inline float apply(float x) {
        const float positive = max(x, 0.0f);
        return positive * positive;
    }
};
