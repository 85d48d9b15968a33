"""``python -m tests.fuzz.run [COUNT]``: damaged inputs through the command line, and a table of what became of them."""

from __future__ import annotations

import argparse
import functools
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.fuzz.frame import Verdict, kinds, try_one
from tests.fuzz.server import Server


@functools.cache
def _server() -> Server:
    return Server()


def _one(seed: int, only: str, keep: Path | None, number: int) -> Verdict:
    """Try one input, in a worker; keep the folder of a fault where ``keep`` says."""
    folder = Path(tempfile.mkdtemp(prefix="vis2img-fuzz-")) if keep is None else keep / str(number)
    verdict = None
    try:
        verdict = try_one(_server(), seed, number, folder / "case", only)
        return verdict
    finally:
        if keep is None or (verdict is not None and not verdict.faulty):
            shutil.rmtree(folder, ignore_errors=True)


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the counts by kind and outcome, as Markdown."""
    counts = Counter((each.kind, each.outcome) for each in verdicts)
    faults = sorted({outcome for _, outcome in counts} - {"done", "refused"})
    rows = [["kind", "inputs", "done", "refused in one line", *(faults or ["faults"])]]
    names = [each.name for each in kinds() if any(name == each.name for name, _ in counts)]
    for name in [*names, "all"]:
        of = [counts[name, what] for what in ("done", "refused", *faults)]
        if name == "all":
            of = [sum(n for (_, had), n in counts.items() if had == what) for what in ("done", "refused", *faults)]
        rows.append([name, f"{sum(of):,}", *(f"{n:,}" for n in of), *([] if faults else ["0"])])
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Run the fuzzer; the exit status is 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=3000)
    parser.add_argument("--seed", type=int, default=None, help="default: another each time")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", default="", help="kinds whose name begins so")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=None, help="folder for the inputs of faults")
    args = parser.parse_args()
    seed = secrets.randbelow(10**6) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)

    start, verdicts = time.monotonic(), []
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        numbers = range(args.start, args.start + args.count)
        for verdict in pool.map(functools.partial(_one, seed, args.only, args.keep), numbers):
            verdicts.append(verdict)
            if verdict.faulty:
                print(
                    f"{verdict.number}: {verdict.outcome}: {verdict.kind}: {verdict.what}\n  {verdict.words}",
                    flush=True,
                )

    slowest = max(verdicts, key=lambda each: each.seconds)
    print(f"\n{table(verdicts)}\n")
    print(f"{len(verdicts):,} inputs in {time.monotonic() - start:.0f} s, seed {seed}; slowest {slowest.seconds:.1f} s")
    return int(any(each.faulty for each in verdicts))


if __name__ == "__main__":
    sys.exit(main())
