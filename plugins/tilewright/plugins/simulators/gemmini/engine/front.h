/* The front end: see front.py. */
enum { HOST = 3, RETIRE = 3, QUEUE = 1, CONV_PIPELINE = 2 };

/* Streams of a loop whose operands lie at 0: where each begins in the table of commands, and how long it is. */
typedef struct {
  i64 first[5], size[5], conv;
} Template;

/* A command of the host: a command of the table, or a loop. */
typedef struct {
  i64 template_, command, base[4] /* a b d c */;
} Item;

typedef struct {
  const Template *template_;
  const i64 *base;
  i64 configured, retire, index, at[5], fire[5];
} Loop;

typedef struct {
  const Machine *machine;
  Station *station;
  Log *log;
  const i64 *table;
  const Template *templates;
  const Item *program;
  i64 length, position, time, arrival, idle[5], causes[F_CAUSES], until;
  int why, blocked_count, blocked[3];
  Loop *loops, *active[5];
  i64 first, used; /* ring of loops */
} Front;

static Loop *front_loop(const Front *front, i64 at) { return front->loops + (front->first + at) % front->machine->loops; }

static void front_block(Front *front, int kind) { front->blocked[front->blocked_count++] = kind; }

static void front_retire(Front *front, Loop *loop, i64 now) {
  loop->retire = now + RETIRE;
  front->log->ends[front->log->loops_ended++] = loop->retire;
  span(front->log, UNIT_FRONT, DID_LOOP, loop->index, 0, 0, loop->configured, loop->retire);
}

/* Let every generator that is idle take its next loop. */
static void front_start(Front *front) {
  for (i64 which = 0; which < front->used; which++) {
    Loop *loop = front_loop(front, which);
    i64 *fire = loop->fire;
    for (int generator = 0; generator < 5; generator++) {
      if (fire[generator] != NEVER || front->idle[generator] == NEVER) continue;
      i64 at = highest(loop->configured, front->idle[generator]);
      if (generator == STEPS) {
        if (fire[A] == NEVER || fire[B] == NEVER || fire[D] == NEVER) continue;
        at = highest(highest(at, fire[A] + 1), highest(fire[B] + 1, fire[D] + 1));
      } else if (generator == STORES) {
        if (fire[STEPS] == NEVER) continue;
        at = highest(at, fire[STEPS] + 1);
      }
      fire[generator] = at;
      if (loop->template_->size[generator]) {
        front->idle[generator] = NEVER;
        front->active[generator] = loop;
      } else {
        front->idle[generator] = at + 1;
      }
    }
  }
}

static Command front_command(const Front *front, const Loop *loop, int generator) {
  return front->table + WIDTH * (loop->template_->first[generator] + loop->at[generator]);
}

static void front_put(Front *front, Loop *loop, int generator, int kind, i64 now) {
  static const int operand[5] = {0, 1, 2, 0, 3};
  Command command = front_command(front, loop, generator);
  i64 dram = 0;
  if (command[0] == MVIN || command[0] == MVOUT) {
    const i64 offset = command[command[0] == MVIN ? 2 : 1];
    if (offset != NOTHING) dram = loop->base[operand[generator]] + offset;
  }
  station_allocate(front->station, command, dram, kind, now + QUEUE);
  if (++loop->at[generator] != loop->template_->size[generator]) return;
  front->idle[generator] = now + 1 + CONV_PIPELINE * loop->template_->conv;
  front->active[generator] = 0;
  front_start(front);
  if (!memcmp(loop->at, loop->template_->size, sizeof loop->at)) front_retire(front, loop, now);
}

/* Take the host's next loop. */
static void front_configure(Front *front, i64 now) {
  const Machine *machine = front->machine;
  const Item *item = front->program + front->position;
  if (item->template_ < 0) return;
  const Template *template_ = front->templates + item->template_;
  if (front->used && front_loop(front, 0)->template_->conv != template_->conv) return;
  const i64 parts = template_->conv ? 7 : 6;
  i64 ready = highest(front->arrival + (parts - 1) * machine->command_interval, now + parts);
  if (front->used) {
    const i64 last = front_loop(front, front->used - 1)->configured;
    if (last > now) ready = highest(ready, last + (parts - 1) * machine->command_interval);
  }
  Loop *loop = front_loop(front, front->used++);
  *loop = (Loop){template_, item->base, ready + CONV_PIPELINE * template_->conv, NEVER, front->position, {0}, {NEVER, NEVER, NEVER, NEVER, NEVER}};
  front->position++;
  front->arrival = ready + machine->command_interval;
  front_start(front);
  if (!memcmp(loop->at, template_->size, sizeof loop->at)) front_retire(front, loop, ready);
}

/* A command of the host that is not part of a loop. */
static int front_direct(Front *front, i64 now) {
  if (front->position >= front->length || front->arrival > now) return 0;
  const Item *item = front->program + front->position;
  if (item->template_ >= 0) return 0;
  Command command = front->table + WIDTH * item->command;
  const i64 type = command[0];
  const int kind = type == MVIN || type == CONFIG_LOAD ? LOAD : type == PRELOAD || type == COMPUTE || type == CONFIG_EXECUTE ? EXECUTE : STORE;
  if (station_full(front->station, kind)) {
    front_block(front, kind);
    return 0;
  }
  station_allocate(front->station, command, type == MVIN ? command[2] : type == MVOUT ? command[1] : 0, kind, now + QUEUE);
  front->position++;
  front->arrival = now + front->machine->command_interval;
  return 1;
}

