/* The execute controller and the array: see execute.py. */
enum { LEAST = 4, TAGS = 6, ACCUMULATE_PIPELINE = 4 };

/* A step in progress. */
typedef struct {
  i64 start, cycle, held, a, d, a_rows, d_rows, rows, a_done, d_done;
  Entry *compute, *preload;
} Step;

typedef struct {
  const Machine *machine;
  Station *station;
  Ports *ports, *accumulator;
  Log *log;
  i64 window, time, depth, causes[X_CAUSES], issued, free, drained, mesh, bank_rows, accumulator_bank_rows;
  Queue visible, room;
  Command target;
  Entry *owner;
  i64 a_stride, a_transpose, b_transpose;
  int stepping;
  Step step;
} Execute;

static void execute_wake(Execute *execute) {
  Station *station = execute->station;
  Queue *queue = &station->queues[EXECUTE], *visible = &execute->visible;
  while (visible->used < queue->used) {
    const Entry *entry = station_head(station, EXECUTE, visible->used);
    if (entry->pending) break;
    execute->issued = highest(entry->ready, execute->issued + 1);
    queue_push(visible, execute->issued + 1);
  }
  if (execute->stepping) return;
  execute->time = NEVER;
  if (!visible->used) return;
  const i64 kind = station_head(station, EXECUTE, 0)->command[0];
  if (kind == PRELOAD) {
    if (visible->used > 1) execute->time = highest(queue_get(visible, 1), execute->free);
  } else {
    execute->time = highest(queue_get(visible, 0), execute->free);
    if (kind == CONFIG_EXECUTE) execute->time = highest(execute->time, execute->drained + 1);
  }
}

static void execute_pop(Execute *execute) {
  queue_pop(&execute->station->queues[EXECUTE]);
  queue_pop(&execute->visible);
}

static void execute_begin(Execute *execute, Entry *entry, i64 now) {
  const Machine *machine = execute->machine;
  Step *step = &execute->step;
  *step = (Step){.start = now, .cycle = now, .a = -1, .d = -1};
  if (entry->command[0] == PRELOAD) {
    step->preload = entry;
  } else {
    step->compute = entry;
    const i64 ahead = machine->reads_accumulator ? 2 : 1;
    if (ahead < execute->visible.used && queue_get(&execute->visible, ahead) <= now) {
      Entry *next = station_head(execute->station, EXECUTE, 1);
      if (next->command[0] == PRELOAD) {
        step->preload = next;
        execute_pop(execute);
      }
    }
  }
  execute_pop(execute);
  i64 rows = LEAST;
  if (step->compute) {
    Command compute = step->compute->command;
    step->a_rows = execute->a_transpose ? compute[3] : compute[2];
    rows = highest(rows, step->a_rows);
    if (compute[1] != GARBAGE) step->a = (compute[1] & ROW_MASK) % machine->scratchpad_rows;
  }
  if (step->preload) {
    Command preload = step->preload->command;
    if (preload[1] != GARBAGE) {
      step->d = (preload[1] & ROW_MASK) % machine->scratchpad_rows;
      step->d_rows = execute->b_transpose ? preload[3] : preload[2];
      rows = machine->dim;
    }
  }
  step->rows = execute->a_transpose || execute->b_transpose ? machine->dim : rows;
}

/* Cycle in which the last rows are read; -1 when that lies beyond what is known. */
static i64 execute_scan(Execute *execute, i64 now) {
  const Machine *machine = execute->machine;
  const Ports *ports = execute->ports;
  Step *step = &execute->step;
  const i64 rows = step->rows, limit = now + execute->window, bank_rows = execute->bank_rows, stride = execute->a_stride, dim = machine->dim;
  const int single = (int)machine->single_ported;
  i64 time = step->cycle, i = step->a_done, j = step->d_done;
  ports_reach(execute->ports, limit + rows);
  if (i == 0 && j == 0 && time + rows <= limit) {
    const i64 a_bank = step->a >= 0 ? step->a / bank_rows : -1, d_bank = step->d >= 0 ? step->d / bank_rows : -2;
    const int same = a_bank == d_bank || (step->a >= 0 && (step->a + (rows - 1) * stride) / bank_rows != a_bank) ||
                     (step->d >= 0 && (step->d + dim - 1) / bank_rows != d_bank);
    if (!same && (!single || ((a_bank < 0 || !ports_any(ports, a_bank, time, time + rows)) &&
                              (d_bank < 0 || !ports_any(ports, d_bank, time, time + rows)))))
      return time + rows - 1;
  }
  const i64 banks = machine->scratchpad_banks, d_first = dim - step->d_rows;
  while (i < rows || j < rows) {
    if (time >= limit) {
      step->a_done = i;
      step->d_done = j;
      step->cycle = time;
      return -1;
    }
    const i64 a_bank = step->a >= 0 ? (step->a + i * stride) / bank_rows % banks : -1;
    const i64 d_bank = step->d >= 0 ? (step->d + dim - 1 - j) / bank_rows % banks : -2;
    const int a_may = i < rows && i != j + 1 && !(single && a_bank >= 0 && i < step->a_rows && ports_busy(ports, a_bank, time));
    int d_may = j < rows && j != i + 1 && !(single && d_bank >= 0 && j >= d_first && ports_busy(ports, d_bank, time));
    if (i == j && a_bank == d_bank) d_may = 0;
    i += a_may;
    j += d_may;
    time++;
  }
  return time - 1;
}

