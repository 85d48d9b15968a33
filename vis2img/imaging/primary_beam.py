"""Primary beam of MeerKAT: how much of a source's flux the dishes let through, and how to divide it out.

    frequencies, weights -> mean_power on coarse nodes -> splines to all pixels -> correct

The model of one polarisation is that of ``katbeam`` (JimBeam): a cosine-tapered aperture (Condon & Ransom 2016,
*Essential Radio Astronomy*, section 3.3.4) with the widths and squints that holography measured, in direction
cosines (in degrees) along the horizontal and the elevation of the dish. Its Stokes I power is 67 arcmin wide at
1284 MHz, as in Mauch et al. 2020, "The 1.28 GHz MeerKAT DEEP2 Image", ApJ 888, 61. Sidelobes are only indicative.

The dishes are on alt-azimuth mounts, so the beam, 4% longer in elevation, turns on the sky by the parallactic
angle: give the angles of the observation, else the mean over a whole turn is taken, a function of radius.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vis2img.coordinates import direction_cosines, pixel_to_lm, sky_position
from vis2img.errors import ParameterError
from vis2img.shapes import Float32, Float64, Int
from vis2img.visibilities import SPEED_OF_LIGHT

DISH_DIAMETER = 13.96  # m, of the reflector as projected on the sky
# Receivers: the band in Hz, and katbeam's model, whose table may stop short of the edges of the band.
BANDS = {
    "UHF": (544e6, 1088e6, "MKAT-AA-UHF-JIM-2020"),
    "L": (856e6, 1712e6, "MKAT-AA-L-JIM-2020"),
    "S": (1750e6, 3499e6, "MKAT-AA-S-JIM-2020"),
}
_BIN = 0.01  # channels within 1% in frequency share one evaluation: an error below 2e-5
_NODES_PER_BEAM = 24  # coarse nodes per FWHM at the highest frequency: a spline error below 1e-5
# Angles whose mean is that over a whole turn: the beam has no higher even harmonics to speak of.
_WHOLE_TURN = (np.arange(8) * (2 * math.pi / 8), np.ones(8))
_ANGLE_BINS = 64  # of a turn: angles within one share an evaluation, an error below 5e-5
_BAND_SLACK = 1e-3  # by which channels may lie outside a band: the Doppler shift of other frames, and channel widths


@runtime_checkable
class VoltageBeam(Protocol):
    """What katbeam's ``JimBeam`` gives: the frequencies of its table in MHz, and Stokes I power at x, y in degrees."""

    freqMHzlist: Any

    def I(self, x: Any, y: Any, freqMHz: float) -> Any: ...  # noqa: E743


def primary_beam(
    telescope: str,
    channels: tuple[Float64[np.ndarray, " chan"], Float64[np.ndarray, " _"]],
    pointing: tuple[float, float],
    phase_centre: tuple[float, float],
    npix: tuple[int, int],
    pixsize: float,
    stokes: str = "I",
    *,
    turns: tuple[Float64[np.ndarray, " angle"], Float64[np.ndarray, " _"]] | None = None,
    band: str | None = None,
) -> Float32[np.ndarray, "y x"]:
    """Return the power beam by which a dirty image is attenuated: the mean over channels, weighted as the image.

    Parameters
    ----------
    telescope : str
        Name as in the measurement set; MeerKAT only.
    channels : (float64 [chan], float [chan])
        Frequencies in Hz, and the sum of the imaging weights of each; channels of weight 0 do not count.
    pointing : (float, float)
        RA and Dec in rad where the dishes pointed.
    phase_centre : (float, float)
        RA and Dec in rad of the image's reference pixel, which may differ from the pointing.
    npix, pixsize
        Image size (x, y), and pixel size in rad.
    stokes : str
        I, Q, U or V. All have the beam of Stokes I: what leaks from one into another is not modelled.
    turns : (float [angle], float [angle]), optional
        Parallactic angles in rad to take the mean over, and their weights. Default: a whole turn.
    band : str, optional
        Receiver, UHF or L (S with a katbeam that has it). Default: :func:`receiver` of the frequencies, which a part
        of a band may mislead.

    Returns
    -------
    float32 [y, x]
        1 at the pointing centre, but for squints; 0 beyond the hemisphere.

    Raises
    ------
    ParameterError
        For another telescope, frequencies outside every model, or no channel with weight.
    """
    check_telescope(telescope)
    if stokes not in ("I", "Q", "U", "V"):
        raise ParameterError(f"stokes {stokes!r} has no primary beam; use I, Q, U or V")
    freqs, weights = _bin_channels(*channels)
    model = _model(band or receiver(freqs.min(), freqs.max()), freqs)
    angles, shares = _bin_angles(*(turns or _WHOLE_TURN))

    # The beam is smooth: it is evaluated on coarse nodes, and splines take it to all pixels.
    fwhm = 1.2 * SPEED_OF_LIGHT / freqs.max() / DISH_DIAMETER
    x, y = (_nodes(n, fwhm / _NODES_PER_BEAM / pixsize) for n in npix)
    pixel_x, pixel_y = np.meshgrid(x, y)
    l, m = pixel_to_lm(pixel_x, pixel_y, npix, pixsize)
    lmn = direction_cosines(*sky_position(l, m, phase_centre), pointing)
    visible = (l**2 + m**2 < 1) & (lmn[..., 2] > 0)
    coarse = np.where(visible, mean_power(model, freqs, weights, lmn[..., 0], lmn[..., 1], angles, shares), 0.0)
    return _splines(y, npix[1]) @ coarse.astype(np.float32) @ _splines(x, npix[0]).T


