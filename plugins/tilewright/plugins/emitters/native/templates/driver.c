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

#if ROW_STRIPS
/* Rows of A as items, one after the other: words that only change their type need not change their order. */
static void convert_rows(const view_a *v, ptrdiff_t lane, ptrdiff_t lanes, ptrdiff_t depth, ptrdiff_t depths, item *restrict to) {
    const ptrdiff_t padded = (depths + GROUP - 1) / GROUP * GROUP;
    for (ptrdiff_t j = 0; j < lanes; ++j, to += padded) {
        const word_a *restrict from = v->base + (lane + j) * v->lane_stride + depth;
        for (ptrdiff_t p = 0; p < depths; ++p) to[p] = ITEM_OF_A(from[p]);
        for (ptrdiff_t p = depths; p < padded; ++p) to[p] = 0;
    }
}
#else
#define convert_rows(v, lane, lanes, depth, depths, to) ((void)0)
#endif

/* One block of C, and where its operands are. */
typedef struct {
    const view_a *a;
    const view_b *b;
    ptrdiff_t depth_at, depth, row_at;
    word_of_c *c;
    ptrdiff_t c_row;
    int accumulate, last, rows_whole;
    const extras *more;
} block;

/* How a tile gets an operand: where it lies, copied there first, copied there by the tile itself, or copied there before. */
typedef enum { IN_PLACE, COPY, COPY_BY_TILE, COPIED } source;

/* Rows [i, i + rows) of a block of C times the panel of B at column j. */
INLINE void cell(const block *x, ptrdiff_t i, ptrdiff_t rows, source from_a, ptrdiff_t j, ptrdiff_t columns, ptrdiff_t width, source from_b,
                 item *strip, item *panel) {
    const ptrdiff_t tail = columns - (width - LANES), vectors = width / LANES, groups = (x->depth + GROUP - 1) / GROUP;
    const int partial = tail < LANES;
    const item *a = strip, *b = panel;
    ptrdiff_t a_row = GROUP, a_step = rows * GROUP, b_step = width * GROUP;
    kernel *tile = kernels[rows - 1][vectors - 1][partial];
#if ROW_STRIPS
    if (x->rows_whole) {
        a_row = groups * GROUP;
        a_step = GROUP;
    }
#endif
#if A_IN_PLACE
    if (from_a == IN_PLACE || from_a == COPY_BY_TILE) {
        a = x->a->base + (x->row_at + i) * x->a->lane_stride + x->depth_at * x->a->depth_stride;
        a_row = x->a->lane_stride;
        a_step = x->a->depth_stride;
    }
#endif
#if B_IN_PLACE
    if (from_b == IN_PLACE || from_b == COPY_BY_TILE) {
        b = x->b->base + j + x->depth_at * x->b->depth_stride;
        b_step = x->b->depth_stride;
    }
#endif
#if PACKS_A
    if (from_a == COPY_BY_TILE) tile = packing_a[rows - 1];
#endif
#if PACKS_B
    if (from_b == COPY_BY_TILE) tile = packing_b[vectors - 1][partial];
#endif
#if PACKS_A && PACKS_B
    if (from_a == COPY_BY_TILE && from_b == COPY_BY_TILE) tile = packing_both;
#endif
    (void)from_a;
    if (from_b == COPY) pack_b(x->b, j, columns, x->depth_at, x->depth, width, panel);
    word_of_c *c = x->c + (x->row_at + i) * x->c_row + j;
#if HOLDS
    result held[ROWS * WIDTH];
    tile(groups, a, a_row, a_step, b, b_step, held, width, 0, tail, strip, panel);
    finish(held, width, c, x->c_row, rows, columns, x->row_at + i, j, x->more);
#else
    tile(groups, a, a_row, a_step, b, b_step, c, x->c_row, x->accumulate, tail, strip, panel);
#if FINISHES
    if (x->last) finish(c, x->c_row, c, x->c_row, rows, columns, x->row_at + i, j, x->more);
#endif
#endif
}

/* Share number `index` of `count` of the lines of `rows` rows of `bytes` bytes, asked for ahead of their use. */
INLINE void ask(const char *from, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t bytes, ptrdiff_t index, ptrdiff_t count) {
    const ptrdiff_t share = (rows + count - 1) / count, end = least(rows, (index + 1) * share);
    for (ptrdiff_t r = index * share; r < end; ++r)
        for (ptrdiff_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + r * stride + at, 0, 2);
}

/* C[m x n] (+)= A[m x k] * B[k x n], in blocks of depth, columns and rows. Within a block either one panel of B at a time passes
   all strips of A (panel in the L1 cache, A in L2), or one strip of A at a time passes all panels (`strips_first`: strip in L1, B in L2). */
