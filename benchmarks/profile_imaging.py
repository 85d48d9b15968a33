"""Where the time of one image goes, stage by stage, in a fresh process, and of averaging the same data.

python benchmarks/profile_imaging.py obs.ms --npix 1024 --pixsize 2arcsec
"""

from __future__ import annotations

import time

_BEGAN = (time.perf_counter(), time.process_time())

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402


class Stages:
    """Prints wall and processor seconds of each stage as a row of a markdown table."""

    def __init__(self) -> None:
        self.last = _BEGAN
        print("| stage | wall | CPU |\n|---|---|---|")

    def done(self, name: str) -> None:
        """End the stage ``name``."""
        now = (time.perf_counter(), time.process_time())
        print(f"| {name} | {now[0] - self.last[0]:.2f} s | {now[1] - self.last[1]:.2f} s |", flush=True)
        self.last = (time.perf_counter(), time.process_time())


def main() -> None:
    """Make one Briggs image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ms", type=Path)
    parser.add_argument("--npix", type=int, default=1024)
    parser.add_argument("--pixsize", default="2arcsec")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    stages = Stages()

    import vis2img.cli.image
    from vis2img.dataset import open_ms
    from vis2img.imaging.beam import fit_beam
    from vis2img.imaging.gridding import vis_to_dirty
    from vis2img.imaging.params import ImagingParams
    from vis2img.imaging.weighting import imaging_weights
    from vis2img.ms.selection import Selection
    from vis2img.units import parse_angle

    stages.done("import vis2img")
    import ducc0  # noqa: F401

    import vis2img.imaging.weighting_kernels  # noqa: F401

    stages.done("import numba and ducc0")
    ms = open_ms(options.ms)
    stages.done("open: sub-tables, times, baselines")
    reader = ms.open_parts(Selection())[0]
    stages.done("rows wanted")
    parts = reader.read(nthreads=options.threads)
    stages.done("read and reduce to Stokes I (with loading the compiled loop)")
    params = ImagingParams((options.npix, options.npix), parse_angle(options.pixsize), weighting="briggs", robust=0.0)
    weights = imaging_weights(parts, params, nthreads=options.threads, reuse=True)
    stages.done("weights: density, factors, application")
    fit_beam(weights.cells, weights.first, params.density_cell)
    stages.done("beam")
    vis_to_dirty(
        parts[0].uvw, parts[0].chan_freq, parts[0].vis, weights.parts[0], params.npix, params.pixsize,
        total=weights.total, epsilon=params.epsilon, nthreads=options.threads,
    )  # fmt: skip
    stages.done("ducc0 (grid, FFT, w screens)")
    import astropy.io.fits  # noqa: F401

    stages.done("import astropy.io.fits (while ducc0 runs, in vis2img image)")


if __name__ == "__main__":
    main()
