"""The true sky of a simulated observation, and what of it lies in any picture.

    truth = Truth.read("obs.ms")
    view = truth.at_image(image)                       # or truth.at(wcs, shape), truth.at_patch(centre, pixsize, npix)
    view.labels, view.counts, view.boxes(), view.segmentation(), view.brightness()

Sources are found in a k-d tree of unit vectors, so that the poles and right ascension 0 are like any other place.
:mod:`vis2img.simulate.truth.frames` projects them, and :mod:`vis2img.simulate.truth.render` draws them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.pictures.cutouts import native
from vis2img.simulate.sky.catalogue import read_catalogue, source_columns
from vis2img.simulate.sky.source import UNLABELLED, SkySource
from vis2img.simulate.truth.frames import Beam, Frame, beam_covariance, patch_frame, project, wcs_frame
from vis2img.simulate.truth.parts import BOX_SIGMAS, Parts, SkyParts, boxes, sky_parts
from vis2img.simulate.truth.view import TruthView
from vis2img.units import SIGMA_OF_FWHM

if TYPE_CHECKING:
    from vis2img.imaging.image import Image

APPARENT = "apparent_flux_jy"


class What(TypedDict, total=False):
    """What of the truth is looked at, and how."""

    freq: float | None
    """Frequency of fluxes and brightness in Hz; default: that of the catalogue."""
    classes: Sequence[str] | None
    """Only sources of these classes; '' stands for those without a label."""
    min_flux: float
    """Least flux of a source in Jy, at ``freq``."""
    beam: Beam
    """FWHM of a Gaussian, or major and minor FWHM and position angle (rad), that blurs what is seen."""
    apparent: bool
    """Dim each source by the primary beam, as the column ``apparent_flux_jy`` says."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The sources of a simulated sky, and the parameters of the simulation.

    Parameters
    ----------
    sources : list of SkySource
    parameters : dict
        What OUT.truth.json holds.
    columns : dict of str to array [n]
        More columns of the catalogue, for example ``apparent_flux_jy``.
    """

    sources: list[SkySource]
    parameters: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Truth:
        """Read the truth of a measurement set.

        Parameters
        ----------
        path : path
            The measurement set OUT, or its OUT.truth.fits; OUT.truth.json must lie beside it.

        Raises
        ------
        Vis2imgError
            If a file is missing or damaged; the message names it and what to do.
        """
        path = Path(path)
        catalogue = path if path.suffix == ".fits" and not path.is_dir() else path.with_name(f"{path.name}.truth.fits")
        record = catalogue.with_suffix(".json")
        for file in (catalogue, record):
            if not file.is_file():
                raise Vis2imgError(
                    f"{file} does not exist: `vis2img simulate` writes it beside its measurement set; "
                    "copy it there, or simulate again"
                )
        sources = read_catalogue(catalogue)
        try:
            parameters = json.loads(record.read_text())
            if not isinstance(parameters, dict):
                raise ValueError("it holds no names and values")
        except (OSError, ValueError, RecursionError) as error:
            raise Vis2imgError(f"{record} is not a record of `vis2img simulate`: {error}; simulate again") from error
        return cls(sources, parameters, _more_columns(catalogue, sources))

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes of labelled sources, in alphabetical order."""
        return tuple(sorted({source.class_name for source in self.sources} - {UNLABELLED}))

    def table(self) -> Table:
        """Return the catalogue as an astropy table: source_id, ra_deg, dec_deg, flux_jy, size_arcsec, class, ...

        ``spectral_index`` is that of the whole source at its reference frequency: the mean over its parts, weighted
        by flux. Columns of the catalogue beyond these follow, for example ``apparent_flux_jy``.
        """
        return Table(source_columns(self.sources) | self.columns)

    def at(self, wcs: WCS, shape: tuple[int, int], **what: Unpack[What]) -> TruthView:
        """Return what lies in an image.

        Parameters
        ----------
        wcs : astropy.wcs.WCS
            Celestial, of any projection, pixel scale and angle; of a cube, its celestial part counts.
        shape : (int, int)
            (ny, nx).
        **what
            See :class:`What`.

        Raises
        ------
        ParameterError
            If the WCS is not celestial, a value is out of range, or the apparent flux is not known.
        """
        return self._view(wcs_frame(wcs, shape), **what)

    def at_image(self, image: Image, **what: Unpack[What]) -> TruthView:
        """Return what lies in ``image``, by default at its mean frequency and with its beam, if any; see :meth:`at`."""
        if what.get("freq") is None:
            what["freq"] = image.freq[0]
        if what.get("beam") is None:
            what["beam"] = image.beam or 0.0
        return self.at(image.wcs, image.data.shape, **what)

    def at_patch(
        self, centre: tuple[float, float], pixsize: float, npix: int | tuple[int, int], **what: Unpack[What]
    ) -> TruthView:
        """Return what lies in a patch around ``centre`` (RA, Dec in rad), north up in the SIN projection.

        ``pixsize`` is in rad, ``npix`` a side or (npix_x, npix_y); the centre is the pixel ``npix // 2``.
        The rest is as in :meth:`at`.

        Raises
        ------
        ParameterError
            If these numbers cannot be in rad, or the patch is wider than the hemisphere.
        """
        sides = (npix, npix) if isinstance(npix, int | np.integer) else npix
        return self._view(patch_frame(centre, pixsize, sides), **what)

    @cached_property
    def _sky(self) -> SkyParts:
        return sky_parts(self.sources)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._sky.vector)

    @cached_property
    def _labels(self) -> tuple[np.ndarray, tuple[str, ...]]:
        return np.array([source.class_name for source in self.sources], dtype=object), self.class_names

    @cached_property
    def _dimming(self) -> np.ndarray:
        if APPARENT not in self.columns:
            raise ParameterError(f"the truth has no column {APPARENT}: simulate with a primary beam, or leave apparent")
        return np.asarray(self.columns[APPARENT], float) / np.array([source.flux for source in self.sources])

    def _view(
        self,
        frame: Frame,
        freq: float | None = None,
        classes: Sequence[str] | None = None,
        min_flux: float = 0.0,
        beam: Beam = 0.0,
        apparent: bool = False,
    ) -> TruthView:
        sky, (labels, class_names) = self._sky, self._labels
        blur = beam_covariance(frame, beam)
        numbers = self._near(frame, beam)
        if classes is not None:
            wanted = {classes} if isinstance(classes, str) else set(classes)
            numbers = numbers[[label in wanted for label in labels[numbers]]]

        # All parts of these sources, in their order.
        counts = sky.first[numbers + 1] - sky.first[numbers]
        owner = np.repeat(np.arange(len(numbers)), counts)
        k = np.arange(len(owner)) + np.repeat(sky.first[numbers] - (np.cumsum(counts) - counts), counts)
        scale = np.ones(len(k)) if freq is None else (freq / sky.ref_freq[k]) ** sky.spectral_index[k]
        if apparent:
            scale = scale * self._dimming[numbers][owner]
        flux = scale * sky.flux[k]
        total = np.bincount(owner, flux, len(numbers))

        xy, turn = project(frame, sky.ra[k], sky.dec[k])
        covariance = turn @ sky.covariance[k] @ np.swapaxes(turn, 1, 2) + blur
        box = boxes(xy, turn, covariance, sky.corners[k], owner, len(numbers))
        (ny, nx) = frame.shape
        # Comparisons with the NaN of what the projection cannot show are false.
        meets = (box[:, 2] > -0.5) & (box[:, 0] < nx - 0.5) & (box[:, 3] > -0.5) & (box[:, 1] < ny - 0.5)
        inside = np.flatnonzero(meets & (total >= min_flux))

        of = np.isin(owner, inside)
        parts = Parts(
            owner=np.searchsorted(inside, owner[of]),
            xy=xy[of],
            covariance=covariance[of],
            flux=flux[of],
            scale=scale[of],
            cutout=[sky.cutout[i] for i in k[of]],
            turn=turn[of],
        )
        x, y = frame.project(sky.vector[numbers[inside]]).T
        sources = [self.sources[i] for i in numbers[inside]]
        return TruthView(frame.shape, sources, x, y, total[inside], class_names, box[inside], parts)

    def _near(self, frame: Frame, beam: Beam) -> np.ndarray:
        """Return the numbers of the sources that may reach into the circle around ``frame``, ascending."""
        sky = self._sky
        if not len(sky.vector):
            return np.zeros(0, dtype=int)
        reach = frame.radius + BOX_SIGMAS * SIGMA_OF_FWHM * float(np.ravel(beam)[0])
        chord = 2 * math.sin(min(reach + float(sky.radius.max()), math.pi) / 2)
        found = np.sort(np.asarray(self._tree.query_ball_point(frame.centre, chord * (1 + 1e-9)), dtype=int))
        distance = 2 * np.arcsin(np.minimum(np.linalg.norm(sky.vector[found] - frame.centre, axis=1) / 2, 1))
        return found[(distance <= reach + sky.radius[found]) & (sky.first[found + 1] > sky.first[found])]


def _more_columns(catalogue: Path, sources: list[SkySource]) -> dict[str, np.ndarray]:
    """Return the columns of SOURCES that :meth:`Truth.table` does not make itself, in the order of ``sources``."""
    made = source_columns([])
    table = Table.read(catalogue, hdu="SOURCES", character_as_bytes=False)
    row = {int(number): i for i, number in enumerate(table["source_id"])}
    order = [row[source.source_id] for source in sources]
    return {name: native(np.asarray(table[name])[order]) for name in table.colnames if name not in made}