INLINE void multiply(const view_a *a, const view_b *b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, word_of_c *c, ptrdiff_t c_row, int accumulate,
                     const @NAME@_blocks *set, const extras *more) {
    const ptrdiff_t groups = (k + GROUP - 1) / GROUP, vectors = (n + LANES - 1) / LANES;
    const ptrdiff_t depth_blocks = HOLDS ? 1 : pieces(groups, set->depth / GROUP), row_blocks = pieces(m, set->rows);
    const ptrdiff_t column_blocks = set->strips_first ? pieces(vectors, set->columns / LANES) : 1;
    item *const ready_a = READY_A ? more->ready : 0, *const ready_b = READY_B ? more->ready : 0;
    const int direct_a = A_IN_PLACE && a->plain && !set->pack_a && !ready_a;
    const int direct_b = B_IN_PLACE && b->plain && b->lane_stride == 1 && !set->pack_b && !ready_b;
    const int rows_whole = ROW_STRIPS && a->plain && a->depth_stride == 1 && !ready_a;
    const int tiles_pack_b = PACKS_B && b->plain && b->lane_stride == 1 && !direct_b && !ready_b;
    if (m < 1 || n < 1) return;
    for (ptrdiff_t kb = 0, p = 0, depth; kb < depth_blocks; ++kb, p += depth) {
        depth = least(GROUP * piece(groups, depth_blocks, kb), k - p);
        const ptrdiff_t padded = (depth + GROUP - 1) / GROUP * GROUP;
        for (ptrdiff_t jb = 0, j0 = 0, wide; jb < column_blocks; ++jb, j0 += LANES * wide) {
            wide = piece(vectors, column_blocks, jb);
            const ptrdiff_t panels = pieces(wide, VECTORS), first = LANES * piece(wide, panels, 0);
            const int tiles_pack_a = PACKS_A && a->plain && !direct_a && !ready_a && panels > 1 && first == FIRST_VECTORS * LANES;
            for (ptrdiff_t ib = 0, i0 = 0, rows; ib < row_blocks; ++ib, i0 += rows) {
                rows = piece(m, row_blocks, ib);
                const ptrdiff_t strips = pieces(rows, ROWS);
                const block x = {a, b, p, depth, i0, c, c_row, accumulate || kb, kb + 1 == depth_blocks, rows_whole, more};
                item *const strips_at = ready_a ? ready_a + p * m + i0 * padded : packed_a;
                item *const panels_at = ready_b ? ready_b + p * vectors * LANES + j0 * padded : packed_b;
                if (!direct_a && !tiles_pack_a && !ready_a)
                    for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                        size = piece(rows, strips, s);
                        if (rows_whole) convert_rows(a, i0 + i, size, p, depth, packed_a + i * padded);
                        else pack_a(a, i0 + i, size, p, depth, size, packed_a + i * padded);
                    }
                if (!set->strips_first) {
                    for (ptrdiff_t z = 0, j = j0, width; z < panels; ++z, j += width) {
                        width = LANES * piece(wide, panels, z);
                        const source from_a = direct_a ? IN_PLACE : tiles_pack_a && z == 0 ? COPY_BY_TILE : COPIED;
                        for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                            size = piece(rows, strips, s);
                            const source copy = tiles_pack_b && size == FIRST_ROWS ? COPY_BY_TILE : COPY;
#if B_IN_PLACE
                            const ptrdiff_t next = z + 1 < panels ? j + width : j0;
                            const ptrdiff_t next_at = z + 1 < panels || ib + 1 < row_blocks ? p : p + depth;
                            if (!direct_b && !ready_b && b->plain && next_at < k)
                                ask((const char *)(b->base + next + next_at * b->depth_stride), b->depth_stride * (ptrdiff_t)sizeof(item),
                                    least(depth, k - next_at), least(width, n - next) * (ptrdiff_t)sizeof(item), s, strips);
#endif
                            cell(&x, i, size, from_a, j, least(width, n - j), width, direct_b ? IN_PLACE : s == 0 && !ready_b ? copy : COPIED,
                                 strips_at + i * padded, ready_b ? panels_at + (j - j0) * padded : packed_b);
                        }
                    }
                } else {
                    for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                        size = piece(rows, strips, s);
                        const source copy = tiles_pack_b && size == FIRST_ROWS ? COPY_BY_TILE : COPY;
                        for (ptrdiff_t z = 0, j = j0, width; z < panels; ++z, j += width) {
                            width = LANES * piece(wide, panels, z);
                            const source from_a = direct_a ? IN_PLACE : tiles_pack_a && z == 0 ? COPY_BY_TILE : COPIED;
#if A_IN_PLACE
                            if (a->plain && !ready_a && i + size < rows)
                                for (ptrdiff_t r = 0; r < size && r < rows - i - size; ++r)
                                    ask((const char *)(a->base + (i0 + i + size + r) * a->lane_stride + p * a->depth_stride), 64, (depth + 15) / 16,
                                        64, z, panels);
#endif
                            cell(&x, i, size, from_a, j, least(width, n - j), width,
                                 direct_b ? IN_PLACE : ib == 0 && s == 0 && !ready_b ? copy : COPIED, strips_at + i * padded,
                                 panels_at + (j - j0) * padded);
                        }
                    }
                }
            }
        }
    }
}

/* The same for sizes known at run time only; blocks larger than the work space are cut down to it. */
static __attribute__((noinline)) void multiply_any(const view_a *a, const view_b *b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, word_of_c *c,
                                                   ptrdiff_t c_row, int accumulate, const @NAME@_blocks *wanted, const extras *more) {
    @NAME@_blocks set = *wanted;
    set.depth = HOLDS ? MOST_DEPTH : least(set.depth, MOST_DEPTH);
    set.depth = set.depth < GROUP ? GROUP : set.depth / GROUP * GROUP;
    set.rows = least(set.rows, MOST_A / set.depth);
    set.rows = set.rows < 1 ? 1 : set.rows;
    set.columns = least(set.columns, MOST_B / set.depth) / (VECTORS * LANES) * (VECTORS * LANES);
    set.columns = set.columns < VECTORS * LANES ? VECTORS * LANES : set.columns;
    multiply(a, b, m, n, k, c, c_row, accumulate, &set, more);
}
