// xIELU, a non-linearity with numbers of its own in every layer; eps is below 0.

struct Xielu {
    float alpha_p;
    float alpha_n;
    float beta;
    float eps;

    inline float apply(float x) const {
        // expm1(2h) = 2 tanh(h) / (1 - tanh(h)), near 0 too.
        const float t = precise::tanh(max(0.5f * min(x, eps), -15.0f));
        const float below = alpha_n * (2.0f * t / (1.0f - t) - x);
        return (x > 0.0f ? alpha_p * x * x : below) + beta * x;
    }
};

inline Xielu xielu(device const float* numbers) {
    const Xielu activation = {numbers[0], numbers[1], numbers[2], numbers[3]};
    return activation;
}
