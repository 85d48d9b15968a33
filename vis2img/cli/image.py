"""``vis2img image``: a measurement set to a FITS image and a PNG quick look."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from vis2img.cli.app import parse
from vis2img.errors import OutputError, ParameterError
from vis2img.fits import check_outputs
from vis2img.imaging import Image, check_memory, make_image
from vis2img.machine import cores
from vis2img.measurementset import MeasurementSet, open_ms
from vis2img.options import Angle, Npix, format_angle
from vis2img.params import MIN_NPIX, ImagingParams, Selection
from vis2img.products import Products
from vis2img.series import make_cube, make_images
from vis2img.visibilities import Visibilities

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
    """Make dirty images of a field: one measurement set or several, or averaged data (Jy/beam).

    What is imaged is opened read-only and never changed. Weights, tapers and splits are those of WSClean.

    For example:
      vis2img image obs.ms
      vis2img image obs.ms --npix 1024,768 --pixsize 2arcsec --weighting briggs --robust 0 --psf -o out.fits
      vis2img image obs.ms --field 3C286 --spw all --channels 0:32 --times 0:100 --uvrange 0.1k:20k
      vis2img image obs.ms --phase-centre 12h30m49.4s,12d23m28s --taper 10arcsec --overwrite
      vis2img image day1.ms day2.ms --stokes IQUV --channels-out 8 --pb
      vis2img image obs.ms --draws 16 --keep-times 0.5 --band 0.2 0.8
    """

    ms: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MS [MS ...]")]
    """Measurement sets of one field, or averaged data, imaged together."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """FITS file to write. Default: the name of the first measurement set with .fits, in the current folder."""
    overwrite: bool = False
    """Replace existing files."""
    psf: bool = False
    """Write the point spread function too, as NAME-psf.fits."""
    channels_out: int = 1
    """Split the band into this many images, written as a cube, and their mean as NAME-MFS.fits."""
    intervals_out: int = 1
    """Split the observation into this many images: NAME-t0000.fits and so on."""
    draws: int = 1
    """Make this many images that differ by sampling-seed, counted up: NAME-d0000.fits and so on."""
    pb: bool = False
    """Write the primary beam (MeerKAT) as NAME-pb.fits and the image divided by it as NAME-pbcor.fits."""
    pb_cutoff: float = 0.05
    """Primary beam below which the corrected image is blank."""
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
        if not self.ms:
            raise ParameterError("no measurement set is given (vis2img image --help)")
        for name, least in (("threads", 1), ("channels_out", 1), ("intervals_out", 1), ("draws", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ParameterError(f"--{name.replace('_', '-')} {value}: at least {least} is needed")
        if self.draws > 1 and (self.channels_out > 1 or self.intervals_out > 1):
            raise ParameterError("--draws makes images of the whole selection; leave out channels-out, intervals-out")
        if not 0 < self.pb_cutoff < 1:
            raise ParameterError(f"--pb-cutoff {self.pb_cutoff} must be above 0 and below 1")

    @property
    def products(self) -> Products:
        """What is written where."""
        fits = self.output or Path(f"{self.ms[0].resolve().stem}.fits")
        return Products(fits, self.psf, self.pb, not self.no_png, self.pb_cutoff, self.overwrite)

    @property
    def suffixes(self) -> list[str]:
        """Suffix of each interval or draw; one empty suffix where there is one image or cube."""
        count, letter = (self.draws, "d") if self.draws > 1 else (self.intervals_out, "t")
        return [f"{letter}{i:04d}" for i in range(count)] if count > 1 else [""]


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img image``."""
    command = parse(ImageCommand, argv, prog)
    sets = [open_ms(path) for path in command.ms]
    _check(command)
    params = sets[0].imaging_params(command.selection, **command.imaging.changes())
    check_memory(params)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it remarks on its cache folder
    done: list[tuple[Image, list[Path]]] = []
    silent = command.json or command.quiet or not sys.stderr.isatty()
    with _no_progress() if silent else _progress() as (advance, stage):
        parts = _read(sets, command, advance)
        # Needed to write, slow to import, and gridding leaves the interpreter free.
        threading.Thread(target=importlib.import_module, args=("astropy.io.fits",), daemon=True).start()
        samples = sum(part.nrow * len(part.chan_freq) for part in parts)
        for i, (suffix, planes) in enumerate(zip(command.suffixes, _images(parts, params, command), strict=True)):
            stage(f"gridding {samples:,} visibilities ({i + 1} of {len(command.suffixes)})")
            written = command.products.write(planes, suffix)
            written += command.products.write_png(planes[0][0]) if not done else []
            done.append((planes[0][0], written))
    if command.json:
        reports = [summary(image, written) for image, written in done]
        record = reports[0] if len(done) == 1 else {"images": reports}
        print(json.dumps(record, indent=2, allow_nan=False))
    elif not command.quiet:
        print(_report(*done[0]))
        for _, written in done[1:]:
            print("\n".join(f"wrote {path}" for path in written))
    return 0


def _check(command: ImageCommand) -> None:
    """Refuse outputs that cannot be written, or would change a measurement set."""
    target = command.products.fits
    if not target.is_dir() and target.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{target}: the name of the image must end with .fits")
    outputs = command.products.files(command.suffixes, command.channels_out > 1)
    for ms in command.ms:
        for path in outputs:
            if ms.resolve() in (path.resolve(), *path.resolve().parents):
                raise OutputError(f"{path} would be inside the measurement set {ms}; choose another folder")
    check_outputs(outputs, command.overwrite)


def _read(
    sets: Sequence[MeasurementSet], command: ImageCommand, advance: Callable[[int, int], None] | None
) -> list[Visibilities]:
    return [
        part for ms in sets for part in ms.read_parts(command.selection, nthreads=command.threads, progress=advance)
    ]


def _images(parts: list[Visibilities], params: ImagingParams, command: ImageCommand) -> Iterator[list[list[Image]]]:
    """Yield the images [stokes][plane] of each interval or draw."""
    threads = command.threads or cores()
    by_stokes = [[part for part in parts if part.stokes == stokes] for stokes in command.selection.stokes]
    if command.draws > 1:
        variants = [replace(params, sampling_seed=params.sampling_seed + i) for i in range(command.draws)]
        streams = [make_images(group, variants, workers=threads, psf=command.psf) for group in by_stokes]
        for images in zip(*streams, strict=True):
            yield [[image] for image in images]
    elif command.channels_out > 1 or command.intervals_out > 1:
        cubes = [
            make_cube(
                group,
                params,
                channels_out=command.channels_out,
                intervals_out=command.intervals_out,
                psf=command.psf,
                nthreads=threads,
            )
            for group in by_stokes
        ]
        yield from ([*planes] for planes in zip(*cubes, strict=True))
    else:
        yield [[make_image(group, params, psf=command.psf, nthreads=threads, reuse=True)] for group in by_stokes]


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
            bar.update(task, description=text, completed=0, total=None)

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
