/* The reservation station: see station.py. */
#define ACC_SPACE ((i64)1 << 26)

typedef struct {
  Command command;
  i64 dram; /* of mvins and mvouts; 0: zeros */
  i64 index, low, top, write, write_top, ready, done, visible;
  int kind, pending, why, waiting;
  int *waiters;
} Entry;

struct Simulation;
static void wake(struct Simulation *simulation, int kind);

typedef struct {
  const Machine *machine;
  struct Simulation *simulation;
  Entry *entries;
  int slots, *unused, unused_count;
  int *live[3]; /* slots in use, oldest first */
  i64 used[3], next_free[3];
  Queue queues[3];
  i64 open, latest, count;
  i64 a_stride, c_stride, block_strides[3];
  int a_transpose, pooling;
} Station;

static void station_make(Station *station, const Machine *machine, struct Simulation *simulation) {
  memset(station, 0, sizeof *station);
  station->machine = machine;
  station->simulation = simulation;
  station->slots = (int)(machine->entries[0] + machine->entries[1] + machine->entries[2]);
  const size_t slots = (size_t)station->slots;
  station->entries = calloc(slots, sizeof(Entry));
  station->unused = malloc(slots * sizeof(int));
  for (int slot = 0; slot < station->slots; slot++) {
    station->entries[slot].waiters = malloc(slots * sizeof(int));
    station->unused[station->unused_count++] = slot;
  }
  for (int kind = 0; kind < 3; kind++) {
    station->live[kind] = malloc((size_t)machine->entries[kind] * sizeof(int));
    queue_make(&station->queues[kind], machine->entries[kind], 0);
    station->next_free[kind] = NEVER;
  }
  station->a_stride = station->c_stride = 1;
  for (int state = 0; state < 3; state++) station->block_strides[state] = machine->dim;
}

static Entry *station_head(Station *station, int kind, i64 at) { return station->entries + queue_get(&station->queues[kind], at); }
static int station_full(const Station *station, int kind) { return station->used[kind] >= station->machine->entries[kind]; }

/* Free what is visibly free at `now`. */
static void station_settle(Station *station, i64 now) {
  for (int kind = 0; kind < 3; kind++) {
    if (station->next_free[kind] > now) continue;
    i64 kept = 0, next = NEVER;
    for (i64 at = 0; at < station->used[kind]; at++) {
      const int slot = station->live[kind][at];
      if (station->entries[slot].done <= now) {
        station->unused[station->unused_count++] = slot;
      } else {
        station->live[kind][kept++] = slot;
        next = lowest(next, station->entries[slot].done);
      }
    }
    station->used[kind] = kept;
    station->next_free[kind] = next;
  }
}

static void span_of(const Station *station, i64 local, i64 rows, i64 *low, i64 *top) {
  *low = *top = 0;
  if (local == GARBAGE) return;
  const i64 row = local & ROW_MASK;
  *low = local & ACCUMULATOR ? ACC_SPACE + row % station->machine->accumulator_rows : row % station->machine->scratchpad_rows;
  *top = *low + rows;
}

static void station_wait(Station *station, Entry *entry, Entry *older) {
  if (older->done == NEVER) {
    entry->pending++;
    older->waiters[older->waiting++] = (int)(entry - station->entries);
  } else if (older->done > entry->ready) {
    entry->ready = older->done;
    entry->why = older->kind;
  }
}

#define EACH_OLDER(older, kind_, now) \
  for (i64 at_ = 0; at_ < station->used[kind_]; at_++) \
    for (Entry *older = station->entries + station->live[kind_][at_]; older && older->done > (now); older = 0)
#define OVERLAP(a, b, c, d) ((a) < (d) && (c) < (b))

