"""Compare ways to average visibilities: what they cost, and how far the facet's image is off.

python benchmarks/averaging.py obs.ms --npix 1024 --pixsize 2 --offset 0.25,0.2

The measurement set gives uvw, times and frequencies; the sky is 30 point sources all over the facet, so that the error
is that of averaging, not of noise. Errors are relative L2 over the whole facet against the image of
the rotated data that were not averaged. With --speed the data themselves are streamed, imaged and timed, reading
included. With --memory 1GB, `vis2img average` runs on the data in a process of its own with that limit, and the
most resident memory that the process had is printed; --copies 3 first makes a set of three in a row, in time, for it.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import numpy as np

from vis2img.averaging.cells import CellTable
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.averaging.store import read_averaged
from vis2img.coordinates import direction_cosines, sky_position
from vis2img.dataset import open_ms
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.rotation import rotate
from vis2img.ms.selection import Selection
from vis2img.units import parse_bytes
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

WEIGHTINGS = ("natural", "briggs", "uniform")
_PIECE = 100_000  # rows given to a table at once
_RUNS = 5


@dataclass(frozen=True)
class Scheme(AveragingParams):
    """Cells of 1 / k of the density grid: one mean to a cell, or nodes; with or without w in their key."""

    k: int = 2
    w_cells: bool = True
    mean_only: bool = False
    corrected: bool = False

    @property
    def divisions(self) -> int:
        """Cells to a side of a density cell."""
        return self.k

    @property
    def least_spread(self) -> float:
        """Spread of samples, in cells, that makes a second node."""
        return math.inf if self.mean_only else super().least_spread

    @property
    def cell(self) -> tuple[float, float, float]:
        """Cell size in wavelengths."""
        u, v, w = super().cell
        return u, v, w if self.w_cells else 1e9


@numba.njit(cache=True)
def _predict(uvw, scale, lmn, flux, out):
    for row in range(len(uvw)):
        for chan in range(len(scale)):
            total = 0j
            for s in range(len(flux)):
                path = uvw[row, 0] * lmn[s, 0] + uvw[row, 1] * lmn[s, 1] + uvw[row, 2] * lmn[s, 2]
                turns = path * scale[chan]
                total += flux[s] * np.exp(2j * math.pi * (turns - np.rint(turns)))
            out[row, chan] = total


def facet_sky(vis: Visibilities, params: AveragingParams) -> Visibilities:
    """Return ``vis`` with point sources all over the facet, four of them near its corners."""
    rng = np.random.default_rng(1)
    half = np.array(params.npix) * params.pixsize / 2
    at = rng.uniform(-0.97, 0.97, (30, 2)) * half
    at[:4] = 0.95 * half * np.array([[1, 1], [-1, 0.95], [0.93, -1], [-0.97, -0.96]])
    lmn = direction_cosines(*sky_position(at[:, 0], at[:, 1], params.phase_centre), vis.phase_centre)
    lmn[:, 2] -= 1
    out = np.empty_like(vis.vis)
    _predict(vis.uvw, vis.chan_freq / SPEED_OF_LIGHT, lmn, rng.lognormal(size=30), out)
    return replace(vis, vis=out)


def one_channel(uvw: np.ndarray, vis: np.ndarray, weight: np.ndarray, centre: tuple[float, float]) -> Visibilities:
    """Return averages at ``uvw`` wavelengths as visibilities of 1 GHz."""
    return Visibilities(
        uvw * (SPEED_OF_LIGHT / 1e9), np.array([1e9]), vis.astype(np.complex64)[:, None],
        weight.astype(np.float32)[:, None], np.zeros(len(uvw)), None, None, centre,
    )  # fmt: skip


def in_cells(vis: Visibilities, params: Scheme) -> tuple[list[Visibilities], float, float]:
    """Average in uv cells; return the visibilities, the variance of u, and seconds of processor time."""
    block = (vis.time - vis.time.min()) // params.time_block
    parts, within, total, seconds, expected = [], 0.0, 0.0, 0.0, 0
    for b in np.unique(block):
        rows = np.flatnonzero(block == b)
        table = CellTable(params, vis.phase_centre, vis.chan_freq, expected=expected)
        for piece in np.array_split(rows, -(-len(rows) // _PIECE)):
            taken = vis.uvw[piece], vis.vis[piece], vis.weight[piece]
            start = time.process_time()
            table.add(*taken, vis.antenna1[piece] * 10_000 + vis.antenna2[piece])
            seconds += time.process_time() - start
        start = time.process_time()
        cells = table.cells()
        seconds += time.process_time() - start
        expected = cells.ncells
        sums = table._table[table._keys[:, 0] != 0]
        within += float(np.sum(sums[:, 7] + sums[:, 9] - (sums[:, 2] ** 2 + sums[:, 3] ** 2) / sums[:, 1]))
        total += float(sums[:, 1].sum())
        parts.append(one_channel(cells.uvw, cells.vis, cells.weight, params.phase_centre))
    return parts, within / (2 * total) * params.cell[0] ** 2, seconds


def unsmear(params: ImagingParams, variance: float) -> np.ndarray:
    """Return what takes the loss of means out at the place of the source itself: exp(2 pi^2 variance (l^2 + m^2))."""
    l, m = ((np.arange(n) - n // 2) * params.pixsize for n in params.npix)
    return np.exp(2 * math.pi**2 * variance * (l[None, :] ** 2 + m[:, None] ** 2)).astype(np.float32)


def along_tracks(vis: Visibilities, params: Scheme) -> tuple[list[Visibilities], float, float]:
    """Average neighbouring times and channels of each baseline while they stay within a cell's size (BDA).

    Rows of a baseline must be evenly spaced. Plain numpy: its seconds say little.
    """
    start = time.process_time()
    turned = rotate(vis, params.phase_centre)
    scale, size = vis.chan_freq / SPEED_OF_LIGHT, params.cell[0]
    pair = vis.antenna1 * 10_000 + vis.antenna2
    order = np.lexsort([vis.time, pair])
    found = []
    for rows in np.split(order, np.flatnonzero(np.diff(pair[order])) + 1):
        uv = turned.uvw[rows, :2]
        speed = np.hypot(*np.diff(uv, axis=0).T).max(initial=1e-9) * scale[-1]
        width = np.hypot(*uv.T).max() * (scale[1] - scale[0]) if len(scale) > 1 else 1e-9
        times = np.arange(0, len(rows), max(1, int(size / speed)))
        chans = np.arange(0, len(scale), max(1, int(size / max(width, 1e-9))))

        def binned(values: np.ndarray, times: np.ndarray = times, chans: np.ndarray = chans) -> np.ndarray:
            return np.add.reduceat(np.add.reduceat(values, times, axis=0), chans, axis=1).ravel()

        weight = vis.weight[rows].astype(float)
        total = binned(weight)
        uvw = [binned(weight * np.outer(turned.uvw[rows, i], scale)) / total for i in range(3)]
        found.append((np.stack(uvw, axis=-1), binned(weight * turned.vis[rows]) / total, total))
    parts = [one_channel(*(np.concatenate(x) for x in zip(*found, strict=True)), params.phase_centre)]
    return parts, 0.0, time.process_time() - start


def compare(vis: Visibilities, params: AveragingParams, nthreads: int, only: str = "") -> None:
    """Print a table of the schemes whose names start with ``only``."""
    vis = facet_sky(vis, params)
    imaging = {
        w: ImagingParams(params.npix, params.pixsize, weighting=w, phase_centre=params.phase_centre)  # type: ignore[arg-type]
        for w in WEIGHTINGS
    }
    turned = rotate(vis, params.phase_centre)
    exact, seconds = {}, {}
    for name, how in imaging.items():
        start = time.perf_counter()
        exact[name] = make_image(turned, how, nthreads=nthreads).data
        seconds[name] = time.perf_counter() - start
    del turned
    base = Scheme(params.npix, params.pixsize, params.phase_centre, time_block=1e9)
    length = float(np.ptp(vis.time)) / 4 + 1e-3
    means = replace(base, mean_only=True)
    schemes: list[tuple[str, Callable, Scheme]] = [
        ("mean of a uv cell", in_cells, replace(means, k=k, w_cells=False)) for k in (3, 4, 5)
    ]
    schemes += [("mean, w in the key", in_cells, replace(means, k=3))]
    schemes += [("mean, corrected in the image", in_cells, replace(means, k=k, corrected=True)) for k in (2, 3, 4)]
    schemes += [("along baselines (BDA)", along_tracks, replace(base, k=k)) for k in (1, 3)]
    schemes += [("nodes (ours)", in_cells, replace(base, k=k)) for k in (1, 2, 3)]
    schemes += [("nodes, 4 time blocks", in_cells, replace(base, time_block=length))]
    schemes += [("nodes, 4 channel blocks", in_cells, replace(base, channel_blocks=min(4, len(vis.chan_freq))))]
    print("| scheme | k | averages | natural | Briggs 0 | uniform | million/s/core | s to image |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| none | | {vis.vis.size:,} | | | | | {seconds['briggs']:.2f} |", flush=True)
    for name, work, scheme in schemes:
        if not name.startswith(only):
            continue
        parts, variance, used = work(vis, scheme)
        errors = []
        for weighting, how in imaging.items():
            start = time.perf_counter()
            image = make_image(parts, how, nthreads=nthreads).data
            if weighting == "briggs":
                took = time.perf_counter() - start
            image = image * unsmear(how, variance) if scheme.corrected else image
            errors.append(float(np.linalg.norm(image - exact[weighting]) / np.linalg.norm(exact[weighting])))
        shown = " | ".join(f"{100 * error:.2f}%" for error in errors)
        cells = sum(part.nrow for part in parts)
        speed = f"{vis.vis.size / used / 1e6:.1f}" if work is in_cells else "(numpy)"
        print(f"| {name} | {scheme.k} | {cells:,} | {shown} | {speed} | {took:.2f} |", flush=True)


def speed(path: str, params: AveragingParams, nthreads: int) -> None:
    """Time a facet's image from the measurement set and from its averages, reading included."""
    how = ImagingParams(params.npix, params.pixsize, phase_centre=params.phase_centre)
    with tempfile.TemporaryDirectory() as folder:
        result = average(open_ms(path).meta, Path(folder) / "a.zarr", params, nthreads=nthreads)
        print(
            f"{result.nvis:,} visibilities to {result.nrow:,} in {result.ncells:,} cells in {result.seconds:.1f} s; "
            f"{result.binned / result.bin_seconds / 1e6:.1f} million/s/core after the read"
        )
        sources = {
            "averages": lambda: read_averaged(result.path),
            "measurement set": lambda: open_ms(path).read(nthreads=nthreads),
        }
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sources}
        for _ in range(_RUNS):
            for name, read in sources.items():  # in turn, so that both see the same load of the machine
                start, used = time.perf_counter(), time.process_time()
                vis = read()
                middle = time.perf_counter()
                image = make_image(vis, how, nthreads=nthreads, reuse=True)
                runs[name].append((time.perf_counter() - start, middle - start, time.process_time() - used))
                del vis, image
        for name, taken in runs.items():
            wall, reading, cpu = min(taken)
            print(
                f"{name}: {wall:.2f} s, {reading:.2f} s of it reading, {cpu:.2f} s of processor time (best of {_RUNS})"
            )
        best, cpu = ([min(run[i] for run in taken) for taken in runs.values()] for i in (0, 2))
        print(f"{best[1] / best[0]:.1f} times as fast from averages, {cpu[1] / cpu[0]:.1f} in processor time")


