"""Where patches are wanted: positions on the sky with names, from a table or as tiles have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord

from vis2img.errors import Vis2imgError
from vis2img.pictures.formats import read_csv


@dataclass(frozen=True, eq=False)
class Positions:
    """Where patches are wanted: RA and Dec float64 [n, 2] in rad, and a name for each."""

    position: np.ndarray
    names: tuple[str, ...]


def read_positions(path: Path) -> Positions:
    """Read a table (.csv) of positions: ra_deg, dec_deg, and name if wanted.

    Raises
    ------
    Vis2imgError
        If it cannot be read, or a value is no position; the message names column and row.
    """
    columns = read_csv(path, ("ra_deg", "dec_deg"))
    for name, low, high in (("ra_deg", -360, 360), ("dec_deg", -90, 90)):
        if columns[name].dtype.kind != "f":
            raise Vis2imgError(f"{path}: {name} must be numbers in degrees")
        wrong = np.flatnonzero(~((columns[name] >= low) & (columns[name] <= high)))
        if len(wrong):
            raise Vis2imgError(f"{path} row {wrong[0] + 1}: {name} must be from {low} to {high} degrees")
    position = np.radians(np.stack([columns["ra_deg"], columns["dec_deg"]], axis=-1))
    position[:, 0] %= 2 * np.pi
    names = tuple(map(str, columns["name"])) if "name" in columns else position_names(position)
    return Positions(position, names)


def position_names(position: np.ndarray) -> tuple[str, ...]:
    """Return names after positions [n, 2] (rad), as the IAU recommends: J123456.78-012345.6."""
    place = SkyCoord(position[:, 0], position[:, 1], unit="rad")
    ra = place.ra.to_string(unit="hour", sep="", precision=2, pad=True)
    dec = place.dec.to_string(unit="deg", sep="", precision=1, pad=True, alwayssign=True)
    return tuple(f"J{east}{north}" for east, north in zip(np.atleast_1d(ra), np.atleast_1d(dec), strict=True))
