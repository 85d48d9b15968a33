"""The value between reading and imaging: Stokes visibilities of one field and spectral window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vis2img.errors import ParameterError

SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact (SI)


@dataclass(frozen=True)
class Visibilities:
    """Stokes I visibilities ready for imaging; flagged samples have weight 0 and value 0.

    Parameters
    ----------
    uvw : float64 [row, 3]
        Baseline coordinates in m, towards ``phase_centre``.
    chan_freq : float64 [chan]
        Channel frequencies in Hz, increasing.
    vis : complex64 [row, chan]
        Stokes I in Jy; finite.
    weight : float32 [row, chan]
        Data weights in 1/Jy^2; finite and not negative.
    time : float64 [row]
        Mid-time of each row, s (MJD).
    antenna1, antenna2 : int32 [row]
        Antenna numbers of each row.
    phase_centre : (float, float)
        Right ascension and declination in rad (ICRS).
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

    def subset(self, rows: np.ndarray, chans: slice) -> Visibilities:
        """Return the same observation with only ``rows`` (indices or mask) and the channels ``chans``."""
        keep_all = rows.dtype == bool and bool(rows.all())
        pick = (lambda a: a) if keep_all else (lambda a: a[rows])
        return Visibilities(
            uvw=pick(self.uvw),
            chan_freq=self.chan_freq[chans],
            vis=np.ascontiguousarray(pick(self.vis[:, chans])),
            weight=np.ascontiguousarray(pick(self.weight[:, chans])),
            time=pick(self.time),
            antenna1=pick(self.antenna1),
            antenna2=pick(self.antenna2),
            phase_centre=self.phase_centre,
            meta=self.meta,
        )
