/* x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form of GELU. exp by its Taylor polynomial on [-ln2/2, ln2/2]. */
INLINE float gelu(float x) {
    float t = -1.5957691216057308f * (x + 0.044715f * x * x * x);
    t = t < -87.0f ? -87.0f : t > 88.0f ? 88.0f : t;
    const float whole = __builtin_rintf(t * 1.4426950408889634f), f = (t - whole * 0.693145751953125f) - whole * 1.428606765330187e-06f;
    const float exp_f = 1 + f * (1 + f * (0.5f + f * (1 / 6.0f + f * (1 / 24.0f + f * (1 / 120.0f + f * (1 / 720.0f + f * (1 / 5040.0f)))))));
    union {
        int32_t bits;
        float value;
    } scale = {((int32_t)whole + 127) << 23};
    return x / (1 + exp_f * scale.value);
}