/* Bias first, then weights, then inputs; the next loop loads nothing before this one has all. */
static int front_load_conv(Front *front, i64 now) {
  static const int order[3] = {D, B, A};
  for (i64 which = 0; which < front->used; which++) {
    Loop *loop = front_loop(front, which);
    const i64 *size = loop->template_->size;
    for (int at = 0; at < 3; at++)
      if (loop->at[order[at]] < size[order[at]] && loop->fire[order[at]] < now) {
        front_put(front, loop, order[at], LOAD, now);
        return 1;
      }
    for (int at = 0; at < 3; at++)
      if (loop->at[at] < size[at]) return 0;
  }
  return 0;
}

/* A and B take turns so that neither runs ahead in k; a loop that is behind goes first. */
static int front_load_matmul(Front *front, i64 now) {
  Loop *a = front->active[A], *b = front->active[B];
  if (a && a->fire[A] >= now) a = 0;
  if (b && b->fire[B] >= now) b = 0;
  if (!a && !b) return 0;
  Loop *head = front_loop(front, 0), *tail = front_loop(front, front->used - 1);
  if (a && b) {
    int take_a;
    if (a != b)
      take_a = a == head;
    else
      take_a = !(front_command(front, a, A)[NEED] > front_command(front, b, B)[NEED] || b->at[B] == 0);
    if (take_a)
      b = 0;
    else
      a = 0;
  } else if (head != tail) {
    const int other = a ? B : A;
    if (head->at[other] < head->template_->size[other] && (a ? a : b) == tail) return 0;
  }
  if (a)
    front_put(front, a, A, LOAD, now);
  else
    front_put(front, b, B, LOAD, now);
  return 1;
}

static int front_emit(Front *front, i64 now) {
  Station *station = front->station;
  if (front->position < front->length && front->used < front->machine->loops && front->arrival <= now) front_configure(front, now);
  if (!front->used) return front_direct(front, now);
  Loop *loop = front->active[STORES];
  if (loop && loop->fire[STORES] < now) {
    const i64 sent = loop->template_->size[STEPS] ? loop->at[STEPS] >> 1 : loop->at[B];
    if (sent >= front_command(front, loop, STORES)[NEED]) {
      if (!station_full(station, STORE)) {
        front_put(front, loop, STORES, STORE, now);
        return 1;
      }
      front_block(front, STORE);
    }
  }
  loop = front->active[STEPS];
  if (loop && loop->fire[STEPS] < now) {
    Command command = front_command(front, loop, STEPS);
    if (loop->at[A] >= command[NEED] && loop->at[B] >= command[NEED + 1] && loop->at[D] >= loop->template_->size[D]) {
      if (!station_full(station, EXECUTE)) {
        front_put(front, loop, STEPS, EXECUTE, now);
        return 1;
      }
      front_block(front, EXECUTE);
    }
  }
  if (!front->active[A] && !front->active[B] && !front->active[D]) return 0;
  if (station_full(station, LOAD)) {
    front_block(front, LOAD);
    return 0;
  }
  if (front_loop(front, 0)->template_->conv) return front_load_conv(front, now);
  loop = front->active[D];
  if (loop && loop->fire[D] < now) {
    front_put(front, loop, D, LOAD, now);
    return 1;
  }
  return front_load_matmul(front, now);
}

/* Earliest cycle in which anything may change, as far as is known. */
static i64 front_later(const Front *front, i64 now) {
  i64 time = NEVER;
  for (int at = 0; at < front->blocked_count; at++) {
    const i64 free = front->station->next_free[front->blocked[at]];
    if (now < free) time = lowest(time, free);
  }
  if (now < front->arrival && front->position < front->length) time = lowest(time, front->arrival);
  for (i64 which = 0; which < front->used; which++) {
    const i64 retire = front_loop(front, which)->retire;
    if (now < retire) time = lowest(time, retire);
  }
  for (int generator = 0; generator < 5; generator++) {
    const Loop *loop = front->active[generator];
    if (loop && now <= loop->fire[generator] && loop->fire[generator] < time) time = loop->fire[generator] + 1;
  }
  return time;
}

static void front_act(Front *front, i64 now) {
  front->causes[front->why] += now - front->until;
  front->until = now;
  station_settle(front->station, now);
  while (front->used && front_loop(front, 0)->retire <= now) {
    front->first = (front->first + 1) % front->machine->loops;
    front->used--;
  }
  front->blocked_count = 0;
  if (front_emit(front, now)) {
    front->time = now + 1;
    front->why = F_COMMAND;
    return;
  }
  front->time = front_later(front, now);
  if (front->blocked_count)
    front->why = F_FULL + front->blocked[0];
  else
    front->why = front->used ? F_LOOP : front->position >= front->length ? F_END : F_HOST;
}

/* Entries became free, or will: look again when that helps. */
static void front_freed(Front *front, i64 now) {
  for (int at = 0; at < front->blocked_count; at++) {
    const i64 free = front->station->next_free[front->blocked[at]];
    if (free < front->time) front->time = highest(now + 1, free);
  }
}
