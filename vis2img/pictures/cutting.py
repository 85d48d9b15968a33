"""Survey cutouts in memory, as they are stored, and the views that are cut from them.

A view is a square about the middle of a picture, turned by any angle, resampled and stretched by the noise of the
picture, as views of draws are (:mod:`vis2img.views.crops`). Lengths are in pixels of the picture.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.imaging.image import robust_noise
from vis2img.pictures.cutouts import RawCutouts
from vis2img.pictures.formats import read_pictures
from vis2img.progress import Progress, no_progress
from vis2img.views.pixel_changes import ViewChange, change_pixels, raise_to
from vis2img.views.resample import LINEAR, fill_region, fill_turned, resample, turn_middle
from vis2img.views.stretch import Stretches, cut_stretched, stretch_view, stretches_of

log = logging.getLogger(__name__)
_KEPT = ("u1", "i1", "u2", "i2", "f4")  # types that stay as they are; others become float32
_MOST_BLANK = 0.5  # of a picture
_SMALLEST = 8  # pixels a side of a picture
_ROUNDING = 1e-6  # pixels
_MARGIN = 2  # pixels about a turned square, so that the resampler sees no edge


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a loader.

    Parameters
    ----------
    images : list of array [y, x]
        Integers or float32, as stored; NaN where blank.
    background, noise : float32 [picture]
        Median and robust noise in the stored numbers.
    names : list of str
        File and row of each.
    skipped : dict
        Pictures that cannot be used, and why.
    fingerprint : str
        Hash of all that was read, by which a run that goes on knows that it sees the same pictures.
    """

    images: list[np.ndarray]
    background: np.ndarray
    noise: np.ndarray
    names: list[str]
    skipped: dict[str, str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.images)


def open_pictures(paths: Iterable[str | Path], patch_npix: int | None, progress: Progress = no_progress) -> Pictures:
    """Read cutouts: npz files, FITS images or folders of them (:func:`vis2img.pictures.formats.read_pictures`).

    Files that cannot be read among others, and pictures that are smaller than a patch, more than half blank, or the
    same everywhere are left out and named.

    Parameters
    ----------
    paths : iterable of path
    patch_npix : int, optional
        Side of a patch in pixels of the pictures; default: smaller pictures are used, too, of 8 pixels a side or more.
    progress : callable, optional
        Called with (pictures looked at, pictures).

    Raises
    ------
    Vis2imgError
        If a file is not there, or none of the pictures can be used; one line that names the file.
    """
    files, skipped = _read_all([*paths])
    total, done = sum(map(len, files)), 0
    digest = hashlib.blake2b(digest_size=16)
    images, levels, names = [], [], []
    for cutouts in files:
        for name, each, image in zip(cutouts.rows, cutouts.images, _stored(cutouts.images), strict=True):
            digest.update(repr((image.shape, image.dtype.str)).encode())
            digest.update(image.tobytes())
            background, noise, why = _judged(image, is_whole(each), patch_npix)
            done += 1
            if done % 100 == 0 or done == total:
                progress("reading pictures", done, total)
            if why:
                skipped[name] = f"{name}: {why}"
                continue
            images.append(image)
            levels.append((background, noise))
            names.append(name)
    if not images:
        raise Vis2imgError(f"no picture can be used: {next(iter(skipped.values()), 'there is none')}")
    for path, why in skipped.items():
        log.warning("skipped: %s", why if path in why else f"{path}: {why}")
    background, noise = np.array(levels, np.float32).T
    return Pictures(images, background, noise, names, skipped, digest.hexdigest())


def _read_all(paths: Sequence[str | Path]) -> tuple[list[RawCutouts], dict[str, str]]:
    """Return what can be read of files and folders, and why the others cannot."""
    files: list[RawCutouts] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            files.append(read_pictures(path))
        except Vis2imgError as error:
            if len(paths) == 1 or not Path(path).exists():  # a name mistyped, not a file damaged
                raise
            skipped[str(path)] = str(error)
        else:
            skipped |= files[-1].skipped
    return files, skipped


