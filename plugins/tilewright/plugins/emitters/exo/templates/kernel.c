/* @NAME@: register tiles scheduled in Exo, called where the operands lie. */
#include "@NAME@.h"
#include <stddef.h>
#include <string.h>
@PREAMBLE@
@WINDOWS@
@FUNCTIONS@

enum { M = @M@, N = @N@, K = @K@, LANES = @LANES@, MOST_ROWS = @MOST_ROWS@, MOST_VECTORS = @MOST_VECTORS@ };

#ifndef TW_AVAILABLE
#define TW_AVAILABLE (@AVAILABLE@)
#endif
int @NAME@_available(void) { return TW_AVAILABLE != 0; }

/* Piece number `index` of `total` in as few pieces of at most `most` as possible. */
static ptrdiff_t piece(ptrdiff_t total, ptrdiff_t most, ptrdiff_t index) {
    const ptrdiff_t count = (total + most - 1) / most;
    return total / count + (index < total % count);
}

void @NAME@(const float *inputs, const float *weights, float *outputs) {
    memset(outputs, 0, sizeof(float) * M * N);
    for (ptrdiff_t i = 0, s = 0, rows; i < M; i += rows, ++s) {
        rows = piece(M, MOST_ROWS, s);
#if @BY_LANE@
        static _Thread_local float strip[MOST_ROWS * K];
        for (ptrdiff_t r = 0; r < rows; ++r)
            for (ptrdiff_t p = 0; p < K; ++p) strip[p * rows + r] = inputs[(i + r) * K + p];
        const struct exo_win_2f32c a = {strip, {rows, 1}};
#else
        const struct exo_win_2f32c a = {inputs + i * K, {K, 1}};
#endif
        for (ptrdiff_t j = 0, z = 0, vectors; j < N / LANES; j += vectors, ++z) {
            vectors = piece(N / LANES, MOST_VECTORS, z);
            const struct exo_win_2f32c b = {weights + j * LANES, {N, 1}};
            const struct exo_win_2f32 c = {outputs + i * N + j * LANES, {N, 1}};
            @TILES@ {}
        }
    }
}
