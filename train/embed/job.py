"""``vis2img embed`` behind the command line: many inputs to one table, resumable, bad inputs named and left out.

Each finished field is a part, a file in a hidden folder beside the output (``.patches.parquet.parts/``). The name of a
part tells weights, settings and input, so that the same command goes on where it was stopped and nothing else is mixed
in. The table appears under its name only when whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vis2img import __version__
from vis2img.configs.records import to_record
from vis2img.dataset.contents import version_of
from vis2img.draws.fits_field import is_image
from vis2img.draws.presets import load_prior
from vis2img.errors import OutputError, StoreError, Vis2imgError, Vis2imgWarning, reason_of
from vis2img.files import check_outputs, sweep
from vis2img.loader.config import ENGINE_KEYS
from vis2img.locks import hidden, locked
from vis2img.progress import Progress, no_progress
from vis2img.train.embed.config import EmbedConfig, check_suffix
from vis2img.train.embed.embedder import Embedder
from vis2img.train.embed.inputs import PatchChunk, PatchField, expand_inputs, patch_fields, run_patch_angle
from vis2img.train.embed.table import EmbeddingTable, merge_embeddings, read_columns, thumbnail, write_embeddings
from vis2img.train.patches import embed_images, vector_dim
from vis2img.views.brightness import NUMBERS


@dataclass(frozen=True)
class EmbedResult:
    """What was written: numbers of patches, of fields and of those taken from an earlier start; why inputs were not."""

    patches: int
    fields: int
    resumed: int
    dim: int
    skipped: dict[str, str]
    told: dict[str, str]
    """What was read of each field."""


def embed_inputs(embedder: Embedder, settings: EmbedConfig, progress: Progress = no_progress) -> EmbedResult:
    """Embed the patches of all inputs and write them as one Parquet file.

    Raises
    ------
    OutputError
        If the output exists, is being written by another process, or cannot be written.
    Vis2imgError
        If no input can be used.
    """
    check_suffix(settings.output)
    check_outputs([settings.output], settings.overwrite)
    with locked(settings.output):
        return _embed_inputs(embedder, settings, progress)


def _embed_inputs(embedder: Embedder, settings: EmbedConfig, progress: Progress) -> EmbedResult:
    output, data = settings.output, embedder.config.data
    paths = expand_inputs(settings.inputs or data.ms or data.cutouts)
    side = _fits_side(embedder, paths, settings)
    folder = _parts_folder(output)
    key = _key(embedder, settings, side)

    parts: list[Path] = []
    skipped: dict[str, str] = {}
    told: dict[str, str] = {}
    resumed = 0
    for done, path in enumerate(paths):
        fields: list[PatchField] = []
        with _noting(skipped, path):
            fields = patch_fields(path, data, settings, side)
        for each in fields:
            progress("embedding", done, len(paths), each.name)
            with _noting(skipped, path if len(fields) == 1 else f"{path} ({each.name})"):
                part = folder / f"{key}-{_input_key(each)}.parquet"
                resumed += part.exists()
                _make_part(part, each, embedder, settings)
                parts.append(part)
                told[each.name] = each.told
    progress("embedding", len(paths), len(paths))

    if not parts:
        more = f" (and {len(skipped) - 1} more inputs fail)" if len(skipped) > 1 else ""
        raise Vis2imgError(f"{next(iter(skipped.values()))}{more}")
    metadata = {**embedder.metadata, "settings": json.dumps(_settings_record(settings, side))}
    count = merge_embeddings(parts, output, metadata, settings.overwrite)
    _remove(parts, folder)
    _tell_missing(output, settings)
    return EmbedResult(count, len(parts), resumed, vector_dim(embedder.model), skipped, told)


def _tell_missing(output: Path, settings: EmbedConfig) -> None:
    """Warn of positions that are in none of the inputs."""
    if settings.places is None:
        return
    columns = read_columns(output, ("index", "source"))
    of_positions = ~np.char.endswith(np.char.lower(columns["source"].astype(str)), ".npz")
    missing = len(settings.places.names) - len(np.unique(columns["index"][of_positions]))
    if missing and of_positions.any():
        warnings.warn(
            f"{missing} of {len(settings.places.names)} positions of {settings.positions} lie in no input, or too "
            "near an edge or blank pixels",
            Vis2imgWarning,
            stacklevel=2,
        )


def _parts_folder(output: Path) -> Path:
    """Return the folder of the parts of an output; what a killed process left half-written in it goes.

    Raises
    ------
    OutputError
        If something else has its name, such as a link that another user put there.
    """
    folder = hidden(output, "parts")
    ours = not folder.exists() or (folder.is_dir() and folder.stat().st_uid == os.geteuid())
    if folder.is_symlink() or not ours:
        raise OutputError(f"{folder} is in the way: it is no folder of this user; look what it is, and remove it")
    sweep(folder)
    return folder


@contextlib.contextmanager
def _noting(skipped: dict[str, str], name: str) -> Iterator[None]:
    """Note why an input cannot be used, and go on; what is wrong with the output is wrong for all of them."""
    try:
        yield
    except Exception as error:  # casacore and astropy raise many types for what is damaged
        if isinstance(error, OutputError) and not isinstance(error, StoreError):
            raise
        skipped[name] = reason_of(error, name)


def embed_field(patches: PatchField, embedder: Embedder, settings: EmbedConfig) -> EmbeddingTable:
    """Embed the patches of one field.

    Raises
    ------
    Vis2imgError
        If it has none, or cannot be read.
    """
    shown = embedder.config.data.views.stretch.shown if settings.thumbnails else None
    vectors: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {}
    for chunk in patches.chunks():
        vectors.append(embed_images(embedder.model, embedder.variables, chunk.images, settings.batch_size))
        for name, values in _columns(chunk, patches, shown).items():
            columns.setdefault(name, []).append(values)
    if not vectors:
        raise Vis2imgError(
            f"{patches.source}: no patch lies within {patches.name}; check the positions, or choose a smaller patch"
        )
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return EmbeddingTable(np.concatenate(vectors), joined, embedder.metadata)


def _columns(chunk: PatchChunk, patches: PatchField, shown: tuple[float, float] | None) -> dict[str, np.ndarray]:
    n = len(chunk.images)
    columns: dict[str, np.ndarray] = {
        "ra_deg": np.degrees(chunk.position[:, 0]),
        "dec_deg": np.degrees(chunk.position[:, 1]),
        "field": np.full(n, patches.name, object),
        "source": np.full(n, patches.source, object),
        "index": chunk.index.astype(np.int64),
        **dict(zip(NUMBERS, chunk.brightness.T, strict=True)),
        "params": np.full(n, chunk.params, object),
    }
    if shown is not None:
        columns["thumbnail"] = np.array([thumbnail(image, shown) for image in chunk.images], object)
    return {**columns, "name": np.array(chunk.names, object)}


def _fits_side(embedder: Embedder, paths: Sequence[str], settings: EmbedConfig) -> float | None:
    """Return the side of patches of FITS images in rad; None where it is not needed, or counted in pixels."""
    data = embedder.config.data
    if settings.patch_npix is not None or data.cutouts or not any(map(is_image, paths)):
        return None
    return run_patch_angle(data, embedder.angles)


def _settings_record(settings: EmbedConfig, side: float | None) -> dict[str, Any]:
    places = settings.places
    # Of text that is the same wherever the table of positions lies.
    digest = None if places is None else _digest([*places.names, places.position.tobytes().hex()])
    patches = {"positions": digest, **{name: getattr(settings, name) for name in ("overlap", "patch_npix", "crop")}}
    return {"patches": {**patches, "fits_side_rad": side}, "thumbnails": settings.thumbnails}


def _key(embedder: Embedder, settings: EmbedConfig, side: float | None) -> str:
    """Return a name for weights and settings: whatever decides on the vectors of a given input."""
    data = {
        k: v for k, v in to_record(embedder.config.data).items() if k not in (*ENGINE_KEYS, "ms", "cutouts", "weights")
    }
    data["imaging"] = load_prior(embedder.config.data.imaging).to_dict()
    return _digest([__version__, data, embedder.metadata, _settings_record(settings, side)])


def _input_key(patches: PatchField) -> str:
    """Return a name for a field of a file, or of all tables behind it, as they are now."""
    return _digest([str(Path(patches.source).resolve()), patches.name, version_of(patches.source)])


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _make_part(part: Path, patches: PatchField, embedder: Embedder, settings: EmbedConfig) -> None:
    """Embed a field, unless an earlier start has."""
    if part.exists():
        return
    before = _input_key(patches)
    table = embed_field(patches, embedder, settings)
    if _input_key(patches) != before:
        raise Vis2imgError(f"{patches.source} changed while it was read; give the command again when it is finished")
    try:
        part.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {part.parent}: {error.strerror}") from error
    write_embeddings(table, part, overwrite=True)


def _remove(parts: Sequence[Path], folder: Path) -> None:
    for part in parts:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # parts of other settings are left to who made them
        folder.rmdir()
