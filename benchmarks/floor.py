"""The least that imaging a measurement set costs: casacore's reads and ducc0's calls, with no check of anything.

Run by ``benchmarks/imaging.py``, each in a process of its own:

    python benchmarks/floor.py obs.ms --npix 1024 --pixsize-arcsec 2 --epsilon 1e-4
    python benchmarks/floor.py obs.ms --npix 4096 --pixsize-arcsec 1 --epsilon 1e-4 --draws 16
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ThreadPoolExecutor

import ducc0
import numpy as np
from casacore.tables import table

_BLOCK_ROWS = 20_000


def read(path: str) -> tuple[np.ndarray, ...]:
    """Return uvw [row, 3], Stokes I [row, chan], weights [row, chan], times [row] and frequencies [chan] (Hz)."""
    with table(f"{path}/SPECTRAL_WINDOW", ack=False) as windows:
        freq = windows.getcell("CHAN_FREQ", 0)
    with table(path, ack=False) as main:
        nrow = main.nrows()
        spectrum = "WEIGHT_SPECTRUM" in main.colnames() and main.iscelldefined("WEIGHT_SPECTRUM", 0)
        uvw, times = np.empty((nrow, 3)), np.empty(nrow)
        vis = np.empty((nrow, len(freq)), np.complex64)
        weight = np.empty((nrow, len(freq)), np.float32)
        for start in range(0, nrow, _BLOCK_ROWS):
            count = min(_BLOCK_ROWS, nrow - start)
            rows = slice(start, start + count)
            data, flag = main.getcol("DATA", start, count), main.getcol("FLAG", start, count)
            np.add(data[..., 0], data[..., -1], out=vis[rows])
            if spectrum:
                hands = main.getcol("WEIGHT_SPECTRUM", start, count)
            else:
                hands = main.getcol("WEIGHT", start, count)[:, np.newaxis]
            np.multiply(hands[..., 0] + hands[..., -1], ~(flag[..., 0] | flag[..., -1]), out=weight[rows])
            uvw[rows], times[rows] = main.getcol("UVW", start, count), main.getcol("TIME", start, count)
    vis *= np.float32(0.5)
    return uvw, vis, weight, times, freq


def main() -> None:
    """Read once, make one image on all threads, or many with one thread each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ms")
    parser.add_argument("--npix", type=int, required=True)
    parser.add_argument("--pixsize-arcsec", type=float, required=True)
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draws", type=int, default=0, help="images of a random part of the times; 0: one of all")
    parser.add_argument("--keep-times", type=float, default=0.5)
    options = parser.parse_args()
    uvw, vis, weight, times, freq = read(options.ms)
    pixsize = math.radians(options.pixsize_arcsec / 3600)

    def dirty(rows: np.ndarray | slice, nthreads: int) -> np.ndarray:
        return ducc0.wgridder.vis2dirty(
            uvw=uvw[rows],
            freq=freq,
            vis=vis[rows],
            wgt=weight[rows],
            npix_x=options.npix,
            npix_y=options.npix,
            pixsize_x=pixsize,
            pixsize_y=pixsize,
            epsilon=options.epsilon,
            do_wgridding=True,
            divide_by_n=False,
            flip_v=True,
            nthreads=nthreads,
        )

    def draw(index: int) -> float:
        rng = np.random.default_rng(index)
        distinct, of_row = np.unique(times, return_inverse=True)
        chosen = rng.permutation(len(distinct)) < max(1, round(options.keep_times * len(distinct)))
        return float(dirty(chosen[of_row], 1).max())

    if options.draws:
        with ThreadPoolExecutor(options.threads) as pool:
            peaks = list(pool.map(draw, range(options.draws)))
        print(f"{len(peaks)} images")
    else:
        print(f"peak {dirty(slice(None), options.threads).max() / weight.sum(dtype=np.float64):.6g}")


if __name__ == "__main__":
    main()
