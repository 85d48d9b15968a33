"""Places on the sky that patches are to lie at, with codes that say what is there: the alternative to peaks."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.files import atomic_output

_ARRAYS = ("names", "field", "position", "codes")


@dataclass(frozen=True, eq=False)
class Places:
    """Places in fields.

    Parameters
    ----------
    names : list of str
        What messages call the fields: the text of each.
    field : int64 [place]
        Which of ``names``.
    position : float64 [place, 2]
        RA and Dec in rad.
    codes : int32 [place, head]
        Of each place, from 0.
    """

    names: list[str]
    field: np.ndarray
    position: np.ndarray
    codes: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """Return which places lie in the field of a name, int64 [place]."""
        return np.flatnonzero(self.field == self.names.index(name)) if name in self.names else np.zeros(0, np.int64)

    def write(self, path: Path) -> None:
        """Write an .npz file, whole or not at all."""
        with atomic_output(path, overwrite=True) as partial, partial.open("wb") as file:
            np.savez(file, names=np.array(self.names), field=self.field, position=self.position, codes=self.codes)

    @classmethod
    def read(cls, path: Path) -> Places:
        """Return what :meth:`write` wrote.

        Raises
        ------
        Vis2imgError
            If it is not that; the message names the file.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                names, field, position, codes = (file[name] for name in _ARRAYS)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise Vis2imgError(
                f"{path} holds no places or is damaged ({error}): move it away and start anew"
            ) from error
        count = len(field)
        fits = names.ndim == 1 and field.shape == (count,) and position.shape == (count, 2) and codes.ndim == 2
        if not (fits and len(codes) == count and ((field >= 0) & (field < len(names))).all()):
            raise Vis2imgError(f"{path} holds no places: its arrays do not fit; move it away and start anew")
        return cls([str(name) for name in names], field.astype(np.int64), position, codes.astype(np.int32))
