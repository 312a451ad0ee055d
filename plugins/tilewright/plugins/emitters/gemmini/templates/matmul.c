#include "$name.h"
$rocc
/* $m x $k times $k x $n in tiles of $ti x $tk times $tk x $tj blocks of $dim; $why */
void $name(const int8_t *a, const int8_t *b, int8_t *c) {
  enum { DIM = $dim, I = $bi, J = $bj, K = $bk, TI = $ti, TJ = $tj, TK = $tk };
  enum { PAD_I = $pi, PAD_J = $pj, PAD_K = $pk, STRIDE_A = $k, STRIDE_B = $n, STRIDE_C = $n };
  const int keep_a = $keep_a, keep_b = $keep_b; /* at most two tiles: they stay in the scratchpad */
  for (uint64_t g = 0; g < $repeat; g++, a += $step_a, b += $step_b, c += $step_c) {
    TW_ROCC(0, TW_AT(0x3f800000, 32) | TW_AT(1, 16) | TW_AT(1, 2), TW_AT(1, 48));        /* weight stationary */
    TW_ROCC(0, 2, TW_AT(0x3f800000, 32) | STRIDE_C);                                      /* mvout */
    TW_ROCC(0, TW_AT(0x3f800000, 32) | TW_AT(DIM, 16) | TW_AT(1, 8) | TW_AT(0, 3) | 1, STRIDE_A);
    TW_ROCC(0, TW_AT(0x3f800000, 32) | TW_AT(DIM, 16) | TW_AT(1, 8) | TW_AT(1, 3) | 1, STRIDE_B);
    TW_ROCC(0, TW_AT(0x3f800000, 32) | TW_AT(DIM, 16) | TW_AT(1, 8) | TW_AT(2, 3) | 1, 4 * STRIDE_C);
    for (int i = 0; i < I; i += TI)
      for (int j = 0; j < J; j += TJ)
        for (int k = 0; k < K; k += TK) {
          const int ti = TW_MIN(TI, I - i), tj = TW_MIN(TJ, J - j), tk = TW_MIN(TK, K - k);
          const int pad_i = i + ti == I ? PAD_I : 0, pad_j = j + tj == J ? PAD_J : 0, pad_k = k + tk == K ? PAD_K : 0;
          const int half_a = keep_a ? (i + k == 0 ? 1 : 2) : 0, half_b = keep_b ? (j + k == 0 ? 1 : 2) : 0;
          const int8_t *from_a = keep_a && j ? 0 : a + (uint64_t)i * DIM * STRIDE_A + (uint64_t)k * DIM;
          const int8_t *from_b = keep_b && i ? 0 : b + (uint64_t)k * DIM * STRIDE_B + (uint64_t)j * DIM;
          int8_t *to = k + tk == K ? c + (uint64_t)i * DIM * STRIDE_C + (uint64_t)j * DIM : 0;
          TW_ROCC(9, TW_AT(pad_k, 32) | TW_AT(pad_j, 16) | pad_i, TW_AT(tk, 32) | TW_AT(tj, 16) | ti);
          TW_ROCC(10, (uintptr_t)from_a, (uintptr_t)from_b);
          TW_ROCC(11, 0, (uintptr_t)to);
          TW_ROCC(12, STRIDE_A, STRIDE_B);
          TW_ROCC(13, STRIDE_C, STRIDE_C);
          TW_ROCC(8, TW_AT(half_a, 18) | TW_AT(half_b, 16) | (k > 0), 0);
        }
  }
  TW_FENCE();
}
