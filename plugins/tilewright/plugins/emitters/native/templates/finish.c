/* What follows the last product: @WHAT@. Results at `from`, those of row `row` and column `column` on, become words of C at `to`. */
INLINE void finish(const result *from, ptrdiff_t from_row, word_of_c *to, ptrdiff_t to_row, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t row,
                   ptrdiff_t column, const extras *more) {
    for (ptrdiff_t i = 0; i < rows; ++i)
        for (ptrdiff_t j = 0; j < columns; ++j) {
            const ptrdiff_t channel = @CHANNEL@;
            result x = from[i * from_row + j];
@STEPS@
            (void)channel;
        }
    (void)row, (void)column, (void)more;
}
