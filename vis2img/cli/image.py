"""``vis2img image``: a measurement set to a FITS image and a PNG quick look."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from vis2img.cli.app import parse
from vis2img.errors import OutputError, ParameterError
from vis2img.fits import check_outputs, psf_path
from vis2img.imaging import Image, check_memory, make_image
from vis2img.measurementset import MeasurementSet, cores, open_ms
from vis2img.options import Angle, Npix, format_angle
from vis2img.params import MIN_NPIX, ImagingParams, Selection

_SUFFIXES = (".fits", ".fit", ".fts")


@dataclass(frozen=True)
class Imaging(ImagingParams):
    """How the dirty image is made. band to sampling-seed thin the data out, as training does."""

    npix: Npix | None = None  # type: ignore[assignment]
    """Image size in pixels, x[,y]; even numbers of at least 32. Default: up to the primary beam."""
    pixsize: Angle | None = None  # type: ignore[assignment]
    """Pixel size at the image centre. Default: a third of the finest fringe."""

    def __post_init__(self) -> None:
        # Illegal values are told before the measurement set is opened; the stand-ins are legal with any value.
        known = {name: value for name, value in self.changes().items() if value is not None}
        ImagingParams(**{"npix": (MIN_NPIX, MIN_NPIX), "pixsize": 1e-12, **known})

    def changes(self) -> dict[str, Any]:
        """Return the values as keyword arguments of ``MeasurementSet.imaging_params``."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class ImageCommand:
    """Make a dirty image of one field and spectral window of a measurement set (Stokes I, Jy/beam).

    The measurement set is opened read-only and never changed.

    For example:
      vis2img image obs.ms
      vis2img image obs.ms --npix 1024,768 --pixsize 2arcsec --weighting briggs --robust 0 --psf -o out.fits
      vis2img image obs.ms --field 3C286 --spw 1 --channels 0:32 --times 0:100 --uvrange 0.1k:20k
      vis2img image obs.ms --phase-centre 12h30m49.4s,12d23m28s --taper 10arcsec --overwrite
    """

    ms: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MS")]
    """Measurement set."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """FITS file to write. Default: the name of the measurement set with .fits, in the current folder."""
    overwrite: bool = False
    """Replace existing files."""
    psf: bool = False
    """Write the point spread function too, as NAME-psf.fits."""
    no_png: bool = False
    """Do not write the quick look NAME.png."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """Print nothing but errors."""
    threads: int | None = None
    """Threads for reading and gridding. Default: all cores."""
    selection: tyro.conf.OmitArgPrefixes[Selection] = field(default_factory=Selection)
    imaging: tyro.conf.OmitArgPrefixes[Imaging] = field(default_factory=Imaging)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ParameterError(f"--threads {self.threads}: at least one thread is needed")

    @property
    def fits(self) -> Path:
        """Where the image goes."""
        return self.output or Path(f"{self.ms.resolve().stem}.fits")

    @property
    def png(self) -> Path | None:
        """Where the quick look goes."""
        return None if self.no_png else self.fits.with_suffix(".png")

    def outputs(self) -> list[Path]:
        """Return all files that will be written."""
        return [self.fits, *([psf_path(self.fits)] if self.psf else []), *([self.png] if self.png else [])]


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img image``."""
    command = parse(ImageCommand, argv, prog)
    ms = open_ms(command.ms)
    _check(command)
    changes = command.imaging.changes()
    params = ms.imaging_params(command.selection, **changes)
    check_memory(params)
    image = _make(ms, params, command)
    written = image.to_fits(command.fits, overwrite=command.overwrite)
    if command.png:
        from vis2img.quicklook import save_png

        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it remarks on its cache folder
        written.append(save_png(image, command.png, overwrite=command.overwrite))
    if command.json:
        print(json.dumps(summary(image, written), indent=2, allow_nan=False))
    elif not command.quiet:
        print(_report(image, written))
    return 0


