"""Register tiles alone, operands in the L1 cache, against the multiply-add peak measured beside them (the paper's figure 13).

    python tests/benchmarks/bench_microkernel.py [--target avx512] [--tile 9x48] [--edges] [--rounds 15]

Without --edges: the largest tiles of 1 to 4 vectors. With it: every smaller tile of --tile too. One program, interleaved rounds,
CPU time of the thread; the peak is a loop of independent multiply-adds on registers only. Pin it: `taskset -c 1 python ...`.
"""

from __future__ import annotations

import argparse
import os
import statistics

from tilewright.plugins.emitters.native import Native
from tilewright.plugins.emitters.native.measure import native_toolchain
from tilewright.plugins.emitters.native.numbers import FORMATS
from tilewright.plugins.emitters.native.schedule import Tile
from tilewright.plugins.emitters.native.source import generate
from tilewright.plugins.emitters.native.tiles import largest_tiles, multiplier
from tilewright.plugins.emitters.native.toolchain import build_and_run, cpu
from tilewright.protocol import registry
from tilewright.protocol.plugin import EmitRequest
from tilewright.protocol.workload import matmul

DEPTH = 192
PROGRAM = """
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>
#include "kernel.c"
enum {{ DEPTH = {depth}, ROUNDS = {rounds}, TIMES = {times}, INDEPENDENT = {independent} }};
static _Alignas(4096) item a[64 * DEPTH], b[128 * DEPTH];
static _Alignas(4096) result c[64 * 128];
_Alignas(64) result sink[INDEPENDENT * 64];
static double seconds(void) {{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}}
static __attribute__((noinline)) void peak(ptrdiff_t k) {{
    {declare}
    for (ptrdiff_t p = 0; p < k; ++p) {{ {fmas} }}
    {stores}
}}
int main(void) {{
    static const int tiles[][2] = {{{tiles}}};
    for (size_t i = 0; i < sizeof a / sizeof *a; ++i) a[i] = (item)1e-3f;
    for (size_t i = 0; i < sizeof b / sizeof *b; ++i) b[i] = (item)1e-3f;
    for (int r = 0; r < ROUNDS; ++r) {{
        double start = seconds();
        for (int t = 0; t < TIMES; ++t) peak(DEPTH);
        printf("peak %.9g", (seconds() - start) / TIMES);
        for (size_t i = 0; i < sizeof tiles / sizeof *tiles; ++i) {{
            const int rows = tiles[i][0], vectors = tiles[i][1];
            start = seconds();
            for (int t = 0; t < TIMES; ++t)
                kernels[rows - 1][vectors - 1][0](DEPTH, a, 1, rows, b, vectors * LANES, c, vectors * LANES, 1, LANES, 0, 0);
            printf(" %.9g", (seconds() - start) / TIMES);
        }}
        printf("\\n");
    }}
    return 0;
}}
"""


def main() -> None:
    """Time the tiles and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="avx2")
    parser.add_argument("--tile", default="")
    parser.add_argument("--edges", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    said = parser.parse_args()
    library, numbers = registry.load("targets", said.target).instructions(), FORMATS["f32"]
    lanes = library.lanes["f32"]
    biggest = list(largest_tiles(library, numbers, 4))
    if said.tile:
        rows, columns = map(int, said.tile.split("x"))
        biggest = [Tile(rows, columns // lanes)]
    print(f"{cpu()}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for big in biggest:
        tiles = [Tile(rows, v) for rows in range(big.rows, 0, -1) for v in range(big.vectors, 0, -1)] if said.edges else [big]
        time_tiles(big, tiles, said.target, said.rounds)


def time_tiles(big: Tile, tiles: list[Tile], target: str, rounds: int) -> None:
    """One program for the kernels of one family."""
    library, numbers = registry.load("targets", target).instructions(), FORMATS["f32"]
    lanes, fma = library.lanes["f32"], multiplier(library, numbers)
    request = EmitRequest(matmul(p=500, c=64, k=500, bits=32), target, options={"tile": f"{big.rows}x{big.columns(lanes)}"})
    plan = Native().plan(request, library)
    code = generate(plan)
    file = library.register_file("vector")
    independent = 12
    names = [f"r{i}" for i in range(independent)]
    load, store = (next(each for each in library.instructions if each.name == f"{what}_f32") for what in ("load", "store"))
    text = PROGRAM.format(
        depth=DEPTH,
        rounds=rounds,
        times=3000,
        independent=independent,
        declare=f"{file.c_types['f32']} x, y, {', '.join(names)}; "
        + " ".join(load.template.format(dst=name, src=f"b + {64 * at}") for at, name in enumerate((*names, "x", "y"))),
        fmas=" ".join(fma.template.format(acc=name, a="x", b="y") for name in names),
        stores=" ".join(store.template.format(dst=f"sink + {64 * at}", src=name) for at, name in enumerate(names)),
        tiles=", ".join(f"{{{each.rows}, {each.vectors}}}" for each in tiles),
    )
    files = {"kernel.c": code.source, f"{plan.name}.h": code.header, "main.c": text}
    outcome = build_and_run(native_toolchain(plan), files, ("main.c",), libraries=("-DNDEBUG",))
    if outcome.returncode:
        raise SystemExit(outcome.error)
    rows = [[float(word) for word in line.split()[1:]] for line in outcome.output.decode().splitlines()]
    peak = statistics.median(2e-9 * independent * lanes * DEPTH / row[0] for row in rows)
    print(f"peak {peak:.1f} GFLOP/s")
    for at, tile in enumerate(tiles, start=1):
        flops = 2e-9 * tile.rows * tile.columns(lanes) * DEPTH
        shares = sorted(row[0] / row[at] * tile.rows * tile.vectors / independent for row in rows)
        middle = statistics.median(flops / row[at] for row in rows)
        low, high = shares[1], shares[-2]
        name = f"{tile.rows:2}x{tile.columns(lanes):<3}"
        print(f"  {name} {middle:6.1f}  {statistics.median(shares):.3f} of peak [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
