"""Averaged visibilities on disk: the layout of the store, writing a time block, reading for imaging.

The root attributes hold where the data come from and all parameters; ``block-0007`` is a time block with the arrays
``uvw`` float32 [row, 3] (wavelengths), ``vis`` complex64, ``weight`` float32, ``chan`` float32 (mean number of the
channel) and ``channel_block`` int32 [row], each chunk with its checksum. The attributes of a block tell what went into
it (:class:`vis2img.visibilities.Contents`); they are written last and list its files with their sizes, so that a block
that was cut short or lost a file is never taken for a whole one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.averaging.checks import ARRAYS, check_array, check_contents, check_record, metadata_of
from vis2img.averaging.params import AveragingParams
from vis2img.errors import OutputError, ParameterError, StoreError, first_line
from vis2img.visibilities import SPEED_OF_LIGHT, Averages, Contents, Origin, Visibilities

if TYPE_CHECKING:
    from vis2img.averaging.cells import Cells  # whose loops are slow to load, and which only writing needs

FORMAT, FORMAT_VERSION = "vis2img averaged visibilities", 2
STAGE = ".partial-"  # start of the name of a block while it is written
_CHUNK_ROWS = 1 << 22
_LARGEST = 1e30  # of visibilities and weights: sums of larger ones leave single precision
_LONGEST_UVW = 1e11  # wavelengths: more than the Earth at 1 THz
_WIDE = {"uvw": np.float64, "vis": np.complex128, "weight": np.float64, "chan": np.float64}  # to sum each in
_CHAN_ROUNDING = 1e-6  # of the number of channels, that single precision may put a mean channel beyond them
_CHAN_STEPS = 4096  # to a channel, that the mean channels of averages are rounded to
# What the record tells of the origin, in this order, and those that it splits in two.
_META = (
    "ms", "path", "selection", "telescope", "field", "spw", "column", "frame", "freq_frame", "pointing_ra",
    "pointing_dec", "band_low", "band_high", "stokes_from", "time_start", "chan_width", "dish_diameter",
)  # fmt: skip
_PAIRS = {"pointing": ("pointing_ra", "pointing_dec"), "band": ("band_low", "band_high")}
_FRAMES = ("ICRS", "J2000", "FK5")
_AGAIN = "give the same vis2img average command again"


def read_averaged(
    path: str | Path, time_blocks: slice = slice(None), channel_blocks: slice = slice(None)
) -> list[Visibilities]:
    """Read a store back as visibilities that image like those of a measurement set.

    Parameters
    ----------
    path : str or Path
        Written by :func:`vis2img.averaging.run.average`.
    time_blocks, channel_blocks : slice, optional
        Which blocks, counted in order of time and of frequency; default: all.

    Returns
    -------
    list of Visibilities
        One for each channel block, with the middle of its channels as the only frequency, ``uvw`` in m at that
        frequency, ``time`` the middle of the time block and no antennas; ``averages`` tells what went into them.

    Raises
    ------
    StoreError
        If ``path`` is no such store, not whole, or damaged.
    ParameterError
        If the blocks chosen are empty.
    """
    path = Path(path)
    record = read_record(path)
    check_whole(path, record)
    paths, params = blocks_of(path, record), params_of(record)
    chosen = paths[time_blocks]
    chans = range(params.channel_blocks)[channel_blocks]
    if not chosen or not chans:
        raise ParameterError(f"{path} has {len(paths)} time and {params.channel_blocks} channel blocks; none is chosen")
    blocks = [(attributes_of(block), _load(block, params.channel_blocks, len(record["chan_freq"]))) for block in chosen]
    return [_part(record, params, c, blocks) for c in chans]


def _part(
    record: dict[str, Any],
    params: AveragingParams,
    chan_block: int,
    blocks: Sequence[tuple[dict[str, Any], dict[str, np.ndarray]]],
) -> Visibilities:
    """Return the visibilities of one channel block."""
    freq, origin = np.array(record["chan_freq"]), origin_of(record)
    mine = params.channel_block(len(freq)) == chan_block
    own = freq[mine]
    # The middle, whatever the weights: stores of one band then have the same channels.
    reference, width = float(own[0] + own[-1]) / 2, float(own[-1] - own[0]) + origin.chan_width
    # Cells are sorted by channel block.
    bounds = [np.searchsorted(a["channel_block"], [chan_block, chan_block + 1]).tolist() for _, a in blocks]
    spans = [slice(*pair) for pair in bounds]
    sizes = [stop - start for start, stop in bounds]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([arrays[name][span] for (_, arrays), span in zip(blocks, spans, strict=True)])

    contents = tuple(
        Contents(
            middle=float(a["time"]),
            chan_freq=own,
            chan_weight=np.array(a["chan_weight"])[mine],
            node_weight=np.array(a["node_weight"])[mine],
            time=np.array(a["times"], float),
            time_weight=np.array(a["time_weight"], float),
        )
        for a, _ in blocks
    )
    extent = tuple(n * params.pixsize for n in params.npix)
    return Visibilities(
        uvw=joined("uvw").astype(np.float64) * (SPEED_OF_LIGHT / reference),
        chan_freq=np.array([reference]),
        vis=joined("vis")[:, np.newaxis],
        weight=joined("weight")[:, np.newaxis],
        time=np.repeat([float(a["time"]) for a, _ in blocks], sizes),
        antenna1=None,
        antenna2=None,
        phase_centre=params.phase_centre,
        stokes=record["selection"]["stokes"],
        origin=replace(origin, chan_width=width),
        chan=np.round((joined("chan") - np.flatnonzero(mine)[0]) * _CHAN_STEPS) / _CHAN_STEPS,
        averages=Averages(contents, (extent[0], extent[1]), params.tolerance),
    )


def check_whole(path: Path, record: dict[str, Any]) -> None:
    """Refuse a store of which a time block is missing or damaged. Looks at metadata and the sizes of files only.

    Raises
    ------
    StoreError
        One line that names the block, and the array where it is one.
    """
    paths = blocks_of(path, record)
    for block in paths:
        if trouble := block_trouble(block):
            missing = sum(not p.is_dir() for p in paths)
            counted = f" ({missing} of {len(paths)} time blocks are missing)" if missing else ""
            raise StoreError(f"{path} is not whole: {block.name} {trouble}{counted}; {_AGAIN} to make it so")
        attributes = attributes_of(block)
        try:
            check_contents(block, attributes, len(record["chan_freq"]))
            for name in ARRAYS:
                check_array(block, name, attributes["nrow"])
        except StoreError as error:
            raise StoreError(f"{error}; delete {block.name}, and {_AGAIN}") from error


def _load(path: Path, channel_blocks: int, nchan: int) -> dict[str, np.ndarray]:
    """Return the arrays of a time block, whose metadata have been checked."""
    import zarr

    arrays = {}
    for name in ARRAYS:
        try:
            array: Any = zarr.open_array(path / name, mode="r", zarr_format=3)
            arrays[name] = np.asarray(array[:])
        except Exception as error:  # of many types, for what is damaged
            raise StoreError(f"{path} is damaged ({name}: {first_line(error)}); delete it, and {_AGAIN}") from error

    # A sum is finite only if all are, and takes no memory.
    with np.errstate(invalid="ignore", over="ignore"):
        odd = [name for name, wide in _WIDE.items() if not np.isfinite(arrays[name].sum(dtype=wide))]
    number, chan = arrays["channel_block"], arrays["chan"]
    if not odd and len(number):
        uvw, vis = arrays["uvw"], arrays["vis"].view(np.float32)
        checks = {
            "uvw": uvw.max() < _LONGEST_UVW and uvw.min() > -_LONGEST_UVW,
            "vis": vis.max() < _LARGEST and vis.min() > -_LARGEST,
            "weight": arrays["weight"].min() >= 0 and arrays["weight"].max() < _LARGEST,
            # Single precision puts the mean of a first or last channel a little beyond it.
            "chan": chan.min() > -_CHAN_ROUNDING * nchan and chan.max() < nchan - 1 + _CHAN_ROUNDING * nchan,
            "channel_block": number[0] >= 0 and number[-1] < channel_blocks and not (np.diff(number) < 0).any(),
        }
        odd = [name for name, right in checks.items() if not right]
    if odd:
        raise StoreError(f"{path} is damaged ({odd[0]} holds numbers that no average has); delete it, and {_AGAIN}")
    return arrays


def write_block(path: Path, cells: Sequence[Cells], attributes: dict[str, Any]) -> None:
    """Write one time block beside its place, then rename it.

    Parameters
    ----------
    path : Path
        From :func:`blocks_of`.
    cells : sequence of Cells
        Pieces, in order.
    attributes : dict
        What went in: ``time``, ``nvis``, ``chan_weight``, ``times``, ``time_weight``, and what came of it: ``ncells``,
        ``nrow``, ``node_weight``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    stage = path.with_name(f"{STAGE}{path.name}")
    # Noise does not compress. A chunk that holds zeros only is written too, or it would look lost.
    options: dict[str, Any] = {"compressors": {"name": "crc32c"}, "config": {"write_empty_chunks": True}}
    try:
        group = new_group(stage)
        for name in ARRAYS:
            data = np.concatenate([getattr(piece, "block" if name == "channel_block" else name) for piece in cells])
            chunks = (max(1, min(len(data), _CHUNK_ROWS)), *data.shape[1:])
            group.create_array(name, data=data, chunks=chunks, **options)
        inside = [p for p in stage.rglob("*") if p.is_file() and p.parent != stage]
        files = {str(p.relative_to(stage)): p.stat().st_size for p in inside}
        group.attrs.update({**attributes, "files": files})
        stage.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(stage)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def block_trouble(path: Path) -> str | None:
    """Return what a time block lacks to be whole; None if nothing. Looks at the sizes of its files only."""
    if not path.is_dir():
        return "is missing"
    try:
        files = attributes_of(path)["files"]
    except (OutputError, KeyError):
        return "has no list of its files"
    if not isinstance(files, dict) or not all(isinstance(size, int) for size in files.values()):
        return "has no list of its files"
    for name, size in files.items():
        there = (path / name).stat().st_size if (path / name).is_file() else None
        if there != size:
            return f"has lost {name}" if there is None else f"has {there:,} bytes of {name}, not {size:,}"
    return None


