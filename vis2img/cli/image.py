"""``vis2img image``: a measurement set to a FITS image and a PNG quick look."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from vis2img.cli.image_report import report, summary
from vis2img.cli.other_words import refuse_other_words
from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse
from vis2img.coordinates import separation
from vis2img.dataset import Dataset, Outline, open_ms
from vis2img.errors import OutputError, ParameterError, printable
from vis2img.files import WRITTEN_SUFFIXES, check_outputs
from vis2img.imaging.cubes import make_cube, make_draws, plane_axes
from vis2img.imaging.doubts import warn_of_doubts
from vis2img.imaging.image import Image, make_image
from vis2img.imaging.memory import check_memory, copied_bytes, planes_bytes
from vis2img.imaging.params import MIN_NPIX, ImagingParams
from vis2img.imaging.primary_beam import check_beam, check_telescope, receiver
from vis2img.imaging.rotation import IMAGE_FRAMES
from vis2img.machine import cores
from vis2img.ms.selection import Selection
from vis2img.progress import Progress
from vis2img.units import Angle, Npix, format_angle
from vis2img.visibilities import Visibilities

if TYPE_CHECKING:
    from vis2img.products.products import Products

_FEW = 8  # blank planes named


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
        """Return the values as keyword arguments of ``Dataset.imaging_params``."""
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

    COMMON: ClassVar = (
        "output", "overwrite", "psf", "channels-out", "pb", "json", "field", "spw", "column", "channels", "stokes",
        "npix", "pixsize", "weighting", "robust", "taper", "uvrange", "phase-centre",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    ms: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MS [MS ...]")]
    """Measurement sets of one field, or averaged data, imaged together."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """FITS file to write. Default: the name of the first measurement set with .fits, in the current folder."""
    overwrite: bool = False
    """Replace existing files."""
    psf: bool = False
    """Write the point spread function too, as NAME-psf.fits."""
    channels_out: int = 1
    """Split the band into this many images, a cube; their mean is NAME-MFS.fits, of which the quick look is."""
    intervals_out: int = 1
    """Split the observation into this many images: NAME-t0000.fits and so on."""
    draws: int = 1
    """Make this many images that differ by sampling-seed, counted up: NAME-d0000.fits and so on."""
    pb: bool = False
    """Write the primary beam (MeerKAT) as NAME-pb.fits and the image divided by it as NAME-pbcor.fits."""
    pb_cutoff: float = 0.05
    """Primary beam below which the corrected image is blank."""
    pb_band: Literal["UHF", "L", "S"] | None = None
    """Receiver of MeerKAT. Default: the one whose band holds all channels of the measurement set."""
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
        thinned = [getattr(self.imaging, f"keep_{what}") < 1 for what in ("times", "antennas", "baselines")]
        if self.draws > 1 and not any(thinned):
            raise ParameterError(
                "--draws without thinning are all alike: set --keep-times, --keep-antennas or --keep-baselines"
            )
        if len({path.resolve() for path in self.ms}) < len(self.ms):
            raise ParameterError("a measurement set is named twice, so its data would count twice")
        if self.draws > 1 and (self.channels_out > 1 or self.intervals_out > 1):
            raise ParameterError("--draws makes images of the whole selection; leave out channels-out, intervals-out")
        if not 0 < self.pb_cutoff < 1:
            raise ParameterError(f"--pb-cutoff {self.pb_cutoff} must be above 0 and below 1")

    @property
    def products(self) -> Products:
        """What is written where."""
        from vis2img.products.products import Products  # astropy: --help does without

        fits = self.output or Path(f"{self.ms[0].resolve().stem}.fits")
        return Products(fits, self.psf, self.pb, not self.no_png, self.pb_cutoff, self.pb_band, self.overwrite)

    @property
    def suffixes(self) -> list[str]:
        """Suffix of each interval or draw; one empty suffix where there is one image or cube."""
        count, letter = (self.draws, "d") if self.draws > 1 else (self.intervals_out, "t")
        return [f"{letter}{i:04d}" for i in range(count)] if count > 1 else [""]

    def what(self, suffix: str) -> str:
        """Return which of the images stands for them all in the summary and the quick look; nothing where it is one."""
        mean = f"mean of {self.channels_out} channel ranges" if self.channels_out > 1 else ""
        which = f"{'draw' if self.draws > 1 else 'interval'} {suffix} of {len(self.suffixes)}" if suffix else ""
        return ", ".join(filter(None, (mean, which)))


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img image``."""
    refuse_other_words(argv, prog, ImageCommand)
    command = parse(ImageCommand, argv, prog)
    sets = [open_ms(path) for path in command.ms]
    outlines = [ms.outline(command.selection) for ms in sets]
    params = sets[0].imaging_params(command.selection, **command.imaging.changes())
    products = _check(command, params, outlines)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it remarks on its cache folder
    records: list[dict[str, Any]] = []
    lines: list[str] = []
    blank: list[str] = []
    taken = _taken(command, outlines)
    told = doubted = False
    with Bars(command.json or command.quiet, brief=True) as bars:
        parts = _read(sets, command, bars)
        # Needed to write, slow to import, and gridding leaves the interpreter free.
        threading.Thread(target=importlib.import_module, args=("astropy.io.fits",), daemon=True).start()
        samples = sum(part.nrow * len(part.chan_freq) for part in parts)
        images = _images(parts, params, command)
        for i, suffix in enumerate(command.suffixes):
            bars(f"gridding {samples:,} visibilities", i, len(command.suffixes))
            planes = next(images)
            written, shown = products.write(planes, suffix)
            if shown.nvis and not (doubted or command.quiet):
                warn_of_doubts(shown)
                doubted = True
            if products.png and shown.nvis:
                written += products.write_png(shown, command.what(suffix))
                products = replace(products, png=False)
            blank += _blank_names(planes, suffix)
            if command.json:
                records.append({**summary(shown, written), "taken": taken})
            elif shown.nvis and not told:
                lines.append(report(shown, written, command.what(suffix), taken))
                told = True
            else:
                lines += [f"wrote {path}" for path in written]
            del planes, shown  # not held while the next are made
    if blank:
        few = ", ".join(blank[:_FEW]) + (", ..." if len(blank) > _FEW else "")
        _warn(command, f"no visibility with weight is in {len(blank)} of the planes, which are blank: {few}")
    if command.json:
        print(json.dumps(records[0] if len(records) == 1 else {"images": records}, indent=2, allow_nan=False))
    elif not command.quiet:
        print(printable("\n".join(lines)))
    return 0


