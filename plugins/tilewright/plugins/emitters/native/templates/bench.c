/* Times contenders for one product in interleaved rounds, on this thread's CPU clock.

   usage: bench [ROUNDS [BLAS.so]]    prints one line per contender: its name and the seconds of one call in every round.
   BLAS.so is any library with cblas_sgemm, for float only. */
#define _GNU_SOURCE
@INCLUDES@
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { M = @M@, N = @N@, K = @K@, MOST = 64 };
#define SAMPLE_S 0.004
typedef @INPUT@ input;
typedef @WEIGHT@ weight;
typedef @RESULT@ result;
typedef void kernel(const void *, const void *, void *);

/* What may follow a product: one bias and one scale per output channel. */
static @SUM@ bias[M > N ? M : N];
static float scale[M > N ? M : N];
enum { zero_point = 0 };
@CALLS@

static void *blas;
static int blas_is_64;
static void call_blas(const void *a, const void *b, void *c) {
    if (blas_is_64)
        ((void (*)(int, int, int, int64_t, int64_t, int64_t, float, const void *, int64_t, const void *, int64_t, float, void *, int64_t))blas)(
            101, 111, 111, M, N, K, 1, a, K, b, N, 0, c, N);
    else
        ((void (*)(int, int, int, int, int, int, float, const void *, int, const void *, int, float, void *, int))blas)(101, 111, 111, M, N, K, 1,
                                                                                                                 a, K, b, N, 0, c, N);
}

static struct contender {
    const char *name;
    kernel *call;
    int repeats;
    double seconds[MOST];
} contenders[] = {@CONTENDERS@, {0}};

static void find_blas(const char *path) {
    static const struct { const char *name; int is_64; } symbols[] = {{"scipy_cblas_sgemm64_", 1}, {"cblas_sgemm64_", 1}, {"cblas_sgemm", 0}};
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; library && !blas && i < sizeof symbols / sizeof *symbols; ++i) {
        blas = dlsym(library, symbols[i].name);
        blas_is_64 = symbols[i].is_64;
    }
}

static double time_of(const struct contender *it, int repeats, const void *a, const void *b, void *c) {
    struct timespec start, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    for (int i = 0; i < repeats; ++i) it->call(a, b, c);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return ((double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec)) / repeats;
}

static void *words(size_t count, size_t size) {
    unsigned char *it = aligned_alloc(4096, (count * size + 4095) / 4096 * 4096);
    /* Small numbers in every format: the time of none of them depends on their values, except for tiny floats. */
    for (size_t i = 0; i < count; ++i) {
        if (size == sizeof(float)) ((float *)(void *)it)[i] = (float)(i % 61) / 61.0f - 0.5f;
        else if (size == 2) ((uint16_t *)(void *)it)[i] = (uint16_t)(0x3f00 + i % 61);
        else it[i] = (unsigned char)(i % 61);
    }
    return it;
}

int main(int count, char **arguments) {
    const int rounds = count > 1 ? atoi(arguments[1]) : 9;
    void *a = words((size_t)M * K, sizeof(input)), *b = words((size_t)K * N, sizeof(weight)), *c = words((size_t)M * N, sizeof(result));
    int total = 0;
    for (int i = 0; i < (M > N ? M : N); ++i) scale[i] = 0.01f;
    (void)bias;
    if (rounds < 1 || rounds > MOST) return 2;
    if (count > 2) find_blas(arguments[2]);
    while (contenders[total].name) ++total;
    if (!blas) --total;
    for (int i = 0; i < total; ++i) {
        double once = time_of(&contenders[i], 1, a, b, c);
        const double again = time_of(&contenders[i], 1, a, b, c);
        if (again < once) once = again;
        contenders[i].repeats = once > SAMPLE_S ? 1 : (int)(SAMPLE_S / (once + 1e-9)) + 1;
    }
    for (int round = 0; round < rounds; ++round)
        for (int i = 0; i < total; ++i) {
            struct contender *it = &contenders[(i + round) % total];
            it->seconds[round] = time_of(it, it->repeats, a, b, c);
        }
    for (int i = 0; i < total; ++i) {
        printf("%s", contenders[i].name);
        for (int round = 0; round < rounds; ++round) printf(" %.9g", contenders[i].seconds[round]);
        printf("\n");
    }
    return 0;
}
