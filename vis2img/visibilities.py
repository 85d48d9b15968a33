"""The value between reading and imaging: visibilities of one Stokes parameter of one field and spectral window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vis2img.errors import ParameterError

SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact (SI)


@dataclass(frozen=True)
class Visibilities:
    """Visibilities of one Stokes parameter ready for imaging; flagged samples have weight 0 and value 0.

    Parameters
    ----------
    uvw : float64 [row, 3]
        Baseline coordinates in m, towards ``phase_centre``.
    chan_freq : float64 [chan]
        Channel frequencies in Hz, increasing.
    vis : complex64 [row, chan]
        Visibilities in Jy; finite.
    weight : float32 [row, chan]
        Data weights in 1/Jy^2; finite and not negative.
    time : float64 [row]
        Mid-time of each row, s (MJD).
    antenna1, antenna2 : int32 [row]
        Antenna numbers of each row.
    phase_centre : (float, float)
        Right ascension and declination in rad (ICRS).
    stokes : {"I", "Q", "U", "V"}
        Stokes parameter.
    meta : dict
        What the image header tells of the source: telescope, field name, data column, ...

    Raises
    ------
    ParameterError
        If shapes or dtypes disagree, or the frequencies do not increase.
    """

    uvw: np.ndarray
    chan_freq: np.ndarray
    vis: np.ndarray
    weight: np.ndarray
    time: np.ndarray
    antenna1: np.ndarray
    antenna2: np.ndarray
    phase_centre: tuple[float, float]
    stokes: str = "I"
    meta: dict[str, str | float | int] = field(default_factory=dict)

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
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
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
        names = ("uvw", "chan_freq", "vis", "weight", "time", "antenna1", "antenna2")
        return sum(getattr(self, name).nbytes for name in names)

    def uv_max(self) -> float:
        """Length of the longest baseline in wavelengths, in the uv plane."""
        if not self.nrow:
            return 0.0
        longest = float(np.sqrt(np.max(np.sum(self.uvw[:, :2] ** 2, axis=1))))
        return longest * self.chan_freq[-1] / SPEED_OF_LIGHT

    def uv_min(self) -> float:
        """Length of the shortest baseline in wavelengths, in the uv plane."""
        if not self.nrow:
            return 0.0
        shortest = float(np.sqrt(np.min(np.sum(self.uvw[:, :2] ** 2, axis=1))))
        return shortest * self.chan_freq[0] / SPEED_OF_LIGHT

    def subset(self, rows: np.ndarray, chans: slice) -> Visibilities:
        """Return the same observation with only ``rows`` (indices or mask) and ``chans``; itself if these are all."""
        keep_all = rows.dtype == bool and bool(rows.all())
        if keep_all and chans.indices(len(self.chan_freq)) == (0, len(self.chan_freq), 1):
            return self
        pick = (lambda a: a) if keep_all else (lambda a: a[rows])
        return replace(
            self,
            uvw=pick(self.uvw),
            chan_freq=self.chan_freq[chans],
            vis=np.ascontiguousarray(pick(self.vis[:, chans])),
            weight=np.ascontiguousarray(pick(self.weight[:, chans])),
            time=pick(self.time),
            antenna1=pick(self.antenna1),
            antenna2=pick(self.antenna2),
        )

    @property
    def is_averaged(self) -> bool:
        """Whether the rows are averages that no longer know their antennas (numbered -1)."""
        return self.nrow > 0 and bool(self.antenna1[0] < 0)


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
        ``meta`` and times as in the parts; a part that stands alone is returned as it is.
    """
    groups: dict[bytes, list[Visibilities]] = {}
    for part in parts:
        key = b"one channel" if len(part.chan_freq) == 1 else part.chan_freq.tobytes()
        groups.setdefault(key, []).append(part)
    return [_concatenate(group) if len(group) > 1 else group[0] for group in groups.values()]


def _concatenate(parts: list[Visibilities]) -> Visibilities:
    freq = parts[0].chan_freq

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        parts[0],
        uvw=np.concatenate([part.uvw if len(freq) > 1 else part.uvw * (part.chan_freq / freq) for part in parts]),
        vis=joined("vis"),
        weight=joined("weight"),
        time=joined("time"),
        antenna1=joined("antenna1"),
        antenna2=joined("antenna2"),
    )
