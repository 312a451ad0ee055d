
/* What follows the product, in float64 (integers in int64); the bound of the rounding error grows by what each step adds. */
static result_word *bias;
static float *scale;
static const int channel_dims[] = {@CHANNEL_DIMS@};
enum { CHANNEL_DIMS = sizeof channel_dims / sizeof *channel_dims, ZERO_POINT = 3 };
static void prepare_finish(const ptrdiff_t *bounds) {
    ptrdiff_t channels = 1;
    for (int d = 0; d < CHANNEL_DIMS; ++d)
        if (channel_dims[d] >= 0) channels *= bounds[channel_dims[d]];
    bias = realloc(bias, (size_t)channels * sizeof *bias);
    scale = realloc(scale, (size_t)channels * sizeof *scale);
    for (ptrdiff_t i = 0; i < channels; ++i) {
        bias[i] = (result_word)(EXACT ? 20000 * uniform() : uniform());
        scale[i] = 0.002f * (2 + uniform());
    }
}
static ptrdiff_t channel_of(const ptrdiff_t *bounds, const ptrdiff_t *at) {
    ptrdiff_t channel = 0;
    for (int d = 0; d < CHANNEL_DIMS; ++d)
        if (channel_dims[d] >= 0) channel = channel * bounds[channel_dims[d]] + at[channel_dims[d]];
    return channel;
}
static void finish_exactly(ptrdiff_t channel, double *exact, double *magnitude) {
@STEPS@
    (void)channel, (void)magnitude;
}
