"""Open a measurement set, look at it, and image it: the entry point of notebooks.

>>> ms = open_ms("observation.ms")          # doctest: +SKIP
>>> ms                                      # what it holds
>>> image = ms.image(ms.imaging_params(npix=1024), psf=True)
>>> image.to_fits("dirty.fits")
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.imaging.image import Image, make_image
from vis2img.imaging.memory import check_memory
from vis2img.imaging.params import MIN_NPIX, ImagingParams
from vis2img.machine import cores
from vis2img.ms.metadata import Metadata, read_metadata, suggest_pixsize
from vis2img.ms.reading import Progress, read_parts, read_visibilities, selected_bands
from vis2img.ms.selection import Selection, resolve
from vis2img.units import format_angle
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_DEFAULT_MAX_NPIX = 2048  # of a suggested image; a whole primary beam at full resolution may need more
_WIDEST_FOV = 1.9  # rad; the SIN projection ends at 2


class MeasurementSet:
    """A measurement set opened read-only; made by :func:`open_ms`.

    Attributes
    ----------
    meta : Metadata
        Telescope, fields, spectral windows, correlations, times, columns, flags, uv range.
    """

    is_averaged = False

    def __init__(self, meta: Metadata) -> None:
        self.meta = meta

    @property
    def path(self) -> Path:
        """The folder of the measurement set."""
        return self.meta.path

    def read(
        self,
        selection: Selection | None = None,
        *,
        nthreads: int | None = None,
        progress: Progress | None = None,
    ) -> Visibilities:
        """Return one Stokes parameter of one spectral window; see :func:`vis2img.ms.reading.read_visibilities`."""
        return read_visibilities(self.meta, selection or Selection(), nthreads=nthreads or cores(), progress=progress)

    def read_parts(
        self,
        selection: Selection | None = None,
        *,
        nthreads: int | None = None,
        progress: Progress | None = None,
    ) -> list[Visibilities]:
        """Return all spectral windows and Stokes parameters; see :func:`vis2img.ms.reading.read_parts`."""
        return read_parts(self.meta, selection or Selection(), nthreads=nthreads or cores(), progress=progress)

    def imaging_params(self, selection: Selection | None = None, **changes: Any) -> ImagingParams:
        """Return parameters that suit this data: a third of a fringe per pixel, up to the primary beam.

        Parameters
        ----------
        selection : Selection, optional
            Its spectral window sets the resolution.
        **changes
            Any field of :class:`ImagingParams`; ``npix`` may be one number.

        Raises
        ------
        MeasurementSetError
            If no baseline has a length, so that no pixel size can be suggested.
        """
        if isinstance(changes.get("npix"), int):
            changes["npix"] = (changes["npix"], changes["npix"])
        npix = changes.pop("npix", None)
        pixsize = changes.pop("pixsize", None)
        if pixsize is None:
            pixsize = self._pixsize(selection or Selection())
            pixsize = min(pixsize, _WIDEST_FOV / max(npix or (MIN_NPIX,)))
        if npix is None:
            fov = min(_WIDEST_FOV, self.meta.suggested_fov or 512 * pixsize)
            side = min(_DEFAULT_MAX_NPIX, max(64, math.ceil(fov / pixsize)))
            npix = (side + side % 2,) * 2
        return ImagingParams(npix=npix, pixsize=pixsize, **changes)

    def _pixsize(self, selection: Selection) -> float:
        highest = max(self.meta.spws[p.partition.spw].chan_freq.max() for p in resolve(self.meta, selection))
        pixsize = suggest_pixsize(self.meta.uv_range_m[1] * highest / SPEED_OF_LIGHT)
        if pixsize is None:
            reason = "; ".join(self.meta.problems) or "no baseline has a length"
            raise MeasurementSetError(f"{self.path} cannot be imaged: {reason}")
        return pixsize

    def image(
        self,
        params: ImagingParams | None = None,
        selection: Selection | None = None,
        *,
        psf: bool = False,
        nthreads: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make a dirty image of one Stokes parameter.

        Parameters
        ----------
        params : ImagingParams, optional
            Default: :meth:`imaging_params`.
        selection : Selection, optional
            Which visibilities; default: the first field and spectral window with data.
        psf : bool
            Make the point spread function as well.
        nthreads : int, optional
            Default: all cores.
        progress : callable, optional
            Called with (rows read, rows in all).

        Raises
        ------
        MeasurementSetError, ParameterError
            See :func:`read_visibilities` and :func:`vis2img.imaging.image.make_image`.
        """
        params = params or self.imaging_params(selection)
        check_memory(params, psf=psf)
        parts = self.read_parts(selection, nthreads=nthreads, progress=progress)
        return make_image(parts, params, psf=psf, nthreads=nthreads or cores(), reuse=True)

    def __repr__(self) -> str:
        m = self.meta
        lines = [f"MeasurementSet({str(m.path)!r}): {m.telescope}, {m.nrow:,} rows, {len(m.antennas)} antennas"]
        for p in m.partitions[:4]:
            spw = m.spws[p.spw]
            lines.append(
                f"  field {p.field} {m.fields[p.field].name!r}, spw {p.spw}: {len(spw.chan_freq)} channels "
                f"{spw.chan_freq.min() / 1e6:.1f} to {spw.chan_freq.max() / 1e6:.1f} MHz, "
                f"{','.join(p.corrs) or 'no correlation'}, {p.nrow:,} rows"
            )
        if len(m.partitions) > 4:
            lines.append(f"  ... {len(m.partitions)} fields and spectral windows in all")
        if m.suggested_pixsize:
            lines.append(
                f"  {m.ntimes} times, longest baseline {m.uv_max:,.0f} wavelengths, "
                f"pixel {format_angle(m.suggested_pixsize, 3)}, columns {', '.join(m.data_columns)}"
            )
        lines += [f"  problem: {text}" for text in m.problems]
        return "\n".join(lines)


