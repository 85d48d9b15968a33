"""From the sky to the pixels of a picture: any WCS, or a patch around a direction.

Each part of a source is projected with the derivative of the projection at its centre: exact for points, and
within the square of its size in radians for Gaussians and cutouts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import FK5, ICRS, SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from vis2img.coordinates import direction_vectors, lm_to_pixel, uvw_basis
from vis2img.errors import ParameterError
from vis2img.units import SIGMA_OF_FWHM

Beam = float | tuple[float, float, float]
_DELTA = 1e-6  # rad, the step of numerical derivatives: 0.2 arcsec
_EDGE_SAMPLES = 9  # per side of a picture, to find the circle around it on the sky


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture: its shape (ny, nx), unit vectors [k, 3] to pixels (x, y) [k, 2], and the circle around it."""

    shape: tuple[int, int]
    project: Callable[[np.ndarray], np.ndarray]
    centre: np.ndarray
    radius: float


def fwhm_covariance(major: np.ndarray, minor: np.ndarray, pa: np.ndarray) -> np.ndarray:
    """Return [k, 2, 2] (east, north), rad^2, of Gaussians with FWHM in rad."""
    along = np.stack([np.sin(pa), np.cos(pa)], axis=-1) * (major * SIGMA_OF_FWHM)[:, None]
    across = np.stack([np.cos(pa), -np.sin(pa)], axis=-1) * (minor * SIGMA_OF_FWHM)[:, None]
    return along[:, :, None] * along[:, None, :] + across[:, :, None] * across[:, None, :]


