"""Published radio source counts at 1.4 GHz, and fluxes that follow them.

Euclidean-normalised differential counts, x = log10(S / mJy):

- 0.05 mJy to 1 Jy: log10(S^2.5 dN/dS [Jy^1.5 sr^-1]) = sum_i a_i x^i, i = 0 to 6, the fit of Hopkins et al. 2003
  (AJ 125, 465), FIRST and the Phoenix Deep Survey;
- 0.25 to 10 microJy: S^2 dN/dS ~ S^(1/2), the slope found in the MeerKAT DEEP2 field (Matthews et al. 2021, ApJ
  909, 193), with S^2 dN/dS = 500 Jy sr^-1 at 10 microJy. This level is chosen here, near their direct counts: it
  leaves the number above 10 microJy about a quarter below the 1.7e4 sources in 1.04 square degrees of their
  catalogue, as the fit of Hopkins is low just above 0.05 mJy;
- between the two: S^2 dN/dS is interpolated in log-log. That is a join, not a measurement.

Other frequencies: every source gets the spectral index -0.7. Above 1 Jy and below 0.25 microJy counts are refused.

Star-forming galaxies and AGN: the fraction of the former is 1 / (1 + (S / 0.2 mJy)^1.6), a smooth interpolation
made here between three published statements: star-forming galaxies are the largest group below about 0.2 mJy at
3 GHz (Smolcic et al. 2017, A&A 602, A2), half of the sources at 0.1 to 0.2 mJy at 1.4 GHz (Padovani et al. 2015,
MNRAS 452, 1263), and 90% at 0.03 mJy at 3 GHz, 0.05 mJy at 1.4 GHz (Algera et al. 2020, ApJ 903, 139).
"""

from __future__ import annotations

import numpy as np

from vis2img.errors import ParameterError

COUNTS_FREQ = 1.4e9  # Hz
COUNTS_INDEX = -0.7  # spectral index by which counts go to another frequency
FLUX_LIMITS = (2.5e-7, 1.0)  # Jy at COUNTS_FREQ
_HOPKINS = (0.859, 0.508, 0.376, -0.049, -0.121, 0.057, -0.008)
_HOPKINS_MIN = 5e-5  # Jy
_FAINT, _FAINT_LEVEL, _FAINT_SLOPE = 1e-5, 500.0, 0.5  # Jy, S^2 dN/dS there in Jy / sr, its slope below
_SFG_FLUX, _SFG_POWER = 2e-4, 1.6
_STEPS_PER_DECADE = 400


def differential_counts(flux_jy: np.ndarray | float, ref_freq: float = COUNTS_FREQ) -> np.ndarray:
    """Return dN/dS per Jy per sr.

    Parameters
    ----------
    flux_jy : float [...]
        Flux densities in Jy at ``ref_freq``.
    ref_freq : float
        In Hz.

    Returns
    -------
    float64 [...]

    Raises
    ------
    ParameterError
        If a flux lies outside 0.25 microJy to 1 Jy at 1.4 GHz (:data:`FLUX_LIMITS`).
    """
    scale = _to_counts_freq(ref_freq)
    flux = np.asarray(flux_jy, float) * scale
    low, high = FLUX_LIMITS
    # A rounding error at the very limits is no error of the user.
    if not np.all((flux >= low * (1 - 1e-9)) & (flux <= high * (1 + 1e-9))):
        raise ParameterError(
            f"counts are known from {low / scale:.3g} to {high / scale:.3g} Jy at {ref_freq / 1e9:.4g} GHz, "
            f"not at {np.min(flux) / scale:.3g} to {np.max(flux) / scale:.3g} Jy"
        )
    return scale * np.where(flux < _HOPKINS_MIN, _faint(flux), _hopkins(np.maximum(flux, _HOPKINS_MIN)))


def number_between(low: float, high: float, ref_freq: float = COUNTS_FREQ) -> float:
    """Return the number of sources per sr with fluxes from ``low`` to ``high`` (Jy at ``ref_freq``, Hz).

    Raises
    ------
    ParameterError
        If the limits are out of order or outside the counts.
    """
    return float(_cumulative(low, high, ref_freq)[1][-1])


def draw_fluxes(
    rng: np.random.Generator,
    flux_min: float,
    flux_max: float,
    solid_angle: float,
    ref_freq: float = COUNTS_FREQ,
) -> np.ndarray:
    """Draw the fluxes of all sources in ``solid_angle`` (sr): a Poisson number that follows the counts.

    Returns
    -------
    float64 [n]
        In Jy at ``ref_freq`` (Hz), between ``flux_min`` and ``flux_max``, in no order.

    Raises
    ------
    ParameterError
        If the limits are out of order or outside the counts, or the solid angle is not that of a part of the sky.
    """
    if not 0 < solid_angle <= 4 * np.pi:
        raise ParameterError(f"solid_angle = {solid_angle:g} sr must be above 0 and at most the whole sky")
    log_flux, number = _cumulative(flux_min, flux_max, ref_freq)
    n = rng.poisson(number[-1] * solid_angle)
    return np.exp(np.interp(rng.random(n) * number[-1], number, log_flux)).clip(flux_min, flux_max)


def star_forming_fraction(flux_jy: np.ndarray | float, ref_freq: float = COUNTS_FREQ) -> np.ndarray:
    """Return the fraction [...] of sources of a flux (Jy at ``ref_freq``) that are star-forming galaxies."""
    flux = np.asarray(flux_jy, float) * _to_counts_freq(ref_freq)
    return 1 / (1 + (flux / _SFG_FLUX) ** _SFG_POWER)


def _to_counts_freq(ref_freq: float) -> float:
    """Return the factor that takes a flux at ``ref_freq`` to :data:`COUNTS_FREQ`."""
    if not (ref_freq > 0 and np.isfinite(ref_freq)):
        raise ParameterError(f"ref_freq = {ref_freq:g} Hz must be above 0")
    return float((COUNTS_FREQ / ref_freq) ** COUNTS_INDEX)


def _hopkins(flux: np.ndarray) -> np.ndarray:
    return 10 ** np.polynomial.polynomial.polyval(np.log10(flux * 1e3), _HOPKINS) * flux**-2.5


def _faint(flux: np.ndarray) -> np.ndarray:
    at_join = float(_hopkins(np.array(_HOPKINS_MIN)) * _HOPKINS_MIN**2)
    below = np.log(_FAINT_LEVEL) + _FAINT_SLOPE * np.log(flux / _FAINT)
    joined = np.interp(np.log(flux), np.log([_FAINT, _HOPKINS_MIN]), np.log([_FAINT_LEVEL, at_join]))
    return np.exp(np.where(flux < _FAINT, below, joined)) / flux**2


def _cumulative(low: float, high: float, ref_freq: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of ln S and the number per sr from ``low`` up to each of its points."""
    if not 0 < low < high:
        raise ParameterError(f"fluxes from {low:g} to {high:g} Jy: the lower must be above 0 and below the upper")
    steps = max(16, int(_STEPS_PER_DECADE * np.log10(high / low)))
    log_flux = np.linspace(np.log(low), np.log(high), steps + 1)
    flux = np.exp(log_flux)
    density = flux * differential_counts(flux, ref_freq)  # per unit of ln S
    number = np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(log_flux))
    return log_flux, np.append(0.0, number)