static void execute_end(Execute *execute, i64 last) {
  const Machine *machine = execute->machine;
  Station *station = execute->station;
  Step *step = &execute->step;
  i64 *count = execute->log->count;
  execute->free = last + 1;
  execute->causes[X_COMPUTE] += step->a_rows;
  execute->causes[X_WEIGHTS] += step->rows - step->a_rows;
  execute->causes[X_PRODUCTS] += step->held;
  execute->causes[X_CONFLICT] += last - step->start + 1 - step->held - step->rows;
  span(execute->log, UNIT_ARRAY, step->compute ? DID_STEP : DID_PRELOAD_ALONE, (step->compute ? step->compute : step->preload)->index,
       step->rows, machine->dim, step->start, last + 1);
  if (step->compute) {
    Command compute = step->compute->command;
    station_finish(station, step->compute, last + 2);
    if (step->a >= 0) count[SCRATCHPAD_READ] += step->a_rows;
    if (execute->owner) {
      Command target = execute->target;
      const i64 out = last + execute->depth;
      execute->drained = out;
      if (target[4] != GARBAGE) {
        const i64 rows = target[5];
        count[MAC] += step->a_rows * compute[3] * target[6];
        if (target[4] & ACCUMULATOR) {
          count[ACCUMULATOR_WRITE] += rows;
          if (target[4] & ACCUMULATE) {
            count[ACCUMULATOR_READ] += rows;
            ports_reach(execute->accumulator, out + rows);
            ports_take(execute->accumulator, (target[4] & ROW_MASK) / execute->accumulator_bank_rows % machine->accumulator_banks,
                       out - step->rows + 1, rows);
          }
        } else {
          count[SCRATCHPAD_WRITE] += rows;
        }
        station_finish(station, execute->owner, out + 1);
      }
      execute->owner = 0;
    }
  }
  if (step->preload) {
    Command preload = step->preload->command;
    if (step->d >= 0) {
      count[SCRATCHPAD_READ] += step->d_rows;
      count[WEIGHT_LOAD] += step->d_rows * machine->dim;
    }
    if (preload[4] == GARBAGE) {
      station_finish(station, step->preload, last + 3);
    } else {
      execute->owner = step->preload;
      execute->target = preload;
    }
  }
}

static void execute_act(Execute *execute, i64 now) {
  if (!execute->stepping) {
    Entry *entry = station_head(execute->station, EXECUTE, 0);
    const int config = entry->command[0] == CONFIG_EXECUTE;
    if (now > execute->free) {
      const int drains = config && execute->drained >= execute->free;
      execute->causes[drains ? X_DRAIN : entry->why < 0 ? X_COMMANDS : X_LOAD + entry->why] += now - execute->free;
    }
    if (config) {
      Command command = entry->command;
      execute->a_stride = command[1];
      if (!command[5]) {
        execute->a_transpose = command[3];
        execute->b_transpose = command[4];
      }
      execute_pop(execute);
      execute->free = now + 1;
      execute->causes[X_CONFIG]++;
      station_finish(execute->station, entry, now + 1);
      execute_wake(execute);
      return;
    }
    execute_begin(execute, entry, now);
    execute->stepping = 1;
    const i64 room = queue_get(&execute->room, 0);
    if (room > now) {
      execute->step.cycle = execute->time = room;
      execute->step.held = room - now;
      return;
    }
  }
  const i64 last = execute_scan(execute, now);
  if (last < 0) {
    execute->time = execute->step.cycle;
    return;
  }
  execute->stepping = 0;
  queue_push(&execute->room, last + execute->mesh);
  execute_end(execute, last);
  execute_wake(execute);
}
