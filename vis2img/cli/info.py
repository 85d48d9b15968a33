"""``vis2img info``: what a measurement set holds, at once on any size."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vis2img.configs.command_line import parse
from vis2img.dataset import AveragedSet, MeasurementSet, open_ms
from vis2img.errors import printable
from vis2img.ms.fields import FieldInfo
from vis2img.ms.metadata import Metadata
from vis2img.ms.problems import problems_of
from vis2img.units import format_angle, format_freq, utc_text
from vis2img.visibilities import SPEED_OF_LIGHT

_SHOWN = 10  # fields, spectral windows: more would flood the screen


@dataclass(frozen=True)
class InfoCommand:
    """Show what a measurement set holds: fields, frequencies, times, antennas, columns, flags, uv range.

    What image would refuse or leave out is told; of data columns only a sample is read. Nothing is written.

    For example:
      vis2img info obs.ms
      vis2img info obs.ms --json > obs.json
    """

    ms: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MS")]
    """Measurement set, or averaged data."""
    json: bool = False
    """Print everything as JSON."""


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img info``."""
    command = parse(InfoCommand, argv, prog)
    ms = open_ms(command.ms)
    if isinstance(ms, AveragedSet):
        print(json.dumps(ms.record, indent=2) if command.json else printable(str(ms)))
    elif isinstance(ms, MeasurementSet):
        print(
            json.dumps(_finite(describe(ms.meta)), indent=2, allow_nan=False)
            if command.json
            else printable(report(ms.meta))
        )
    return 0


def describe(meta: Metadata) -> dict[str, Any]:
    """Return everything that ``--json`` prints; angles in degrees, frequencies in Hz, lengths in m."""
    start, end = meta.time_range
    problems, taken = problems_of(meta)
    return {
        "path": str(meta.path),
        "telescope": meta.telescope,
        "nrow": meta.nrow,
        "exact": meta.exact,
        "fields": [
            {
                "id": f.id,
                "name": f.name,
                "ra_deg": math.degrees(f.phase_centre[0]),
                "dec_deg": math.degrees(f.phase_centre[1]),
                "direction": direction_text(*f.phase_centre),
                "frame": f.frame,
                "stored_frame": f.stored,
                "motion_arcsec": math.degrees(f.motion) * 3600,
                "has_data": f.id in {p.field for p in meta.partitions},
            }
            for f in meta.fields
        ],
        "spectral_windows": [_spw_record(meta, i) for i in range(len(meta.spws))],
        "partitions": [
            {
                "field": p.field,
                "spw": p.spw,
                "data_desc_id": p.ddid,
                "correlations": list(p.corrs),
                "nrow": p.nrow,
            }
            for p in meta.partitions
        ],
        "time": {
            "start_utc": utc_text(start),
            "end_utc": utc_text(end),
            "ntimes": meta.ntimes,
            "integration_s": meta.interval,
        },
        "antennas": list(meta.antennas),
        "dish_diameter_m": meta.dish_diameter,
        "columns": list(meta.columns),
        "data_columns": list(meta.data_columns),
        "flagged_fraction": meta.flags[0],
        "flagged_from_rows": meta.flags[1],
        "uv_range_m": list(meta.uv_range_m),
        "uv_max_wavelengths": meta.uv_max,
        "uv_range_wavelengths": list(_uv_wavelengths(meta)),
        "suggested_pixsize_arcsec": _arcsec(meta.suggested_pixsize),
        "suggested_fov_deg": None if meta.suggested_fov is None else math.degrees(meta.suggested_fov),
        "problems": list(problems),
        "taken": taken,
    }


def _spw_record(meta: Metadata, index: int) -> dict[str, Any]:
    s = meta.spws[index]
    return {
        "id": s.id,
        "name": s.name,
        "nchan": len(s.chan_freq),
        "freq_min_hz": float(s.chan_freq.min()) if len(s.chan_freq) else None,
        "freq_max_hz": float(s.chan_freq.max()) if len(s.chan_freq) else None,
        "chan_width_hz": s.chan_width,
        "frame": s.frame or None,
        "has_data": s.id in {p.spw for p in meta.partitions},
    }


