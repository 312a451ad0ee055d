/* Memory as the DMA sees it: see memory.py. */
typedef struct {
  const Machine *machine;
  i64 free, worst, sets, *lines; /* sets x ways: line, oldest first */
  i64 *used;
  uint8_t *dirty;
  i64 *pages, pages_used; /* of the TLB, oldest first */
  double dram, transfer;
} Channel;

static void channel_make(Channel *channel, const Machine *machine, double dram_bytes_per_cycle) {
  channel->machine = machine;
  channel->free = 0;
  channel->transfer = (double)machine->line_bytes / dram_bytes_per_cycle;
  channel->worst = machine->latency + (machine->cache_bytes ? machine->miss_latency + (i64)channel->transfer : 0);
  channel->sets = machine->cache_bytes / (machine->cache_ways * machine->line_bytes);
  channel->lines = calloc((size_t)(channel->sets * machine->cache_ways + 1), sizeof(i64));
  channel->dirty = calloc((size_t)(channel->sets * machine->cache_ways + 1), 1);
  channel->used = calloc((size_t)channel->sets + 1, sizeof(i64));
  channel->dram = 0;
  channel->pages = calloc((size_t)machine->tlb_entries + 1, sizeof(i64));
  channel->pages_used = 0;
}

static void channel_move(Channel *channel, i64 sent) {
  if (channel->dram < (double)sent) channel->dram = (double)sent;
  channel->dram += channel->transfer;
}

static i64 channel_access(Channel *channel, i64 address, i64 sent, int write, int whole) {
  const Machine *machine = channel->machine;
  const i64 ways = machine->cache_ways, line = address / machine->line_bytes, set = line % channel->sets;
  i64 *lines = channel->lines + set * ways, *used = channel->used + set;
  uint8_t *dirty = channel->dirty + set * ways;
  i64 at = 0;
  while (at < *used && lines[at] != line) at++;
  const int hit = at < *used;
  int was_dirty = hit ? dirty[at] : 0;
  if (!hit && *used >= ways) {
    if (dirty[0]) channel_move(channel, sent);
    at = 0;
  }
  if (hit || *used >= ways) { /* the others move up */
    memmove(lines + at, lines + at + 1, (size_t)(*used - at - 1) * sizeof *lines);
    memmove(dirty + at, dirty + at + 1, (size_t)(*used - at - 1));
    --*used;
  }
  lines[*used] = line;
  dirty[*used] = (uint8_t)(was_dirty || write);
  ++*used;
  if (hit || whole) return sent + machine->latency;
  channel_move(channel, sent);
  return highest(sent + machine->latency + machine->miss_latency, (i64)channel->dram + machine->latency);
}

static i64 channel_answer(Channel *channel, i64 address, i64 sent) {
  return channel->sets ? channel_access(channel, address, sent, 0, 0) : sent + channel->machine->latency;
}

static i64 channel_translate(Channel *channel, i64 address) {
  const Machine *machine = channel->machine;
  if (!machine->tlb_entries) return 0;
  const i64 page = address / machine->page_bytes;
  i64 at = 0, *pages = channel->pages;
  while (at < channel->pages_used && pages[at] != page) at++;
  const int known = at < channel->pages_used;
  if (!known && channel->pages_used == machine->tlb_entries) at = 0;
  if (at < channel->pages_used) memmove(pages + at, pages + at + 1, (size_t)(--channel->pages_used - at) * sizeof *pages);
  pages[channel->pages_used++] = page;
  return known ? 0 : machine->tlb_miss_latency;
}

static i64 channel_acknowledge(Channel *channel, i64 address, i64 size, i64 sent) {
  const Machine *machine = channel->machine;
  const i64 at = channel->sets ? channel_access(channel, address, sent, 1, size >= machine->line_bytes) : sent + machine->latency;
  if (at <= channel->free) channel->free++;
  return at;
}
