
/* The matrix product itself: strides larger than rows, existing contents overwritten or added to, gaps untouched. */
static int run_gemm(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t gap, int accumulate) {
    const ptrdiff_t a_row = k + gap, b_row = n + gap, c_row = n + gap;
    const ptrdiff_t a_words = (m - 1) * a_row + k, b_words = k ? (k - 1) * b_row + n : 0, c_words = (m - 1) * c_row + n;
    arena a_pages = arena_of((size_t)a_words * sizeof(@A_WORD@)), b_pages = arena_of((size_t)b_words * sizeof(@B_WORD@));
    arena c_pages = arena_of((size_t)c_words * sizeof(result));
    @A_WORD@ *a = a_pages.words;
    @B_WORD@ *b = b_pages.words;
    result *c = c_pages.words, *before = malloc((size_t)c_words * sizeof *before);
    int failed = 0;
    for (ptrdiff_t i = 0; i < a_words; ++i) RANDOM(a[i]);
    for (ptrdiff_t i = 0; i < b_words; ++i) RANDOM(b[i]);
    for (ptrdiff_t i = 0; i < c_words; ++i) {
        RANDOM(c[i]);
        before[i] = c[i];
    }
    @NAME@_gemm(m, n, k, a, a_row, b, b_row, c, c_row, accumulate);
    for (ptrdiff_t i = 0; i < m; ++i)
        for (ptrdiff_t j = 0; j < c_row && i * c_row + j < c_words; ++j) {
            const ptrdiff_t at = i * c_row + j;
            if (j >= n) {
                failed |= memcmp(&c[at], &before[at], sizeof(result)) != 0;
                continue;
            }
            double exact = accumulate ? (double)before[at] : 0.0, magnitude = fabs(exact);
            for (ptrdiff_t p = 0; p < k; ++p) {
                const double product = VALUE(a[i * a_row + p]) * VALUE(b[p * b_row + j]);
                exact += product;
                magnitude += fabs(product);
            }
            failed |= differs(c[at], exact, magnitude, k + 1);
        }
    if (failed) printf("wrong: m %td n %td k %td gap %td accumulate %d\n", m, n, k, gap, accumulate);
    ++checked;
    free(before);
    release(a_pages);
    release(b_pages);
    release(c_pages);
    return failed;
}
