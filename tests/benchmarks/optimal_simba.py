"""`optimal` on the 61 shapes that CoSA maps validly on Simba: EDP over CoSA's, gaps, CPU seconds.

Run: ``python tests/benchmarks/optimal_simba.py [cosa|free] [every n-th]``; a line per shape and the sums.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tilewright import loopnest as ln
from tilewright.plugins.validations.cosa import layer, load
from tilewright.protocol import registry
from tilewright.protocol.context import HostContext
from tilewright.protocol.plugin import Budget, MapRequest


def main(space: str = "cosa", step: str = "1") -> None:
    """Print the table."""
    architecture = registry.load("targets", "simba").architecture()
    ratios, gaps, seconds = [], [], []
    for record in [record for record in load(None) if record["timeloop"]["valid"]][:: int(step)]:
        operator = layer(record)
        started = time.process_time()
        request = MapRequest(operator, architecture, options={"space": space})
        *_, last = registry.load("mappers", "optimal").search(request, HostContext("mappers", "optimal", Budget()))
        seconds.append(time.process_time() - started)
        edp = ln.cost(ln.Problem(operator, architecture), last.mapping).edp
        ratios.append(edp / (record["timeloop"]["edp_Js_cyc"] * 1e12))
        gaps.append(math.inf if last.claim.gap is None else last.claim.gap)
        name = f"{record['network']}{record['layer']}"
        print(f"{name:45} {ratios[-1]:.4f} of CoSA's EDP, gap {gaps[-1]:.2%}, {seconds[-1]:.2f} CPU-s, {last.claim.kind}", flush=True)
    known = [gap for gap in gaps if gap < math.inf]
    print(
        f"{space}: {len(ratios)} shapes, geomean {math.exp(statistics.fmean(map(math.log, ratios))):.4f}, gap at most 1 % on "
        f"{sum(gap <= 0.01 for gap in gaps)}, 5 % on {sum(gap <= 0.05 for gap in gaps)}, largest {max(known):.2%}, none on "
        f"{len(gaps) - len(known)}; CPU median {statistics.median(seconds):.2f} s, largest {max(seconds):.2f} s"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
