/* One operand as lanes x depth: element (lane, depth) of the matrix product. Plain operands have two strides; others are
   tensors whose coordinates are affine in several lane and depth dims, zero outside of their extents. */
typedef struct {
    const float *base;
    ptrdiff_t lane_stride, depth_stride;
    int plain, ranks, lane_dims, depth_dims;
    ptrdiff_t extent[@RANKS@], stride[@RANKS@], offset[@RANKS@];
    ptrdiff_t lane_bound[@DIMS@], lane_step[@DIMS@][@RANKS@];
    ptrdiff_t depth_bound[@DIMS@], depth_step[@DIMS@][@RANKS@];
} view;

/* Balanced pieces: `total` in as few pieces of at most `most` as possible, sizes differing by at most one. */
static ptrdiff_t pieces(ptrdiff_t total, ptrdiff_t most) {
    return total > 0 ? (total + most - 1) / most : 1;
}

static ptrdiff_t piece(ptrdiff_t total, ptrdiff_t count, ptrdiff_t index) {
    return total / count + (index < total % count);
}

static void gather(const view *v, ptrdiff_t lane, ptrdiff_t lanes, ptrdiff_t depth, ptrdiff_t depths, ptrdiff_t width, float *restrict to) {
    ptrdiff_t from[@WIDEST@][@RANKS@], at[@DIMS@], part[@RANKS@];
    for (ptrdiff_t j = 0; j < lanes; ++j) {
        ptrdiff_t rest = lane + j;
        for (int r = 0; r < v->ranks; ++r) from[j][r] = v->offset[r];
        for (int d = v->lane_dims - 1; d >= 0; --d) {
            for (int r = 0; r < v->ranks; ++r) from[j][r] += rest % v->lane_bound[d] * v->lane_step[d][r];
            rest /= v->lane_bound[d];
        }
    }
    for (int d = v->depth_dims - 1; d >= 0; --d) {
        at[d] = depth % v->depth_bound[d];
        depth /= v->depth_bound[d];
    }
    for (ptrdiff_t p = 0; p < depths; ++p) {
        for (int r = 0; r < v->ranks; ++r) {
            part[r] = 0;
            for (int d = 0; d < v->depth_dims; ++d) part[r] += at[d] * v->depth_step[d][r];
        }
        for (ptrdiff_t j = 0; j < width; ++j) {
            ptrdiff_t where = 0;
            int inside = j < lanes;
            for (int r = 0; inside && r < v->ranks; ++r) {
                const ptrdiff_t x = from[j][r] + part[r];
                inside = x >= 0 && x < v->extent[r];
                where += x * v->stride[r];
            }
            to[p * width + j] = inside ? v->base[where] : 0.0f;
        }
        for (int d = v->depth_dims - 1; d >= 0 && ++at[d] == v->depth_bound[d]; --d) at[d] = 0;
    }
}

/* to[p * width + j] = element (lane + j, depth + p), zero for j >= lanes. */
static void pack(const view *v, ptrdiff_t lane, ptrdiff_t lanes, ptrdiff_t depth, ptrdiff_t depths, ptrdiff_t width, float *restrict to) {
    if (!v->plain) {
        gather(v, lane, lanes, depth, depths, width, to);
        return;
    }
    const float *from = v->base + lane * v->lane_stride + depth * v->depth_stride;
    if (v->lane_stride == 1) {
        for (ptrdiff_t p = 0; p < depths; ++p, from += v->depth_stride) {
            for (ptrdiff_t j = 0; j < lanes; ++j) to[p * width + j] = from[j];
            for (ptrdiff_t j = lanes; j < width; ++j) to[p * width + j] = 0.0f;
        }
        return;
    }
    for (ptrdiff_t j = 0; j < lanes; ++j, from += v->lane_stride)
        for (ptrdiff_t p = 0; p < depths; ++p) to[p * width + j] = from[p * v->depth_stride];
    for (ptrdiff_t j = lanes; j < width; ++j)
        for (ptrdiff_t p = 0; p < depths; ++p) to[p * width + j] = 0.0f;
}

static _Thread_local _Alignas(64) float packed_a[@MOST_ROWS@ * @MOST_DEPTH@];
static _Thread_local _Alignas(64) float packed_b[@MOST_DEPTH@ * @COLUMNS@];

/* C[m x n] (+)= A[m x k] * B[k x n]: depth blocks, row blocks whose A stays in the L2 cache, and one panel of B at a time,
   packed just before its use, in the L1 cache. */
static void multiply(const view *a, const view *b, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, float *c, ptrdiff_t c_row, int accumulate,
                     const @NAME@_blocks *blocks) {
    const ptrdiff_t depth_blocks = pieces(k, blocks->depth), row_blocks = pieces(m, blocks->rows);
    const ptrdiff_t vectors = (n + LANES - 1) / LANES, panels = pieces(vectors, VECTORS);
    const int direct_a = a->plain && !blocks->pack_a, direct_b = b->plain && b->lane_stride == 1 && !blocks->pack_b;
    if (m < 1 || n < 1) return;
    for (ptrdiff_t kb = 0, p = 0, depth; kb < depth_blocks; ++kb, p += depth) {
        depth = piece(k, depth_blocks, kb);
        for (ptrdiff_t ib = 0, i0 = 0, block; ib < row_blocks; ++ib, i0 += block) {
            block = piece(m, row_blocks, ib);
            const ptrdiff_t strips = pieces(block, ROWS);
            if (!direct_a)
                for (ptrdiff_t s = 0, i = 0, rows; s < strips; ++s, i += rows) {
                    rows = piece(block, strips, s);
                    pack(a, i0 + i, rows, p, depth, rows, packed_a + i * depth);
                }
            for (ptrdiff_t jb = 0, j = 0, width; jb < panels; ++jb, j += width) {
                width = LANES * piece(vectors, panels, jb);
                const ptrdiff_t columns = width < n - j ? width : n - j, tail = columns - (width - LANES);
                const float *panel = packed_b;
                if (direct_b)
                    panel = b->base + j + p * b->depth_stride;
                else
                    pack(b, j, columns, p, depth, width, packed_b);
                for (ptrdiff_t s = 0, i = 0, rows; s < strips; ++s, i += rows) {
                    rows = piece(block, strips, s);
                    const float *strip = direct_a ? a->base + (i0 + i) * a->lane_stride + p * a->depth_stride : packed_a + i * depth;
                    kernels[rows - 1][width / LANES - 1][tail < LANES](
                        depth, strip, direct_a ? a->lane_stride : 1, direct_a ? a->depth_stride : rows, panel,
                        direct_b ? b->depth_stride : width, c + (i0 + i) * c_row + j, c_row, accumulate || kb, tail);
                }
            }
        }
    }
}
