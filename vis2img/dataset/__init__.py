"""Visibilities opened to be looked at, read and imaged, whatever they are kept in: the entry point of notebooks.

In it lie the contract (:class:`Dataset`) and one class for each kind: measurement sets and averaged data. It may import
``averaging``, ``imaging`` and what is below; it must never know of draws, views or networks.

>>> ms = open_ms("observation.ms")          # doctest: +SKIP
>>> ms                                      # what it holds
>>> image = ms.image(ms.imaging_params(npix=1024), psf=True)
>>> image.to_fits("dirty.fits")
"""

from __future__ import annotations

from pathlib import Path

from vis2img.dataset.averaged_set import AveragedSet
from vis2img.dataset.contract import Dataset, Outline
from vis2img.dataset.measurement_set import MeasurementSet
from vis2img.ms.metadata import read_metadata
from vis2img.ms.probe import probe

__all__ = ["AveragedSet", "Dataset", "MeasurementSet", "Outline", "open_ms"]


def open_ms(path: str | Path) -> Dataset:
    """Open the measurement set, or the averaged data, at ``path``: metadata only, read-only, at once on any size.

    Raises
    ------
    MeasurementSetError
        If ``path`` is no measurement set, or is damaged; one line that names the table.
    OutputError
        If it is a zarr store of something else.
    """
    if (Path(path) / "zarr.json").is_file():
        return AveragedSet(Path(path))
    probe(Path(path))
    return MeasurementSet(read_metadata(path))
