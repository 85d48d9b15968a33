"""One self-contained HTML page about a run: figures inside, no other file needed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from vis2img.files import write_text

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Section:
    """A part of the page: title, text, and an optional figure or table of (row header, cells)."""

    title: str
    text: str
    figure: Figure | None = None
    table: tuple[tuple[str, ...], ...] = ()


def render(template: str, **values: object) -> str:
    """Return the page that a template of this folder makes of values."""
    return _TEMPLATES.get_template(template).render(**values)


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Return a PNG as text that stands in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def write_report(path: Path, title: str, summary: str, sections: Sequence[Section]) -> None:
    """Write the page in one move."""
    images = [data_uri(to_png(section.figure)) if section.figure else "" for section in sections]
    parts = zip(sections, images, strict=True)
    write_text(path, render("report.html.j2", title=title, summary=summary, sections=parts))
