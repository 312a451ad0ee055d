/* The timing model in C: unit by unit what the Python modules of the same names say, for speed. The same results, bit for bit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t i64;

#define NEVER ((i64)1 << 62)
#define ACCUMULATOR ((i64)1 << 31)
#define ACCUMULATE ((i64)1 << 30)
#define FULL_WIDTH ((i64)1 << 29)
#define NORM_SHIFT 26
#define NORM_MASK ((i64)7 << NORM_SHIFT)
#define GARBAGE (((i64)1 << 32) - 1)
#define ROW_MASK (((i64)1 << 26) - 1)
#define NOTHING INT64_MIN /* an address of a template that stands for zeros */

enum { LOAD, EXECUTE, STORE };
enum { A, B, D, STEPS, STORES };
enum { CONFIG_LOAD, CONFIG_STORE, CONFIG_EXECUTE, CONFIG_NORM, MVIN, MVOUT, PRELOAD, COMPUTE, LOOP };
/* As in log.py. */
enum { READ_REQUESTS, READ_BEATS, READ_BYTES, WRITE_REQUESTS, WRITE_BEATS, WRITE_BYTES, SCRATCHPAD_READ, SCRATCHPAD_WRITE,
       ACCUMULATOR_READ, ACCUMULATOR_WRITE, WEIGHT_LOAD, MAC, EVENTS };
enum { UNIT_FRONT, UNIT_LOADS, UNIT_ARRAY, UNIT_STORES };
enum { DID_LOOP, DID_MVIN, DID_STEP, DID_PRELOAD_ALONE, DID_MVOUT };
/* CAUSES of front.py, execute.py, load.py and store.py. */
enum { F_COMMAND, F_FULL, F_LOOP = F_FULL + 3, F_HOST, F_END, F_CAUSES };
enum { X_COMPUTE, X_WEIGHTS, X_CONFLICT, X_PRODUCTS, X_CONFIG, X_DRAIN, X_LOAD, X_ARRAY, X_STORE, X_COMMANDS, X_END, X_CAUSES };
enum { M_BUSY, M_REST, M_WAIT, M_NONE = M_WAIT + 2, M_END, M_CAUSES };

/* A command: its kind and what `packed.py` puts after it. */
enum { NEED = 12, WIDTH = 14 };
typedef const i64 *Command;

/* In the order of `packed.machine_words`. */
typedef struct {
  i64 dim, scratchpad_rows, scratchpad_banks, single_ported, accumulator_rows, accumulator_banks, input_bytes, accumulator_word_bytes;
  i64 entries[3], loops, in_flight, loads_in_flight, bus_bytes, request_bytes, scratchpad_read_delay, mesh_output_delay;
  i64 accumulator_scale_latency, reads_accumulator, command_interval;
  i64 latency, cache_bytes, cache_ways, line_bytes, miss_latency, tlb_entries, tlb_miss_latency, page_bytes;
} Machine;

typedef struct {
  i64 count[EVENTS], *ends, loops_ended, *spans, spans_room, spans_used;
} Log;

static i64 lowest(i64 a, i64 b) { return a < b ? a : b; }
static i64 highest(i64 a, i64 b) { return a > b ? a : b; }

static void span(Log *log, i64 unit, i64 what, i64 index, i64 rows, i64 cols, i64 start, i64 end) {
  if (log->spans_used < log->spans_room) {
    const i64 fields[7] = {unit, what, index, rows, cols, start, end};
    memcpy(log->spans + 7 * log->spans_used, fields, sizeof fields);
  }
  log->spans_used += log->spans_room > 0;
}

/* A queue of bounded length; those of the last `length` values begin with zeros. */
typedef struct {
  i64 *at, first, used, room;
} Queue;

static void queue_make(Queue *queue, i64 room, i64 zeros) {
  queue->at = calloc((size_t)room, sizeof(i64));
  queue->first = 0;
  queue->used = zeros;
  queue->room = room;
}
static i64 queue_get(const Queue *queue, i64 at) {
  const i64 where = queue->first + at;
  return queue->at[where < queue->room ? where : where - queue->room];
}
static void queue_pop(Queue *queue) {
  queue->first = queue->first + 1 == queue->room ? 0 : queue->first + 1;
  queue->used--;
}
static void queue_push(Queue *queue, i64 value) {
  if (queue->used == queue->room) queue_pop(queue);
  const i64 where = queue->first + queue->used++;
  queue->at[where < queue->room ? where : where - queue->room] = value;
}
