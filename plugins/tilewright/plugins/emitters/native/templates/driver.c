/* Balanced pieces: `total` in as few pieces of at most `most` as possible, sizes differing by at most one. */
INLINE ptrdiff_t pieces(ptrdiff_t total, ptrdiff_t most) {
    return total > 0 ? (total + most - 1) / most : 1;
}

INLINE ptrdiff_t piece(ptrdiff_t total, ptrdiff_t count, ptrdiff_t index) {
    return total / count + (index < total % count);
}

INLINE ptrdiff_t least(ptrdiff_t x, ptrdiff_t y) {
    return x < y ? x : y;
}

static _Thread_local _Alignas(64) item packed_a[MOST_A], packed_b[MOST_B];

/* One depth block of C, and where its operands are. */
typedef struct {
    const view_a *a;
    const view_b *b;
    ptrdiff_t depth_at, depth, strip_stride, strip_step;
    const item *strip_base;
    result *c;
    ptrdiff_t c_row;
    int accumulate, direct_a, direct_b;
} block;

/* Rows [i, i + rows) of C times the panel of B at column j: read in place, packed now (`first`), or packed before. */
INLINE void cell(const block *x, ptrdiff_t row, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j, ptrdiff_t columns, ptrdiff_t width, int first,
                 item *panel) {
    const ptrdiff_t tail = columns - (width - LANES), vectors = width / LANES, groups = (x->depth + GROUP - 1) / GROUP;
    const int partial = tail < LANES;
    const item *strip = x->strip_base + i * x->strip_stride;
    const ptrdiff_t a_row = x->direct_a ? x->strip_stride : GROUP, step = x->direct_a ? x->strip_step : rows * GROUP;
    result *c = x->c + (row + i) * x->c_row + j;
#if B_IN_PLACE
    const item *in_place = x->b->base + j + x->depth_at * x->b->depth_stride;
    if (x->direct_b) {
        kernels[rows - 1][vectors - 1][partial](groups, strip, a_row, step, in_place, x->b->depth_stride, c, x->c_row, x->accumulate, tail, 0);
        return;
    }
#if PACKS
    if (first && rows == FIRST && x->b->plain && x->b->lane_stride == 1) {
        packing[vectors - 1][partial](groups, strip, a_row, step, in_place, x->b->depth_stride, c, x->c_row, x->accumulate, tail, panel);
        return;
    }
#endif
#endif
    if (first) pack_b(x->b, j, columns, x->depth_at, x->depth, width, panel);
    kernels[rows - 1][vectors - 1][partial](groups, strip, a_row, step, panel, width * GROUP, c, x->c_row, x->accumulate, tail, 0);
}

/* Share number `index` of `count` of the lines of `rows` rows of `bytes` bytes, asked for ahead of their use. */
INLINE void ask(const char *from, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t bytes, ptrdiff_t index, ptrdiff_t count) {
    const ptrdiff_t share = (rows + count - 1) / count, end = least(rows, (index + 1) * share);
    for (ptrdiff_t r = index * share; r < end; ++r)
        for (ptrdiff_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + r * stride + at, 0, 2);
}

/* C[m x n] (+)= A[m x k] * B[k x n], in blocks of depth, columns and rows. Within a block either one panel of B at a time passes
   all strips of A (panel in the L1 cache, A in L2), or one strip of A at a time passes all panels (`strips_first`: strip in L1, B in L2). */
