/* Operand @SIDE@ as lanes x depth: element (lane, depth) of the matrix product. Plain operands have two strides; others are
   tensors whose coordinates are affine in several lane and depth dims, zero outside of their extents. */
typedef struct {
    const @WORD@ *base;
    ptrdiff_t lane_stride, depth_stride;
    int plain, ranks, lane_dims, depth_dims;
    ptrdiff_t extent[@RANKS@], stride[@RANKS@], offset[@RANKS@];
    ptrdiff_t lane_bound[@DIMS@], lane_step[@DIMS@][@RANKS@];
    ptrdiff_t depth_bound[@DIMS@], depth_step[@DIMS@][@RANKS@];
} view_@SIDE@;

static void gather_@SIDE@(const view_@SIDE@ *v, ptrdiff_t lane, ptrdiff_t lanes, ptrdiff_t depth, ptrdiff_t depths, ptrdiff_t width,
                          item *restrict to) {
    ptrdiff_t from[WIDEST][@RANKS@], at[@DIMS@], part[@RANKS@];
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
        item *restrict row = to + p / GROUP * width * GROUP + p % GROUP;
        for (int r = 0; r < v->ranks; ++r) {
            part[r] = 0;
            for (int d = 0; d < v->depth_dims; ++d) part[r] += at[d] * v->depth_step[d][r];
        }
        for (ptrdiff_t j = 0; j < lanes; ++j) {
            ptrdiff_t where = 0;
            int inside = 1;
            for (int r = 0; inside && r < v->ranks; ++r) {
                const ptrdiff_t x = from[j][r] + part[r];
                inside = x >= 0 && x < v->extent[r];
                where += x * v->stride[r];
            }
            row[j * GROUP] = inside ? @ITEM_OF@(v->base[where]) : 0;
        }
        for (int d = v->depth_dims - 1; d >= 0 && ++at[d] == v->depth_bound[d]; --d) at[d] = 0;
    }
}

/* Items (lane + j, depth + p) to to[(p / GROUP * width + j) * GROUP + p % GROUP]; zeros for j >= lanes and in the rest of a group. */
static void pack_@SIDE@(const view_@SIDE@ *v, ptrdiff_t lane, ptrdiff_t lanes, ptrdiff_t depth, ptrdiff_t depths, ptrdiff_t width,
                        item *restrict to) {
    const @WORD@ *from = v->base + lane * v->lane_stride + depth * v->depth_stride;
    const ptrdiff_t groups = (depths + GROUP - 1) / GROUP;
    if (!v->plain) {
        gather_@SIDE@(v, lane, lanes, depth, depths, width, to);
    } else if (v->lane_stride == 1 && GROUP == 1) {
        for (ptrdiff_t p = 0; p < depths; ++p, from += v->depth_stride)
            for (ptrdiff_t j = 0; j < lanes; ++j) to[p * width + j] = @ITEM_OF@(from[j]);
    } else if (v->lane_stride == 1 && GROUP == 2) {
        for (ptrdiff_t p = 0; p + 1 < depths; p += 2, from += 2 * v->depth_stride) {
            const @WORD@ *next = from + v->depth_stride;
            item *restrict row = to + p * width;
            for (ptrdiff_t j = 0; j < lanes; ++j) {
                row[2 * j] = @ITEM_OF@(from[j]);
                row[2 * j + 1] = @ITEM_OF@(next[j]);
            }
        }
        if (depths % 2)
            for (ptrdiff_t j = 0; j < lanes; ++j) to[(depths - 1) * width + 2 * j] = @ITEM_OF@(from[j]);
    } else {
        for (ptrdiff_t j = 0; j < lanes; ++j, from += v->lane_stride)
            for (ptrdiff_t p = 0; p < depths; ++p) to[(p / GROUP * width + j) * GROUP + p % GROUP] = @ITEM_OF@(from[p * v->depth_stride]);
    }
    if (lanes < width)
        for (ptrdiff_t g = 0; g < groups; ++g)
            for (ptrdiff_t j = lanes * GROUP; j < width * GROUP; ++j) to[g * width * GROUP + j] = 0;
    for (ptrdiff_t p = depths; p < groups * GROUP; ++p)
        for (ptrdiff_t j = 0; j < lanes; ++j) to[(p / GROUP * width + j) * GROUP + p % GROUP] = 0;
}
