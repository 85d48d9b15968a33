"""``vis2img augment``: a contact sheet of what an imaging prior does to a field."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from vis2img.cli.other_words import refuse_other_words
from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse, value_of
from vis2img.configs.records import to_options
from vis2img.configs.values import advice
from vis2img.dataset import Dataset, open_ms
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.presets import PRESETS, PriorConfig, load_prior
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import OutputError, ParameterError, UsageError
from vis2img.files import check_outputs
from vis2img.imaging.params import ImagingParams
from vis2img.machine import cores, free_bytes
from vis2img.ms.selection import Selection
from vis2img.random import draw_rng
from vis2img.units import format_angle
from vis2img.views.sheet import Sheet, SheetConfig, make_sheet, patch_side, patches_at

_SUFFIXES = (".png", ".pdf")
_CONTRAST = ("image-only", "gentle", "full")  # of the table of presets; the others vary some of what full varies


@dataclass(frozen=True)
class AugmentCommand(SheetConfig):
    """Show what an imaging prior does to a field: sky patches down, draws of the prior across, as a network sees them.

    The first column is the field as image-only makes it. Options behind --preset or --prior change single ranges.

    For example:
      vis2img augment obs.ms -o sheet.png
      vis2img augment obs.ms --preset uv-only --npix 1024 --draws 6 -o uv.pdf
      vis2img augment obs.ms --prior mine.yaml --at 60.1,-30.2 4h0m12s,-30d5m0s --overwrite
      vis2img augment obs.ms --preset image-only --robust -2 2 --json
      vis2img augment --list
    """

    COMMON: ClassVar = (
        "output", "overwrite", "preset", "prior", "list", "draws", "patches", "at", "npix", "field", "spw", "seed",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    ms: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MS")] = None
    """Measurement set, or averaged data."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Picture to write, .png or .pdf. Default: the name of the measurement set with -augment.png, in this folder."""
    overwrite: bool = False
    """Replace an existing picture."""
    preset: str | None = None
    """Prior to show: gentle, full, weighting-only, taper-only, uv-only, channels-only, time-only, scale-only or
    image-only. Default: full."""
    prior: Path | None = None
    """YAML file of a prior, in place of a preset: ranges below with _ or - in their names, and preset to start from."""
    list: bool = False
    """Print the presets and leave."""
    threads: int | None = None
    """Images made at a time. Default: all cores."""
    json: bool = False
    """Print the prior, the patches and how each column was imaged, with the vis2img image that repeats it."""
    quiet: bool = False
    """Print nothing but errors."""
    selection: tyro.conf.OmitArgPrefixes[Selection] = field(default_factory=Selection)
    ranges: tyro.conf.OmitArgPrefixes[PriorConfig] = field(default_factory=PriorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads is not None and self.threads < 1:
            raise ParameterError(f"--threads {self.threads}: at least one is needed")

    def picture(self, ms: Path) -> Path:
        """Return where the sheet goes."""
        return self.output or Path(f"{ms.resolve().stem}-augment.png")


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img augment``."""
    command, named = _parse(argv, prog)
    if command.list:
        listed = {name: preset.to_dict() for name, preset in PRESETS.items()}
        print(json.dumps(listed, indent=2) if command.json else "\n".join(preset_table()))
        return 0
    if command.ms is None:
        raise UsageError(f"MS is missing ({prog} --help)")
    out = command.picture(command.ms)
    if out.suffix.lower() not in _SUFFIXES and not out.is_dir():
        raise OutputError(f"{out}: the name of the picture must end with {' or '.join(_SUFFIXES)}")
    if command.ms.resolve() in out.resolve().parents:
        raise OutputError(f"{out} would be inside {command.ms}, which is never written to; choose another folder")
    check_outputs([out], command.overwrite)
    ms = open_ms(command.ms)
    sheet = _sheet(command, ms)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it remarks on its cache folder

    from vis2img.views.sheet_figure import save_sheet

    shown = f"patches of {format_angle(sheet.side, 3)} under prior {named}, seed {command.seed}"
    save_sheet(sheet, out, f"{command.ms.resolve().name}: {shown}", command.overwrite)
    for column in sheet.columns:
        if column.problem and not command.quiet:
            print(f"vis2img: warning: {column.title}: {column.problem}", file=sys.stderr)
    if not command.quiet and all(patch.label == "empty" for patch in sheet.patches):
        print("vis2img: warning: no peak above 8 sigma, so the patch shown is an empty one; see --at", file=sys.stderr)
    taken = ms.outline(command.selection).taken
    if command.json:
        print(json.dumps({**_record(command, command.ms, sheet, out), "taken": taken}, indent=2, allow_nan=False))
    elif not command.quiet:
        print(f"taken {taken}\n" * bool(taken), end="")
        print("\n".join([*(f"{c.title:<10} {', '.join(c.caption)}".rstrip() for c in sheet.columns), f"wrote {out}"]))
    return 0


def _parse(argv: list[str], prog: str) -> tuple[AugmentCommand, str]:
    """Return the command, with the preset or the file as defaults of the ranges, and what its prior is called."""
    refuse_other_words(argv, prog, AugmentCommand)
    preset, prior = value_of(argv, "--preset"), value_of(argv, "--prior")
    if preset and prior:
        raise UsageError(f"give --preset or --prior; a file may name its own preset ({prog} --help)")
    if preset and preset not in PRESETS:
        raise UsageError(f"--preset {preset} is unknown{advice(preset, PRESETS)} ({prog} --list)")
    named = prior or preset or "full"
    ranges = load_prior(named)
    command = parse(AugmentCommand, argv, prog, AugmentCommand(ranges=ranges))
    return command, named if command.ranges == ranges else f"{named} with changes"


def _sheet(command: AugmentCommand, ms: Dataset) -> Sheet:
    """Image the field; refuse before anything is read what does not fit."""
    prior, fixed = (
        ImagingPrior.for_ms(ms, command.selection, npix=command.npix, config=ranges)
        for ranges in (command.ranges, PRESETS["image-only"])
    )
    reference = dataclasses.replace(fixed.draw(draw_rng(0, 0, 0)), sampling_seed=0, epsilon=command.ranges.epsilon)
    workers = command.threads or cores()
    # All visibilities are kept where they fit; each image copies some of them, and images want room too.
    memory = free_bytes() / (workers + 3)
    field = ObservedField(str(ms.path.resolve()), command.selection, prior, memory=memory)
    patch_side(field, command)
    patches_at(field, command, ms.outline(command.selection).phase_centre)
    with Bars(quiet=command.quiet or command.json) as bars:
        return make_sheet(field, command, reference, workers=workers, progress=bars)


def _record(command: AugmentCommand, path: Path, sheet: Sheet, out: Path) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "output": str(out),
        "prior": command.ranges.to_dict(),
        "seed": command.seed,
        "patch_deg": math.degrees(sheet.side),
        "patches": [
            {"label": p.label, "position_deg": [math.degrees(angle) for angle in p.position]} for p in sheet.patches
        ],
        "columns": [
            {
                "title": column.title,
                "caption": [*column.caption],
                "noise_jy_beam": None if column.problem else column.noise,
                "problem": column.problem or None,
                "params": column.params.to_dict(),
                "repeat": shlex.join(["vis2img", *image_arguments(path, column.params, command.selection)]),
            }
            for column in sheet.columns
        ],
    }


def image_arguments(ms: Path, params: ImagingParams, selection: Selection) -> list[str]:
    """Return the arguments of ``vis2img`` that make the image of ``params`` and ``selection`` again."""
    return ["image", str(ms), *to_options(params), *to_options(selection)]


def preset_rows() -> list[tuple[str, ...]]:
    """Return a table of presets, its head first: what varies in which, and how far."""
    rows: list[tuple[str, ...]] = [("", *_CONTRAST, "as in full")]
    for name, plain in PRESETS["image-only"].to_dict().items():
        shown = [_short(PRESETS[preset].to_dict()[name]) for preset in _CONTRAST]
        full = PRESETS["full"].to_dict()[name]
        like = [preset for preset in PRESETS if preset not in _CONTRAST and PRESETS[preset].to_dict()[name] == full]
        rows.append((name, *shown, ", ".join(like) if full != plain else "all"))
    return rows


def preset_table() -> list[str]:
    """Return the lines of the table of presets."""
    rows = preset_rows()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return "no limit" if value is None else f"{value:g}"
    if isinstance(value[0], str):
        distinct = dict.fromkeys(value)
        return " ".join(f"{each} x{value.count(each)}" if value.count(each) > 1 else each for each in distinct)
    return f"{value[0]:g}" if value[0] == value[1] else f"{value[0]:g} to {value[1]:g}"
