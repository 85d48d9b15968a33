"""The value between reading and imaging: visibilities of one Stokes parameter of one field and spectral window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vis2img.errors import ParameterError
from vis2img.shapes import Complex64, Float32, Float64, Int32

SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact (SI)
RADIO = (1e5, 1e13)  # Hz; no radio telescope observes beyond


@dataclass(frozen=True)
class Origin:
    """Where visibilities and their images come from; what is not told has its default."""

    paths: tuple[str, ...] = ()
    """Measurement sets, or averaged data; an image may have several."""
    selection: str | None = None
    """What was read of them: a record of :class:`vis2img.ms.selection.Selection` in JSON."""
    telescope: str = "unknown"
    field: str = ""
    spw: tuple[int, ...] = ()
    """Spectral windows (SPECTRAL_WINDOW_ID)."""
    column: str = ""
    """Data column."""
    stokes_from: str = ""
    """The correlations that made the Stokes parameter, as ``XX+YY``."""
    frame: str = "ICRS"
    """Reference frame of directions: ICRS, or J2000 (FK5)."""
    freq_frame: str = ""
    """That of frequencies, as casacore names it (TOPO, LSRK, BARY, ...); empty where it is not known."""
    pointing: tuple[float, float] | None = None
    """Where the dishes pointed, RA and Dec in rad."""
    band: tuple[float, float] | None = None
    """Lowest and highest frequency in Hz that tell of the receiver."""
    chan_width: float = 0.0
    """Width of the channels in Hz."""
    dish_diameter: float = 0.0
    """m; 0: not known."""

    def with_all(self, others: Iterable[Origin]) -> Origin:
        """Return this origin with the paths and spectral windows of ``others`` in place of its own.

        Frequencies of several frames have none in common.
        """
        others = list(others)
        paths = dict.fromkeys(path for other in others for path in other.paths)
        spws = {spw for other in others for spw in other.spw}
        frames = {other.freq_frame for other in others} or {self.freq_frame}
        return replace(
            self,
            paths=tuple(paths) or self.paths,
            spw=tuple(sorted(spws)) or self.spw,
            freq_frame=frames.pop() if len(frames) == 1 else "",
        )

    @property
    def spw_label(self) -> int | str | None:
        """The spectral window as a number, several as a text (``0,2``), None where none is told."""
        if len(self.spw) > 1:
            return ",".join(map(str, self.spw))
        return self.spw[0] if self.spw else None


@dataclass(frozen=True, eq=False)
class Contents:
    """What the averages of one time block and channel block were made of."""

    middle: float
    """The time that stands for the block in ``Visibilities.time``, s (MJD)."""
    chan_freq: Float64[np.ndarray, " chan"]
    """Frequencies in Hz."""
    chan_weight: Float64[np.ndarray, " chan"]
    """Sum of the data weights of each."""
    node_weight: Float64[np.ndarray, " chan"]
    """The same, as the mean channels of the averages give it: without their spread within an average."""
    time: Float64[np.ndarray, " time"]
    """Distinct times with weight, s (MJD), increasing."""
    time_weight: Float64[np.ndarray, " time"]
    """Sum of the data weights of each over all channels."""


@dataclass(frozen=True, eq=False)
class Averages:
    """What rows that are averages stand for, and what images of them must keep to."""

    contents: tuple[Contents, ...]
    """One for each time block."""
    facet: tuple[float, float]
    """Extent in x and y that may be imaged, rad."""
    tolerance: float
    """Relative L2 error of the image of the facet."""


_OPTIONAL = ("antenna1", "antenna2", "chan")  # arrays of rows that may not be there


@dataclass(frozen=True)
class Visibilities:
    """Visibilities of one Stokes parameter ready for imaging; flagged samples have weight 0 and value 0.

    Raises
    ------
    ParameterError
        If shapes or dtypes disagree, or the frequencies do not increase.
    """

    uvw: Float64[np.ndarray, "row 3"]
    """Baseline coordinates in m, towards ``phase_centre``."""
    chan_freq: Float64[np.ndarray, " chan"]
    """Channel frequencies in Hz, increasing."""
    vis: Complex64[np.ndarray, "row chan"]
    """Visibilities in Jy; finite."""
    weight: Float32[np.ndarray, "row chan"]
    """Data weights in 1/Jy^2; finite and not negative."""
    time: Float64[np.ndarray, " row"]
    """Mid-time of each row, s (MJD)."""
    antenna1: Int32[np.ndarray, " row"] | None
    antenna2: Int32[np.ndarray, " row"] | None
    """Antenna numbers of each row; averages do not know theirs."""
    phase_centre: tuple[float, float]
    """Right ascension and declination in rad (ICRS)."""
    stokes: str = "I"
    """Stokes parameter: I, Q, U or V."""
    origin: Origin = field(default_factory=Origin)
    """Where they come from: telescope, field name, data column, ..."""
    chan: Float64[np.ndarray, " row"] | None = None
    """Of averages, the mean channel of the samples of each row, an index into ``Contents.chan_freq``."""
    averages: Averages | None = None
    """What rows that are averages stand for; None where each row is a sample."""

    def __post_init__(self) -> None:
        nrow, nchan = len(self.uvw), len(self.chan_freq)
        expected = {
            "uvw": ((nrow, 3), np.float64),
            "chan_freq": ((nchan,), np.float64),
            "vis": ((nrow, nchan), np.complex64),
            "weight": ((nrow, nchan), np.float32),
            "time": ((nrow,), np.float64),
            "antenna1": ((nrow,), np.int32),
            "antenna2": ((nrow,), np.int32),
            "chan": ((nrow,), np.float64),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array is None and name in _OPTIONAL:
                continue
            if array.shape != shape or array.dtype != dtype:
                raise ParameterError(
                    f"{name} is {array.dtype}{list(array.shape)}, expected {np.dtype(dtype)}{list(shape)}"
                )
        if nchan == 0 or np.any(np.diff(self.chan_freq) <= 0) or self.chan_freq[0] <= 0:
            raise ParameterError("chan_freq must hold positive frequencies in increasing order")

    @property
    def nrow(self) -> int:
        """Number of rows (baselines times timesteps)."""
        return len(self.uvw)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        arrays = [getattr(self, name) for name in ("uvw", "chan_freq", "vis", "weight", "time", *_OPTIONAL)]
        return sum(array.nbytes for array in arrays if array is not None)

    def uv_max(self) -> float:
        """Length of the longest baseline in wavelengths, in the uv plane."""
        return float(np.max(self._uv_lengths(), initial=0.0)) * self.chan_freq[-1] / SPEED_OF_LIGHT

    def uv_min(self) -> float:
        """Length of the shortest baseline in wavelengths, in the uv plane."""
        return float(np.min(self._uv_lengths())) * self.chan_freq[0] / SPEED_OF_LIGHT if self.nrow else 0.0

    def _uv_lengths(self) -> Float64[np.ndarray, " row"]:
        return np.sqrt(np.sum(self.uvw[:, :2] ** 2, axis=1))

    def subset(self, rows: np.ndarray, chans: slice) -> Visibilities:
        """Return the same observation with only ``rows`` (indices or mask) and ``chans``; itself if these are all."""
        keep_all = rows.dtype == bool and bool(rows.all())
        if keep_all and chans.indices(len(self.chan_freq)) == (0, len(self.chan_freq), 1):
            return self

        rowwise: dict[str, Any] = {name: getattr(self, name) for name in ("uvw", "time", *_OPTIONAL)}
        cells = {"vis": self.vis[:, chans], "weight": self.weight[:, chans]}
        if not keep_all:
            rowwise = {name: array if array is None else array[rows] for name, array in rowwise.items()}
            cells = {name: array[rows] for name, array in cells.items()}
        rowwise |= {name: np.ascontiguousarray(array) for name, array in cells.items()}
        return replace(self, chan_freq=self.chan_freq[chans], **rowwise)


def merge(parts: Sequence[Visibilities]) -> list[Visibilities]:
    """Join the parts that one gridding call can take: those with the same channels, and those with one channel.

    Parts of one channel each share a call at any frequencies, because only baselines in wavelengths count:
    their uvw are scaled to the frequency of the first.

    Parameters
    ----------
    parts : sequence of Visibilities
        Of one Stokes parameter, all towards the same phase centre.

    Returns
    -------
    list of Visibilities
        ``origin`` and ``averages`` as in the first of the parts; a part that stands alone is returned as it is.
    """
    groups: dict[bytes, list[Visibilities]] = {}
    for part in parts:
        key = b"one channel" if len(part.chan_freq) == 1 else part.chan_freq.tobytes()
        groups.setdefault(key, []).append(part)
    return [_concatenate(group) if len(group) > 1 else group[0] for group in groups.values()]


def _concatenate(parts: list[Visibilities]) -> Visibilities:
    freq = parts[0].chan_freq

    joined: dict[str, Any] = {}
    for name in ("vis", "weight", "time", *_OPTIONAL):
        arrays = [getattr(part, name) for part in parts]
        joined[name] = None if any(array is None for array in arrays) else np.concatenate(arrays)
    joined["uvw"] = np.concatenate(
        [part.uvw if len(freq) > 1 else part.uvw * (part.chan_freq / freq) for part in parts]
    )
    return replace(parts[0], **joined)
