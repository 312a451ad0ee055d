/* The store controller, the read path of the accumulator and the writing DMA: see store.py. */
enum { STORE_READ = 4, STORE_ROWS = 17, STORE_TRANSLATE = 2, STORE_DONE = 3 };

typedef struct {
  const Machine *machine;
  Station *station;
  Channel *channel;
  Ports *accumulator;
  Log *log;
  i64 window, time, causes[M_CAUSES], in_flight, until, acknowledged, issued, free, read, writer, stride, at, total, start, bank_rows;
  int storing;
  Queue pipe, flight;
  Command config; /* with pooling; 0: without */
} Store;

/* One accumulator read of a command. */
typedef struct {
  i64 local, address, length;
  int last;
} StoreRow;

static void store_wake(Store *store) {
  Station *station = store->station;
  if (store->storing) return;
  store->time = NEVER;
  if (!station->queues[STORE].used) return;
  const Entry *entry = station_head(station, STORE, 0);
  if (!entry->pending) store->time = highest(highest(entry->ready + 1, store->issued + 2), store->free);
}

static StoreRow store_row(const Store *store, const Entry *entry, i64 at) {
  const i64 dim = store->machine->dim;
  Command command = entry->command;
  if (store->config) {
    const i64 *pool = store->config + 3; /* stride size out_dim porows pocols orows ocols upad lpad */
    const i64 window = at % (pool[1] * pool[1]), pixel = at / (pool[1] * pool[1]), row = pixel / pool[4], col = pixel % pool[4];
    const i64 y = row * pool[0] + window / pool[1] - pool[7], x = col * pool[0] + window % pool[1] - pool[8];
    const int inside = 0 <= y && y < pool[5] && 0 <= x && x < pool[6];
    return (StoreRow){inside ? command[2] + y * pool[6] + x : GARBAGE, entry->dram + (row * pool[2] + col) * store->stride,
                      command[4] * store->machine->input_bytes, window == pool[1] * pool[1] - 1};
  }
  const i64 word = command[2] & FULL_WIDTH ? store->machine->accumulator_word_bytes : store->machine->input_bytes;
  const i64 blocks = (command[4] + dim - 1) / dim, row = at / blocks, block = at % blocks;
  return (StoreRow){(command[2] & ~NORM_MASK) + row + block * dim, entry->dram + row * store->stride, command[4] * word,
                    block == blocks - 1 && (command[2] & NORM_MASK) == 0};
}

static void store_send(Store *store, i64 read, StoreRow row) {
  const Machine *machine = store->machine;
  store->read = read;
  store->log->count[ACCUMULATOR_READ]++;
  store->causes[M_BUSY]++;
  const i64 accepted = highest(read + STORE_READ + machine->accumulator_scale_latency, store->writer);
  queue_push(&store->pipe, accepted);
  store->writer = accepted + 1;
  if (!row.last) return;
  i64 beat = accepted;
  for (i64 done = 0; done < row.length;) {
    i64 size, useful;
    packet_choose((row.address + done) % machine->request_bytes, row.length - done, machine->bus_bytes, machine->request_bytes, &size, &useful);
    done += useful;
    const i64 beats = size / machine->bus_bytes;
    beat = highest(beat + 1, queue_get(&store->flight, 0)) + channel_translate(store->channel, row.address) + beats - 1;
    const i64 end = channel_acknowledge(store->channel, row.address, size, beat + STORE_TRANSLATE);
    queue_push(&store->flight, end + 1);
    store->acknowledged = highest(store->acknowledged, end);
    store->log->count[WRITE_REQUESTS]++;
    store->log->count[WRITE_BEATS] += beats;
  }
  store->writer = beat;
  store->log->count[WRITE_BYTES] += row.length;
}

static void store_finish(Store *store, Entry *entry, i64 done) {
  queue_pop(&store->station->queues[STORE]);
  station_finish(store->station, entry, done);
  store_wake(store);
}

static void store_act(Store *store, i64 now) {
  Entry *entry = station_head(store->station, STORE, 0);
  Command command = entry->command;
  if (!store->storing) {
    store->issued = highest(entry->ready, store->issued + 1);
    if (command[0] != MVOUT) {
      if (command[0] == CONFIG_STORE) {
        store->stride = command[1];
        store->config = command[2] ? command : 0;
      }
      store->free = now + 1;
      store_finish(store, entry, store->issued + 1);
      return;
    }
    if (now > store->until) {
      store->causes[entry->why == EXECUTE ? M_WAIT : entry->why == LOAD ? M_WAIT + 1 : M_NONE] += now - store->until;
      store->until = now;
    }
    store->start = now;
    store->storing = 1;
    store->at = 0;
    const i64 *pool = store->config ? store->config + 3 : 0;
    store->total = pool ? pool[3] * pool[4] * pool[1] * pool[1] : command[3] * ((command[4] + store->machine->dim - 1) / store->machine->dim);
    store->read = highest(store->read, now);
  }
  const i64 limit = now + store->window;
  ports_reach(store->accumulator, limit + 1);
  while (store->at < store->total) {
    const StoreRow row = store_row(store, entry, store->at);
    i64 read = highest(store->read + 1, queue_get(&store->pipe, 0));
    if (row.local != GARBAGE && row.local & ACCUMULATOR) {
      const i64 bank = (row.local & ROW_MASK) / store->bank_rows % store->machine->accumulator_banks;
      read = lowest(highest(read, now), limit); /* all before `now` is known to be taken */
      while (read < limit && ports_busy(store->accumulator, bank, read)) read++;
    }
    if (read >= limit) {
      store->time = read;
      return;
    }
    store_send(store, read, row);
    store->at++;
  }
  store->storing = 0;
  store->free = store->read;
  const i64 end = highest(store->read + STORE_DONE, store->acknowledged);
  span(store->log, UNIT_STORES, DID_MVOUT, entry->index, command[3], command[4], store->start, end);
  if (end > store->until) {
    store->in_flight += end - store->until;
    store->until = end;
  }
  store_finish(store, entry, store->read + STORE_DONE);
}
