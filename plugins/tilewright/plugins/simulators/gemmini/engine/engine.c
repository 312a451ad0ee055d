/* Runs a program: see timing.py. Compiled and called by compiled.py. */
#include "engine.h"
#include "banks.h"
#include "memory.h"
#include "station.h"
#include "packets.h"
#include "load.h"
#include "execute.h"
#include "store.h"
#include "front.h"

enum { LOAD_AHEAD = 8 };
/* What stopped a simulation: nothing, a command that never ends, a host command that never enters. */
enum { ENDED, STUCK, NEVER_ENTERED };

typedef struct Simulation {
  Station station;
  Load load;
  Execute execute;
  Store store;
  Front front;
} Simulation;

static void wake(Simulation *simulation, int kind) {
  if (kind == LOAD)
    load_wake(&simulation->load);
  else if (kind == EXECUTE)
    execute_wake(&simulation->execute);
  else
    store_wake(&simulation->store);
}

static void release(Simulation *simulation, Channel *channel, Ports *scratchpad, Ports *accumulator) {
  Station *station = &simulation->station;
  for (int slot = 0; slot < station->slots; slot++) free(station->entries[slot].waiters);
  for (int kind = 0; kind < 3; kind++) {
    free(station->live[kind]);
    free(station->queues[kind].at);
  }
  for (int at = 0; at < CUTS; at++) cut_free(simulation->load.cuts.cut + at);
  void *held[] = {station->entries, station->unused, simulation->load.commands.at, simulation->load.flight.at, simulation->execute.visible.at,
                  simulation->execute.room.at, simulation->store.pipe.at, simulation->store.flight.at, simulation->front.loops,
                  channel->lines, channel->dirty, channel->used, channel->pages, scratchpad->taken, accumulator->taken, simulation};
  for (size_t at = 0; at < sizeof held / sizeof *held; at++) free(held[at]);
}

static void stuck(const Simulation *simulation, i64 *out) {
  const Station *station = &simulation->station;
  const Entry *entry = simulation->execute.owner;
  int kind = EXECUTE;
  for (int each = 2; each >= 0; each--)
    if (station->queues[each].used) {
      entry = station->entries + queue_get(&station->queues[each], 0);
      kind = each;
    }
  out[0] = entry->index;
  out[1] = kind;
  out[2] = entry->dram;
  memcpy(out + 3, entry->command, WIDTH * sizeof *out);
}

/* `out`: on success the last cycle, counts and causes of front end, array, loads, stores; else what is stuck. */
int tilewright_gemmini(const Machine *machine, double dram_bytes_per_cycle, const i64 *table, const Template *templates, const Item *program,
                       i64 length, i64 *out, i64 *ends, i64 *spans, i64 spans_room) {
  Log log = {{0}, ends, 0, spans, spans_room, 0};
  Channel channel;
  Ports scratchpad, accumulator;
  Simulation *simulation = calloc(1, sizeof *simulation);
  Station *station = &simulation->station;
  Load *load = &simulation->load;
  Execute *execute = &simulation->execute;
  Store *store = &simulation->store;
  Front *front = &simulation->front;
  channel_make(&channel, machine, dram_bytes_per_cycle);
  ports_make(&scratchpad, machine->scratchpad_banks);
  ports_make(&accumulator, machine->accumulator_banks);
  station_make(station, machine, simulation);
  *load = (Load){.machine = machine, .station = station, .channel = &channel, .ports = &scratchpad, .log = &log};
  load->time = NEVER;
  load->issued = load->request = -1;
  for (int state = 0; state < 3; state++) {
    load->states[state].block_stride = machine->dim;
    load->states[state].repeats = 1;
  }
  queue_make(&load->commands, machine->loads_in_flight, machine->loads_in_flight);
  queue_make(&load->flight, machine->in_flight, machine->in_flight);
  *execute = (Execute){.machine = machine, .station = station, .ports = &scratchpad, .accumulator = &accumulator, .log = &log};
  execute->window = machine->latency + LOAD_AHEAD;
  execute->time = NEVER;
  execute->issued = -1;
  execute->depth = machine->scratchpad_read_delay + 1 + 2 * machine->dim + machine->mesh_output_delay + ACCUMULATE_PIPELINE;
  execute->mesh = 2 * machine->dim + machine->mesh_output_delay + 1;
  execute->bank_rows = machine->scratchpad_rows / machine->scratchpad_banks;
  execute->accumulator_bank_rows = machine->accumulator_rows / machine->accumulator_banks;
  execute->a_stride = 1;
  queue_make(&execute->visible, machine->entries[EXECUTE], 0);
  queue_make(&execute->room, TAGS - 1, TAGS - 1);
  *store = (Store){.machine = machine, .station = station, .channel = &channel, .accumulator = &accumulator, .log = &log};
  store->window = execute->depth;
  store->time = NEVER;
  store->issued = store->read = -1;
  store->bank_rows = execute->accumulator_bank_rows;
  queue_make(&store->pipe, STORE_ROWS, STORE_ROWS);
  queue_make(&store->flight, machine->in_flight, machine->in_flight);
  *front = (Front){.machine = machine, .station = station, .log = &log, .table = table, .templates = templates, .program = program, .length = length};
  front->arrival = HOST;
  front->why = F_HOST;
  front->loops = calloc((size_t)machine->loops, sizeof(Loop));

  for (;;) {
    const i64 now = lowest(lowest(front->time, load->time), lowest(execute->time, store->time));
    if (now == NEVER) break;
    if (front->time == now) {
      front_act(front, now);
      continue;
    }
    /* writes are known some cycles back, never further */
    ports_pass(&scratchpad, now - machine->dim);
    ports_pass(&accumulator, now - machine->dim);
    if (load->time == now)
      load_act(load, now);
    else if (store->time == now)
      store_act(store, now);
    else
      execute_act(execute, now);
    front_freed(front, now);
  }
  int verdict = ENDED;
  if (station->open) {
    stuck(simulation, out);
    verdict = STUCK;
  } else if (front->position < front->length || front->used) {
    out[0] = front->position;
    verdict = NEVER_ENTERED;
  } else {
    const i64 last = highest(highest(store->acknowledged, execute->drained), station->latest);
    load->causes[M_BUSY] = lowest(load->causes[M_BUSY], load->in_flight);
    load->causes[M_REST] = load->in_flight - load->causes[M_BUSY];
    store->causes[M_BUSY] = lowest(store->causes[M_BUSY], store->in_flight);
    store->causes[M_REST] = store->in_flight - store->causes[M_BUSY];
    front->causes[F_END] -= front->until;
    execute->causes[X_END] = -execute->free;
    load->causes[M_END] = -load->until;
    store->causes[M_END] = -store->until;
    *out++ = last;
    *out++ = log.spans_used;
    memcpy(out, log.count, sizeof log.count);
    out += EVENTS;
    memcpy(out, front->causes, sizeof front->causes);
    out += F_CAUSES;
    memcpy(out, execute->causes, sizeof execute->causes);
    out += X_CAUSES;
    memcpy(out, load->causes, sizeof load->causes);
    out += M_CAUSES;
    memcpy(out, store->causes, sizeof store->causes);
  }
  release(simulation, &channel, &scratchpad, &accumulator);
  return verdict;
}