static void station_execute(Station *station, Entry *entry, i64 now) {
  Command command = entry->command;
  if (command[0] == PRELOAD) {
    span_of(station, command[1], command[2], &entry->low, &entry->top);
    span_of(station, command[4], command[5] * station->c_stride, &entry->write, &entry->write_top);
    EACH_OLDER(older, LOAD, now)
      if (OVERLAP(older->write, older->write_top, entry->low, entry->top) ||
          OVERLAP(older->write, older->write_top, entry->write, entry->write_top))
        station_wait(station, entry, older);
    EACH_OLDER(older, STORE, now)
      if (OVERLAP(older->low, older->top, entry->write, entry->write_top)) station_wait(station, entry, older);
  } else if (command[0] == COMPUTE) {
    const i64 rows = (station->a_transpose ? command[3] : command[2]) * station->a_stride;
    i64 low2, top2;
    span_of(station, command[1], rows, &entry->low, &entry->top);
    span_of(station, command[5], command[6], &low2, &top2);
    EACH_OLDER(older, LOAD, now)
      if (OVERLAP(older->write, older->write_top, entry->low, entry->top) || OVERLAP(older->write, older->write_top, low2, top2))
        station_wait(station, entry, older);
  } else if (command[0] == CONFIG_EXECUTE) {
    station->a_stride = command[1];
    station->c_stride = command[2];
    if (!command[5]) station->a_transpose = (int)command[3];
    EACH_OLDER(older, STORE, now)
      if (older->command[0] == MVOUT) station_wait(station, entry, older);
  }
}

static void station_load(Station *station, Entry *entry, i64 now) {
  Command command = entry->command;
  const i64 dim = station->machine->dim;
  if (command[0] == CONFIG_LOAD) {
    station->block_strides[command[1]] = command[3];
  } else if (command[0] == MVIN) {
    const i64 blocks = (command[5] + dim - 1) / dim;
    span_of(station, command[3], (blocks - 1) * station->block_strides[command[1]] + command[4], &entry->write, &entry->write_top);
    EACH_OLDER(older, EXECUTE, now)
      if (OVERLAP(older->low, older->top, entry->write, entry->write_top) ||
          OVERLAP(older->write, older->write_top, entry->write, entry->write_top))
        station_wait(station, entry, older);
    EACH_OLDER(older, STORE, now)
      if (OVERLAP(older->low, older->top, entry->write, entry->write_top)) station_wait(station, entry, older);
  }
}

static void station_store(Station *station, Entry *entry, i64 now) {
  const Machine *machine = station->machine;
  Command command = entry->command;
  if (command[0] != MVOUT) {
    station->pooling = command[0] == CONFIG_STORE && command[2];
    return;
  }
  i64 low, top;
  span_of(station, command[2], 0, &low, &top);
  if (station->pooling) {
    const i64 bank = machine->accumulator_rows / machine->accumulator_banks;
    top = ACC_SPACE + ((low - ACC_SPACE) / bank + 1) * bank;
  } else {
    top = low + ((command[4] + machine->dim - 1) / machine->dim - 1) * machine->dim + command[3];
  }
  entry->low = low;
  entry->top = top;
  EACH_OLDER(older, EXECUTE, now)
    if (OVERLAP(older->write, older->write_top, low, top) || older->command[0] == CONFIG_EXECUTE) station_wait(station, entry, older);
  EACH_OLDER(older, LOAD, now)
    if (OVERLAP(older->write, older->write_top, low, top)) station_wait(station, entry, older);
}

static void station_allocate(Station *station, Command command, i64 dram, int kind, i64 now) {
  const int slot = station->unused[--station->unused_count];
  Entry *entry = station->entries + slot;
  entry->command = command;
  entry->dram = dram;
  entry->kind = kind;
  entry->index = station->count++;
  entry->low = entry->top = entry->write = entry->write_top = 0;
  entry->pending = entry->waiting = 0;
  entry->why = -1;
  entry->ready = now + 1;
  entry->done = NEVER;
  station->open++;
  (kind == EXECUTE ? station_execute : kind == LOAD ? station_load : station_store)(station, entry, now);
  station->live[kind][station->used[kind]++] = slot;
  queue_push(&station->queues[kind], slot);
  wake(station->simulation, kind);
}

static void station_finish(Station *station, Entry *entry, i64 done) {
  entry->done = done;
  station->open--;
  station->latest = highest(station->latest, done);
  station->next_free[entry->kind] = lowest(station->next_free[entry->kind], done);
  for (int at = 0; at < entry->waiting; at++) {
    Entry *waiter = station->entries + entry->waiters[at];
    waiter->pending--;
    if (done > waiter->ready) {
      waiter->ready = done;
      waiter->why = entry->kind;
    }
    if (!waiter->pending) wake(station->simulation, waiter->kind);
  }
  entry->waiting = 0;
}
