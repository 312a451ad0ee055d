#include "$name.h"
$rocc
/* $out_rows x $out_cols x $filters from $rows x $cols x $channels, $kernel x $kernel taps; $why */
void $name(const int8_t *in, const int8_t *weights, int8_t *out) {
  enum { BATCH = $batch, ROWS = $rows, COLS = $cols, C = $channels, OUT_ROWS = $out_rows, OUT_COLS = $out_cols, K = $filters };
  enum { TAPS = $kernel, STRIDE = $stride, PAD = $padding, DILATION = $dilation, DOWN = $down };
  enum { STRIDE_IN = $in_stride, STRIDE_W = $weight_stride, STRIDE_OUT = $out_stride, DIM = $dim };
  enum { TN = $tn, TQ = $tq, TP = $tp, TK = $tk, TS = $ts, TR = $tr, TC = $tc };
  const int keep_a = $keep_a, keep_b = $keep_b; /* at most two tiles: they stay in the scratchpad */
  for (uint64_t g = 0; g < $repeat; g++, in += $step_a, weights += $step_b, out += $step_c) {
    TW_ROCC(0, 2, TW_AT(0x3f800000, 32) | STRIDE_OUT);                                            /* mvout */
    TW_ROCC(0, TW_AT(0x3f800000, 32) | TW_AT(STRIDE >> DOWN, 16) | TW_AT(1, 2), TW_AT(1, 48));     /* weight stationary */
    for (int b = 0; b < BATCH; b += TN)
      for (int q = 0; q < OUT_ROWS; q += TQ)
        for (int p = 0; p < OUT_COLS; p += TP)
          for (int k = 0; k < K; k += TK)
            for (int s = 0; s < TAPS; s += TS)
              for (int r = 0; r < TAPS; r += TR)
                for (int c = 0; c < C; c += TC) {
                  const int tn = TW_MIN(TN, BATCH - b), tq = TW_MIN(TQ, OUT_ROWS - q), tp = TW_MIN(TP, OUT_COLS - p);
                  const int tk = TW_MIN(TK, K - k), ts = TW_MIN(TS, TAPS - s), tr = TW_MIN(TR, TAPS - r), tc = TW_MIN(TC, C - c);
                  const int row = q * STRIDE + s * DILATION - PAD, col = p * STRIDE + r * DILATION - PAD;
                  const int rows = tq * STRIDE + (ts - 1) * DILATION, cols = tp * STRIDE + (tr - 1) * DILATION;
                  const int lpad = TW_MAX(0, -col), rpad = TW_MAX(0, col + cols - COLS);
                  const int upad = TW_MAX(0, -row), dpad = TW_MAX(0, row + rows - ROWS);
                  const int last = s + ts == TAPS && r + tr == TAPS && c + tc == C, first = s == 0 && r == 0 && c == 0;
                  const int whole = DOWN || DILATION > 1 || tc > DIM, pixels = whole ? 1 : TW_MIN(tr, DIM / tc);
                  const int half_a = keep_a ? (c + s + r + b + q + p == 0 ? 1 : 2) : 0;
                  const int half_b = keep_b ? (c + k + s + r == 0 ? 1 : 2) : 0;
                  const uint64_t pixel = ((uint64_t)b * ROWS + TW_MAX(0, row)) * COLS + TW_MAX(0, col);
                  const uint64_t tap = ((uint64_t)s * TAPS + r) * C + c;
                  const int8_t *from = keep_a && k ? 0 : in + pixel * STRIDE_IN + c;
                  const int8_t *with = keep_b && b + q + p ? 0 : weights + tap * STRIDE_W + k;
                  int8_t *to = last ? out + (((uint64_t)b * OUT_ROWS + q) * OUT_COLS + p) * STRIDE_OUT + k : 0;
                  TW_ROCC(16, TW_AT(STRIDE_OUT, 48) | TW_AT(C, 32) | TW_AT(ROWS, 16) | tn,
                          TW_AT(STRIDE, 48) | TW_AT(OUT_COLS, 32) | TW_AT(OUT_ROWS, 16) | OUT_ROWS);
                  TW_ROCC(17, TW_AT(TAPS, 48) | TW_AT(OUT_COLS, 32) | TW_AT(1, 16) | TW_AT(1, 8),
                          TW_AT(tn, 48) | TW_AT(tq, 32) | TW_AT(tp, 16) | tk);
                  TW_ROCC(18, TW_AT(ts, 48) | TW_AT(tr, 32) | TW_AT(tc, 16) | lpad,
                          TW_AT(rpad, 48) | TW_AT(upad, 32) | TW_AT(dpad, 24) | COLS);
                  TW_ROCC(19, TW_AT(tq, 48) | DILATION, TW_AT(STRIDE_IN, 48) | TW_AT(STRIDE_W, 32) | TW_AT(STRIDE_OUT, 16) | tp);
                  TW_ROCC(20, (uintptr_t)with, (uintptr_t)to);
                  TW_ROCC(21, first, (uintptr_t)from);
                  TW_ROCC(15, TW_AT(half_a, 18) | TW_AT(half_b, 16) | TW_AT(pixels, 8) | 1, TW_AT(DOWN, 1) | 1);
                }
  }
  TW_FENCE();
}