def report(meta: Metadata) -> str:
    """Return the text that a person reads."""
    about = "" if meta.exact else "about "
    lines = [f"{meta.path}"]

    def add(label: str, *texts: str) -> None:
        lines.extend(f"  {label if i == 0 else '':<18}{text}" for i, text in enumerate(texts))

    dish = f", dishes of {meta.dish_diameter:g} m" if meta.dish_diameter > 0 else ""
    add("telescope", meta.telescope)
    add("rows", f"{meta.nrow:,}")
    add("fields", *_cut([_field_text(meta, i) for i in range(len(meta.fields))]))
    add("spectral windows", *_cut([_spw_text(meta, i) for i in range(len(meta.spws))]))
    start, end = (utc_text(t) for t in meta.time_range)
    if start and end:
        add("time (UTC)", f"{start} to {end}")
        interval = f", integration {meta.interval:.4g} s" if math.isfinite(meta.interval) else ""
        add("timesteps", f"{about}{meta.ntimes:,}{interval}")
    add("antennas", f"{len(meta.antennas)}{dish}: {_names(meta.antennas)}")
    add("data columns", ", ".join(meta.data_columns) or "none")
    add("other columns", *_wrap([c for c in meta.columns if c not in meta.data_columns]))
    add("flagged", _flag_text(meta))
    low, high = _uv_wavelengths(meta)
    if meta.uv_range_m[1] > 0:
        add(
            "baselines (uv)",
            f"{meta.uv_range_m[0]:,.1f} to {meta.uv_range_m[1]:,.1f} m, {low:,.0f} to {high:,.0f} wavelengths",
        )
    if meta.suggested_pixsize:
        add(
            "pixel size",
            f"{format_angle(meta.suggested_pixsize, 3)} (suggested: a third of the finest fringe)",
        )
    if meta.suggested_fov:
        add(
            "field of view",
            f"{format_angle(meta.suggested_fov, 3)} (suggested: primary beam, lowest frequency)",
        )
    problems, taken = problems_of(meta)
    if taken:
        add("imaged by default", taken)
    add("problems", *(problems or ("none found",)))
    return "\n".join(lines)


def _field_text(meta: Metadata, index: int) -> str:
    f = meta.fields[index]
    rows = sum(p.nrow for p in meta.partitions if p.field == f.id)
    return f"{f.id} {f.name!r}  {_place(f)}, {_rows(rows)}"


def _place(f: FieldInfo) -> str:
    """Return a direction, what frame FIELD has it in where that is another, and how far it moves during the data."""
    if f.trouble:
        return "no direction"
    told = [f"from {f.stored}"] if f.stored not in ("", f.frame) else []
    told += [f"moves by {format_angle(f.motion, 3)} either way"] if f.motion > 0 else []
    more = f" ({', '.join(told)})" if told else ""
    return f"{direction_text(*f.phase_centre)} {f.frame}{more}"


def _spw_text(meta: Metadata, index: int) -> str:
    s = meta.spws[index]
    parts = [p for p in meta.partitions if p.spw == s.id]
    corrs = " / ".join(dict.fromkeys(",".join(p.corrs) or "correlations unknown" for p in parts))
    band = "no channel"
    if len(s.chan_freq):
        nchan = len(s.chan_freq)
        frame = f" {s.frame}" if s.frame else " (frame not known)"
        band = (
            f"{nchan} channel{'s' * (nchan > 1)} of {format_freq(s.chan_width, digits=5)}, "
            f"{format_freq(s.chan_freq.min(), s.chan_freq.max(), digits=7)}{frame}"
        )
    return f"{s.id}  {band}, {corrs + ', ' if corrs else ''}{_rows(sum(p.nrow for p in parts))}"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}" if count else "no rows"


def _cut(texts: list[str]) -> list[str]:
    if len(texts) <= _SHOWN:
        return texts or ["none"]
    return [*texts[:_SHOWN], f"... {len(texts)} in all; --json lists all"]


def _names(names: tuple[str, ...], width: int = 90) -> str:
    text = ""
    for i, name in enumerate(names):
        if len(text) + len(name) > width:
            return f"{text}, ... ({len(names) - i} more)"
        text += f"{', ' if text else ''}{name}"
    return text or "none"


def _wrap(names: list[str]) -> list[str]:
    return textwrap.wrap(", ".join(names), 90, break_long_words=False, break_on_hyphens=False) or ["none"]


def _flag_text(meta: Metadata) -> str:
    flagged, rows = meta.flags
    if flagged is None:
        return "unknown (FLAG cannot be read)" if meta.nrow else "no rows"
    sample = "" if rows == meta.nrow else f" (from {rows:,} of {meta.nrow:,} rows)"
    return f"{100 * flagged:.1f}%{sample}"


def _uv_wavelengths(meta: Metadata) -> tuple[float, float]:
    """Return the shortest baseline at the lowest and the longest at the highest frequency, in wavelengths."""
    used = {p.spw for p in meta.partitions} or {s.id for s in meta.spws}
    lows = [s.chan_freq.min() for s in meta.spws if s.id in used and len(s.chan_freq)]
    return meta.uv_range_m[0] * float(min(lows, default=math.nan)) / SPEED_OF_LIGHT, meta.uv_max


def direction_text(ra: float, dec: float) -> str:
    """Return a direction (rad) as ``12h30m49.42s +12d23m28.0s``."""
    if not (math.isfinite(ra) and math.isfinite(dec)):
        return "no direction"
    tenths = round(math.degrees(ra) / 15 * 360000) % (24 * 360000)  # hundredths of a second of time
    arc = round(abs(math.degrees(dec)) * 36000)  # tenths of an arcsecond
    hours, minutes, seconds = tenths // 360000, tenths // 6000 % 60, tenths % 6000 / 100
    degrees, arcmin, arcsec = arc // 36000, arc // 600 % 60, arc % 600 / 10
    sign = "-" if dec < 0 and arc else "+"
    return f"{hours:02d}h{minutes:02d}m{seconds:05.2f}s {sign}{degrees:02d}d{arcmin:02d}m{arcsec:04.1f}s"


def _arcsec(angle: float | None) -> float | None:
    return None if angle is None else math.degrees(angle) * 3600


def _finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinity as None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
