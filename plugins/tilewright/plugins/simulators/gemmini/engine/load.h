/* The load controller and the reading DMA: see load.py. */
enum { LOAD_ROW = 2, LOAD_TRANSLATE = 6, LOAD_WRITE = 3, LOAD_DONE = 2 };

typedef struct {
  const Machine *machine;
  Station *station;
  Channel *channel;
  Ports *ports;
  Log *log;
  i64 time, causes[M_CAUSES], in_flight, until, issued, free, request, zeros;
  Queue commands, flight;
  struct {
    i64 stride, block_stride, shrink, repeats;
  } states[3];
  Cuts cuts;
} Load;

static void load_wake(Load *load) {
  Station *station = load->station;
  load->time = NEVER;
  if (!station->queues[LOAD].used) return;
  const Entry *entry = station_head(station, LOAD, 0);
  if (entry->pending) return;
  load->time = highest(highest(entry->ready, load->issued + 1) + 1, load->free);
  if (entry->command[0] == MVIN) load->time = highest(load->time, queue_get(&load->commands, 0));
}

static i64 load_zero(Load *load, Command command, i64 now) {
  const Machine *machine = load->machine;
  const i64 rows = command[4], blocks = (command[5] + machine->dim - 1) / machine->dim, per_row = blocks * load->states[command[1]].repeats;
  const i64 at = highest(now + 1, load->zeros);
  load->zeros = at + rows * per_row;
  load->free = highest(now + rows, load->zeros);
  if (!(command[3] & ACCUMULATOR)) {
    const i64 bank_rows = machine->scratchpad_rows / machine->scratchpad_banks;
    ports_reach(load->ports, at + rows * per_row);
    for (i64 row = 0; row < rows; row++)
      ports_take(load->ports, ((command[3] & ROW_MASK) + row) / bank_rows % machine->scratchpad_banks, at + row * per_row, per_row);
  }
  load->causes[M_BUSY] += rows * blocks;
  load->log->count[SCRATCHPAD_WRITE] += rows * blocks;
  return load->zeros + LOAD_DONE;
}

static i64 load_read(Load *load, Command command, i64 dram, i64 now) {
  const Machine *machine = load->machine;
  Channel *channel = load->channel;
  Ports *ports = load->ports;
  const i64 stride = load->states[command[1]].stride, block_stride = load->states[command[1]].block_stride;
  const int to_accumulator = (command[3] & ACCUMULATOR) != 0, wide = to_accumulator && !load->states[command[1]].shrink;
  const i64 word = wide ? machine->accumulator_word_bytes : machine->input_bytes, row_bytes = machine->dim * word;
  const i64 length = command[5] * word, rows = stride == 0 ? 1 : command[4];
  const i64 copies = (stride == 0 ? command[4] : 1) * load->states[command[1]].repeats;
  const i64 local = command[3] & ROW_MASK, banks = machine->scratchpad_banks, bank_rows = machine->scratchpad_rows / banks;
  const i64 beat = machine->bus_bytes, largest = machine->request_bytes, start = now + LOAD_ROW;
  i64 request = load->request, free_at = channel->free, address = dram, write = now, requests = 0, beats = 0, written = 0;
  for (i64 row = 0; row < rows; row++) {
    i64 done = 0;
    if (start + row > request) request = start + row - 1;
    const Cut *cut = read_packets(&load->cuts, address % largest, length, row_bytes, beat, largest);
    for (i64 at = 0; at < cut->count; at++) {
      const Packet *packet = cut->packets + at;
      request = highest(request + 1, queue_get(&load->flight, 0)) + channel_translate(channel, address + done);
      const i64 first = highest(channel_answer(channel, address + done, request + LOAD_TRANSLATE), free_at);
      const i64 taken = copies > 1 ? highest(packet->occupancy, packet->rows_count * copies) : packet->occupancy;
      queue_push(&load->flight, first + packet->size / beat);
      free_at = first + taken;
      write = first + LOAD_WRITE;
      if (to_accumulator) {
        write += packet->rows[packet->rows_count - 1] + packet->rows_count * (copies - 1);
      } else {
        const i64 block = done / row_bytes;
        for (i64 index = 0; index < packet->rows_count; index++) {
          write = first + LOAD_WRITE + packet->rows[index] + index * (copies - 1);
          ports_reach(ports, write + copies);
          ports_take(ports, (local + row + (block + index) * block_stride) / bank_rows % banks, write, copies);
          write += copies - 1;
        }
      }
      done += packet->useful;
      requests++;
      beats += packet->size / beat;
      written += packet->rows_count * copies;
    }
    address += stride;
  }
  load->request = request;
  load->free = highest(now + rows, request - 4);
  channel->free = free_at;
  load->causes[M_BUSY] += beats;
  i64 *count = load->log->count;
  count[READ_REQUESTS] += requests;
  count[READ_BEATS] += beats;
  count[READ_BYTES] += length * rows;
  count[to_accumulator ? ACCUMULATOR_WRITE : SCRATCHPAD_WRITE] += written;
  return write + LOAD_DONE;
}

static void load_act(Load *load, i64 now) {
  Entry *entry = station_head(load->station, LOAD, 0);
  Command command = entry->command;
  queue_pop(&load->station->queues[LOAD]);
  load->issued = highest(entry->ready, load->issued + 1);
  if (command[0] == CONFIG_LOAD) {
    load->states[command[1]].stride = command[2];
    load->states[command[1]].block_stride = command[3];
    load->states[command[1]].shrink = command[4];
    load->states[command[1]].repeats = command[5];
    load->free = now + 1;
    station_finish(load->station, entry, load->issued + 1);
  } else {
    if (now > load->until) {
      load->causes[entry->why == EXECUTE ? M_WAIT : entry->why == STORE ? M_WAIT + 1 : M_NONE] += now - load->until;
      load->until = now;
    }
    const i64 done = entry->dram ? load_read(load, command, entry->dram, now) : load_zero(load, command, now);
    if (done > load->until) {
      load->in_flight += done - load->until;
      load->until = done;
    }
    queue_push(&load->commands, done - 1);
    span(load->log, UNIT_LOADS, DID_MVIN, entry->index, command[4], command[5], now, done);
    station_finish(load->station, entry, done);
  }
  load_wake(load);
}
