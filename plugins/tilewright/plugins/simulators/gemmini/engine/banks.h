/* Ports of banked memories: which cycles from `floor` on are taken, in a ring. */
typedef struct {
  uint8_t *taken; /* banks x size */
  i64 banks, size, floor;
} Ports;

static void ports_make(Ports *ports, i64 banks) {
  ports->banks = banks;
  ports->size = 1 << 12;
  ports->floor = 0;
  ports->taken = calloc((size_t)(banks * ports->size), 1);
}

/* Cycles before `now` are past. */
static void ports_pass(Ports *ports, i64 now) {
  i64 count = now - ports->floor;
  if (count <= 0) return;
  const i64 mask = ports->size - 1;
  if (count > ports->size) count = ports->size;
  const i64 from = ports->floor & mask, first = lowest(count, ports->size - from);
  for (i64 bank = 0; bank < ports->banks; bank++) {
    memset(ports->taken + bank * ports->size + from, 0, (size_t)first);
    memset(ports->taken + bank * ports->size, 0, (size_t)(count - first));
  }
  ports->floor = now;
}

/* Make the record cover `cycle`. */
static void ports_reach(Ports *ports, i64 cycle) {
  if (cycle - ports->floor < ports->size) return;
  i64 size = ports->size;
  while (cycle - ports->floor >= size) size *= 2;
  uint8_t *taken = calloc((size_t)(ports->banks * size), 1);
  for (i64 bank = 0; bank < ports->banks; bank++)
    for (i64 at = ports->floor; at < ports->floor + ports->size; at++)
      taken[bank * size + (at & (size - 1))] = ports->taken[bank * ports->size + (at & (ports->size - 1))];
  free(ports->taken);
  ports->taken = taken;
  ports->size = size;
}

static int ports_busy(const Ports *ports, i64 bank, i64 cycle) { return ports->taken[bank * ports->size + (cycle & (ports->size - 1))]; }

static void ports_take(Ports *ports, i64 bank, i64 cycle, i64 count) {
  for (i64 at = highest(cycle, ports->floor); at < cycle + count; at++) ports->taken[bank * ports->size + (at & (ports->size - 1))] = 1;
}

/* Any cycle of [from, to) taken? */
static int ports_any(const Ports *ports, i64 bank, i64 from, i64 to) {
  for (i64 at = from; at < to; at++)
    if (ports_busy(ports, bank, at)) return 1;
  return 0;
}
