"""What ``vis2img image`` tells of an image: text and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.cli.info import direction_text
from vis2img.coordinates import pixel_to_lm, sky_position
from vis2img.imaging.image import Image
from vis2img.units import format_angle, format_freq


def summary(image: Image, written: list[Path]) -> dict[str, Any]:
    """Return what ``--json`` prints; null for what a blank image has not."""
    blank, origin = image.nvis == 0, image.origin
    peak, pixel = (None, None) if blank else _peak(image)
    return {
        "outputs": [str(path) for path in written],
        "peak_jy_beam": peak,
        "peak_pixel": None if pixel is None else list(pixel),
        "noise_jy_beam": None if blank else image.noise(),
        "beam_deg": None if image.beam is None else [math.degrees(angle) for angle in image.beam],
        "phase_centre_deg": [math.degrees(angle) for angle in image.phase_centre],
        "freq_hz": image.freq[0],
        "bandwidth_hz": image.freq[1],
        "nvis": image.nvis,
        "weight_sum": image.weight_sum,
        "params": image.params.to_dict(),
        "telescope": origin.telescope,
        "field": origin.field,
        "spw": origin.spw_label,
        "column": origin.column,
        "stokes_from": origin.stokes_from,
    }


def report(image: Image, written: list[Path], what: str = "", taken: Sequence[str] = ()) -> str:
    """Return the text that a person reads.

    ``what`` says which of several images it is of, ``taken`` what was imaged of what the measurement sets hold.
    """
    params = image.params
    peak, (x, y) = _peak(image)
    ra, dec = _position(image, x, y)
    robust = f" {params.robust:g}" if params.weighting == "briggs" else ""
    origin = image.origin
    return "\n".join(
        [
            f"{origin.telescope} field {origin.field!r}, spw {origin.spw_label}, {origin.column} "
            f"({origin.stokes_from}): {image.nvis:,} visibilities at {format_freq(image.freq[0])}",
            *(f"taken {text}" for text in taken),
            f"{params.npix[0]} x {params.npix[1]} pixels of {format_angle(params.pixsize, 4)}, "
            f"{params.weighting}{robust}",
            *([f"shown {what}"] if what else []),
            f"beam  {_beam_text(image)}",
            f"peak  {peak:.4g} Jy/beam at {direction_text(ra, dec)} (pixel {x}, {y})",
            f"noise {image.noise():.3g} Jy/beam",
            *(f"wrote {path}" for path in written),
        ]
    )


def _beam_text(image: Image) -> str:
    if image.beam is None:
        return "none: the PSF has no closed main lobe"
    major, minor, angle = image.beam
    return f"{format_angle(major, 3)} x {format_angle(minor, 3)}, PA {math.degrees(angle):.0f} deg"


def _peak(image: Image) -> tuple[float, tuple[int, int]]:
    y, x = divmod(int(np.nanargmax(image.data)), image.data.shape[1])
    return float(image.data[y, x]), (x, y)


def _position(image: Image, x: int, y: int) -> tuple[float, float]:
    l, m = pixel_to_lm(x, y, image.params.npix, image.params.pixsize)
    ra, dec = sky_position(np.asarray(l), np.asarray(m), image.phase_centre)
    return float(ra), float(dec)
