"""Labelled radio sources as short lists of Gaussian and point components, and the tables that hold them.

A source is laid out in its own frame, x along the radio axis and y across it, each component a centre and a
covariance. Foreshortening, rotation to a position angle and scaling to the wanted size then act on both
alike. Components are few (11 per extended source), so that exact prediction stays cheap.

Morphology. The ranges bracket the bulk of the population; they are not fits to it:

- ``fri`` and ``frii`` obey the definition of Fanaroff & Riley 1974: the distance between the brightest
  regions on either side of the nucleus is less (more) than half of the whole extent. FRI jets widen and fade
  outwards, with core fractions of 5 to 25% (Laing & Bridle 2014); FRII lobes end in hotspots, with cores of
  0.3 to 5% (Bridle & Perley 1984), length to width ratios of 2 to 6 (Leahy & Williams 1984) and arm lengths
  that differ by up to 1.6 (Scheuer 1995).
- ``bent``: an angle between the tails of 20 to 130 degrees, from narrow to wide-angle tails (Owen & Rudnick
  1976, O'Dea & Owen 1985), fading outwards.
- ``compact``: one component below 3 arcsec, half of them points.
- Spectral indices (S ~ nu^a): cores -0.3 to 0.2, hotspots -0.7 to -0.5, jets, lobes and tails -1.1 to -0.6.
- Inclination: isotropic beyond 30 degrees to the line of sight; nearer, a core dominates (Barthel 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.phase import sky_position

_ARCSEC = math.pi / 180 / 3600
COUNTS_SLOPE = 1.7  # -dlnN/dlnS near 1 mJy to 0.1 Jy at 1.4 GHz (counts compiled by de Zotti et al. 2010)
UNLABELLED = ""  # class of sources without a label: background, bare points, catalogue rows without one
_PLACEMENT_TRIES = 2000  # per source; random packing stalls well before a field is full
_NODES = 5  # components per jet, lobe or tail


@dataclass(frozen=True)
class SkyComponent:
    """An elliptical Gaussian, or a point when ``major`` is 0.

    Parameters
    ----------
    ra, dec : float
        Position in rad (ICRS).
    flux : float
        Integrated flux density in Jy at ``ref_freq``.
    ref_freq : float
        Frequency of ``flux`` in Hz; elsewhere it is flux * (nu / ref_freq) ** spectral_index.
    major, minor : float
        FWHM in rad.
    pa : float
        Position angle of the major axis in rad, north through east.
    spectral_index : float

    Raises
    ------
    ParameterError
        If a value is not finite or out of range.
    """

    ra: float
    dec: float
    flux: float
    ref_freq: float
    major: float = 0.0
    minor: float = 0.0
    pa: float = 0.0
    spectral_index: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            if not math.isfinite(getattr(self, item.name)):
                raise ParameterError(f"{item.name} = {getattr(self, item.name)} is not a finite number")
        if abs(self.dec) > math.pi / 2:
            raise ParameterError(f"dec = {math.degrees(self.dec):g} degrees lies beyond the pole")
        if self.flux <= 0 or self.ref_freq <= 0:
            raise ParameterError(f"flux = {self.flux:g} Jy at {self.ref_freq:g} Hz: both must be above 0")
        if not 0 <= self.minor <= self.major:
            raise ParameterError(f"minor = {self.minor:g} rad must be between 0 and major = {self.major:g} rad")


@dataclass(frozen=True, eq=False)
class SkyCutout:
    """A picture of a source as sky brightness, for example of a real radio galaxy.

    Parameters
    ----------
    pixels : float32 [y, x]
        Flux density in Jy per pixel at ``ref_freq``. With ``pa`` 0, x runs along decreasing right ascension and
        y along increasing declination; the pixel at ``[ny // 2, nx // 2]`` (0-based) lies at (``ra``, ``dec``).
    pixsize : float
        Side of a pixel in rad.
    ra, dec : float
        Position in rad (ICRS).
    ref_freq : float
        Frequency of ``pixels`` in Hz; elsewhere they are times (nu / ref_freq) ** spectral_index.
    pa : float
        Angle in rad by which the picture is turned, north through east.
    spectral_index : float
    origin : str
        File and row that it comes from.

    Raises
    ------
    ParameterError
        If a value is not finite or out of range.
    """

    pixels: np.ndarray
    pixsize: float
    ra: float
    dec: float
    ref_freq: float
    pa: float = 0.0
    spectral_index: float = 0.0
    origin: str = ""

    def __post_init__(self) -> None:
        numbers = (self.pixsize, self.ra, self.dec, self.ref_freq, self.pa, self.spectral_index)
        if not all(map(math.isfinite, numbers)) or self.pixsize <= 0 or self.ref_freq <= 0:
            raise ParameterError(f"cutout {self.origin or 'without a name'}: a number is not finite or not above 0")
        if self.pixels.ndim != 2 or not np.isfinite(self.pixels).all():
            raise ParameterError(f"cutout {self.origin or 'without a name'}: pixels must be [y, x] and finite")

    @property
    def flux(self) -> float:
        """Flux density in Jy at ``ref_freq``."""
        return float(self.pixels.sum(dtype=np.float64))


@dataclass(frozen=True)
class SkySource:
    """A source with its label and what it consists of: components, or a cutout.

    ``ra``, ``dec`` (rad) are the middle of what is seen of it, which need not be the nucleus; ``flux`` (Jy)
    is the sum over the components and the cutout. ``size`` (rad) is the largest angular size, between
    half-maximum contours of the outermost components; 0 for a point.
    """

    source_id: int
    class_name: str
    ra: float
    dec: float
    flux: float
    size: float
    components: tuple[SkyComponent, ...] = field(repr=False, default=())
    cutout: SkyCutout | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        total = sum(component.flux for component in self.components) + (self.cutout.flux if self.cutout else 0.0)
        if not math.isclose(total, self.flux, rel_tol=1e-5):
            raise ParameterError(
                f"source {self.source_id}: flux {self.flux:g} Jy, but its components hold {total:g} Jy"
            )


@dataclass(frozen=True, eq=False)
class _Part:
    """Components in a source's own frame: centre [n, 2], FWHM along and across [n, 2]; the rest [n]."""

    centre: np.ndarray
    fwhm: np.ndarray
    tilt: np.ndarray
    flux: np.ndarray
    spectral_index: np.ndarray


def _core(rng: np.random.Generator, fraction: float) -> _Part:
    return _Part(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1), np.array([fraction]), rng.uniform(-0.3, 0.2, 1))


