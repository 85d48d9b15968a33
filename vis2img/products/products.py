"""The files that imaging leaves: images and cubes, point spread functions, primary beams, quick looks.

NAME.fits            the dirty image, or the cube [stokes, freq, y, x]
NAME-psf.fits        its point spread function
NAME-MFS.fits        of a cube, the mean over frequency
NAME-pb.fits         the primary beam, and NAME-pbcor.fits the image divided by it
NAME-0000.fits ...   instead of a cube, where its planes are not evenly spaced in frequency
NAME-I.fits ...      likewise, where the Stokes parameters are no neighbours in I, Q, U, V
NAME-t0000.fits ...  per time interval, NAME-d0000.fits ... per draw: each with all of the above
NAME.png             a quick look at the first image with data; of a cube, at the mean over frequency
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vis2img.coordinates import parallactic_angles
from vis2img.errors import ParameterError
from vis2img.files import check_outputs
from vis2img.imaging.cubes import mean_image
from vis2img.imaging.fits import plane_freq, psf_path, write_image
from vis2img.imaging.image import Image
from vis2img.imaging.primary_beam import correct, primary_beam, receiver
from vis2img.products.fits_cube import fit_one_file, open_cube, write_cube


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
    pb_band : str or None
        Receiver whose beam it is; default: see :func:`beam_of`.
    overwrite : bool
        Replace existing files.
    """

    fits: Path
    psf: bool = False
    pb: bool = False
    png: bool = True
    pb_cutoff: float = 0.05
    pb_band: str | None = None
    overwrite: bool = False

    def name(self, *suffixes: str) -> Path:
        """Return ``NAME-suffix-suffix.fits``, without the suffixes that are empty."""
        return self.fits.with_name("-".join(filter(None, (self.fits.stem, *suffixes))) + self.fits.suffix)

    def files(self, suffixes: Sequence[str], stokes: str = "I", freqs: Sequence[float] = (math.nan,)) -> list[Path]:
        """Return all files that will be written.

        Parameters
        ----------
        suffixes : sequence of str
            Of the intervals or draws (``t0000``, ``d0003``); one empty suffix where there is just one.
        stokes : str
            Stokes parameters.
        freqs : sequence of float
            Centres of the planes in Hz; one of any value where there is no cube.
        """
        paths = []
        for suffix in suffixes:
            kinds = [("", freqs, self.psf)]
            kinds += [("MFS", freqs[:1], self.psf)] if len(freqs) > 1 else []
            kinds += [(kind, freqs, False) for kind in ("pb", "pbcor") if self.pb]
            for kind, centres, psf in kinds:
                for path in _distinct(_targets(self.name(suffix, kind), stokes, centres)):
                    paths += [path, psf_path(path)] if psf else [path]
        return [*paths, self.fits.with_suffix(".png")] if self.png else paths

    def write(self, planes: Sequence[Sequence[Image]], suffix: str = "") -> tuple[list[Path], Image]:
        """Write images [stokes][plane], and what goes with them.

        Returns
        -------
        (list of Path, Image)
            The files, and what stands for the planes: the image, or the mean over frequency, of the first Stokes
            parameter that has data.

        Raises
        ------
        OutputError
            If a file exists already, or cannot be written; each is either whole or not there.
        ParameterError
            If there is no primary beam model for the telescope or frequencies.
        """
        written = self._write_stack(planes, self.name(suffix))
        means = [mean_image(row) if len(row) > 1 else row[0] for row in planes]
        if len(planes[0]) > 1:
            written += self._write_stack([[mean] for mean in means], self.name(suffix, "MFS"))
        if self.pb:
            written += self._write_beams(planes, suffix)
        return written, next((mean for mean in means if mean.nvis), means[0])

    def write_png(self, image: Image, what: str = "") -> list[Path]:
        """Write the quick look, if there is to be one; ``what`` says in its title which image it is."""
        if not self.png:
            return []
        from vis2img.imaging.picture import save_png

        return [save_png(image, self.fits.with_suffix(".png"), overwrite=self.overwrite, what=what)]

    def _write_stack(self, planes: Sequence[Sequence[Image]], path: Path) -> list[Path]:
        targets = _targets(path, *_axes(planes))
        if len(planes) * len(planes[0]) > 1 and targets[0][0] == path:
            return write_cube(planes, path, overwrite=self.overwrite)
        check_outputs(_distinct(targets), self.overwrite)
        return [
            written
            for images, paths in zip(planes, targets, strict=True)
            for image, target in zip(images, paths, strict=True)
            for written in write_image(image, target, overwrite=self.overwrite)
        ]

    def _write_beams(self, planes: Sequence[Sequence[Image]], suffix: str) -> list[Path]:
        """Write primary beams and corrected images plane by plane: neither is held of all planes."""
        names = [self.name(suffix, kind) for kind in ("pb", "pbcor")]
        files = [path for name in names for path in _distinct(_targets(name, *_axes(planes)))]
        check_outputs(files, self.overwrite)
        with contextlib.ExitStack() as stack:
            put_beam, put_corrected = (stack.enter_context(self._sink(planes, name)) for name in names)
            for images in planes:
                for plane, image in enumerate(images):
                    beam = beam_of(image, self.pb_band)
                    put_beam(replace(image, data=beam, psf=None, unit=""), plane)
                    corrected = correct(image.data, beam, self.pb_cutoff)
                    put_corrected(replace(image, data=corrected, psf=None), plane)
        return files

    @contextlib.contextmanager
    def _sink(self, planes: Sequence[Sequence[Image]], path: Path) -> Iterator[Callable[[Image, int], object]]:
        """Give what takes one image after the other, and its number, into one file or several."""
        stokes, freqs = _axes(planes)
        targets = _targets(path, stokes, freqs)
        if len(stokes) * len(freqs) > 1 and targets[0][0] == path:
            with open_cube(path, stokes, freqs, self.overwrite) as cube:
                yield cube.put
        else:
            yield lambda image, plane: write_image(image, targets[stokes.index(image.stokes)][plane], self.overwrite)


