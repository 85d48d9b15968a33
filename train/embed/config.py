"""What ``vis2img embed`` embeds, and how; its fields are the options of the command."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vis2img.errors import OutputError, ParameterError

if TYPE_CHECKING:
    from vis2img.train.embed.positions import Positions

SUFFIX = ".parquet"


@dataclass(frozen=True)
class EmbedConfig:
    """Which patches of which inputs are embedded, and what is written of each."""

    run: Path
    """Run folder of ``vis2img train``, weights of ``vis2img export``, or a name that ``vis2img weights`` lists."""
    inputs: tuple[str, ...] = ()
    """What to embed; default: the data of the run."""
    output: Path = Path("embeddings.parquet")
    """Output file (.parquet)."""
    step: int | None = None
    """Checkpoint to use; default: the last."""
    student: bool = False
    """Use the student instead of the teacher."""
    positions: Path | None = None
    """Table of positions in place of tiles: a catalogue of PyBDSF, VizieR, WSClean or vis2img (text, FITS, VOTable or
    Parquet), or any with RA and Dec, in degrees or sexagesimal, and perhaps names."""
    overlap: float = 0.0
    """Overlap of neighbouring tiles, as a fraction of their side."""
    patch_npix: int | None = None
    """Side of a patch in pixels of FITS images; default: the angle of the run's patches (trained on cutouts: as many
    pixels)."""
    crop: int | None = None
    """Side in pixels of the middle of each cutout of .npz files that is used; default: all of it (trained on cutouts:
    as many as then)."""
    thumbnails: bool = True
    """Whether a thumbnail of each patch is written."""
    batch_size: int = 64
    """Patches in a batch; it changes nothing but the speed."""
    overwrite: bool = False
    """Replace an existing output."""

    def check(self) -> None:
        """Refuse settings that are out of range."""
        if not 0 <= self.overlap <= 0.95:
            raise ParameterError(f"overlap = {self.overlap:g} must be from 0 to 0.95")
        for name in ("patch_npix", "crop"):
            value = getattr(self, name)
            if value is not None and value < 8:
                raise ParameterError(f"{name} = {value} must be at least 8 pixels")
        if self.batch_size < 1:
            raise ParameterError(f"batch_size = {self.batch_size} must be at least 1")

    @cached_property
    def places(self) -> Positions | None:
        """The positions of the table, if there is one."""
        from vis2img.train.embed.positions import read_positions  # it loads astropy, which --help does not wait for

        return None if self.positions is None else read_positions(self.positions)


def check_suffix(path: Path) -> None:
    """Refuse names of tables that do not end in ``.parquet``, with the name to use instead."""
    if not path.name:
        raise OutputError(f"{path} is a folder; name a file in it, e.g. {path / ('embeddings' + SUFFIX)}")
    if path.suffix.lower() != SUFFIX:
        raise OutputError(f"{path}: embeddings are written as Parquet; use -o {path.with_suffix(SUFFIX)}")