def _shares(rng: np.random.Generator, core: float, ratio: float) -> list[tuple[float, float]]:
    """Return (side, flux fraction) of both sides, whose fluxes differ by up to ``ratio`` either way."""
    weight = rng.uniform(1.0, ratio) ** rng.choice([-1.0, 1.0])
    return [(1.0, (1 - core) * weight / (1 + weight)), (-1.0, (1 - core) / (1 + weight))]


def _fading(rng: np.random.Generator, s: np.ndarray, decay: float, total: float) -> np.ndarray:
    flux = np.exp(-s / decay) * rng.uniform(0.8, 1.2, len(s))
    return flux * total / flux.sum()


def _fri(rng: np.random.Generator) -> list[_Part]:
    core, decay = rng.uniform(0.05, 0.25), rng.uniform(0.2, 0.4)
    bend, mirror = rng.normal(0.0, 0.12), rng.choice([-1.0, 1.0])  # mirror: C shape, else S shape
    s = np.linspace(0.12, 0.88, _NODES)
    parts = [_core(rng, core)]
    for side, share in _shares(rng, core, 2.0):
        length, curve = rng.uniform(0.8, 1.0), bend * (mirror if side < 0 else 1.0)
        fwhm = length * np.stack([np.full(_NODES, 0.3), 0.06 + 0.3 * s * rng.uniform(0.7, 1.3)], axis=1)
        centre = length * np.stack([side * s, curve * s**2], axis=1)
        flux = _fading(rng, s, decay, share)
        parts.append(_Part(centre, fwhm, np.arctan2(2 * curve * s, side), flux, rng.uniform(-0.9, -0.6, _NODES)))
    return parts


