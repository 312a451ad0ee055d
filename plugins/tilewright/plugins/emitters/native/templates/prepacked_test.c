        /* The same with weights packed ahead: the same sums, to the last bit. */
        result *again = malloc((size_t)out_words * sizeof(result));
        void *packed = aligned_alloc(64, (@NAME@_packed_bytes() + 63) / 64 * 64);
        memcpy(again, before, (size_t)out_words * sizeof(result));
        @NAME@_pack(weights, packed);
        @NAME@_prepacked(in, packed, again@MORE@);
        failed |= memcmp(out, again, (size_t)out_words * sizeof(result)) != 0;
        free(packed);
        free(again);