def _check(command: ImageCommand) -> None:
    """Refuse outputs that cannot be written, or would change the measurement set."""
    target = command.fits
    if not target.is_dir() and target.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{target}: the name of the image must end with .fits")
    folder = command.ms.resolve()
    for path in command.outputs():
        if folder in (path.resolve(), *path.resolve().parents):
            raise OutputError(f"{path} would be inside the measurement set {command.ms}; choose another folder")
    check_outputs(command.outputs(), command.overwrite)


def _make(ms: MeasurementSet, params: ImagingParams, command: ImageCommand) -> Image:
    silent = command.json or command.quiet or not sys.stderr.isatty()
    with _no_progress() if silent else _progress() as (advance, stage):
        vis = ms.read(command.selection, nthreads=command.threads, progress=advance)
        stage(f"gridding {vis.nrow * len(vis.chan_freq):,} visibilities")
        return make_image(vis, params, psf=command.psf, nthreads=command.threads or cores())


Reporters = tuple[Callable[[int, int], None] | None, Callable[[str], None]]


@contextlib.contextmanager
def _no_progress() -> Iterator[Reporters]:
    yield None, lambda text: None


@contextlib.contextmanager
def _progress() -> Iterator[Reporters]:
    """Show on stderr how many rows are read, and then that gridding goes on; gone when done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading rows", total=None)

        def stage(text: str) -> None:
            bar.remove_task(task)
            bar.add_task(text, total=None)

        yield lambda done, total: bar.update(task, completed=done, total=total), stage


def summary(image: Image, written: list[Path]) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    peak, (x, y) = _peak(image)
    return {
        "outputs": [str(path) for path in written],
        "peak_jy_beam": peak,
        "peak_pixel": [x, y],
        "noise_jy_beam": image.noise(),
        "beam_deg": [math.degrees(angle) for angle in image.beam],
        "phase_centre_deg": [math.degrees(angle) for angle in image.phase_centre],
        "freq_hz": image.freq[0],
        "bandwidth_hz": image.freq[1],
        "nvis": image.nvis,
        "weight_sum": image.weight_sum,
        "params": image.params.to_dict(),
        **{name: image.meta.get(name) for name in ("telescope", "field", "spw", "column", "stokes_from")},
    }


def _report(image: Image, written: list[Path]) -> str:
    from vis2img.cli.info import direction_text

    params = image.params
    peak, (x, y) = _peak(image)
    ra, dec = _position(image, x, y)
    robust = f" {params.robust:g}" if params.weighting == "briggs" else ""
    major, minor, angle = image.beam
    meta = image.meta
    return "\n".join(
        [
            f"{meta.get('telescope')} field {meta.get('field')!r}, spw {meta.get('spw')}, {meta.get('column')} "
            f"({meta.get('stokes_from')}): {image.nvis:,} visibilities at {image.freq[0] / 1e6:.6g} MHz",
            f"{params.npix[0]} x {params.npix[1]} pixels of {format_angle(params.pixsize, 4)}, "
            f"{params.weighting}{robust}",
            f"beam  {format_angle(major, 3)} x {format_angle(minor, 3)}, PA {math.degrees(angle):.0f} deg",
            f"peak  {peak:.4g} Jy/beam at {direction_text(ra, dec)} (pixel {x}, {y})",
            f"noise {image.noise():.3g} Jy/beam",
            *(f"wrote {path}" for path in written),
        ]
    )


def _peak(image: Image) -> tuple[float, tuple[int, int]]:
    y, x = divmod(int(image.data.argmax()), image.data.shape[1])
    return float(image.data[y, x]), (x, y)


def _position(image: Image, x: int, y: int) -> tuple[float, float]:
    from vis2img.gridding import pixel_to_lm
    from vis2img.phase import sky_position

    l, m = pixel_to_lm(x, y, image.params.npix, image.params.pixsize)
    ra, dec = sky_position(np.asarray(l), np.asarray(m), image.phase_centre)
    return float(ra), float(dec)
