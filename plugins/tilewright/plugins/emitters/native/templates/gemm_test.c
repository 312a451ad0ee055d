
/* The matrix product itself: strides larger than rows, existing contents overwritten or added to, gaps untouched. */
static int run_gemm(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t gap, int accumulate) {
    const ptrdiff_t a_row = k + gap, b_row = n + gap, c_row = n + gap;
    arena a = arena_of((size_t)((m - 1) * a_row + k)), b = arena_of((size_t)(k ? (k - 1) * b_row + n : 0)), c = arena_of((size_t)((m - 1) * c_row + n));
    float *before = malloc((size_t)((m - 1) * c_row + n) * sizeof *before);
    int failed = 0;
    for (ptrdiff_t i = 0; i < (m - 1) * a_row + k; ++i) a.words[i] = uniform();
    for (ptrdiff_t i = 0; k && i < (k - 1) * b_row + n; ++i) b.words[i] = uniform();
    for (ptrdiff_t i = 0; i < (m - 1) * c_row + n; ++i) before[i] = c.words[i] = uniform();
    @NAME@_gemm(m, n, k, a.words, a_row, b.words, b_row, c.words, c_row, accumulate);
    for (ptrdiff_t i = 0; i < m; ++i)
        for (ptrdiff_t j = 0; j < c_row && i * c_row + j < (m - 1) * c_row + n; ++j) {
            const ptrdiff_t at = i * c_row + j;
            if (j >= n) {
                failed |= memcmp(&c.words[at], &before[at], sizeof(float)) != 0;
                continue;
            }
            double exact = accumulate ? before[at] : 0.0, magnitude = fabs(exact);
            for (ptrdiff_t p = 0; p < k; ++p) {
                const double product = (double)a.words[i * a_row + p] * (double)b.words[p * b_row + j];
                exact += product;
                magnitude += fabs(product);
            }
            failed |= differs(c.words[at], exact, magnitude, k + 1);
        }
    if (failed) printf("wrong: m %td n %td k %td gap %td accumulate %d\n", m, n, k, gap, accumulate);
    ++checked;
    free(before);
    munmap(a.pages, a.bytes);
    munmap(b.pages, b.bytes);
    munmap(c.pages, c.bytes);
    return failed;
}