def _axes(planes: Sequence[Sequence[Image]]) -> tuple[str, list[float]]:
    return "".join(row[0].stokes for row in planes), [plane_freq(image)[0] for image in planes[0]]


def _targets(path: Path, stokes: str, freqs: Sequence[float]) -> list[list[Path]]:
    """Return the file of each image [stokes][plane]: ``path`` for all, or one each as WSClean's (NAME-0003-Q.fits)."""
    if len(stokes) * len(freqs) == 1 or fit_one_file(stokes, freqs):
        return [[path] * len(freqs) for _ in stokes]
    many, several = len(freqs) > 1, len(stokes) > 1
    return [
        [
            path.with_name("-".join([path.stem, *([f"{i:04d}"] * many), *([name] * several)]) + path.suffix)
            for i in range(len(freqs))
        ]
        for name in stokes
    ]


def _distinct(targets: Sequence[Sequence[Path]]) -> list[Path]:
    return list(dict.fromkeys(path for row in targets for path in row))


def beam_of(image: Image, band: str | None = None) -> np.ndarray:
    """Return the primary beam of ``image`` [y, x]: the mean over its channels and times, weighted as the image.

    Parameters
    ----------
    image : Image
    band : str, optional
        Receiver: UHF, L or S. Default: the one that fits all channels of the measurement set, which a plane of a cube
        has only some of.

    Raises
    ------
    ParameterError
        If there is no model for the telescope or frequencies.
    """
    if image.channels is None:
        raise ParameterError("the image does not know its channels, which the primary beam depends on")
    if not image.nvis:
        return np.full(image.data.shape, np.nan, np.float32)
    pointing = image.origin.pointing
    if pointing is None or not all(map(math.isfinite, pointing)):
        pointing = image.phase_centre
    if band is None and image.origin.band is not None:
        band = receiver(*image.origin.band)
    turns = None
    if image.times is not None:
        times, weights = image.times
        turns = parallactic_angles(times, pointing), weights
    return primary_beam(
        image.origin.telescope, image.channels, pointing, image.phase_centre, image.params.npix, image.params.pixsize,
        image.stokes, turns=turns, band=band,
    )  # fmt: skip
