/* Every panel (or strip) of the weights, in the order in which `multiply` reads them with the same sizes and blocks. */
static void pack_all(const view_@SIDE@ *v, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const @NAME@_blocks *set, item *to) {
    const ptrdiff_t groups = (k + GROUP - 1) / GROUP, depth_blocks = HOLDS ? 1 : pieces(groups, set->depth / GROUP);
    for (ptrdiff_t kb = 0, p = 0, depth; kb < depth_blocks; ++kb, p += depth) {
        depth = least(GROUP * piece(groups, depth_blocks, kb), k - p);
        const ptrdiff_t padded = (depth + GROUP - 1) / GROUP * GROUP;
#if READY_A
        const ptrdiff_t row_blocks = pieces(m, set->rows);
        for (ptrdiff_t ib = 0, i0 = 0, rows; ib < row_blocks; ++ib, i0 += rows) {
            rows = piece(m, row_blocks, ib);
            const ptrdiff_t strips = pieces(rows, ROWS);
            for (ptrdiff_t s = 0, i = 0, size; s < strips; ++s, i += size) {
                size = piece(rows, strips, s);
                pack_a(v, i0 + i, size, p, depth, size, to + p * m + (i0 + i) * padded);
            }
        }
        (void)n;
#else
        const ptrdiff_t vectors = (n + LANES - 1) / LANES, column_blocks = set->strips_first ? pieces(vectors, set->columns / LANES) : 1;
        for (ptrdiff_t jb = 0, j0 = 0, wide; jb < column_blocks; ++jb, j0 += LANES * wide) {
            wide = piece(vectors, column_blocks, jb);
            const ptrdiff_t panels = pieces(wide, VECTORS);
            for (ptrdiff_t z = 0, j = j0, width; z < panels; ++z, j += width) {
                width = LANES * piece(wide, panels, z);
                pack_b(v, j, least(width, n - j), p, depth, width, to + p * vectors * LANES + j * padded);
            }
        }
        (void)m;
#endif
    }
}