def open_ms(path: str | Path) -> MeasurementSet:
    """Open the measurement set, or the averaged data, at ``path``: metadata only, read-only, at once on any size.

    Returns
    -------
    MeasurementSet
        Or a :class:`vis2img.averaging.averaged_set.AveragedSet`, which is read and imaged by the same calls.

    Raises
    ------
    MeasurementSetError
        If ``path`` is no measurement set, or is damaged; one line that names the table.
    OutputError
        If it is a zarr store of something else.
    """
    if (Path(path) / "zarr.json").is_file():
        from vis2img.averaging.averaged_set import AveragedSet

        return AveragedSet(Path(path))  # type: ignore[return-value]
    return MeasurementSet(read_metadata(path))


@dataclass(frozen=True, eq=False)
class Outline:
    """What the metadata tell of a selection, before anything is read.

    Parameters
    ----------
    telescope : str
    phase_centre : (float, float)
        RA and Dec in rad.
    pointing : (float, float)
        Where the dishes pointed, RA and Dec in rad.
    bands : list of (float64 [chan], float)
        Frequencies, increasing, and width of the channels in Hz, of each spectral window.
    receiver : (float, float)
        Lowest and highest frequency in Hz that tell of the receiver.
    beam : float
        FWHM of the primary beam at the lowest frequency, rad; NaN where the dishes are not known.
    """

    telescope: str
    phase_centre: tuple[float, float]
    pointing: tuple[float, float]
    bands: list[tuple[np.ndarray, float]]
    receiver: tuple[float, float]
    beam: float


def outline(ms: MeasurementSet, selection: Selection) -> Outline:
    """Return what the metadata of a measurement set, or of averaged data, tell of ``selection``.

    Raises
    ------
    MeasurementSetError, ParameterError
        If the selection is outside the data.
    """
    if ms.is_averaged:
        return _averaged_outline(ms, selection)
    plan = resolve(ms.meta, selection)[0]
    bands = selected_bands(ms.meta, selection)
    beam = _beam_width(bands, ms.meta.dish_diameter)
    return Outline(ms.meta.telescope, plan.phase_centre, plan.pointing, bands, ms.meta.band(plan.partition.spw), beam)


def _averaged_outline(ms: Any, selection: Selection) -> Outline:
    freq, meta = np.array(ms.record["chan_freq"]), ms.record["meta"]
    of_chan = ms.facet.channel_block(len(freq))
    bands = []
    for block in range(ms.facet.channel_blocks)[slice(*selection.channels)]:
        own = freq[of_chan == block]
        bands.append((own.mean(keepdims=True), float(own[-1] - own[0]) + float(meta["chan_width"])))
    if not bands:
        raise ParameterError(f"{ms.path} has {ms.facet.channel_blocks} channel blocks; none is chosen")
    receiver = (float(meta.get("band_low", freq[0])), float(meta.get("band_high", freq[-1])))
    beam = _beam_width(bands, float(meta.get("dish_diameter", 0.0)))
    centre = ms.facet.phase_centre
    pointing = (float(meta.get("pointing_ra", centre[0])), float(meta.get("pointing_dec", centre[1])))
    return Outline(meta["telescope"], centre, pointing, bands, receiver, beam)


def _beam_width(bands: list[tuple[np.ndarray, float]], dish: float) -> float:
    lowest = min(float(freqs[0]) for freqs, _ in bands)
    return 1.2 * SPEED_OF_LIGHT / lowest / dish if dish > 0 else math.nan