def _check(command: ImageCommand, params: ImagingParams, outlines: Sequence[Outline]) -> Products:
    """Refuse before any work what cannot be done, or would change a measurement set; return what to write."""
    products = command.products
    target = products.fits
    if not target.name:
        raise OutputError(f"{target} is a folder; name a file in it, e.g. {target / 'image.fits'}")
    if not target.is_dir() and target.suffix.lower() not in WRITTEN_SUFFIXES:
        raise OutputError(f"{target}: the name of the image must end with .fits")
    bands = [band for each in outlines for band in each.bands]
    freqs = [centre for centre, _ in plane_axes(bands, params, command.channels_out)]
    outputs = products.files(command.suffixes, command.selection.stokes, freqs)
    for ms in command.ms:
        for path in outputs:
            if ms.resolve() in (path.resolve(), *path.resolve().parents):
                raise OutputError(f"{path} would be inside the measurement set {ms}; choose another folder")
    check_outputs(outputs, command.overwrite)
    _check_sets(command, outlines)
    if command.pb:
        products = replace(products, pb_band=_receiver(command, outlines))
    check_memory(params, psf=command.psf, held=_held_bytes(command, params))
    return products


def _taken(command: ImageCommand, outlines: Sequence[Outline]) -> list[str]:
    """Return what was taken of what there is, of each set of which that is not all."""
    several = len(command.ms) > 1
    told = [(path, each.taken) for path, each in zip(command.ms, outlines, strict=True) if each.taken]
    return [f"{path}: {text}" if several else text for path, text in told]


