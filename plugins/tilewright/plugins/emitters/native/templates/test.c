/* Test of @NAME@: every register tile and edge, with and without packing, against a float64 evaluation of the operator's
   definition. Operands end at an inaccessible page; the result lies between guard words. Exit code 0: correct; 1: not;
   77: this machine lacks the instructions. */
#define _GNU_SOURCE
#include "@NAME@.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { DIMS = @DIMS@, CASES = @CASES@, VARIANTS = 3 };
typedef struct {
    int ranks;
    ptrdiff_t step[@RANKS@][DIMS], offset[@RANKS@], beyond[@RANKS@];
} tensor;

/* Coordinates are sum(step x dim) + offset; extents are what the dims reach plus `beyond`. */
static const tensor inputs_tensor = @INPUTS@;
static const tensor weights_tensor = @WEIGHTS@;
static const tensor outputs_tensor = @OUTPUTS@;
static const ptrdiff_t cases[CASES][DIMS] = {@BOUNDS@};
static const @NAME@_blocks variants[VARIANTS] = {@VARIANTS@};

static uint64_t state = 88172645463325252u;
static float uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (float)(int32_t)(state >> 32) / 2147483648.0f;
}

static ptrdiff_t extents(const tensor *t, const ptrdiff_t *bounds, ptrdiff_t *extent) {
    ptrdiff_t words = 1;
    for (int r = 0; r < t->ranks; ++r) {
        extent[r] = 1 + t->beyond[r];
        for (int d = 0; d < DIMS; ++d) extent[r] += t->step[r][d] * (bounds[d] - 1);
        words *= extent[r];
    }
    return words;
}

/* Index of the word at a point of the iteration space, -1 outside. */
static ptrdiff_t word(const tensor *t, const ptrdiff_t *extent, const ptrdiff_t *at) {
    ptrdiff_t index = 0;
    for (int r = 0; r < t->ranks; ++r) {
        ptrdiff_t x = t->offset[r];
        for (int d = 0; d < DIMS; ++d) x += t->step[r][d] * at[d];
        if (x < 0 || x >= extent[r]) return -1;
        index = index * extent[r] + x;
    }
    return index;
}

/* `words` floats that end where the page ends after which nothing may be touched. */
typedef struct {
    char *pages;
    size_t bytes;
    float *words;
} arena;
static arena arena_of(size_t words) {
    const size_t page = 65536, bytes = (words * sizeof(float) + page - 1) / page * page;
    arena it = {mmap(0, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes + page, 0};
    if (it.pages == MAP_FAILED || mprotect(it.pages + bytes, page, PROT_NONE)) exit(2);
    it.words = (float *)(it.pages + bytes) - words;
    return it;
}

static double worst;
static long checked;

/* Compares one result with its reference; the bound is that of a sum of `terms` products rounded one by one. */
static int differs(float result, double exact, double magnitude, ptrdiff_t terms) {
    const double error = fabs((double)result - exact), bound = (double)(terms + 2) * magnitude * 0x1p-24;
    if (error > 0 && bound > 0 && error / bound > worst) worst = error / bound;
    return !(error <= bound);
}

static int run(const ptrdiff_t *bounds, const @NAME@_blocks *blocks) {
    enum { GUARD = 64 };
    ptrdiff_t in_extent[@RANKS@], weight_extent[@RANKS@], out_extent[@RANKS@], at[DIMS] = {0};
    const ptrdiff_t in_words = extents(&inputs_tensor, bounds, in_extent), weight_words = extents(&weights_tensor, bounds, weight_extent);
    const ptrdiff_t out_words = extents(&outputs_tensor, bounds, out_extent);
    arena in = arena_of((size_t)in_words), weights = arena_of((size_t)weight_words), out = arena_of((size_t)out_words + GUARD);
    double *exact = calloc((size_t)out_words, sizeof *exact), *magnitude = calloc((size_t)out_words, sizeof *magnitude);
    ptrdiff_t terms = 1;
    int failed = 0;
    for (ptrdiff_t i = 0; i < in_words; ++i) in.words[i] = uniform();
    for (ptrdiff_t i = 0; i < weight_words; ++i) weights.words[i] = uniform();
    memset(out.words, 0xa5, ((size_t)out_words + GUARD) * sizeof(float));
    memset(out.words + GUARD, 0x7f, (size_t)out_words * sizeof(float));
    for (int d = 0, moves = 0; d < DIMS; ++d, moves = 0) {
        for (int r = 0; r < outputs_tensor.ranks; ++r) moves |= outputs_tensor.step[r][d] != 0;
        if (!moves) terms *= bounds[d];
    }
    for (int d = 0; d >= 0;) {
        const ptrdiff_t i = word(&inputs_tensor, in_extent, at), w = word(&weights_tensor, weight_extent, at);
        const ptrdiff_t o = word(&outputs_tensor, out_extent, at);
        const double product = i < 0 || w < 0 ? 0.0 : (double)in.words[i] * (double)weights.words[w];
        exact[o] += product;
        magnitude[o] += fabs(product);
        for (d = DIMS - 1; d >= 0 && ++at[d] == bounds[d]; --d) at[d] = 0;
    }
    @NAME@_sized(bounds, blocks, in.words, weights.words, out.words + GUARD);
    for (ptrdiff_t o = 0; o < out_words; ++o) failed |= differs(out.words[GUARD + o], exact[o], magnitude[o], terms);
    for (ptrdiff_t g = 0; g < (ptrdiff_t)(GUARD * sizeof(float)); ++g) failed |= ((unsigned char *)out.words)[g] != 0xa5;
    if (failed) {
        printf("wrong: bounds");
        for (int d = 0; d < DIMS; ++d) printf(" %td", bounds[d]);
        printf("\n");
    }
    ++checked;
    free(exact);
    free(magnitude);
    munmap(in.pages, in.bytes);
    munmap(weights.pages, weights.bytes);
    munmap(out.pages, out.bytes);
    return failed;
}
@GEMM_TEST@
int main(void) {
    int failed = 0;
    if (!@NAME@_available()) {
        printf("this machine lacks the instructions\n");
        return 77;
    }
    for (int i = 0; i < CASES && !failed; ++i)
        for (int v = 0; v < VARIANTS && !failed; ++v) failed |= run(cases[i], &variants[v]);
@GEMM_CALL@
    printf("cases %ld worst %.3g\n", checked, worst);
    return failed;
}
