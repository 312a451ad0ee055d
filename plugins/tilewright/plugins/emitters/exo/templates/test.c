/* Test of @NAME@ against float64 and, bit for bit, against the native emitter's kernel of the same tile. Exit code 0: correct;
   1: not; 77: this machine lacks the instructions. */
#include "@NAME@.h"
#include "@NATIVE@.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { M = @M@, N = @N@, K = @K@ };
static float a[M * K], b[K * N], c[M * N], twin[M * N];
static uint64_t state = 88172645463325252u;
static float uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (float)(int32_t)(uint32_t)(state >> 32) / 2147483648.0f;
}

int main(void) {
    double worst = 0;
    if (!@NAME@_available()) return 77;
    for (int i = 0; i < M * K; ++i) a[i] = uniform();
    for (int i = 0; i < K * N; ++i) b[i] = uniform();
    for (int i = 0; i < M * N; ++i) c[i] = twin[i] = NAN;
    @NAME@(a, b, c);
    @NATIVE@(a, b, twin);
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) {
            double exact = 0, magnitude = 0;
            for (int p = 0; p < K; ++p) {
                exact += (double)a[i * K + p] * b[p * N + j];
                magnitude += fabs((double)a[i * K + p] * b[p * N + j]);
            }
            const double error = fabs(c[i * N + j] - exact), bound = (K + 2) * magnitude * 0x1p-24;
            if (!(error <= bound)) return printf("wrong at %d %d: %g, expected %g\n", i, j, c[i * N + j], exact), 1;
            if (error / bound > worst) worst = error / bound;
            if (c[i * N + j] != twin[i * N + j]) return printf("not the native kernel's bits at %d %d: %a and %a\n", i, j, c[i * N + j], twin[i * N + j]), 1;
        }
    printf("cases 1 worst %.3g\n", worst);
    return 0;
}
