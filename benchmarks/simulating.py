"""Where the time of a simulated observation goes: one hour of MeerKAT, 64 channels, 3,000 sources and more.

    python benchmarks/simulating.py                     # the reference case, about a minute and 2 GB of disk
    python benchmarks/simulating.py --ntimes 20 --counts-flux 5e-4

Labelled sources, real structure and a population that follows the published counts, primary beam, gains, bandpass,
noise and flags. ``simms`` writes the empty measurement set, ducc0 degrids the sky.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vis2img.simulate.corruptions as corruptions
import vis2img.simulate.observe as observe
import vis2img.simulate.predict as predict
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.run import simulate
from vis2img.simulate.sky.catalogue import read_catalogue


def timed(module: Any, name: str, seconds: dict[str, float]) -> None:
    """Replace ``module.name`` by itself with its wall time added up in ``seconds``."""
    work: Callable[..., Any] = getattr(module, name)

    def wrapper(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*args, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    setattr(module, name, wrapper)


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ntimes", type=int, default=225)
    parser.add_argument("--nchan", type=int, default=64)
    parser.add_argument("--fov-deg", type=float, default=1.4)
    parser.add_argument("--counts-flux", type=float, default=6.5e-5, help="Jy; sets the number of sources")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    seconds: dict[str, float] = {}
    for module, name in (
        (observe, "write_empty"),
        (observe, "predict"),
        (predict, "dirty_to_vis"),
        (corruptions.Corruptions, "data"),
        (observe, "_put"),
    ):
        timed(module, name, seconds)
    with tempfile.TemporaryDirectory() as folder:
        config = SimulateConfig(
            out=Path(folder) / "reference.ms",
            band="L",
            ntimes=options.ntimes,
            dtime=16.0,
            nchan=options.nchan,
            fov=math.radians(options.fov_deg),
            n_sources=100,
            classes=("compact", "fri", "frii", "bent", "hybrid", "wat", "nat", "ddrg", "ring", "halo", "relic"),
            counts_flux=options.counts_flux,
            outside_flux=0.5,
            primary_beam=True,
            gain_amplitude=0.01,
            gain_phase=math.radians(1),
            bandpass_ripple=0.003,
            flag_fraction=0.15,
            missing_antennas=3,
        )
        start = time.perf_counter()
        result = simulate(config, nthreads=options.threads)
        total = time.perf_counter() - start
        sources = read_catalogue(result.catalogue_path)
        parts = sum(len(source.components) for source in sources)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads; {options.ntimes} times x "
        f"{options.nchan} channels; {len(sources):,} sources of {parts:,} components; peak memory {memory:.0f} MB\n"
    )
    rows = {
        "simms: empty measurement set": seconds["write_empty"],
        "ducc0: degridding": seconds.get("dirty_to_vis", 0.0),
        "rest of the prediction: images, spectra, direct sums": seconds["predict"] - seconds.get("dirty_to_vis", 0.0),
        "gains, bandpass, noise": seconds["data"],
        "casacore: columns": seconds["_put"],
    }
    rows["rest: drawing the sky, catalogue, flags"] = total - sum(rows.values())
    print("| step | wall time | share |\n|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.1f} s | {100 * value / total:.0f}% |")
    print(f"| all | {total:.1f} s | |")


if __name__ == "__main__":
    main()
