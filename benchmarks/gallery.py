"""Draw the pictures of docs/simulation.md: each class as sky and as dirty images, real cutouts beside them, counts.

    python benchmarks/gallery.py --cutouts mirabest_train.npz --counts de_zotti_1p4GHz_counts.txt

Every source is observed for an hour by MeerKAT at L band, with noise, and imaged at three weightings.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from vis2img.dataset import open_ms
from vis2img.imaging.params import ImagingParams
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.run import simulate
from vis2img.simulate.sky.counts import differential_counts
from vis2img.simulate.sky.draw import ALL_CLASSES
from vis2img.simulate.sky.population import draw_population
from vis2img.simulate.sky.source import SkySource
from vis2img.simulate.truth.truth import Truth

ARCSEC = math.pi / 180 / 3600
WEIGHTINGS = (("uniform", 0.0), ("briggs", 0.0), ("natural", 0.0))
PIXSIZE, NPIX = 2.0 * ARCSEC, 96
FIELD = 2048
OBSERVED = {
    "band": "L", "ntimes": 60, "dtime": 60.0, "nchan": 16, "fov": math.radians(0.9), "flux_range": (0.04, 0.05),
    "size_range": (90 * ARCSEC, 100 * ARCSEC), "min_separation": 60 * ARCSEC,
}  # fmt: skip


def observed(folder: Path, name: str, **changes: object) -> tuple[list[SkySource], Truth, list[np.ndarray], object]:
    """Simulate a field and return its labelled sources, truth, images [weighting] and their WCS."""
    result = simulate(SimulateConfig(out=folder / f"{name}.ms", **{**OBSERVED, **changes}))  # type: ignore[arg-type]
    ms, truth = open_ms(result.ms_path), Truth.read(result.ms_path)
    made = [
        ms.image(ImagingParams((FIELD, FIELD), PIXSIZE, weighting=weighting, robust=robust))  # type: ignore[arg-type]
        for weighting, robust in WEIGHTINGS
    ]
    return truth.sources, truth, [image.data for image in made], made[0].wcs


def row(axes: np.ndarray, source: SkySource, truth: Truth, images: list[np.ndarray], wcs: object, label: str) -> None:
    """Draw one source: its sky, then its dirty images."""
    sky = truth.at_patch((source.ra, source.dec), PIXSIZE / 2, 2 * NPIX).brightness()
    axes[0].imshow(np.sqrt(sky / max(sky.max(), 1e-30)), origin="lower", cmap="magma", vmax=0.6)
    axes[0].set_ylabel(label, fontsize=8)
    x, y = wcs.world_to_pixel_values(math.degrees(source.ra), math.degrees(source.dec))  # type: ignore[attr-defined]
    half, cx, cy = NPIX // 2, round(float(x)), round(float(y))
    for ax, image in zip(axes[1:], images, strict=True):
        stamp = image[cy - half : cy + half, cx - half : cx + half]
        noise = 1.4826 * np.median(np.abs(image - np.median(image)))
        ax.imshow(np.arcsinh(stamp / (2 * noise)), origin="lower", cmap="magma", vmin=-1.5)
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])


def classes_picture(folder: Path, out: Path) -> None:
    """Two of each class, with all columns."""
    sources, truth, images, wcs = observed(
        folder, "classes", n_sources=2 * len(ALL_CLASSES), classes=ALL_CLASSES, seed=3
    )
    figure, axes = plt.subplots(len(ALL_CLASSES), 8, figsize=(9.5, 12.5))
    for i, name in enumerate(ALL_CLASSES):
        for j, source in enumerate([s for s in sources if s.class_name == name][:2]):
            row(axes[i, 4 * j : 4 * j + 4], source, truth, images, wcs, name if j == 0 else "")
    for ax, title in zip(axes[0], 2 * ["sky", *(w for w, _ in WEIGHTINGS)], strict=True):
        ax.set_title(title, fontsize=8)
    save(figure, out)


def cutouts_picture(folder: Path, cutouts: Path, out: Path) -> None:
    """Real FIRST cutouts as observed by MeerKAT, beside parametric sources of the same class."""
    sources, truth, images, wcs = observed(
        folder, "pictures", n_sources=24, classes=("fri", "frii", "hybrid", "bent"), cutouts=(cutouts,), n_cutouts=40,
        fov=math.radians(1.1), seed=4,
    )  # fmt: skip
    names = ("fri", "frii", "hybrid", "bent")
    figure, axes = plt.subplots(len(names), 8, figsize=(9.5, 5.0))
    for i, name in enumerate(names):
        for j, real in enumerate((False, True)):
            found = [s for s in sources if s.class_name == name and (s.cutout is not None) == real]
            if found:
                row(axes[i, 4 * j : 4 * j + 4], found[0], truth, images, wcs, name if j == 0 else "")
            else:
                for ax in axes[i, 4 * j : 4 * j + 4]:
                    ax.axis("off")
    titles = ["drawn: sky", *(w for w, _ in WEIGHTINGS), "real: sky", *(w for w, _ in WEIGHTINGS)]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    save(figure, out)


def counts_picture(data: Path | None, out: Path) -> None:
    """Euclidean-normalised counts of one simulated square degree against the published ones."""
    area, low = math.radians(1.0) ** 2, 5e-5
    flux = np.array([s.flux for s in draw_population(np.random.default_rng(1), (1.0, -0.5), math.radians(1.0), low)])
    edges = np.geomspace(low, flux.max() * 1.01, 19)
    middle = np.sqrt(edges[1:] * edges[:-1])
    number = np.histogram(flux, edges)[0]
    scale = middle**2.5 / np.diff(edges) / area
    figure, ax = plt.subplots(figsize=(5.5, 4))
    if data is not None:
        log_flux, counts = np.loadtxt(data, usecols=(0, 1), unpack=True)
        ax.plot(10**log_flux, counts, ".", color="0.7", ms=3, label="compiled by de Zotti et al. 2010")
    line = np.geomspace(low, 1, 200)
    ax.plot(line, differential_counts(line) * line**2.5, "k-", lw=1, label="Hopkins et al. 2003")
    ax.errorbar(
        middle[number > 0], (number * scale)[number > 0], (np.sqrt(number) * scale)[number > 0], fmt="o", ms=4,
        color="C1", label=f"1 simulated square degree, {len(flux):,} sources",
    )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="S at 1.4 GHz (Jy)", ylabel=r"$S^{2.5}\,dN/dS$ (Jy$^{1.5}$ sr$^{-1}$)")
    ax.set(xlim=(3e-5, 3), ylim=(1, 1e3))
    ax.legend(fontsize=8)
    save(figure, out)


def save(figure: plt.Figure, out: Path) -> None:
    """Write a figure small enough for a repository."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=80)
    plt.close(figure)
    with Image.open(out) as picture:
        picture.convert("RGB").quantize(96).save(out, optimize=True)
    print(f"wrote {out} ({out.stat().st_size / 1e3:.0f} kB)")


def main() -> None:
    """Draw everything that the files at hand allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--cutouts", type=Path, help="npz of real cutouts, as mirabest_train.npz")
    parser.add_argument("--counts", type=Path, help="published counts: log S, S^2.5 dN/dS")
    options = parser.parse_args()
    counts_picture(options.counts, options.out / "counts.png")
    with tempfile.TemporaryDirectory() as folder:
        classes_picture(Path(folder), options.out / "classes.png")
        if options.cutouts:
            cutouts_picture(Path(folder), options.cutouts, options.out / "cutouts.png")


if __name__ == "__main__":
    main()
