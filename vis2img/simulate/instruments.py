"""Telescopes that observations are simulated for: layouts, bands, noise and primary beams.

Layouts are those of ``simms``, by its names, and ``askap-like``. What a telescope's own figures would be is a default:
band, SEFD and noise can be given instead.

Sources of the figures
----------------------
MeerKAT, L band: SEFD of one dish, mean of both hands, from the model of the MeerKAT imager (katsdpimager,
``models/sefd/meerkat/v1/sefd_L.h5``, M. Serylak). UHF: the receivers are scaled copies of the L band's (de Villiers
2023, AJ 165, 78), so its SEFD at the low end of the L band is taken; S band: the level of the upper L band. Usable
ranges are those of the MeerKAT specifications. Beams: cosine-tapered apertures measured by holography, as simms has
them.
VLA: exposure calculator of NRAO (L 420, S 370, C 310, X 250 Jy). SKA-Mid: 15 m dishes of efficiency 0.8 at 20 K.
ASKAP: T_sys / efficiency of 75 K on 12 m dishes (Hotan et al. 2021, PASA 38, e009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vis2img.errors import ParameterError
from vis2img.imaging.primary_beam import dish_axes
from vis2img.random import askap_rng
from vis2img.visibilities import SPEED_OF_LIGHT

Beam = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Power [source, chan] at direction cosines l, m [source] (east, north) and frequencies [chan] in Hz."""

_MEERKAT_L = (
    (900.1, 557.7), (950.3, 526.2), (1000.4, 508.8), (1050.6, 499.1), (1100.7, 487.0), (1150.9, 471.1),
    (1201.0, 458.7), (1251.2, 443.9), (1301.3, 422.8), (1351.5, 414.9), (1401.7, 420.9), (1451.8, 418.9),
    (1502.0, 405.6), (1552.1, 396.3), (1602.3, 408.4), (1652.4, 421.0),
)  # fmt: skip
_ANGLES = 8  # parallactic angles that a beam is averaged over


@dataclass(frozen=True)
class Band:
    """A receiver band: usable range in Hz and SEFD of one antenna, Jy, at frequencies in MHz."""

    start: float
    stop: float
    sefd: tuple[tuple[float, float], ...]
    beam: str | None = None
    """Name of simms's model of the primary beam; None: a cosine-tapered aperture of the dish."""


@dataclass(frozen=True)
class Telescope:
    """What simms does not know of one of its layouts."""

    observatory: str
    """Name in the measurement set, as casacore knows it where it does."""
    dish: float | None = None
    """Diameter in m, of the primary beam; None: that of the layout."""
    bands: dict[str, Band] = field(default_factory=dict)


def _flat(start_mhz: float, stop_mhz: float, sefd: float, beam: str | None = None) -> Band:
    return Band(start_mhz * 1e6, stop_mhz * 1e6, ((start_mhz, sefd),), beam)


_MEERKAT = {
    "L": Band(900e6, 1670e6, _MEERKAT_L, "MKAT-AA-L-JIM-2020"),
    "UHF": _flat(580, 1015, 558, "MKAT-AA-UHF-JIM-2020"),
    **{
        f"S{i}": _flat(low, low + 875, 421, "MKAT-MA-S-JIM-2020")
        for i, low in enumerate((1750, 1968, 2187, 2406, 2625))
    },
}
_VLA = {
    "L": _flat(1000, 2000, 420),
    "S": _flat(2000, 4000, 370),
    "C": _flat(4000, 8000, 310),
    "X": _flat(8000, 12000, 250),
}
_SKA = {"1": _flat(350, 1050, 390), "2": _flat(950, 1760, 390)}
TELESCOPES = {
    "meerkat": Telescope("MeerKAT", bands=_MEERKAT),
    **{f"vla-{c}": Telescope("EVLA", 25.0, _VLA) for c in "abcd"},
    "askap-like": Telescope("ASKAP", 12.0, {"1": _flat(800, 1088, 1830), "2": _flat(1152, 1440, 1830)}),
    **{name: Telescope("SKA-Mid", 15.0, _SKA) for name in ("skamid-aa1", "skamid-aa2", "skamid-aastar", "skamid")},
}


def telescope(name: str) -> Telescope:
    """Return what is known of a telescope; one that only simms knows has no bands."""
    return TELESCOPES.get(name, Telescope(name))


def band_named(name: str, band: str) -> Band:
    """Return a receiver band.

    Raises
    ------
    ParameterError
        If the telescope has no such band.
    """
    bands = telescope(name).bands
    if band not in bands:
        known = f"; it has {', '.join(bands)}" if bands else "; give start_freq and chan_width"
        raise ParameterError(f"band {band!r} is not known of the telescope {name}{known}")
    return bands[band]


