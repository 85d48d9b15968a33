"""The files that imaging leaves: images and cubes, point spread functions, primary beams, quick looks.

NAME.fits            the dirty image, or the cube [stokes, freq, y, x]
NAME-psf.fits        its point spread function
NAME-MFS.fits        of a cube, the mean over frequency
NAME-pb.fits         the primary beam, and NAME-pbcor.fits the image divided by it
NAME-0000.fits ...   instead of a cube, where its planes are not evenly spaced in frequency
NAME-t0000.fits ...  per time interval, NAME-d0000.fits ... per draw: each with all of the above
NAME.png             a quick look at the first image
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vis2img.cubes import check_axes, write_cube
from vis2img.errors import ParameterError
from vis2img.fits import check_outputs, plane_freq, psf_path
from vis2img.imaging import Image
from vis2img.primary_beam import correct, parallactic_angles, primary_beam
from vis2img.series import mean_image


@dataclass(frozen=True)
class Products:
    """What is written of each image, and where.

    Parameters
    ----------
    fits : Path
        NAME.fits.
    psf, pb : bool
        Whether there are point spread functions, and primary beams with corrected images.
    png : bool
        Whether there is a quick look.
    pb_cutoff : float
        Primary beam below which the corrected image is blank.
    overwrite : bool
        Replace existing files.
    """

    fits: Path
    psf: bool = False
    pb: bool = False
    png: bool = True
    pb_cutoff: float = 0.05
    overwrite: bool = False

    def name(self, suffix: str) -> Path:
        """Return ``NAME-suffix.fits``, and ``NAME.fits`` for an empty suffix."""
        return self.fits.with_name(f"{self.fits.stem}-{suffix}{self.fits.suffix}") if suffix else self.fits

    def files(self, suffixes: Sequence[str], cube: bool) -> list[Path]:
        """Return all files that images with these suffixes (``t0000``, ``d0003``; empty: just one) lead to."""
        found = []
        for suffix in suffixes:
            for kind in ("", *(["MFS"] if cube else []), *(["pb", "pbcor"] if self.pb else [])):
                path = self.name("-".join(filter(None, (suffix, kind))))
                found += [path, psf_path(path)] if self.psf and kind in ("", "MFS") else [path]
        return [*found, self.fits.with_suffix(".png")] if self.png else found

    def write(self, planes: Sequence[Sequence[Image]], suffix: str = "") -> list[Path]:
        """Write images [stokes][plane], and what goes with them; return the files.

        Raises
        ------
        OutputError
            If a file exists already, or cannot be written; each is either whole or not there.
        ParameterError
            If there is no primary beam model for the telescope or frequencies.
        """
        written = self._write_stack(planes, self.name(suffix))
        if len(planes[0]) > 1:
            mean = [[mean_image(row)] for row in planes]
            written += self._write_stack(mean, self.name("-".join(filter(None, (suffix, "MFS")))))
        if self.pb:
            beams = [[replace(image, data=beam_of(image), psf=None) for image in row] for row in planes]
            corrected = [
                [replace(image, data=correct(image.data, beam.data, self.pb_cutoff), psf=None) for image, beam in pair]
                for pair in ([*zip(a, b, strict=True)] for a, b in zip(planes, beams, strict=True))
            ]
            for kind, stack in (("pb", beams), ("pbcor", corrected)):
                written += self._write_stack(stack, self.name("-".join(filter(None, (suffix, kind)))))
        return written

    def write_png(self, image: Image) -> list[Path]:
        """Write the quick look, if there is to be one."""
        if not self.png:
            return []
        from vis2img.quicklook import save_png

        return [save_png(image, self.fits.with_suffix(".png"), overwrite=self.overwrite)]

    def _write_stack(self, planes: Sequence[Sequence[Image]], path: Path) -> list[Path]:
        if len(planes) == 1 and len(planes[0]) == 1:
            return planes[0][0].to_fits(path, overwrite=self.overwrite)
        try:
            check_axes("".join(row[0].stokes for row in planes), [plane_freq(image)[0] for image in planes[0]])
        except ParameterError:
            return self._write_apart(planes, path)
        return write_cube(planes, path, overwrite=self.overwrite)

    def _write_apart(self, planes: Sequence[Sequence[Image]], path: Path) -> list[Path]:
        """Write one file per plane, as WSClean names them: NAME-0003-Q.fits."""
        targets = []
        for row in planes:
            for i, image in enumerate(row):
                parts = [
                    path.stem,
                    *([f"{i:04d}"] if len(row) > 1 else []),
                    *([image.stokes] if len(planes) > 1 else []),
                ]
                targets.append((image, path.with_name("-".join(parts) + path.suffix)))
        check_outputs([target for _, target in targets], self.overwrite)
        return [written for image, target in targets for written in image.to_fits(target, overwrite=self.overwrite)]


def beam_of(image: Image) -> np.ndarray:
    """Return the primary beam of ``image`` [y, x]: the mean over its channels and times, weighted as the image.

    Raises
    ------
    ParameterError
        If there is no model for the telescope or frequencies.
    """
    if image.channels is None:
        raise ParameterError("the image does not know its channels, which the primary beam depends on")
    pointing = (float(image.meta.get("pointing_ra", math.nan)), float(image.meta.get("pointing_dec", math.nan)))
    if not all(map(math.isfinite, pointing)):
        pointing = image.phase_centre
    freqs, weights = image.channels
    angles = None if image.times is None else parallactic_angles(image.times, pointing)
    return primary_beam(
        str(image.meta.get("telescope", "unknown")), freqs, weights, pointing, image.phase_centre,
        image.params.npix, image.params.pixsize, image.stokes, parallactic=angles,
    )  # fmt: skip