def partial_path(out: Path) -> Path:
    """Return the folder that holds ``out`` while it is written."""
    return out.with_name(f"{out.name}.partial")


def blocks_of(path: Path, record: dict[str, Any]) -> list[Path]:
    """Return the folders of all time blocks that a store with these root attributes has."""
    return [path / f"block-{index:04d}" for index in range(len(record["edges"]) - 1)]


def read_record(path: Path) -> dict[str, Any]:
    """Return the root attributes of a store that this version can read.

    Raises
    ------
    StoreError
        If it is something else, unfinished, or of another format version.
    """
    if not path.exists() and partial_path(path).is_dir():
        raise StoreError(f"{path} is not finished ({partial_path(path).name} is there); {_AGAIN} to go on")
    record = attributes_of(path)
    if record.get("format") != FORMAT:
        raise StoreError(f"{path} is a zarr group of something else, not averaged visibilities of vis2img")
    version = record.get("version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        remedy = "install a newer vis2img" if newer else "average the measurement set again with --overwrite"
        raise StoreError(f"{path} has format version {version}, and this vis2img reads {FORMAT_VERSION}; {remedy}")
    needed = ("parameters", "source", "selection", "chan_freq", "edges", "meta", "date")
    lacking = [name for name in needed if name not in record]
    if lacking:
        raise StoreError(f"{path} is damaged: its attributes lack {', '.join(lacking)}")
    check_record(path, record)
    frame = record["meta"].get("frame", "ICRS")
    if frame not in _FRAMES:
        raise StoreError(
            f"{path} was averaged by an earlier version, which took directions in {frame} for right ascensions and "
            "declinations; average the measurement set again with --overwrite"
        )
    return record


def new_group(path: Path, **options: Any) -> Any:
    """Make a zarr group."""
    import zarr

    return zarr.open_group(path, mode="w", zarr_format=3, **options)


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of a store or of a time block.

    Raises
    ------
    StoreError
        If there is none.
    """
    attributes = metadata_of(path, "group").get("attributes")
    if not isinstance(attributes, dict):
        raise StoreError(f"{path} does not hold averaged visibilities: its zarr.json has no attributes")
    return attributes


def params_of(record: dict[str, Any]) -> AveragingParams:
    """Return the averaging parameters that the attributes of a store hold."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["parameters"].items()}
    return AveragingParams(**values)


def record_of(origin: Origin, name: str, start: float) -> dict[str, Any]:
    """Return the record of where averages come from: measurement set ``name``, first time ``start`` in s (MJD)."""
    own: dict[str, Any] = {"ms": name, "time_start": start, "path": origin.paths[0]}
    own["spw"] = origin.spw[0] if len(origin.spw) == 1 else list(origin.spw)
    for attribute, names in _PAIRS.items():
        own |= dict(zip(names, getattr(origin, attribute), strict=True))
    return {key: own[key] if key in own else getattr(origin, key) for key in _META}


def origin_of(record: dict[str, Any]) -> Origin:
    """Return where the averages of a store come from; stores of earlier versions do not tell all."""
    meta = record["meta"]
    told: dict[str, Any] = {field.name: meta[field.name] for field in fields(Origin) if field.name in meta}
    for attribute, (first, second) in _PAIRS.items():
        if first in meta:
            told[attribute] = (float(meta[first]), float(meta[second]))
    paths = (meta["path"],) if "path" in meta else ()
    return Origin(**{**told, "paths": paths, "spw": tuple(np.atleast_1d(meta["spw"]).tolist())})
