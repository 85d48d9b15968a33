"""The contract that every kind of visibilities keeps to, so that nothing downstream asks which kind it has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import ParameterError
from vis2img.imaging.doubts import warn_of_doubts
from vis2img.imaging.image import Image, make_image
from vis2img.imaging.memory import check_memory
from vis2img.imaging.params import ImagingParams
from vis2img.machine import cores
from vis2img.ms.metadata import Partition
from vis2img.ms.reading import PartReader
from vis2img.ms.selection import Selection
from vis2img.progress import Progress, no_progress
from vis2img.shapes import Float64
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities


@dataclass(frozen=True, eq=False)
class Outline:
    """What the metadata tell of a selection, before anything is read."""

    telescope: str
    phase_centre: tuple[float, float]
    """RA and Dec in rad."""
    pointing: tuple[float, float]
    """Where the dishes pointed, RA and Dec in rad."""
    bands: list[tuple[Float64[np.ndarray, " chan"], float]]
    """Frequencies, increasing, and width of the channels in Hz, of each band that is read."""
    receiver: tuple[float, float]
    """Lowest and highest frequency in Hz that tell of the receiver."""
    dish_diameter: float
    """m; 0 where it is not known."""
    field: str = ""
    """Name of the field."""
    stored_frame: str = "J2000"
    """The frame that the data have the phase centre in, before it was converted."""
    windows: int = 1
    """Spectral windows that are read."""
    field_ids: tuple[int, ...] = ()
    """Rows of FIELD that are read."""
    nvis: int | None = None
    """Visibilities of each Stokes parameter, flagged ones and autocorrelations included, before times are chosen."""
    taken: str = ""
    """What the selection takes of what there is, where that is not all: ``2 of 3 windows, 1 of 60 fields: ...``."""

    @property
    def text(self) -> str:
        """What is read, in a few words: field, spectral windows, visibilities, and what is left out."""
        count = "" if self.nvis is None else f", {self.nvis:,} visibilities"
        taken = f"; {self.taken}" if self.taken else ""
        return f"field {self.field!r}, {self.windows} window{'s' * (self.windows != 1)}{count}{taken}"

    @property
    def beam(self) -> float:
        """FWHM of the primary beam at the lowest frequency, rad; NaN where the dishes are not known."""
        lowest = min(float(freqs[0]) for freqs, _ in self.bands)
        return 1.2 * SPEED_OF_LIGHT / lowest / self.dish_diameter if self.dish_diameter > 0 else math.nan


class Dataset(ABC):
    """Visibilities opened read-only; made by :func:`vis2img.dataset.open_ms`.

    Notes
    -----
    What is read, :class:`Visibilities`, is the same of every kind:

    Axes
        One part for each band (spectral window, or block of averaged channels) and Stokes parameter, with ``vis`` and
        ``weight`` [row, chan] in Jy and 1/Jy^2 and ``uvw`` [row, 3] in m towards ``phase_centre``.
    Signs
        A source of S Jy at direction cosines l, m gives S exp(2 pi i nu / c (u l + v m + w (n - 1))), where
        l increases towards the east: the sign that WSClean and CASA read.
    Flags
        A sample that is flagged, not finite, or without a positive finite weight has value and weight 0. Rows of one
        antenna with itself, and those without a finite baseline, are left out.
    Order
        Bands and the channels within them by increasing frequency; the Stokes parameters of a band as the selection
        names them; rows as they are stored. The same selection gives the same numbers in the same order.
    Memory
        The result, and chunks of at most 4 MB of data for each thread; of averages, once more their arrays.
    Errors
        ParameterError where the selection is outside the data; MeasurementSetError, or OutputError of averages, where
        they cannot be read or hold nothing usable. Each in one line that names the file and what can be done.
    """

    path: Path
    has_baselines: bool
    """Whether rows are samples of baselines, so that some antennas and times can be left out; averages are not."""

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The fields and spectral windows that a selection can name; none where that was settled before."""
        return ()

    def field_labels(self) -> dict[int, str]:
        """Return how a selection names each row of FIELD with data, with all others of its name; none of averages."""
        return {}

    @abstractmethod
    def outline(self, selection: Selection | None = None) -> Outline:
        """Return what the metadata tell of ``selection``.

        Raises
        ------
        MeasurementSetError, ParameterError
            If the selection is outside the data.
        """

    @abstractmethod
    def read_parts(
        self, selection: Selection | None = None, *, nthreads: int | None = None, progress: Progress = no_progress
    ) -> list[Visibilities]:
        """Return the visibilities of ``selection``, one part for each band and Stokes parameter.

        Parameters
        ----------
        selection : Selection, optional
            Default: a field with all its spectral windows; see :class:`vis2img.ms.selection.Selection`.
        nthreads : int, optional
            Default: all cores.
        progress : callable, optional
            Called with (rows read, rows in all); never, where reading takes no time.

        Raises
        ------
        MeasurementSetError, ParameterError, OutputError
            As the contract has it.
        """

    def open_parts(self, selection: Selection) -> list[PartReader]:
        """Open the bands of ``selection`` for reading in pieces; none, where only :meth:`read_parts` reads."""
        return []

    @abstractmethod
    def suggest_grid(
        self, selection: Selection, npix: tuple[int, int] | None, pixsize: float | None
    ) -> tuple[tuple[int, int], float]:
        """Return image size and pixel size in rad that suit the data; what is given stays.

        Raises
        ------
        MeasurementSetError
            If no baseline has a length, so that no pixel size can be suggested.
        """

    def read(
        self, selection: Selection | None = None, *, nthreads: int | None = None, progress: Progress = no_progress
    ) -> Visibilities:
        """Return the visibilities of one Stokes parameter of one band; see :meth:`read_parts`.

        Raises
        ------
        ParameterError
            If ``selection`` has several.
        """
        bands, stokes = len(self.outline(selection).bands), (selection or Selection()).stokes
        if bands * len(stokes) > 1:
            raise ParameterError(
                f"{self.path}: one Stokes parameter of one band is wanted here, and the selection has {stokes} "
                f"of {bands}; choose one with spw or channels, or read all parts"
            )
        return self.read_parts(selection, nthreads=nthreads, progress=progress)[0]

    def imaging_params(self, selection: Selection | None = None, **changes: Any) -> ImagingParams:
        """Return parameters that suit this data; of averages, those of the facet that they were made for.

        Parameters
        ----------
        selection : Selection, optional
            Its spectral windows set the resolution.
        **changes
            Any field of :class:`ImagingParams`, None to leave it; ``npix`` may be one number.

        Raises
        ------
        MeasurementSetError
            If no baseline has a length, so that no pixel size can be suggested.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        npix, pixsize = given.pop("npix", None), given.pop("pixsize", None)
        if isinstance(npix, int):
            npix = (npix, npix)
        npix, pixsize = self.suggest_grid(selection or Selection(), npix, pixsize)
        return ImagingParams(npix=npix, pixsize=pixsize, **given)

    def image(
        self,
        params: ImagingParams | None = None,
        selection: Selection | None = None,
        *,
        psf: bool = False,
        nthreads: int | None = None,
        progress: Progress = no_progress,
    ) -> Image:
        """Make a dirty image of one Stokes parameter.

        Parameters
        ----------
        params : ImagingParams, optional
            Default: :meth:`imaging_params`.
        selection, nthreads, progress
            As :meth:`read_parts`.
        psf : bool
            Make the point spread function as well.

        Raises
        ------
        MeasurementSetError, ParameterError, OutputError
            See :meth:`read_parts` and :func:`vis2img.imaging.image.make_image`.
        """
        params = params or self.imaging_params(selection)
        check_memory(params, psf=psf)
        parts = self.read_parts(selection, nthreads=nthreads, progress=progress)
        image = make_image(parts, params, psf=psf, nthreads=nthreads or cores(), reuse=True)
        warn_of_doubts(image)
        return image