def _frii(rng: np.random.Generator) -> list[_Part]:
    core = math.exp(rng.uniform(math.log(0.003), math.log(0.05)))
    arm = rng.uniform(1.0, 1.6) ** rng.choice([-1.0, 1.0])
    width = 1.4 / rng.uniform(2.0, 6.0)  # FWHM of a lobe; 1.4 and not the length of 2, as FWHMs add up across
    x = np.array([0.97, 0.82, 0.66, 0.48, 0.25])  # hotspot, three of the lobe, bridge
    parts = [_core(rng, core)]
    for side, share in _shares(rng, core, 2.5):
        length, hotspot = (arm if side > 0 else 1.0), rng.uniform(0.3, 0.6)
        flux = np.append(hotspot, (1 - hotspot) * np.array([0.42, 0.32, 0.2, 0.06]))
        along = np.append(rng.uniform(0.05, 0.1), [0.22, 0.26, 0.28, 0.4])
        across = np.append(rng.uniform(0.04, 0.09), width * np.array([0.9, 1.0, 0.75, 0.4]))
        lateral = rng.normal(0.0, width * np.array([0.2, 0.06, 0.06, 0.06, 0.06]))
        turn = rng.normal(0.0, math.radians(4))  # the two lobes are not quite in one line
        centre = np.stack([x, lateral], axis=1) @ [
            [math.cos(turn), math.sin(turn)],
            [-math.sin(turn), math.cos(turn)],
        ]
        fwhm = np.stack([along * length, across], axis=1)
        index = np.append(rng.uniform(-0.7, -0.5), rng.uniform(-1.1, -0.7, _NODES - 1))
        parts.append(_Part(side * length * centre, fwhm, np.full(_NODES, turn), share * flux, index))
    return parts


def _bent(rng: np.random.Generator) -> list[_Part]:
    core, decay = rng.uniform(0.05, 0.25), rng.uniform(0.4, 0.9)
    final = math.radians(rng.uniform(20.0, 130.0)) / 2  # of a tail, from the common direction of both
    s = (np.arange(_NODES) + 0.6) / _NODES
    parts = [_core(rng, core)]
    for side, share in _shares(rng, core, 1.8):
        # A jet leaves nearly across the tails and is swept back: its angle relaxes to the final one.
        start = max(final, math.radians(rng.uniform(55.0, 85.0)))
        angle = side * (final + (start - final) * np.exp(-s / 0.25))
        steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.diff(s, prepend=0.0)[:, None]
        centre = np.cumsum(steps, axis=0) * rng.uniform(0.75, 1.0)
        fwhm = np.stack([np.full(_NODES, 0.28), 0.06 + 0.16 * s * rng.uniform(0.7, 1.3)], axis=1)
        index = -0.65 - 0.45 * s + rng.normal(0, 0.05, _NODES)  # steepens as the plasma ages
        parts.append(_Part(centre, fwhm, angle, _fading(rng, s, decay, share), index))
    return parts


_EXTENDED: dict[str, Callable[[np.random.Generator], list[_Part]]] = {
    "fri": _fri,
    "frii": _frii,
    "bent": _bent,
}
CLASSES = ("compact", *_EXTENDED)


def _extent(centre: np.ndarray, covariance: np.ndarray) -> float:
    """Return the largest distance between the half-maximum contours, over all directions on the sky."""
    angle = np.linspace(0, math.pi, 181)
    axis = np.stack([np.cos(angle), np.sin(angle)])
    along = centre @ axis  # (n, angle)
    half = 0.5 * np.sqrt(np.einsum("ia,nij,ja->na", axis, covariance, axis))
    return float(np.max((along + half).max(axis=0) - (along - half).min(axis=0)))


