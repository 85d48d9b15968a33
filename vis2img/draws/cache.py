"""Draws kept on disk, so that what was imaged once is read the next time: by this run, and by others.

A draw is a pure function of the contents of its field, the imaging parameters, and the threads and code that imaged
it. A hash of them is its name; the file holds them, too, so that nothing is taken for what it is not. Pixels are
float32, as they were imaged: a draw that is read is that which was made, to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import zipfile
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vis2img import __version__
from vis2img.draws.draw import Channel, Draw
from vis2img.draws.field import Field
from vis2img.draws.observed_field import ObservedField
from vis2img.errors import OutputError, ParameterError
from vis2img.files import atomic_output
from vis2img.imaging.params import ImagingParams
from vis2img.units import format_bytes

log = logging.getLogger(__name__)
_FORMAT = 1  # another one whenever the same parameters give other pixels
_SUFFIX = ".draw.npz"
_ARRAYS = ("data", "noise", "peaks", "usable")
_FULLEST = 0.9  # of the limit, to which the folder is emptied, so that not every draw has to look


@dataclass(frozen=True)
class DrawCache:
    """A folder of draws; any number of processes and runs may use it at a time."""

    folder: str
    limit: float
    """Bytes that it may take; beyond, the draws that were not used for longest are deleted."""

    def draw(self, field: Field, params: ImagingParams, nthreads: int) -> Draw:
        """Return a draw from the folder; make it, and keep it there, if it is not there or damaged.

        Draws of FITS images are not kept: they are on disk already.

        Raises
        ------
        MeasurementSetError, EmptyImageError
            As :meth:`vis2img.draws.field.Field.draw`.
        """
        if not isinstance(field, ObservedField) or not field.version:
            return field.draw(params, nthreads)
        origin = _origin(field, params, nthreads)
        name = hashlib.sha256(origin.encode()).hexdigest()
        path = Path(self.folder, name[:2], name + _SUFFIX)
        found = _read(path, origin)
        if found is None:
            found = field.draw(params, nthreads)
            self._keep(path, found, origin)
        return found

    def _keep(self, path: Path, draw: Draw, origin: str) -> None:
        """Write a draw, and delete old ones if there are too many; a disk that refuses is told once."""
        arrays = {name: getattr(draw, name) for name in _ARRAYS}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_output(path, overwrite=True) as temporary:
                np.savez(temporary, head=np.frombuffer(_head(draw, origin).encode(), np.uint8), **arrays)
            self._evict(path)
        except (OSError, OutputError) as error:
            _tell_once(f"draws are not kept: {error}")

    def _evict(self, newest: Path) -> None:
        """Delete the draws that were not used for longest, until the folder is below its limit; not the newest."""
        kept = []
        for path in Path(self.folder).glob(f"??/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # deleted by another process
                status = path.stat()
                kept.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in kept)
        if total <= self.limit:
            return
        for _, size, path in sorted(kept):
            if total <= _FULLEST * self.limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def check_cache(folder: str, limit: float, need: float) -> None:
    """Make the folder of a cache, and warn if the draws that a run repeats do not fit in it.

    Parameters
    ----------
    folder : str
    limit, need : float
        Bytes that it may take, and those of all draws of the run.

    Raises
    ------
    ParameterError
        If it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(f"draw_cache {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ParameterError(f"draw_cache {folder} cannot be written to; name another folder")
    if need > limit:
        log.warning(
            "the draws take %s, and draw_cache_size is %s: most will be deleted before they come again",
            format_bytes(need),
            format_bytes(limit),
        )


def _origin(field: ObservedField, params: ImagingParams, nthreads: int) -> str:
    """Return all that the pixels of a draw follow from, as JSON."""
    record: dict[str, Any] = {
        "format": _FORMAT,
        "vis2img": __version__,
        "ducc0": version("ducc0"),
        "contents": field.version,
        "selection": asdict(field.selection),
        "subbands": field.subbands,
        "memory": field.memory,
        "params": params.to_dict(),
        "nthreads": nthreads,
    }
    if field.noise == "field":
        record["noise"] = field.standard.to_dict()
    return json.dumps(record, sort_keys=True)


def _head(draw: Draw, origin: str) -> str:
    """Return what a draw is besides its arrays, as JSON."""
    channels = [asdict(channel) for channel in draw.channels]
    values = {"params": draw.params.to_dict(), "phase_centre": draw.phase_centre, "turn": draw.turn}
    values["beam_area"] = draw.beam_area
    return json.dumps({"origin": origin, "channels": channels, **values})


def _read(path: Path, origin: str) -> Draw | None:
    """Return the draw in a file; None if there is none, or it is damaged or of something else."""
    try:
        # Each array is checked by its CRC while it is read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            head = json.loads(file["head"].tobytes())
            arrays = {name: file[name] for name in _ARRAYS}
        found = _restored(head, arrays) if head["origin"] == origin else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, ParameterError) as error:
        log.info("%s is damaged (%s) and made again", path, error)
        return None
    if found is None:
        log.info("%s is of something else and made again", path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used just now
    return found


def _restored(head: dict[str, Any], arrays: dict[str, np.ndarray]) -> Draw | None:
    """Return the draw of what a file holds; None if its arrays are none of a draw."""
    params = ImagingParams.from_dict(head["params"])
    channels = tuple(Channel(each["stokes"], tuple(each["band"]), each["freq"]) for each in head["channels"])
    ra, dec = head["phase_centre"]
    nx, ny = params.npix
    whole = arrays["data"].shape == (len(channels), ny, nx) and arrays["data"].dtype == np.float32
    if not whole or arrays["noise"].shape != (len(channels),) or arrays["peaks"].ndim != 2:
        return None
    data, noise, peaks, usable = (arrays[name] for name in _ARRAYS)
    turn, area = float(head["turn"]), float(head.get("beam_area", math.nan))
    return Draw(data, params, (ra, dec), noise, channels, peaks, usable, turn, beam_area=area)


@cache
def _tell_once(text: str) -> None:
    log.warning("%s", text)
