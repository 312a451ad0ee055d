/* How the DMA cuts a row of memory into bus requests: see packets.py. */
typedef struct {
  i64 size, useful, occupancy, rows_count, *rows;
} Packet;

typedef struct {
  i64 offset, length, row_bytes, count;
  Packet *packets;
} Cut;

enum { CUTS = 1024 };
typedef struct {
  Cut cut[CUTS];
} Cuts;

static void packet_choose(i64 at, i64 left, i64 beat, i64 largest, i64 *size, i64 *useful) {
  *size = *useful = 0;
  for (i64 candidate = beat; candidate <= largest; candidate *= 2) {
    const i64 gain = lowest(candidate - at % candidate, left);
    if (gain > *useful) {
      *size = candidate;
      *useful = gain;
    }
  }
}

static Packet packet_of(i64 size, i64 shift, i64 useful, i64 row_offset, i64 row_bytes, i64 beat) {
  Packet packet = {size, useful, 0, 0, malloc((size_t)(useful / row_bytes + 3) * sizeof(i64))};
  i64 read = 0, sent = 0;
  for (i64 cycle = 0;; cycle++) {
    const i64 arrived = lowest(highest(read - shift, 0), useful), width = row_bytes - (sent == 0 ? row_offset : 0);
    if (arrived > sent && (arrived - sent >= width || arrived == useful)) {
      packet.rows[packet.rows_count++] = cycle;
      sent = lowest(sent + width, useful);
      if (sent == useful && read == size) {
        packet.occupancy = cycle;
        return packet;
      }
    } else if (sent == useful && read == size) {
      packet.occupancy = cycle + 1;
      return packet;
    }
    read = lowest(read + beat, size);
  }
}

static void cut_free(Cut *cut) {
  for (i64 at = 0; at < cut->count; at++) free(cut->packets[at].rows);
  free(cut->packets);
}

static const Cut *read_packets(Cuts *cuts, i64 offset, i64 length, i64 row_bytes, i64 beat, i64 largest) {
  Cut *cut = cuts->cut + (uint64_t)((offset * 131 + length) * 7 + row_bytes) % CUTS;
  if (cut->packets && cut->offset == offset && cut->length == length && cut->row_bytes == row_bytes) return cut;
  cut_free(cut);
  *cut = (Cut){offset, length, row_bytes, 0, malloc((size_t)(length / beat + 3) * sizeof(Packet))};
  for (i64 done = 0; done < length;) {
    const i64 at = (offset + done) % largest;
    i64 size, useful;
    packet_choose(at, length - done, beat, largest, &size, &useful);
    cut->packets[cut->count++] = packet_of(size, at % size, useful, done % row_bytes, row_bytes, beat);
    done += useful;
  }
  return cut;
}