def _stored(images: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
    """Return the pictures in a type that the compiled loops take, without a copy where they are in one."""
    return list(plain(images)) if isinstance(images, np.ndarray) else [plain(image) for image in images]


def plain(images: np.ndarray) -> np.ndarray:
    """Return pictures in a type that the compiled loops take, without a copy where they are in one."""
    kind = images.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # what single precision cannot hold is blank
        return np.ascontiguousarray(images, kind if kind.str[1:] in _KEPT else np.float32)


def is_whole(image: np.ndarray) -> bool:
    """Return whether a picture, as its file has it, was rounded to whole numbers."""
    return image.dtype.kind in "iu"


def one_picture(image: np.ndarray, name: str) -> Pictures:
    """Return one picture, as its file has it, with background and noise as :func:`open_pictures` finds them.

    Raises
    ------
    Vis2imgError
        If it holds no finite pixel, or numbers near the end of single precision.
    """
    pixels = plain(image)
    finite = pixels[np.isfinite(pixels)]
    if not len(finite):
        raise Vis2imgError(f"{name} is blank")
    # A picture that is the same everywhere has no noise, and is 0 in any unit.
    noise = picture_noise(finite, is_whole(image)) if finite.min() < finite.max() else 1.0
    if not math.isfinite(noise):
        raise Vis2imgError(f"{name}: its numbers are too large")
    background = np.array([np.median(finite)], np.float32)
    return Pictures([pixels], background, np.array([noise], np.float32), [name], {}, "")


def _judged(image: np.ndarray, whole: bool, patch_npix: int | None) -> tuple[float, float, str]:
    """Return background and noise of a picture, and why it cannot be used, if so."""
    ny, nx = image.shape
    if min(nx, ny) < (patch_npix or _SMALLEST):
        least = f"views.patch_npix = {patch_npix}" if patch_npix else str(_SMALLEST)
        return 0.0, 0.0, f"{nx} x {ny} pixels are fewer than {least}"
    finite = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
    if len(finite) < (1 - _MOST_BLANK) * image.size:
        return 0.0, 0.0, f"{100 * (1 - len(finite) / image.size):.0f}% of its pixels are blank"
    if finite.min() == finite.max():
        return 0.0, 0.0, f"all of its pixels are {finite[0]:g}"
    background, noise = float(np.median(finite)), picture_noise(finite, whole)
    return background, noise, "" if math.isfinite(noise) else "its numbers are too large"


def picture_noise(pixels: np.ndarray, whole: bool) -> float:
    """Return the robust noise of finite pixels [n], in their own unit; positive unless all are alike.

    Numbers that were rounded to integers (``whole``) are spread over the width of a step first, or their median
    deviation would come in steps as well; it is thus at least that of the rounding, 0.37. Where a survey cut its noise
    off and most pixels are one number, a third of the least that any other is away from it stands for it, as cuts are
    at 3 sigma.
    """
    values: np.ndarray = pixels.astype(np.float32)
    if whole:
        values += np.resize(_DITHER, len(values))
    noise = robust_noise(values)
    if noise > 0:
        return noise
    apart = np.abs(values - np.median(values))
    return float(apart[apart > 0].min(initial=np.inf)) / 3


_DITHER = (np.random.default_rng(0).permutation(4093) + 0.5).astype(np.float32) / 4093 - 0.5


@dataclass(frozen=True)
class Square:
    """Where a view lies in its patch, before the turn: its middle, from the middle of the picture, and its side."""

    x: float
    y: float
    side: float


def cut_picture(
    pictures: Pictures,
    number: int,
    square: Square,
    out: np.ndarray,
    stretch: Stretches | None = None,
    change: ViewChange | None = None,
    rng: np.random.Generator | None = None,
) -> None:
    """Cut a view of a picture.

    Parameters
    ----------
    pictures : Pictures
    number : int
        Which of them.
    square : Square
    out : float32 [size, size] or [size, size, stretch]
        Where to write, of any strides; [size, size] is for one stretch or none.
    stretch : Stretch or sequence of Stretch, optional
        Default: none; ``out`` is then in units of the noise of the picture, above its background.
    change : ViewChange, optional
        Turn and changes of pixels; default: none. Its zoom and shift are those of ``square`` already. A part of a
        square that reaches beyond the picture shows it mirrored, or background, as it says.
    rng : numpy Generator, optional
        Of the noise of ``change``.
    """
    change = change or ViewChange()
    image, size = pictures.images[number], len(out)
    background, noise = float(pictures.background[number]), float(pictures.noise[number])
    step = square.side / size
    planes = out[:, :, np.newaxis] if out.ndim == 2 else out  # the same memory
    each = [(how, planes[:, :, number]) for number, how in enumerate(stretches_of(stretch))]

    if change.stays_near or not change.angle:
        region, left, lower = _region(image, square, background, step, change)
        if each and not change.of_pixels:
            for how, channel in each:
                cut_stretched(region, (left, lower, square.side), noise, how, channel)
                raise_to(channel, change.power)
            return
        view = np.empty((size, size), np.float32)
        resample(region, left, lower, square.side, LINEAR, 1.0, 1.0 / noise, 1.0, 0.0, view)
    else:
        view = _turned(image, square, background, change, size)
        view /= np.float32(noise)

    change_pixels(view, change, change.blur / step, rng or np.random.default_rng(0))
    if not each:
        out[...] = view
    for how, channel in each:
        stretch_view(view, how, channel)
    for channel in [channel for _, channel in each] or [out]:
        raise_to(channel, change.power)


def _region(
    image: np.ndarray, square: Square, background: float, step: float, change: ViewChange
) -> tuple[np.ndarray, float, float]:
    """Return the part of a picture about a square above the background, turned, and where the square starts in it."""
    if not change.angle:
        return _straight(image, square, background, step, change.mirror)
    margin = _MARGIN + math.ceil(step)
    width = math.ceil(square.side) + 2 * margin
    region = np.empty((width, width), np.float32)
    fill_turned(image, square.x, square.y, square.side / 2 + margin, change.angle, background, region)
    return region, float(margin), float(margin)


def _turned(image: np.ndarray, square: Square, background: float, change: ViewChange, size: int) -> np.ndarray:
    """Return a view [size, size] of a square that is turned about the middle of the picture, above the background.

    Reduced first and turned then, which takes a third of the time of the other way round.
    """
    cos, sin = math.cos(change.angle), math.sin(change.angle)
    width = math.ceil(size * math.sqrt(2)) + 2 * (_MARGIN + 1)
    step = square.side / size
    around = Square(cos * square.x - sin * square.y, sin * square.x + cos * square.y, width * step)
    region, left, lower = _straight(image, around, background, step, change.mirror)
    wider, view = np.empty((width, width), np.float32), np.empty((size, size), np.float32)
    resample(region, left, lower, around.side, LINEAR, 1.0, 1.0, 1.0, 0.0, wider)
    turn_middle(wider, change.angle, view)
    return view


def _straight(
    image: np.ndarray, square: Square, background: float, step: float, mirror: bool
) -> tuple[np.ndarray, float, float]:
    """Return the part of a picture about a square above the background, and where the square starts in it."""
    reach = math.ceil(max(step, 1.0)) + 4  # the resampler takes four pixels at a time
    firsts, counts, starts = [], [], []
    for n, middle in zip(image.shape, (square.y, square.x), strict=True):
        start = n / 2 + middle - square.side / 2
        beyond = start < -_ROUNDING or start + square.side > n + _ROUNDING
        if not beyond:
            start = min(max(start, 0.0), n - square.side)
        first, behind = math.floor(start) - reach, math.ceil(start + square.side) + reach
        if not beyond:
            first, behind = max(0, first), min(n, behind)
        firsts.append(first)
        counts.append(behind - first)
        starts.append(start - first)
    region = np.empty(counts, np.float32)
    fill_region(image, firsts[0], firsts[1], background, mirror, region)
    return region, starts[1], starts[0]