INLINE void multiply(const view_a *a, const view_b *b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, result *c, ptrdiff_t c_row, int accumulate,
                     const @NAME@_blocks *set) {
    const ptrdiff_t groups = (k + GROUP - 1) / GROUP, vectors = (n + LANES - 1) / LANES;
    const ptrdiff_t depth_blocks = pieces(groups, set->depth / GROUP), row_blocks = pieces(m, set->rows);
    const ptrdiff_t column_blocks = set->strips_first ? pieces(vectors, set->columns / LANES) : 1;
    const int direct_a = A_IN_PLACE && a->plain && !set->pack_a;
    const int direct_b = B_IN_PLACE && b->plain && b->lane_stride == 1 && !set->pack_b;
    if (m < 1 || n < 1) return;
    for (ptrdiff_t kb = 0, p = 0, depth; kb < depth_blocks; ++kb, p += depth) {
        depth = least(GROUP * piece(groups, depth_blocks, kb), k - p);
        for (ptrdiff_t jb = 0, j0 = 0, wide; jb < column_blocks; ++jb, j0 += LANES * wide) {
            wide = piece(vectors, column_blocks, jb);
            const ptrdiff_t panels = pieces(wide, VECTORS);
            for (ptrdiff_t ib = 0, i0 = 0, rows; ib < row_blocks; ++ib, i0 += rows) {
                rows = piece(m, row_blocks, ib);
                const ptrdiff_t strips = pieces(rows, ROWS), padded = (depth + GROUP - 1) / GROUP * GROUP;
                block x = {.a = a, .b = b, .depth_at = p, .depth = depth, .c = c, .c_row = c_row, .accumulate = accumulate || kb,
                           .direct_a = direct_a, .direct_b = direct_b};
#if A_IN_PLACE
                if (direct_a) {
                    x.strip_base = a->base + i0 * a->lane_stride + p * a->depth_stride;
                    x.strip_stride = a->lane_stride;
                    x.strip_step = a->depth_stride;
                }
#endif
                if (!direct_a) {
                    for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                        size = piece(rows, strips, s);
                        pack_a(a, i0 + i, size, p, depth, size, packed_a + i * padded);
                    }
                    x.strip_base = packed_a;
                    x.strip_stride = padded;
                }
                if (!set->strips_first) {
                    for (ptrdiff_t z = 0, j = j0, width; z < panels; ++z, j += width) {
                        width = LANES * piece(wide, panels, z);
                        for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                            size = piece(rows, strips, s);
#if B_IN_PLACE
                            const ptrdiff_t next = z + 1 < panels ? j + width : j0;
                            const ptrdiff_t next_at = z + 1 < panels || ib + 1 < row_blocks ? p : p + depth;
                            if (!direct_b && b->plain && next_at < k)
                                ask((const char *)(b->base + next + next_at * b->depth_stride), b->depth_stride * (ptrdiff_t)sizeof(item),
                                    least(depth, k - next_at), least(width, n - next) * (ptrdiff_t)sizeof(item), s, strips);
#endif
                            cell(&x, i0, i, size, j, least(width, n - j), width, s == 0, packed_b);
                        }
                    }
                } else {
                    for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                        size = piece(rows, strips, s);
                        for (ptrdiff_t z = 0, j = j0, width; z < panels; ++z, j += width) {
                            width = LANES * piece(wide, panels, z);
#if A_IN_PLACE
                            if (direct_a && i + size < rows)
                                for (ptrdiff_t r = 0; r < size && r < rows - i - size; ++r)
                                    ask((const char *)(x.strip_base + (i + size + r) * x.strip_stride), 64, (depth + 15) / 16, 64, z, panels);
#endif
                            cell(&x, i0, i, size, j, least(width, n - j), width, ib == 0 && s == 0, packed_b + (j - j0) * padded);
                        }
                    }
                }
            }
        }
    }
}

/* The same for sizes known at run time only; blocks larger than the work space are cut down to it. */
static __attribute__((noinline)) void multiply_any(const view_a *a, const view_b *b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, result *c,
                                                   ptrdiff_t c_row, int accumulate, const @NAME@_blocks *wanted) {
    @NAME@_blocks set = *wanted;
    set.depth = least(set.depth, MOST_DEPTH);
    set.depth = set.depth < GROUP ? GROUP : set.depth / GROUP * GROUP;
    set.rows = least(set.rows, MOST_A / set.depth);
    set.rows = set.rows < 1 ? 1 : set.rows;
    set.columns = least(set.columns, MOST_B / set.depth) / (VECTORS * LANES) * (VECTORS * LANES);
    set.columns = set.columns < VECTORS * LANES ? VECTORS * LANES : set.columns;
    multiply(a, b, m, n, k, c, c_row, accumulate, &set);
}
