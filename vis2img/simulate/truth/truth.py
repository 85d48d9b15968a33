"""The true sky of a simulated observation, and what of it lies in any picture.

    truth = Truth.read("obs.ms")
    view = truth.at_image(image)                       # or truth.at(wcs, shape), truth.at_patch(centre, pixsize, npix)
    view.labels, view.counts, view.boxes(), view.segmentation(), view.brightness()

Sources are found in a k-d tree of unit vectors, so that the poles and right ascension 0 are like any other place.
:mod:`vis2img.simulate.truth.frames` projects them, and :mod:`vis2img.simulate.truth.masks` draws them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.coordinates import direction_vectors
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.simulate.sky import UNLABELLED, SkyCutout, SkySource
from vis2img.simulate.sky.catalogue import read_catalogue, source_columns
from vis2img.simulate.truth.frames import (
    SIGMA_OF_FWHM,
    Beam,
    Frame,
    beam_covariance,
    fwhm_covariance,
    patch_frame,
    project,
    wcs_frame,
)
from vis2img.simulate.truth.masks import BOX_SIGMAS, BOX_TAIL, Parts, TruthView, write_masks

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.wcs import WCS

    from vis2img.imaging.image import Image

__all__ = ["Truth", "TruthView", "write_masks"]

APPARENT = "apparent_flux_jy"


@dataclass(frozen=True, eq=False)
class _Sky:
    """All parts of all sources as columns, in the order of the sources; k parts, n sources."""

    owner: np.ndarray  # [k]
    first: np.ndarray  # [n + 1] first part of each source
    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    ref_freq: np.ndarray
    spectral_index: np.ndarray
    covariance: np.ndarray  # [k, 2, 2] (east, north), rad^2
    corners: np.ndarray  # [k, 4, 2] (east, north) of the box of a cutout, rad; 0 for Gaussians
    cutout: list[SkyCutout | None]
    vector: np.ndarray  # [n, 3] to the sources
    radius: np.ndarray  # [n] of the circle around the box of a source, rad


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
        except (OSError, ValueError) as error:
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
        from astropy.table import Table

        return Table(source_columns(self.sources) | self.columns)

    def at(
        self,
        wcs: WCS,
        shape: tuple[int, int],
        freq: float | None = None,
        classes: Sequence[str] | None = None,
        min_flux: float = 0.0,
        beam: Beam = 0.0,
        apparent: bool = False,
    ) -> TruthView:
        """Return what lies in an image.

        Parameters
        ----------
        wcs : astropy.wcs.WCS
            Celestial, of any projection, pixel scale and angle; of a cube, its celestial part counts.
        shape : (int, int)
            (ny, nx).
        freq : float, optional
            Frequency of fluxes and brightness in Hz; default: that of the catalogue.
        classes : sequence of str, optional
            Only sources of these classes; '' stands for those without a label.
        min_flux : float
            Least flux of a source in Jy, at ``freq``.
        beam : float or (float, float, float)
            FWHM of a Gaussian, or major and minor FWHM and position angle (rad), that blurs what is seen.
        apparent : bool
            Dim each source by the primary beam, as the column ``apparent_flux_jy`` says.

        Raises
        ------
        ParameterError
            If the WCS is not celestial, a value is out of range, or the apparent flux is not known.
        """
        return self._view(wcs_frame(wcs, shape), freq, classes, min_flux, beam, apparent)

    def at_image(
        self,
        image: Image,
        freq: float | None = None,
        classes: Sequence[str] | None = None,
        min_flux: float = 0.0,
        beam: Beam | None = None,
        apparent: bool = False,
    ) -> TruthView:
        """Return what lies in ``image``, by default at its mean frequency and with its beam; see :meth:`at`."""
        freq = image.freq[0] if freq is None else freq
        beam = image.beam if beam is None else beam
        return self.at(image.wcs, image.data.shape, freq, classes, min_flux, beam, apparent)

    def at_patch(
        self,
        centre: tuple[float, float],
        pixsize: float,
        npix: int | tuple[int, int],
        freq: float | None = None,
        classes: Sequence[str] | None = None,
        min_flux: float = 0.0,
        beam: Beam = 0.0,
        apparent: bool = False,
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
        return self._view(patch_frame(centre, pixsize, sides), freq, classes, min_flux, beam, apparent)

    @cached_property
    def _sky(self) -> _Sky:
        return _columns(self.sources)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

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
        freq: float | None,
        classes: Sequence[str] | None,
        min_flux: float,
        beam: Beam,
        apparent: bool,
    ) -> TruthView:
        sky, (labels, class_names) = self._sky, self._labels
        blur = beam_covariance(frame, beam)
        numbers = self._near(frame, beam)
        if classes is not None:
            known = {classes} if isinstance(classes, str) else set(classes)
            numbers = numbers[[label in known for label in labels[numbers]]]
        counts = sky.first[numbers + 1] - sky.first[numbers]
        owner = np.repeat(np.arange(len(numbers)), counts)
        k = np.arange(len(owner)) + np.repeat(sky.first[numbers] - (np.cumsum(counts) - counts), counts)
        scale = np.ones(len(k)) if freq is None else (freq / sky.ref_freq[k]) ** sky.spectral_index[k]
        if apparent:
            scale = scale * self._dimming[numbers][owner]
        xy, turn = project(frame, sky.ra[k], sky.dec[k])
        covariance = turn @ sky.covariance[k] @ np.swapaxes(turn, 1, 2) + blur
        box = _boxes(xy, turn, covariance, sky.corners[k], owner, len(numbers))
        total = np.bincount(owner, scale * sky.flux[k], len(numbers))
        (ny, nx) = frame.shape
        # Comparisons with the NaN of what the projection cannot show are false.
        meets = (box[:, 2] > -0.5) & (box[:, 0] < nx - 0.5) & (box[:, 3] > -0.5) & (box[:, 1] < ny - 0.5)
        kept = np.flatnonzero(meets & (total >= min_flux))
        middle = frame.project(sky.vector[numbers[kept]])
        chosen = np.isin(owner, kept)
        parts = Parts(
            np.searchsorted(kept, owner[chosen]),
            xy[chosen],
            covariance[chosen],
            sky.flux[k][chosen],
            scale[chosen],
            [sky.cutout[i] for i in k[chosen]],
            turn[chosen],
        )
        sources = [self.sources[i] for i in numbers[kept]]
        return TruthView(frame.shape, sources, middle[:, 0], middle[:, 1], total[kept], class_names, box[kept], parts)

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
    from astropy.table import Table

    made = source_columns([])
    table = Table.read(catalogue, hdu="SOURCES", character_as_bytes=False)
    row = {int(number): i for i, number in enumerate(table["source_id"])}
    order = [row[source.source_id] for source in sources]
    return {name: np.asarray(table[name])[order] for name in table.colnames if name not in made}


def _cutout_corners(cutout: SkyCutout) -> np.ndarray:
    """Return [4, 2] (east, north), rad, of the box that leaves ``BOX_TAIL`` of the flux out on each side."""
    bright, sides = np.maximum(cutout.pixels, 0).astype(float), []
    for axis in (0, 1):  # x, then y
        share = np.append(0.0, np.cumsum(bright.sum(axis=axis)))
        edges = np.interp(np.array([BOX_TAIL, 1 - BOX_TAIL]) * share[-1], share, np.arange(len(share)) - 0.5)
        edges += (-0.5, 0.5)  # linear interpolation spreads a pixel by half a pixel
        sides.append((edges - bright.shape[1 - axis] // 2) * cutout.pixsize)
    west, up = (side.ravel() for side in np.meshgrid(*sides))
    sin, cos = math.sin(cutout.pa), math.cos(cutout.pa)
    return np.stack([-west * cos + up * sin, west * sin + up * cos], axis=-1)


def _columns(sources: list[SkySource]) -> _Sky:
    rows: list[tuple[float, ...]] = []
    cutouts: list[SkyCutout | None] = []
    first = [0]
    for i, source in enumerate(sources):
        for c in source.components:
            rows.append((i, c.ra, c.dec, c.flux, c.ref_freq, c.spectral_index, c.major, c.minor, c.pa))
            cutouts.append(None)
        if source.cutout is not None:
            p = source.cutout
            rows.append((i, p.ra, p.dec, p.flux, p.ref_freq, p.spectral_index, 0.0, 0.0, p.pa))
            cutouts.append(p)
        first.append(len(rows))
    table = np.array(rows, dtype=float).reshape(-1, 9).T
    owner, ra, dec = table[0].astype(int), table[1], table[2]
    corners = np.zeros((len(rows), 4, 2))
    for k, cutout in enumerate(cutouts):
        if cutout is not None:
            corners[k] = _cutout_corners(cutout)
    vector = direction_vectors(np.array([s.ra for s in sources]), np.array([s.dec for s in sources]))
    chord = np.linalg.norm(direction_vectors(ra, dec) - vector[owner], axis=1)
    reach = 2 * np.arcsin(np.minimum(chord / 2, 1)) + np.linalg.norm(corners, axis=2).max(axis=1, initial=0)
    radius = np.zeros(len(sources))
    np.maximum.at(radius, owner, reach + BOX_SIGMAS * SIGMA_OF_FWHM * table[6])
    covariance = fwhm_covariance(table[6], table[7], table[8])
    flux, ref_freq, index = table[3], table[4], table[5]
    bounds = np.array(first)
    return _Sky(owner, bounds, ra, dec, flux, ref_freq, index, covariance, corners, cutouts, vector, radius)


def _boxes(
    xy: np.ndarray, turn: np.ndarray, covariance: np.ndarray, corners: np.ndarray, owner: np.ndarray, n: int
) -> np.ndarray:
    """Return the boxes (x0, y0, x1, y1) [n, 4] around the parts of each source."""
    if not n:
        return np.zeros((0, 4))
    half = BOX_SIGMAS * np.sqrt(covariance[:, [0, 1], [0, 1]])
    at = corners @ np.swapaxes(turn, 1, 2)  # (k, corner, xy)
    first = np.searchsorted(owner, np.arange(n))
    low = np.minimum.reduceat(xy + at.min(axis=1) - half, first)
    high = np.maximum.reduceat(xy + at.max(axis=1) + half, first)
    middle = (low + high) / 2
    return np.concatenate([np.minimum(low, middle - 0.5), np.maximum(high, middle + 0.5)], axis=1)
