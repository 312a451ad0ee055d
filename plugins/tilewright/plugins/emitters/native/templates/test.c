/* Test of @NAME@: every register tile and edge, with and without packing, against a float64 evaluation of the operator's
   definition. Operands end at an inaccessible page; the result lies between guard words. The operator's own size is run once and
   compared at random places. Exit code 0: correct; 1: not; 77: this machine lacks the instructions. */
#define _GNU_SOURCE
#include "@NAME@.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { DIMS = @DIMS@, CASES = @CASES@, VARIANTS = 4, EXACT = @EXACT@, WHOLE = @WHOLE@, SAMPLES = 200, BETA = @BETA@ };
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

static const ptrdiff_t own[DIMS] = {@OWN@};
typedef @RESULT@ result;
typedef @SUM@ result_word;

/* Random words: any integer, or a number between -1 and 1. */
static uint64_t state = 88172645463325252u;
static uint32_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}
static float uniform(void) {
    return (float)(int32_t)next() / 2147483648.0f;
}
static uint16_t bf16(void) {
    const float value = uniform();
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}
static double of_bf16(uint16_t word) {
    const uint32_t bits = (uint32_t)word << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
#define RANDOM(word) ((word) = _Generic((word), float: uniform(), uint16_t: bf16(), int8_t: (int8_t)next(), uint8_t: (uint8_t)next(), \
                                        int32_t: (int32_t)next(), default: uniform()))
#define VALUE(word) _Generic((word), uint16_t: of_bf16((uint16_t)(word)), default: (double)(word))

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

/* Memory that ends where the page ends after which nothing may be touched. */
typedef struct {
    char *pages;
    size_t bytes;
    void *words;
} arena;
static arena arena_of(size_t used) {
    const size_t page = 65536, bytes = (used + page - 1) / page * page;
    arena it = {mmap(0, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes + page, 0};
    if (it.pages == MAP_FAILED || mprotect(it.pages + bytes, page, PROT_NONE)) exit(2);
    it.words = it.pages + bytes - used;
    return it;
}
static void release(arena it) {
    munmap(it.pages, it.bytes);
}

static double worst;
static long checked;

/* Compares one result with its reference. Integers are equal, modulo 2^32; floats lie within the bound of a sum of `terms`
   products rounded one by one. */
static int differs(result got, double exact, double magnitude, ptrdiff_t terms) {
    if (EXACT) return (uint32_t)(int64_t)got != (uint32_t)(int64_t)exact;
    const double error = fabs((double)got - exact), bound = (double)(terms + 2) * (magnitude * @ROUNDING@ + (magnitude > 0 ? @TINY@ : 0));
    if (error > 0 && bound > 0 && error / bound > worst) worst = error / bound;
    return !(error <= bound);
}

@FINISH@
/* The operator once; all results are compared, or `samples` of them. */
static int run(const ptrdiff_t *bounds, const @NAME@_blocks *blocks, int samples) {
    enum { GUARD = 64 };
    ptrdiff_t in_extent[@RANKS@], weight_extent[@RANKS@], out_extent[@RANKS@], moved[DIMS], reduced[DIMS], outs = 0, ins = 0, terms = 1;
    const ptrdiff_t in_words = extents(&inputs_tensor, bounds, in_extent), weight_words = extents(&weights_tensor, bounds, weight_extent);
    const ptrdiff_t out_words = extents(&outputs_tensor, bounds, out_extent);
    arena in_pages = arena_of((size_t)in_words * sizeof(@INPUT@)), weight_pages = arena_of((size_t)weight_words * sizeof(@WEIGHT@));
    arena out_pages = arena_of((size_t)out_words * sizeof(result) + GUARD);
    @INPUT@ *in = in_pages.words;
    @WEIGHT@ *weights = weight_pages.words;
    unsigned char *guard = out_pages.words;
    result *out = (result *)(void *)(guard + GUARD);
    int failed = 0;
    for (ptrdiff_t i = 0; i < in_words; ++i) RANDOM(in[i]);
    for (ptrdiff_t i = 0; i < weight_words; ++i) RANDOM(weights[i]);
    memset(guard, 0xa5, GUARD);
    memset(out, 0x7f, (size_t)out_words * sizeof(result));
    result *before = malloc((size_t)out_words * sizeof(result));
    if (BETA)
        for (ptrdiff_t i = 0; i < out_words; ++i) RANDOM(out[i]);
    memcpy(before, out, (size_t)out_words * sizeof(result));
    prepare_finish(bounds);
    for (int d = 0; d < DIMS; ++d) {
        int moves = 0;
        for (int r = 0; r < outputs_tensor.ranks; ++r) moves |= outputs_tensor.step[r][d] != 0;
        if (moves) moved[outs++] = d;
        else reduced[ins++] = d, terms *= bounds[d];
    }
    if (blocks) @NAME@_sized(bounds, blocks, in, weights, out@MORE@);
    else {
        @NAME@(in, weights, out@MORE@);
@PREPACKED@
    }
    const ptrdiff_t count = samples ? samples : out_words;
    for (ptrdiff_t s = 0; s < count && !failed; ++s) {
        ptrdiff_t at[DIMS] = {0}, rest = s;
        /* Every result in turn, or the last one and random others. */
        for (ptrdiff_t d = outs - 1; d >= 0; --d) {
            const ptrdiff_t bound = bounds[moved[d]];
            at[moved[d]] = samples ? (s ? (ptrdiff_t)(next() % (uint32_t)bound) : bound - 1) : rest % bound;
            rest /= bound;
        }
        double exact = 0, magnitude = 0;
        for (ptrdiff_t t = 0, d; t < terms; ++t) {
            const ptrdiff_t i = word(&inputs_tensor, in_extent, at), w = word(&weights_tensor, weight_extent, at);
            const double product = i < 0 || w < 0 ? 0.0 : VALUE(in[i]) * VALUE(weights[w]);
            exact += product;
            magnitude += fabs(product);
            for (d = ins - 1; d >= 0 && ++at[reduced[d]] == bounds[reduced[d]]; --d) at[reduced[d]] = 0;
        }
        const ptrdiff_t place = word(&outputs_tensor, out_extent, at);
        if (BETA) exact += (double)before[place], magnitude += fabs((double)before[place]);
        finish_exactly(channel_of(bounds, at), &exact, &magnitude);
        failed |= differs(out[place], exact, magnitude, terms);
    }
    for (int g = 0; g < GUARD; ++g) failed |= guard[g] != 0xa5;
    if (failed) {
        printf("wrong: bounds");
        for (int d = 0; d < DIMS; ++d) printf(" %td", bounds[d]);
        printf(blocks ? ", blocks %td x %td x %td pack %d %d strips first %d\n" : "\n", blocks ? blocks->rows : 0, blocks ? blocks->depth : 0,
               blocks ? blocks->columns : 0, blocks ? blocks->pack_a : 0, blocks ? blocks->pack_b : 0, blocks ? blocks->strips_first : 0);
    }
    ++checked;
    free(before);
    release(in_pages);
    release(weight_pages);
    release(out_pages);
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
        for (int v = 0; v < VARIANTS && !failed; ++v) failed |= run(cases[i], &variants[v], 0);
    if (WHOLE && !failed) failed |= run(own, 0, SAMPLES);
@GEMM_CALL@
    printf("cases %ld worst %.3g\n", checked, worst);
    return failed;
}
