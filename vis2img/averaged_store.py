"""Averaged visibilities on disk: the layout of the store, and reading it for imaging.

The root attributes hold where the data come from and all parameters; ``block-0007`` is a time block with the arrays
``uvw`` float32 [row, 3] (wavelengths), ``vis`` complex64, ``weight`` float32 and ``channel_block`` int32 [row]. A
store is whole when all its blocks are there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vis2img.averaging import AveragingParams
from vis2img.errors import OutputError, ParameterError
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

FORMAT, FORMAT_VERSION = "vis2img averaged visibilities", 1


def read_averaged(
    path: str | Path,
    time_blocks: slice | None = None,
    channel_blocks: slice | None = None,
) -> list[Visibilities]:
    """Read a store back as visibilities that image like those of a measurement set.

    Parameters
    ----------
    path : str or Path
        Written by :func:`average`.
    time_blocks, channel_blocks : slice, optional
        Which blocks, counted in order of time and of frequency; default: all.

    Returns
    -------
    list of Visibilities
        One for each channel block, with its reference frequency as the only channel, ``uvw`` in m at that frequency,
        ``time`` the middle of the time block and antennas -1.

    Raises
    ------
    OutputError
        If ``path`` is no such store, or not whole.
    ParameterError
        If the blocks chosen are empty.
    """
    import zarr

    path = Path(path)
    record = attributes_of(path)
    if record.get("format") != FORMAT or record.get("version") != FORMAT_VERSION:
        raise OutputError(f"{path} does not hold averaged visibilities of format version {FORMAT_VERSION}")
    nblocks, params = len(record["edges"]) - 1, params_of(record)
    missing = [b for b in range(nblocks) if not block_path(path, b).is_dir()]
    if missing:
        raise OutputError(
            f"{path} is not whole: {len(missing)} of {nblocks} time blocks are missing; "
            "give the same vis2img average command again to go on"
        )
    chosen = range(nblocks)[time_blocks or slice(None)]
    chans = range(params.channel_blocks)[channel_blocks or slice(None)]
    if not chosen or not chans:
        raise ParameterError(f"{path} has {nblocks} time and {params.channel_blocks} channel blocks; none is chosen")
    groups: list[Any] = [zarr.open_group(block_path(path, b), mode="r") for b in chosen]
    attributes = [attributes_of(block_path(path, b)) for b in chosen]
    arrays = [
        {name: np.asarray(group[name][:]) for name in ("uvw", "vis", "weight", "channel_block")} for group in groups
    ]
    freq, of_chan = np.array(record["chan_freq"]), params.channel_block(len(record["chan_freq"]))
    meta = record["meta"]
    result = []
    for c in chans:
        own = freq[of_chan == c]
        reference, width = float(own.mean()), float(own[-1] - own[0]) + float(meta["chan_width"])
        # Cells are sorted by channel block.
        spans = [slice(*np.searchsorted(a["channel_block"], [c, c + 1]).tolist()) for a in arrays]
        sizes = [span.stop - span.start for span in spans]
        nrow = sum(sizes)
        nowhere = np.full(nrow, -1, np.int32)

        def joined(name: str, spans: list[slice] = spans) -> np.ndarray:
            return np.concatenate([a[name][span] for a, span in zip(arrays, spans, strict=True)])

        result.append(
            Visibilities(
                uvw=joined("uvw").astype(np.float64) * (SPEED_OF_LIGHT / reference),
                chan_freq=np.array([reference]),
                vis=joined("vis")[:, np.newaxis],
                weight=joined("weight")[:, np.newaxis],
                time=np.repeat([float(a["time"]) for a in attributes], sizes),
                antenna1=nowhere,
                antenna2=nowhere,
                phase_centre=params.phase_centre,
                stokes=record["selection"]["stokes"],
                meta={**meta, **_facet(params), "chan_width": width},
            )
        )
    return result


def _facet(params: AveragingParams) -> dict[str, float]:
    """Return what imaging must keep to: the extent of the facet in rad, and the accuracy that is left."""
    extent = {f"facet_{axis}": n * params.pixsize for axis, n in zip("xy", params.npix, strict=True)}
    return {**extent, "tolerance": params.tolerance}


def block_path(path: Path, index: int) -> Path:
    """Return the folder of a time block."""
    return path / f"block-{index:04d}"


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of a store or of a time block.

    Raises
    ------
    OutputError
        If there is none.
    """
    import zarr

    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, KeyError, ValueError) as error:
        raise OutputError(f"{path} does not hold averaged visibilities") from error


def params_of(record: dict[str, Any]) -> AveragingParams:
    """Return the averaging parameters that the attributes of a store hold."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["parameters"].items()}
    return AveragingParams(**values)
