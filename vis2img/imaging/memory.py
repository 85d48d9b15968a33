"""How much memory imaging takes: asked before the work, and what many images at once are limited by."""

from __future__ import annotations

from collections.abc import Sequence

from vis2img.errors import NotEnoughMemoryError
from vis2img.imaging.params import ImagingParams
from vis2img.machine import free_bytes
from vis2img.visibilities import Visibilities

# ducc0 holds the image, the oversampled grid (at most 2.6^2, single-precision complex) and the result, and beside
# them stand the weights in the cells of the density grid (half of 1.2^2, double precision).
_BYTES_PER_PIXEL = 4 * (2 + 2 * 2.6**2) + 8 * 1.2**2 / 2
_PLANE_BYTES = 4  # per pixel of a finished image
_CELL_BYTES = 4 * 1.2**2 / 2  # per pixel of an image that keeps its weights on the density grid, for a mean
_WEIGHT_BYTES, _SAMPLE_BYTES, _ROTATED_BYTES = 4, 8 + 4, 8


def image_bytes(params: ImagingParams, psf: bool = False) -> int:
    """Return the memory that making one image takes, without its visibilities."""
    return int(_pixels(params) * (_BYTES_PER_PIXEL + (_PLANE_BYTES if psf else 0)))


def planes_bytes(params: ImagingParams, planes: int, psf: bool = False, means: int = 0) -> int:
    """Return the memory of ``planes`` finished images, and of ``means`` running means at a time that they go into."""
    pixels = planes * _PLANE_BYTES + means * 8  # a mean is summed in double precision, as its cells
    cells = planes * _CELL_BYTES * (means > 0) + means * 2 * _CELL_BYTES
    return int(_pixels(params) * (pixels * (2 if psf else 1) + cells))


def copied_bytes(parts: Sequence[Visibilities], params: ImagingParams, reuse: bool = False, splits: int = 1) -> int:
    """Return the memory of what one image copies of its visibilities: weights, and what is thinned out or rotated.

    ``reuse``: the imaging weights take the place of the data weights; ``splits``: the image is of one of so many parts.
    """
    centre = params.phase_centre or parts[0].phase_centre
    kept = params.kept_share
    joined = len({part.chan_freq.tobytes() for part in parts}) < len(parts)
    total = 0.0
    for part in parts:
        each = _WEIGHT_BYTES * (not reuse) + _SAMPLE_BYTES * ((kept < 1) + joined)
        each += _ROTATED_BYTES * (part.phase_centre != centre)
        each += _SAMPLE_BYTES * (splits > 1)
        total += kept * each * part.vis.size
    return int(total / splits)


def check_memory(params: ImagingParams, *, psf: bool = False, held: int = 0, copied: int = 0) -> None:
    """Raise NotEnoughMemoryError, a ParameterError, when an image cannot be made in the free memory.

    Parameters
    ----------
    params : ImagingParams
    psf : bool
        Whether there is a point spread function too.
    held : int
        Bytes of other images that will be held by then: :func:`planes_bytes`.
    copied : int
        Bytes that are copied of the visibilities: :func:`copied_bytes`.
    """
    need, free = image_bytes(params, psf) + held + copied, free_bytes()
    if need > free:
        besides = [f"{size / 1e9:.1f} GB of it for {what}" for size, what in (
            (held, "the planes that are held; choose fewer"), (copied, "copies of the visibilities")
        ) if size > need // 2]  # fmt: skip
        raise NotEnoughMemoryError(
            f"npix {params.npix[0]},{params.npix[1]} needs about {need / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB is free; choose a smaller npix{''.join(f' ({text})' for text in besides)}"
        )


def images_at_once(
    groups: Sequence[Sequence[Visibilities]], params: Sequence[ImagingParams], workers: int, psf: bool = False
) -> int:
    """Return how many of ``workers`` fit into the free memory, each with an image in making and two finished.

    Besides these, one of each group is being written.
    """
    each = max(
        image_bytes(one, psf) + planes_bytes(one, 2, psf) + max(copied_bytes(parts, one) for parts in groups)
        for one in params
    )
    written = max(planes_bytes(one, len(groups), psf) for one in params)
    return max(1, min(workers, (free_bytes() - written) // each))


def _pixels(params: ImagingParams) -> int:
    return params.npix[0] * params.npix[1]
