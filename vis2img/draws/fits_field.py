"""Finished images as fields: a FITS image whose every draw is the image itself.

What varies is then what can be done to a finished picture, crops, flips and turns: the classical augmentation that
variation of the imaging is measured against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vis2img.draws.draw import Channel, Draw
from vis2img.draws.presets import PRESETS
from vis2img.draws.prior import ImagingPrior
from vis2img.draws.sky_image import SkyImage, open_image, read_pixels
from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.files import is_fits
from vis2img.imaging.image import robust_noise
from vis2img.imaging.params import ImagingParams
from vis2img.units import Angle


def is_image(path: str | Path) -> bool:
    """Return whether an input is a FITS image, by its name."""
    return is_fits(path) and not Path(path).is_dir()


@dataclass(frozen=True)
class FitsField:
    """A FITS image as a field; see :class:`vis2img.draws.field.Field`."""

    image: SkyImage
    fov: Angle
    """Side of the field: no more than the image has."""
    pixsize: Angle
    """Pixel size in which patches are counted."""
    channels = 1

    @classmethod
    def open(cls, path: str | Path, fov: float = math.inf, pixsize: float = 0.0) -> FitsField:
        """Read and check the header of an image.

        Parameters
        ----------
        path : path
        fov : float
            Largest side in rad; of a larger image the middle is used, and no more is read.
        pixsize : float
            Pixel size in rad in which patches are counted; 0: :attr:`SkyImage.suggested_pixsize`.

        Raises
        ------
        MeasurementSetError
            As :func:`vis2img.draws.sky_image.open_image`.
        """
        image = replace(open_image(path, fov), path=str(Path(path).resolve()))
        return cls(image, min(fov, max(image.npix) * image.pixsize), pixsize or image.suggested_pixsize)

    @property
    def path(self) -> str:
        """The file."""
        return self.image.path

    @property
    def prior(self) -> ImagingPrior:
        """The prior of what never varies."""
        return ImagingPrior(self.fov, self.image.pixsize, PRESETS["image-only"])

    def __str__(self) -> str:
        return self.path

    def draw(self, params: ImagingParams | None = None, nthreads: int = 1) -> Draw:
        """Return the image as a draw, whatever ``params`` are.

        Returns
        -------
        Draw
            ``data`` as in the file, NaN where blank; ``noise`` is that of the header (NOISE), else the robust noise.
            ``params`` are those that vis2img wrote into the file; of other files, only ``npix`` and ``pixsize`` count.

        Raises
        ------
        MeasurementSetError
            If the file cannot be read, or has no noise (a model, or blank); the message names it.
        """
        data = read_pixels(self.image)
        noise = self.image.noise or robust_noise(data)
        if not (noise > 0 and math.isfinite(noise)):
            raise MeasurementSetError(
                f"{self.path}: most pixels are alike or blank, so that it has no noise to stretch by "
                "(is it a model or a mask?)"
            )
        channel = Channel("I", (0.0, 1.0), math.nan if self.image.freq is None else self.image.freq)
        noises = np.array([noise])
        image = self.image
        return Draw.of_images(
            data[np.newaxis], _params(image), image.phase_centre, noises, (channel,), turn=image.turn, beam=image.beam
        )


def _params(image: SkyImage) -> ImagingParams:
    from vis2img.imaging.fits import read_params  # astropy: for fields that are such images only

    try:
        made = read_params(image.path)
    except (ParameterError, KeyError, TypeError):
        return ImagingParams(image.npix, image.pixsize)
    return replace(made, npix=image.npix, pixsize=image.pixsize, phase_centre=None)
