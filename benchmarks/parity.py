"""Compare images with WSClean's, option by option: relative L2 differences as a markdown table.

    python benchmarks/parity.py obs.ms --npix 1024 --pixsize 2arcsec
    python benchmarks/parity.py obs.ms --quick          # natural, Briggs 0 and uniform only

WSClean runs with -use-wgridder -no-small-inversion; with --defaults also as it comes, apart from -niter 0.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from vis2img.dataset import open_ms
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.machine import cores
from vis2img.ms.selection import Selection
from vis2img.units import parse_angle

EXACT = ("-use-wgridder", "-no-small-inversion")


def wsclean(ms: Path, npix: int, pixsize: float, column: str, options: tuple[str, ...]) -> np.ndarray:
    """Return WSClean's dirty image [y, x]."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *["wsclean", "-j", str(cores()), "-niter", "0", "-no-update-model-required", "-no-reorder"],
            *["-size", str(npix), str(npix), "-scale", f"{math.degrees(pixsize) * 3600}asec"],
            *["-data-column", column, "-temp-dir", folder, "-name", f"{folder}/ws", *options, str(ms)],
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout[-1000:] + done.stderr[-1000:])
        return fits.getdata(f"{folder}/ws-dirty.fits").squeeze().astype(float)


def cases(quick: bool, uv_max: float, pixsize: float) -> list[tuple[str, tuple[str, ...], dict]]:
    """Return (name, WSClean's options, our parameters)."""
    found: list[tuple[str, tuple[str, ...], dict]] = [
        ("natural", ("-weight", "natural"), {"weighting": "natural"}),
        ("uniform", ("-weight", "uniform"), {"weighting": "uniform"}),
    ]
    for robust in (0.0,) if quick else (-1.0, 0.0, 1.0, 2.0):
        name = f"Briggs {robust:g}"
        found.append((name, ("-weight", "briggs", str(robust)), {"weighting": "briggs", "robust": robust}))
    if quick:
        return found
    natural, low, high = found[0], round(0.02 * uv_max), round(0.6 * uv_max)
    width = round(0.2 * uv_max)
    for name, options, changes in (
        ("Gaussian taper", ("-taper-gaussian", f"{math.degrees(4 * pixsize) * 3600}asec"), {"taper": 4 * pixsize}),
        ("uv range", ("-minuv-l", str(low), "-maxuv-l", str(high)), {"uvrange": (float(low), float(high))}),
        (
            "Tukey tapers",
            *(
                (
                    "-minuv-l",
                    str(low),
                    "-maxuv-l",
                    str(high),
                    "-taper-tukey",
                    str(width),
                    "-taper-inner-tukey",
                    str(low),
                ),
            ),
            {"uvrange": (float(low), float(high)), "tukey_taper": float(width), "tukey_inner_taper": float(low)},
        ),
    ):
        found.append((f"natural, {name}", natural[1] + options, {**natural[2], **changes}))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ms", type=Path)
    parser.add_argument("--npix", type=int, default=1024)
    parser.add_argument("--pixsize", default="2arcsec")
    parser.add_argument("--column", default="DATA")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--defaults", action="store_true", help="compare with WSClean's own defaults as well")
    options = parser.parse_args()
    pixsize = parse_angle(options.pixsize)
    vis = open_ms(options.ms).read(Selection(column=options.column))
    print("| image | difference |" + (" with its defaults |" if options.defaults else ""))
    print("|---|---|" + ("---|" if options.defaults else ""))
    for name, theirs, changes in cases(options.quick, min(vis.uv_max(), 0.5 / pixsize), pixsize):
        ours = make_image(vis, ImagingParams((options.npix,) * 2, pixsize, **changes), nthreads=cores()).data
        cells = []
        for how in (EXACT, ()) if options.defaults else (EXACT,):
            image = wsclean(options.ms, options.npix, pixsize, options.column, (*theirs, *how))
            cells.append(f"{np.linalg.norm(ours - image) / np.linalg.norm(image):.1e}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