# What a process had at most: its own maximum, as ru_maxrss also counts the process that started it.
_PEAK = """
import re, sys
from pathlib import Path
from vis2img.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def repeat(path: Path, copies: int, target: Path) -> Path:
    """Write a measurement set that holds the rows of another ``copies`` times, one after the other in TIME.

    The data columns are tiled, as those of telescopes are.
    """
    from casacore.tables import makecoldesc, maketabdesc, table

    with table(str(path), ack=False) as source:
        source.copy(str(target), copynorows=True, deep=True).close()
        for part in (p for p in path.iterdir() if p.is_dir()):  # sub-tables, which it empties as well
            shutil.rmtree(target / part.name, ignore_errors=True)
            shutil.copytree(part, target / part.name)
        names, nrow, step = source.colnames(), source.nrows(), 20_000
        tiled = [n for n in names if n.endswith("DATA") or n in ("FLAG", "WEIGHT_SPECTRUM", "SIGMA_SPECTRUM")]
        tiled = [n for n in tiled if source.iscelldefined(n, 0) and np.ndim(source.getcell(n, 0)) == 2]
        length = float(np.ptp(source.getcol("TIME"))) + float(source.getcell("INTERVAL", 0))
        with table(str(target), readonly=False, ack=False) as made:
            made.removecols(tiled)
            for name in tiled:
                shape = np.shape(source.getcell(name, 0))
                description = {**source.getcoldesc(name), "ndim": 2, "shape": list(shape), "option": 5}
                manager = {"DEFAULTTILESHAPE": [*shape[::-1], 128]}
                made.addcols(
                    maketabdesc(makecoldesc(name, description)),
                    {"TYPE": "TiledColumnStMan", "NAME": f"Tiled{name}", "SPEC": manager},
                )
            made.addrows(copies * nrow)
            for first in range(0, copies * nrow, nrow):
                for start in range(0, nrow, step):
                    count = min(step, nrow - start)
                    for name in names:
                        if not source.iscelldefined(name, start):
                            continue
                        values = source.getcol(name, start, count)
                        values = values + first // nrow * length if name.startswith("TIME") else values
                        made.putcol(name, values, first + start, count)
    return target


def peak(path: Path, params: AveragingParams, memory: str, nthreads: int) -> None:
    """Average in a process of its own and print how much memory it took."""
    size = sum(p.stat().st_size for p in path.rglob("*"))
    ra, dec = map(math.degrees, params.phase_centre)
    args = ["--npix", f"{params.npix[0]},{params.npix[1]}", "--pixsize", f"{params.pixsize}rad"]
    args += ["--phase-centre", f"{ra % 360},{dec}", "--tolerance", str(params.tolerance), "--threads", str(nthreads)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.zarr"
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, "average", str(path), "-o", str(out), "--memory", memory, *args],
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    *text, most = done.stdout.strip().splitlines()
    limit = parse_bytes(memory)
    print("\n".join(text))
    print(
        f"{size / 1e9:.2f} GB of measurement set, {size / limit:.1f} times the limit of {memory}, in {took:.1f} s: "
        f"at most {int(most) * 1024 / 1e6:.0f} MB resident, {100 * int(most) * 1024 / limit:.0f}% of the limit"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ms")
    parser.add_argument("--npix", type=int, default=1024)
    parser.add_argument("--pixsize", type=float, default=2.0, help="arcsec")
    parser.add_argument("--offset", default="0.25,0.2", help="facet centre from the phase centre, l,m in degrees")
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--times", type=int, help="only this many timesteps, for a quick look")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="only schemes whose names start with this")
    parser.add_argument("--speed", action="store_true", help="time the whole way on the data themselves instead")
    parser.add_argument("--memory", help="measure the resident memory under this limit, e.g. 1GB, instead")
    parser.add_argument("--copies", type=int, default=1, help="with --memory: so many sets in a row, in --folder")
    parser.add_argument("--folder", type=Path, help="for the set that --copies makes; deleted in the end")
    options = parser.parse_args()
    ms = open_ms(options.ms)
    l, m = (math.radians(float(x)) for x in options.offset.split(","))
    first = ms.read(Selection(times=(0, 1)))
    ra, dec = sky_position(np.array(l), np.array(m), first.phase_centre)
    params = AveragingParams(
        (options.npix,) * 2, math.radians(options.pixsize / 3600), (float(ra), float(dec)), options.tolerance
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads\n")
    if options.memory:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            many = options.copies > 1
            path = repeat(Path(options.ms), options.copies, Path(folder) / "a.ms") if many else Path(options.ms)
            peak(path, params, options.memory, options.threads)
    elif options.speed:
        speed(options.ms, params, options.threads)
    else:
        compare(ms.read(Selection(times=(0, options.times))), params, options.threads, options.only)


if __name__ == "__main__":
    main()