def patch_frame(centre: tuple[float, float], pixsize: float, npix: tuple[int, int]) -> Frame:
    nx, ny = npix
    if not all(isinstance(value, float | int | np.number) for value in (*centre, pixsize)):
        raise ParameterError(f"centre {centre} and pixsize {pixsize!r} must be numbers in rad")
    if not (pixsize > 0 and min(npix) >= 1 and all(map(math.isfinite, (*centre, pixsize)))):
        raise ParameterError(f"a patch of {nx} x {ny} pixels of {pixsize:g} rad: all must be finite and above 0")
    if not (-math.pi <= centre[0] <= 4 * math.pi and abs(centre[1]) <= math.pi / 2):
        raise ParameterError(f"centre {tuple(map(float, centre))} must be RA and Dec in rad, Dec within +-pi/2")
    if pixsize * max(npix) > 2:
        raise ParameterError(f"pixsize = {pixsize:g} rad times {max(npix)} pixels must be at most 2")
    basis = uvw_basis(*centre)

    def to_pixels(vector: np.ndarray) -> np.ndarray:
        l, m, n = (vector @ basis.T).T
        x, y = lm_to_pixel(l, m, npix, pixsize)
        return np.where(n[:, None] > 0, np.stack([x, y], axis=-1), np.nan)

    diagonal = math.hypot(nx // 2 + 1, ny // 2 + 1) * pixsize
    return Frame((int(ny), int(nx)), to_pixels, basis[2], math.asin(diagonal) if diagonal < 1 else math.pi / 2)


def wcs_frame(wcs: WCS, shape: tuple[int, int]) -> Frame:
    ny, nx = map(int, shape)
    if min(nx, ny) < 1:
        raise ParameterError(f"shape = {shape} must be (ny, nx), both at least 1")
    if not wcs.has_celestial:
        raise ParameterError("the WCS has no celestial axes: give one with right ascension and declination")
    wcs = wcs.celestial if wcs.naxis > 2 else wcs
    longitude, latitude = wcs.wcs.lng, wcs.wcs.lat
    to_frame, from_frame = _frame_change(wcs)

    def to_pixels(vector: np.ndarray) -> np.ndarray:
        world = np.empty((len(vector), 2))
        world[:, longitude], world[:, latitude] = to_frame(vector)
        if not len(world):
            return world
        if wcs.has_distortion:
            return wcs.all_world2pix(world, 0, quiet=True)
        return wcs.wcs_world2pix(world, 0)

    grid = np.stack(
        np.meshgrid(np.linspace(-0.5, nx - 0.5, _EDGE_SAMPLES), np.linspace(-0.5, ny - 0.5, _EDGE_SAMPLES)), axis=-1
    )
    world = wcs.all_pix2world(grid.reshape(-1, 2), 0)
    vector = from_frame(world[:, longitude], world[:, latitude])
    centre = vector[len(vector) // 2]
    if not np.isfinite(vector).all():  # a picture of the whole sky, with corners that are not sky
        return Frame((ny, nx), to_pixels, np.array([0.0, 0.0, 1.0]), math.pi)
    radius = 2 * np.arcsin(np.minimum(np.linalg.norm(vector - centre, axis=1).max() / 2, 1))
    return Frame((ny, nx), to_pixels, centre, min(1.05 * float(radius), math.pi))


def _frame_change(wcs: WCS) -> tuple[Callable[..., tuple[np.ndarray, np.ndarray]], Callable[..., np.ndarray]]:
    """Return functions from unit vectors (ICRS) to longitude and latitude in the frame of ``wcs`` (deg), and back.

    J2000 counts as ICRS, here as in the measurement sets that are simulated: they differ by 0.02 arcsec.
    """
    try:
        frame = wcs_to_celestial_frame(wcs)
    except ValueError as error:
        raise ParameterError(f"the WCS is in {wcs.wcs.radesys or 'a frame'} that is not known: {error}") from error
    if wcs.wcs.lngtyp.strip() not in ("RA", "GLON"):  # astropy takes ecliptic for equatorial
        raise ParameterError(f"the WCS has axes {wcs.wcs.lngtyp}, {wcs.wcs.lattyp}: give RA and Dec, or galactic ones")
    same = isinstance(frame, ICRS) or (isinstance(frame, FK5) and frame.equinox.jyear == 2000.0)

    def forward(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ra = np.degrees(np.arctan2(vector[:, 1], vector[:, 0])) % 360
        dec = np.degrees(np.arctan2(vector[:, 2], np.hypot(vector[:, 0], vector[:, 1])))
        if same:
            return ra, dec
        there = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame).spherical
        return there.lon.deg, there.lat.deg

    def back(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        if not same:
            here = SkyCoord(longitude, latitude, unit="deg", frame=frame).transform_to("icrs")
            longitude, latitude = here.ra.deg, here.dec.deg
        return direction_vectors(np.radians(longitude), np.radians(latitude))

    return forward, back


def project(frame: Frame, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (x, y) [k, 2] of directions, and their derivatives [k, 2, 2] per rad east and north."""
    east, north, towards = np.moveaxis(uvw_basis(ra, dec), -2, 0)
    steps = [towards, *(towards + sign * _DELTA * axis for axis in (east, north) for sign in (1, -1))]
    xy, right, left, above, below = frame.project(np.concatenate(steps)).reshape(5, -1, 2)
    return xy, np.stack([right - left, above - below], axis=-1) / (2 * _DELTA)


def beam_covariance(frame: Frame, beam: Beam) -> np.ndarray:
    """Return [2, 2], pixels squared, of a beam given in the middle of the picture."""
    values = np.array([beam, beam, 0.0] if np.ndim(beam) == 0 else beam, dtype=float)
    if values.shape != (3,) or not np.isfinite(values).all() or not 0 <= values[1] <= values[0]:
        raise ParameterError(f"beam = {beam} must be a FWHM, or major and minor FWHM and angle, finite, in rad")
    if not values[0]:
        return np.zeros((2, 2))
    x, y, z = frame.centre
    turn = project(frame, np.array([math.atan2(y, x)]), np.array([math.atan2(z, math.hypot(x, y))]))[1][0]
    return turn @ fwhm_covariance(*values[:, None])[0] @ turn.T