def receiver(low: float, high: float) -> str:
    """Return the receiver of MeerKAT whose band holds ``low`` to ``high`` (Hz): UHF, L or S.

    Give the range of the whole measurement set: where two bands hold it (856 to 1088 MHz), the one in whose middle it
    is nearer is a guess; their beams differ by up to a percent in width there.

    Raises
    ------
    ParameterError
        If there is none.
    """
    fitting = [
        name
        for name, (start, stop, _) in BANDS.items()
        if start * (1 - _BAND_SLACK) <= low and high <= stop * (1 + _BAND_SLACK)
    ]
    if not fitting:
        ranges = ", ".join(f"{name} {start / 1e6:g} to {stop / 1e6:g}" for name, (start, stop, _) in BANDS.items())
        raise ParameterError(
            f"{low / 1e6:.6g} to {high / 1e6:.6g} MHz lies in no receiver band of MeerKAT ({ranges} MHz); "
            "select channels of one band, or image without the primary beam"
        )
    return min(fitting, key=lambda name: abs(math.log((low + high) / sum(BANDS[name][:2]))))


def check_beam(telescope: str, band: str, freqs: Float64[np.ndarray, " chan"]) -> None:
    """See that there is a primary beam model, before any work is done.

    Raises
    ------
    ParameterError
        As :func:`primary_beam`.
    """
    check_telescope(telescope)
    _model(band, np.asarray(freqs))


def correct(
    image: Float32[np.ndarray, "y x"], beam: Float32[np.ndarray, "_ _"], cutoff: float = 0.05
) -> Float32[np.ndarray, "y x"]:
    """Return ``image`` [y, x] over ``beam`` [y, x] as float32, NaN where the beam is below ``cutoff``.

    Raises
    ------
    ParameterError
        If the shapes differ or ``cutoff`` is not above 0 and below 1.
    """
    if image.shape != beam.shape:
        raise ParameterError(f"the image is {list(image.shape)} and its primary beam {list(beam.shape)}")
    if not 0 < cutoff < 1:
        raise ParameterError(f"primary beam cutoff {cutoff} must be above 0 and below 1")
    out = np.full(image.shape, np.nan, dtype=np.float32)
    np.divide(image, beam, out=out, where=beam >= cutoff)
    return out


def dish_axes(
    l: Float64[np.ndarray, "*place"], m: Float64[np.ndarray, "*place"], angle: float
) -> tuple[Float64[np.ndarray, "*place"], Float64[np.ndarray, "*place"]]:
    """Return the offsets in degrees along azimuth and elevation of ``l``, ``m`` at a parallactic angle (rad)."""
    # Elevation lies at position angle q, north through east; azimuth increases to its right.
    across = m * math.sin(angle) - l * math.cos(angle)
    return np.degrees(across), np.degrees(l * math.sin(angle) + m * math.cos(angle))


def mean_power(
    model: VoltageBeam,
    freqs: Float64[np.ndarray, " chan"],
    weights: Float64[np.ndarray, " chan"],
    l: Float64[np.ndarray, "*place"],
    m: Float64[np.ndarray, "*place"],
    angles: Float64[np.ndarray, " angle"],
    angle_weights: Float64[np.ndarray, " angle"],
) -> Float64[np.ndarray, "*place"]:
    """Return the mean Stokes I power at direction cosines ``l``, ``m`` [...] from the pointing centre.

    Parameters
    ----------
    model : VoltageBeam
        Voltage beams of katbeam.
    freqs : float64 [chan]
        Hz; outside the model's table the width goes on as the wavelength.
    weights : float64 [chan]
        Weights of the mean.
    l, m : float64 [...]
        East and north.
    angles, angle_weights : float64 [angle]
        Parallactic angles in rad, and their weights in the mean.
    """
    total = np.zeros(np.shape(l))
    table = model.freqMHzlist
    for angle, share in zip(angles, angle_weights / angle_weights.sum(), strict=True):
        across, up = dish_axes(l, m, float(angle))
        for freq_mhz, weight in zip(freqs / 1e6, weights, strict=True):
            nearest = min(max(freq_mhz, table[0]), table[-1])
            scale = freq_mhz / nearest
            total += share * weight * model.I(across * scale, up * scale, nearest)
    return total / weights.sum()


