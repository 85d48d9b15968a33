"""What makes one doubt an image: nonsense in the data, or parameters that suit them badly. Each with its number."""

from __future__ import annotations

import math
import warnings

from vis2img.coordinates import separation
from vis2img.errors import Vis2imgWarning
from vis2img.imaging.image import Image
from vis2img.units import format_angle, format_freq
from vis2img.visibilities import RADIO, SPEED_OF_LIGHT

_MUCH_LEFT_OUT = 0.1  # of the data weight
_MANY_BEAMS = 5  # primary beams across an image; WSClean's users take up to four, for sources in the sidelobes
_FINE = 100  # pixels across a beam; 3 to 5 sample it


def warn_of_doubts(image: Image) -> None:
    """Warn of what :func:`doubts` finds."""
    for text in doubts(image):
        warnings.warn(text, Vis2imgWarning, stacklevel=2)


def doubts(image: Image) -> list[str]:
    """Return a line for each thing that makes the image hardly worth looking at; none for a sound one."""
    if not image.nvis:
        return []
    return [text for text in (_of_frequency(image), *_of_primary_beam(image), *_of_pixels(image)) if text]


def primary_beam_fwhm(image: Image) -> float:
    """Return 1.2 lambda / D at the mean frequency in rad; NaN where the dishes are not known."""
    dish = image.origin.dish_diameter
    return 1.2 * SPEED_OF_LIGHT / image.freq[0] / dish if dish > 0 and image.freq[0] > 0 else math.nan


def _of_frequency(image: Image) -> str | None:
    if RADIO[0] <= image.freq[0] <= RADIO[1]:
        return None
    return (
        f"the data are at {format_freq(image.freq[0])}, which no radio telescope observes: "
        "CHAN_FREQ holds Hz, were GHz or MHz written?"
    )


def _of_primary_beam(image: Image) -> list[str]:
    """Compare pointing, field of view and synthesised beam with the primary beam; not true for NaN."""
    primary, params = primary_beam_fwhm(image), image.params
    found = []

    apart = separation(image.phase_centre, image.origin.pointing) if image.origin.pointing else math.nan
    if apart > primary:
        found.append(
            f"the image is about a place {format_angle(apart, 3)} from where the dishes pointed, "
            f"{apart / primary:.3g} primary beams of {format_angle(primary, 3)}: sources there are hardly seen"
        )
    widest = max(params.fov)
    if widest > _MANY_BEAMS * primary:
        found.append(
            f"the image is {format_angle(widest, 3)} wide, {widest / primary:.3g} primary beams of "
            f"{format_angle(primary, 3)}: most of it is noise and sidelobes (fewer pixels with --npix)"
        )
    whole = params.taper == 0 and math.isinf(params.uvrange[1])
    if whole and image.beam is not None and image.beam[1] > primary:
        found.append(
            f"the synthesised beam ({format_angle(image.beam[1], 3)}) is wider than the primary beam "
            f"({format_angle(primary, 3)}), as if baselines were shorter than dishes: UVW holds m, were km written?"
        )
    return found


def _of_pixels(image: Image) -> list[str]:
    pixsize, found = image.params.pixsize, []
    if image.off_grid > _MUCH_LEFT_OUT:
        found.append(
            f"pixels of {format_angle(pixsize, 3)} are too coarse for {100 * image.off_grid:.0f}% of the data by "
            f"weight, on baselines beyond {1 / (2 * pixsize):.4g} wavelengths, which are left out (smaller --pixsize)"
        )
    if image.beam is not None and image.beam[1] > _FINE * pixsize:
        found.append(
            f"the beam is {image.beam[1] / pixsize:.0f} pixels wide, and 3 to 5 are enough: pixels of "
            f"{format_angle(pixsize, 3)} show no more than larger ones (larger --pixsize)"
        )
    return found