def _check_sets(command: ImageCommand, outlines: Sequence[Outline]) -> None:
    """Warn of measurement sets that hardly belong into one image."""
    first = outlines[0]
    for path, other in zip(command.ms[1:], outlines[1:], strict=True):
        apart = separation(first.phase_centre, other.phase_centre)
        if apart > math.pi / 2:
            raise ParameterError(
                f"{path} has its phase centre {format_angle(apart, 3)} from that of {command.ms[0]}, beyond the "
                "horizon of the image; make images of their own"
            )
        frames = {each.stored_frame for each in (first, other)}
        if len(frames) > 1 and frames - set(IMAGE_FRAMES) and command.imaging.phase_centre is None:
            raise ParameterError(
                f"{path} has its directions in {other.stored_frame}, {command.ms[0]} in {first.stored_frame}: give "
                "--phase-centre RA,DEC to convert both to one image, or make images of their own"
            )
        what = ""
        if other.telescope != first.telescope:
            what = f"is of {other.telescope}, not {first.telescope}"
        elif apart > max(first.beam, other.beam):  # not true for NaN
            what = f"has its phase centre {format_angle(apart, 3)} away, more than a primary beam"
        if what:
            _warn(command, f"{path} {what}; it goes into the image of {command.ms[0]} all the same")
            return


def _receiver(command: ImageCommand, outlines: Sequence[Outline]) -> str:
    """Return the receiver whose primary beam is written, after seeing that there is a model of it."""
    found = set()
    for each in outlines:
        check_telescope(each.telescope)  # before bands, which are MeerKAT's
        band = command.pb_band or receiver(*each.receiver)
        check_beam(each.telescope, band, np.concatenate([freqs for freqs, _ in each.bands]))
        found.add(band)
    if len(found) > 1:
        raise ParameterError(f"--pb: the measurement sets are of several receivers ({', '.join(sorted(found))})")
    return found.pop()


def _held_bytes(command: ImageCommand, params: ImagingParams) -> int:
    """Return the memory of the images that are held while another is made."""
    count, cube = len(command.selection.stokes), command.channels_out > 1
    beams = planes_bytes(params, 2 * command.pb)
    means = planes_bytes(params, count if cube else 0, command.psf)
    return beams + means + planes_bytes(params, count * command.channels_out, command.psf, means=int(cube))


def _read(sets: Sequence[Dataset], command: ImageCommand, progress: Progress) -> list[Visibilities]:
    parts = []
    for ms in sets:
        parts += ms.read_parts(command.selection, nthreads=command.threads, progress=progress)
    return parts


def _images(parts: list[Visibilities], params: ImagingParams, command: ImageCommand) -> Iterator[list[list[Image]]]:
    """Yield the images [stokes][plane] of each interval or draw."""
    threads = command.threads or cores()
    by_stokes = [[part for part in parts if part.stokes == stokes] for stokes in command.selection.stokes]
    if command.draws > 1:
        variants = [replace(params, sampling_seed=params.sampling_seed + i) for i in range(command.draws)]
        for images in make_draws(by_stokes, variants, workers=threads, psf=command.psf):
            yield [[image] for image in images]
        return
    splits = command.channels_out * command.intervals_out
    copied = max(copied_bytes(group, params, splits == 1, splits) for group in by_stokes)
    check_memory(params, psf=command.psf, held=_held_bytes(command, params), copied=copied)
    if splits > 1:
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
        for _ in range(command.intervals_out):
            yield [next(cube) for cube in cubes]
    else:
        yield [[make_image(group, params, psf=command.psf, nthreads=threads, reuse=True)] for group in by_stokes]


def _blank_names(planes: Sequence[Sequence[Image]], suffix: str) -> list[str]:
    """Return how blank planes are called: suffix of the interval, number, Stokes parameter."""
    return [
        "-".join(filter(None, (suffix, f"{i:04d}" if len(row) > 1 else "", image.stokes if len(planes) > 1 else "")))
        for row in planes
        for i, image in enumerate(row)
        if not image.nvis
    ]


def _warn(command: ImageCommand, text: str) -> None:
    if not command.quiet:
        print(printable(f"vis2img: warning: {text}"), file=sys.stderr)