def _bin_channels(
    freqs: Float64[np.ndarray, " chan"], weights: Float64[np.ndarray, " _"]
) -> tuple[Float64[np.ndarray, " group"], Float64[np.ndarray, " group"]]:
    """Return frequencies and weights of groups of channels within 1%, without those of weight 0."""
    if freqs.shape != weights.shape:
        raise ParameterError(f"{freqs.size} frequencies but {weights.size} channel weights")
    used = np.isfinite(weights) & (weights > 0)
    if not used.any():
        raise ParameterError("no channel has weight, so the image has no primary beam")
    freqs, weights = freqs[used], weights[used]
    return _means(freqs, weights, np.floor(np.log(freqs / freqs.min()) / _BIN).astype(int))


def _bin_angles(
    angles: Float64[np.ndarray, " angle"], weights: Float64[np.ndarray, " _"]
) -> tuple[Float64[np.ndarray, " group"], Float64[np.ndarray, " group"]]:
    """Return angles and weights of groups of neighbours, without those of weight 0."""
    if angles.shape != weights.shape:
        raise ParameterError(f"{angles.size} parallactic angles but {weights.size} weights")
    used = np.isfinite(weights) & (weights > 0)
    if not used.any() or not np.all(np.isfinite(angles[used])):
        raise ParameterError("parallactic angles must be finite, and at least one with weight")
    angles = np.mod(angles[used], 2 * math.pi)
    return _means(angles, weights[used], (angles * (_ANGLE_BINS / (2 * math.pi))).astype(int))


def _means(
    values: Float64[np.ndarray, " value"], weights: Float64[np.ndarray, " value"], group: Int[np.ndarray, " value"]
) -> tuple[Float64[np.ndarray, " group"], Float64[np.ndarray, " group"]]:
    """Return the weighted mean and the weight of each group that has any."""
    total, sums = np.bincount(group, weights), np.bincount(group, weights * values)
    filled = total > 0
    return sums[filled] / total[filled], total[filled]


def check_telescope(telescope: str) -> None:
    """See that the telescope has models.

    Raises
    ------
    ParameterError
        If not.
    """
    if telescope.strip().lower() != "meerkat":
        raise ParameterError(
            f"no primary beam model for the telescope {telescope!r}, only for MeerKAT; image without the correction"
        )


def _model(band: str, freqs: Float64[np.ndarray, " chan"]) -> VoltageBeam:
    if band not in BANDS:
        raise ParameterError(f"receiver band {band!r} is unknown; use {', '.join(BANDS)}")
    start, stop, name = BANDS[band]
    if freqs.min() < start * (1 - _BAND_SLACK) or freqs.max() > stop * (1 + _BAND_SLACK):
        raise ParameterError(
            f"{freqs.min() / 1e6:.6g} to {freqs.max() / 1e6:.6g} MHz is outside the {band} band, "
            f"{start / 1e6:g} to {stop / 1e6:g} MHz; leave the band out"
        )
    try:
        from katbeam import JimBeam
    except ImportError as error:
        raise ParameterError("the primary beam needs katbeam: pip install katbeam") from error
    try:
        return JimBeam(name)
    except (ValueError, OSError) as error:
        raise ParameterError(
            f"the installed katbeam has no {band}-band model; install a newer one, or image without the primary beam"
        ) from error


def _nodes(npix: int, step: float) -> Float64[np.ndarray, " node"]:
    """Return evenly spaced pixel positions from the first to the last pixel, at most ``step`` pixels apart."""
    count = max(8, math.ceil((npix - 1) / step) + 1)
    return np.linspace(0, npix - 1, min(count, max(8, npix)))


def _splines(nodes: Float64[np.ndarray, " node"], npix: int) -> Float32[np.ndarray, "{npix} node"]:
    """Return float32 [npix, node]: the cubic spline through a 1 at each node and 0 at the others, at all pixels."""
    from scipy.interpolate import make_interp_spline

    return make_interp_spline(nodes, np.eye(len(nodes)), k=3)(np.arange(npix)).astype(np.float32)