def _band_at(name: str, freqs: np.ndarray) -> Band | None:
    """Return the band that holds most of the frequencies, the narrower of two."""
    bands = telescope(name).bands.values()
    shares = [(np.mean((freqs >= b.start) & (freqs <= b.stop)), b.start - b.stop, b) for b in bands]
    share, _, best = max(shares, key=lambda x: x[:2], default=(0, 0, None))
    return best if share > 0 else None


def sefd_at(name: str, freqs: np.ndarray) -> np.ndarray:
    """Return the SEFD of one antenna in Jy at ``freqs`` [chan] (Hz), interpolated, constant beyond the table.

    Raises
    ------
    ParameterError
        If it is not known.
    """
    band = _band_at(name, freqs)
    if band is None:
        raise ParameterError(
            f"the SEFD of {name} from {freqs.min() / 1e6:.6g} to {freqs.max() / 1e6:.6g} MHz is not known; give sefd"
        )
    mhz, sefd = zip(*band.sefd, strict=True)
    return np.interp(freqs / 1e6, mhz, sefd)


def power_beam(name: str, freqs: np.ndarray, dish: float, angles: np.ndarray) -> Beam:
    """Return the Stokes I power beam, the mean over parallactic ``angles`` (rad).

    Parameters
    ----------
    name : str
        Telescope.
    freqs : float64 [chan]
        Hz; they choose the band.
    dish : float
        Dish diameter in m, where no measured model is known.
    angles : float64 [angle]
        Parallactic angles; some of them are taken.

    Notes
    -----
    Condon & Ransom 2016, *Essential Radio Astronomy*, section 3.3.4: a cosine-tapered aperture of half-power width
    1.2 wavelengths per diameter. Sidelobes are only indicative.
    """
    from simms.skymodel.beams import CosineTaperBeam, cosine_taper

    band = _band_at(name, freqs)
    if band is None or band.beam is None:

        def circular(l: np.ndarray, m: np.ndarray, chan_freq: np.ndarray) -> np.ndarray:
            radius = np.arcsin(np.minimum(1.0, np.hypot(l, m)))
            return cosine_taper(np.outer(radius * dish / 1.2, chan_freq / SPEED_OF_LIGHT)) ** 2

        return circular
    model = CosineTaperBeam.from_builtin(band.beam)
    chosen = angles[np.linspace(0, len(angles) - 1, min(len(angles), _ANGLES)).round().astype(int)]

    def measured(l: np.ndarray, m: np.ndarray, chan_freq: np.ndarray) -> np.ndarray:
        total = np.zeros((len(l), len(chan_freq)))
        for angle in chosen:
            across, up = dish_axes(l, m, float(angle))
            total += (model.voltages(across, up, chan_freq / 1e6) ** 2).mean(axis=-1)
        return total / len(chosen)

    return measured


def layout_of(name: str) -> dict[str, Any]:
    """Return the layout in the form of simms: antnames, antlocations, centre, coord_sys, size and mount.

    Raises
    ------
    ParameterError
        If there is no such telescope.
    """
    from simms.telescope.layouts import SIMMS_TELESCOPES

    if name == "askap-like":
        return _askap_like()
    if name not in SIMMS_TELESCOPES:
        known = ", ".join(sorted({*SIMMS_TELESCOPES, *TELESCOPES}))
        raise ParameterError(f"simms knows no telescope {name!r}; choose from {known}")
    return SIMMS_TELESCOPES[name]


def _askap_like() -> dict[str, Any]:
    """Return 36 antennas spread as ASKAP's: 30 within 2 km, 6 out to 6 km (Hotan et al. 2021, section 2).

    Drawn once and for all, 22 m apart at least; not the surveyed positions.
    """
    rng = askap_rng()
    longitude, latitude = 116.6314, -26.6970
    places: list[np.ndarray] = []
    while len(places) < 36:
        arm = len(places) - 30
        if arm < 0:
            radius, angle = 1000 * rng.uniform(0, 1) ** 0.75, rng.uniform(0, 2 * math.pi)
        else:  # one in each of six directions, two of them as far apart as there are any
            radius = 3000.0 if arm % 3 == 0 else rng.uniform(1600, 2800)
            angle = arm * math.pi / 3 + rng.normal(0, 0.1)
        place = radius * np.array([math.cos(angle), math.sin(angle)])
        if all(np.hypot(*(place - other)) > 22 for other in places):
            places.append(place)
    metres = np.array([math.cos(math.radians(latitude)), 1.0]) * 111_320.0  # of one degree
    degrees = (np.array([longitude, latitude]) + np.array(places) / metres).tolist()  # YAML knows no NumPy
    return {
        "name": "askap-like",
        "centre": [longitude, latitude, 370.0],
        "coord_sys": "geodetic",
        "size": 12.0,
        "mount": "ALT-AZ",
        "antnames": [f"ak{i + 1:02d}" for i in range(36)],
        "antlocations": [[*place, 370.0] for place in degrees],
    }