def _projected(rng: np.random.Generator, layout: _Part, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return centres [n, 2] and squared-FWHM matrices [n, 2, 2] in (l, m), rad, as seen at a random angle."""
    cos_t, sin_t = np.cos(layout.tilt), np.sin(layout.tilt)
    axes = np.moveaxis(np.array([[cos_t, -sin_t], [sin_t, cos_t]]), -1, 0)
    covariance = axes @ (layout.fwhm[:, :, None] ** 2 * np.eye(2)) @ np.swapaxes(axes, 1, 2)
    sin_inclination = math.sqrt(1 - rng.uniform(0.0, math.cos(math.radians(30))) ** 2)
    pa = rng.uniform(0.0, 2 * math.pi)
    turn = np.array([[math.sin(pa), math.cos(pa)], [math.cos(pa), -math.sin(pa)]])  # (x, y) -> (l east, m north)
    view = turn @ np.diag([sin_inclination, 1.0])
    centre, covariance = layout.centre @ view.T, view @ covariance @ view.T
    half = 0.5 * np.sqrt(covariance[:, [0, 1], [0, 1]])  # (n, 2) reach along l and m
    centre = centre - ((centre + half).max(axis=0) + (centre - half).min(axis=0)) / 2
    scale = size / _extent(centre, covariance)
    return centre * scale, covariance * scale**2


def draw_source(
    rng: np.random.Generator,
    class_name: str,
    ra: float,
    dec: float,
    flux: float,
    size: float,
    *,
    source_id: int = 0,
    ref_freq: float = 1.4e9,
) -> SkySource:
    """Draw one source of a class at a position.

    Parameters
    ----------
    rng : numpy.random.Generator
    class_name : str
        One of :data:`CLASSES`.
    ra, dec : float
        Middle of the source in rad.
    flux : float
        Total flux density in Jy at ``ref_freq`` (Hz).
    size : float
        Largest angular size as seen, in rad; a compact source stays below 3 arcsec whatever it is.
    source_id : int
        Goes into the result unchanged.

    Raises
    ------
    ParameterError
        If the class is unknown or a value is out of range.
    """
    if class_name not in CLASSES:
        raise ParameterError(f"there is no source class {class_name!r}; known are {', '.join(CLASSES)}")
    if not (size > 0 and math.isfinite(size)):
        raise ParameterError(f"the size of a source, {size:g} rad, must be above 0")
    if class_name == "compact":
        major = min(size, 3 * _ARCSEC) * float(rng.uniform(0.1, 1.0) * rng.integers(2))
        minor, pa, index = major * rng.uniform(0.3, 1.0), rng.uniform(0, math.pi), rng.uniform(-0.9, 0.0)
        component = SkyComponent(ra, dec, flux, ref_freq, major, minor, pa, index)
        return single_component_source(source_id, class_name, component)
    parts = _EXTENDED[class_name](rng)
    layout = _Part(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(_Part)))
    centre, covariance = _projected(rng, layout, size)
    squares, vectors = np.linalg.eigh(covariance)  # ascending: the last vector is the major axis
    fwhm = np.sqrt(np.maximum(squares, 0.0))
    pa = np.arctan2(vectors[:, 0, 1], vectors[:, 1, 1]) % math.pi
    position = sky_position(centre[:, 0], centre[:, 1], (ra, dec))
    part_flux = flux * layout.flux / layout.flux.sum()
    freqs = np.full(len(pa), ref_freq)
    columns = (*position, part_flux, freqs, fwhm[:, 1], fwhm[:, 0], pa, layout.spectral_index)
    components = tuple(SkyComponent(*map(float, row)) for row in zip(*columns, strict=True))
    return SkySource(source_id, class_name, ra, dec, flux, size, components)


def _power_law(rng: np.random.Generator, flux_range: tuple[float, float], n: int) -> np.ndarray:
    """Draw ``n`` fluxes of dN/dS ~ S ** -COUNTS_SLOPE by inverting the cumulative counts."""
    low, high = (flux ** (1 - COUNTS_SLOPE) for flux in flux_range)
    return (low + rng.random(n) * (high - low)) ** (1 / (1 - COUNTS_SLOPE))


def _place(rng: np.random.Generator, sizes: np.ndarray, fov: float, gap: float) -> np.ndarray:
    """Return (l, m) [n, 2] in rad, uniform in a square of side ``fov``, any two extents ``gap`` apart."""
    placed = np.zeros((len(sizes), 2))
    order = np.argsort(-sizes)  # the large ones first, while there is room
    for rank, i in enumerate(order):
        done, half = order[:rank], (fov - sizes[i]) / 2
        for _ in range(_PLACEMENT_TRIES if half > 0 else 0):
            trial = rng.uniform(-half, half, 2)
            if np.all(np.hypot(*(placed[done] - trial).T) >= (sizes[done] + sizes[i]) / 2 + gap):
                placed[i] = trial
                break
        else:
            raise ParameterError(
                f"no room for {len(sizes)} sources in a field of {math.degrees(fov):.3g} degrees (stopped at "
                f"{rank}); use fewer or smaller sources, a smaller min_separation or a larger fov"
            )
    return placed


def draw_sky(
    rng: np.random.Generator,
    phase_centre: tuple[float, float],
    fov: float,
    n_sources: int,
    classes: Sequence[str] = CLASSES,
    flux_range: tuple[float, float] = (1e-3, 1e-1),
    size_range: tuple[float, float] = (20 * _ARCSEC, 120 * _ARCSEC),
    min_separation: float = 30 * _ARCSEC,
    n_background: int = 0,
    ref_freq: float = 1.4e9,
) -> list[SkySource]:
    """Draw labelled sources that do not overlap, and faint points without a label that may lie anywhere.

    Parameters
    ----------
    rng : numpy.random.Generator
    phase_centre : (float, float)
        Right ascension and declination of the field centre in rad.
    fov : float
        Side of the square in the tangent plane (SIN projection) that the sources lie in, in rad.
    n_sources, n_background : int
        How many with and without a label.
    classes : sequence of str
        Classes, drawn in equal shares.
    flux_range : (float, float)
        In Jy at ``ref_freq`` (Hz), as a power law of slope :data:`COUNTS_SLOPE`; the background reaches from
        a hundredth to a tenth of the lower limit.
    size_range : (float, float)
        Largest angular sizes in rad, log-uniform.
    min_separation : float
        Least gap between the extents of two labelled sources in rad.

    Returns
    -------
    list of SkySource
        Numbered from 0 in this order, the background last.

    Raises
    ------
    ParameterError
        If the sources do not fit, or a class is unknown.
    """
    labels = rng.permutation(np.resize(np.array(classes, dtype=object), n_sources))
    flux = _power_law(rng, flux_range, n_sources)
    size = np.exp(rng.uniform(math.log(size_range[0]), math.log(size_range[1]), n_sources))
    # Nothing is farther from the middle of its bounding box than 1 / sqrt(2) of the largest angular size.
    room = np.where(labels == "compact", np.minimum(size, 3 * _ARCSEC), math.sqrt(2) * size)
    placed = _place(rng, np.asarray(room, float), fov, min_separation)
    ra, dec = sky_position(placed[:, 0], placed[:, 1], phase_centre)
    sources = [
        draw_source(rng, label, *values, source_id=i, ref_freq=ref_freq)
        for i, (label, *values) in enumerate(zip(labels, *(x.tolist() for x in (ra, dec, flux, size)), strict=True))
    ]
    faint = _power_law(rng, (flux_range[0] / 100, flux_range[0] / 10), n_background)
    l, m = rng.uniform(-fov / 2, fov / 2, (2, n_background))
    ra, dec = sky_position(l, m, phase_centre)
    for row in zip(ra.tolist(), dec.tolist(), faint.tolist(), strict=True):
        point = SkyComponent(*row, ref_freq, spectral_index=float(rng.normal(-0.7, 0.2)))
        sources.append(single_component_source(len(sources), UNLABELLED, point))
    return sources


def single_component_source(source_id: int, class_name: str, component: SkyComponent) -> SkySource:
    """Return a source that is one component."""
    c = component
    return SkySource(source_id, class_name, c.ra, c.dec, c.flux, c.major, (c,))


def write_catalogue(sources: Sequence[SkySource], path: str | Path) -> None:
    """Write the sources and their components to a FITS file with the tables SOURCES and COMPONENTS.

    SOURCES holds source_id, ra_deg, dec_deg, flux_jy, size_arcsec and class. COMPONENTS holds one row per
    component, its source_id and the fields of :class:`SkyComponent` (rad, Jy, Hz), for the sky to be rebuilt.

    Raises
    ------
    OutputError
        If the file exists already or cannot be written.
    """
    from astropy.io import fits
    from astropy.table import Table

    rows = {
        "source_id": np.array([s.source_id for s in sources], dtype=np.int64),
        "ra_deg": np.degrees([s.ra for s in sources]),
        "dec_deg": np.degrees([s.dec for s in sources]),
        "flux_jy": np.array([s.flux for s in sources], dtype=float),
        "size_arcsec": np.array([s.size for s in sources], dtype=float) / _ARCSEC,
        "class": np.array([s.class_name for s in sources], dtype="U16"),
    }
    parts = [(s.source_id, c) for s in sources for c in s.components]
    components: dict[str, np.ndarray] = {"source_id": np.array([i for i, _ in parts], dtype=np.int64)}
    for item in fields(SkyComponent):
        components[item.name] = np.array([getattr(c, item.name) for _, c in parts], dtype=float)
    tables = [fits.table_to_hdu(Table(columns)) for columns in (rows, components)]
    for table, name in zip(tables, ("SOURCES", "COMPONENTS"), strict=True):
        table.name = name
    try:
        fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(path)
    except OSError as error:
        raise OutputError(f"cannot write the catalogue {path}: {str(error).splitlines()[0]}") from error


def read_catalogue(path: str | Path) -> list[SkySource]:
    """Return the sources that :func:`write_catalogue` wrote.

    Raises
    ------
    Vis2imgError
        If the file cannot be read or is not such a catalogue.
    """
    from astropy.io import fits
    from astropy.table import Table

    try:
        with fits.open(path) as hdus:
            rows, parts = (Table.read(hdus[name]) for name in ("SOURCES", "COMPONENTS"))
        components: dict[int, list[SkyComponent]] = {}
        names = [item.name for item in fields(SkyComponent)]
        for part in parts:
            components.setdefault(int(part["source_id"]), []).append(SkyComponent(*(float(part[n]) for n in names)))
        return [
            SkySource(
                int(row["source_id"]),
                _text(row["class"]),
                math.radians(row["ra_deg"]),
                math.radians(row["dec_deg"]),
                float(row["flux_jy"]),
                float(row["size_arcsec"]) * _ARCSEC,
                tuple(components[int(row["source_id"])]),
            )
            for row in rows
        ]
    except (OSError, KeyError, ValueError) as error:
        raise Vis2imgError(f"{path} is not a catalogue of vis2img: {str(error).splitlines()[0]}") from error


_REQUIRED = ("ra_deg", "dec_deg", "flux_jy")
_OPTIONAL = {"major_arcsec": _ARCSEC, "minor_arcsec": _ARCSEC, "pa_deg": math.pi / 180, "spectral_index": 1.0}


def read_user_catalogue(path: str | Path, ref_freq: float) -> list[SkySource]:
    """Read a user's table of sources, one component each, as CSV or FITS.

    Parameters
    ----------
    path : path
        A file ending in .csv, .fits or .fit with the columns ra_deg, dec_deg, flux_jy and, if wanted,
        major_arcsec, minor_arcsec, pa_deg, spectral_index and class. minor_arcsec defaults to major_arcsec,
        the others to 0 and to no class.
    ref_freq : float
        Frequency of the fluxes in Hz.

    Raises
    ------
    Vis2imgError
        If the file or a column is missing, or a value is not legal; the message names file, column and row.
    """
    table = _read_table(Path(path))
    missing = [name for name in _REQUIRED if name not in table.colnames]
    if missing:
        raise Vis2imgError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(table.colnames) or 'none'}"
        )
    columns = {name: _numbers(path, table, name) for name in (*_REQUIRED, *_OPTIONAL) if name in table.colnames}
    classes = map(_text, table["class"]) if "class" in table.colnames else [UNLABELLED] * len(table)
    sources = []
    for i, class_name in enumerate(classes):
        value = {name: column[i] for name, column in columns.items()}
        value.setdefault("minor_arcsec", value.get("major_arcsec", 0.0))
        shape = [value.get(name, 0.0) * unit for name, unit in _OPTIONAL.items()]
        try:
            position = math.radians(value["ra_deg"]) % (2 * math.pi), math.radians(value["dec_deg"])
            part = SkyComponent(*position, value["flux_jy"], ref_freq, *shape)
        except ParameterError as error:
            raise Vis2imgError(f"{path} row {i + 1}: {error}") from error
        sources.append(single_component_source(i, class_name, part))
    return sources


def _text(value: Any) -> str:
    return "" if value is np.ma.masked else str(value).strip()


def _read_table(path: Path) -> Any:
    from astropy.table import Table

    form = {".csv": "ascii.csv", ".fits": "fits", ".fit": "fits"}.get(path.suffix.lower())
    if form is None:
        raise Vis2imgError(f"{path}: a catalogue must end in .csv or .fits")
    try:
        return Table.read(path, format=form)
    except Exception as error:  # astropy's readers raise a dozen unrelated types for a damaged file
        raise Vis2imgError(f"cannot read the catalogue {path}: {str(error).strip().splitlines()[0]}") from error


def _numbers(path: str | Path, table: Any, name: str) -> list[float]:
    column = table[name]
    if np.any(np.ma.getmaskarray(column)):
        row = int(np.flatnonzero(np.ma.getmaskarray(column))[0]) + 1
        raise Vis2imgError(f"{path}: the column {name} is empty in row {row}")
    try:
        return [float(value) for value in column]
    except (TypeError, ValueError):
        raise Vis2imgError(f"{path}: the column {name} must hold numbers only") from None
