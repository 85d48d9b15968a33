"""Pictures of images: sky coordinates, a stretch that shows noise and sources alike, the beam, a colour bar."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from vis2img.files import atomic_output
from vis2img.imaging.figure_text import figure_text
from vis2img.units import format_angle, format_freq

if TYPE_CHECKING:
    from vis2img.imaging.image import Image

_FLOOR_NOISE = 4.0  # the darkest colour, in noise below the median
_LINEAR_NOISE = 3.0  # the stretch is linear up to here and logarithmic beyond
_BEAM_SMALLEST = 0.01  # of the image width; a smaller beam is drawn, but hardly seen
_PNG_INCHES, _PNG_DPI = (8.0, 7.0), 130


def draw_image(
    image: Image,
    ax: Axes | None = None,
    *,
    cmap: str = "inferno",
    norm: Normalize | None = None,
    colorbar: bool = True,
    beam: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw ``image`` with sky coordinates, colour bar in Jy/beam and beam.

    Parameters
    ----------
    image : Image
        What to draw.
    ax : Axes, optional
        Where; axes made with ``projection=image.wcs`` show right ascension and declination, others show
        offsets in pixels. Default: a new pyplot figure, which notebooks show.
    cmap : str
        Colour map of matplotlib.
    norm : Normalize, optional
        Stretch; default: :func:`noise_stretch`.
    colorbar, beam : bool
        Draw these.
    title : str, optional
        Default: field, telescope, frequency and weighting.

    Returns
    -------
    Axes
        What was drawn on.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=_PNG_INCHES).add_subplot(projection=image.wcs)
    picture = ax.imshow(image.data, origin="lower", cmap=cmap, norm=norm or noise_stretch(image.data))
    if hasattr(ax, "coords"):
        ax.coords[0].set_axislabel("Right ascension")
        ax.coords[1].set_axislabel("Declination")
        ax.coords[0].set_ticklabel(exclude_overlapping=True)
    else:
        ax.set_xlabel("x (pixels)")
        ax.set_ylabel("y (pixels)")
    if colorbar:
        ax.figure.colorbar(picture, ax=ax, label="Jy/beam", pad=0.02)
    if beam:
        _draw_beam(ax, image)
    ax.set_title(_title(image) if title is None else title, fontsize="medium")
    return ax


def noise_stretch(data: np.ndarray) -> Normalize:
    """Return an arcsinh stretch: linear in the noise, logarithmic in the sources."""
    finite = data[np.isfinite(data)]
    if not finite.size or finite.max() <= finite.min():
        return Normalize(-1, 1)
    middle = float(np.median(finite))
    low, high = float(finite.min()), float(finite.max())
    noise = float(1.4826 * np.median(np.abs(finite - middle))) or (high - low) / 100
    return AsinhNorm(linear_width=_LINEAR_NOISE * noise, vmin=max(low, middle - _FLOOR_NOISE * noise), vmax=high)


def save_png(image: Image, path: str | Path, overwrite: bool = False, what: str = "") -> Path:
    """Write a picture of ``image`` to ``path`` as PNG; leaves the caller's pyplot figures alone.

    ``what`` says in the title which of several images it is.

    Raises
    ------
    OutputError
        If the file exists already, or cannot be written.
    """
    path = Path(path)
    with atomic_output(path, overwrite) as temporary:
        figure = Figure(figsize=_PNG_INCHES, dpi=_PNG_DPI)
        FigureCanvasAgg(figure)
        title = "\n".join(filter(None, (_title(image), what)))
        draw_image(image, figure.add_subplot(projection=image.wcs), title=title)
        figure.savefig(temporary, format="png", bbox_inches="tight")
    return path


def _draw_beam(ax: Any, image: Image) -> None:
    if image.beam is None:
        return
    nx, ny = image.params.npix
    major, minor, angle = image.beam
    pixsize = image.params.pixsize
    if not (math.isfinite(major) and 0 < minor <= major < 0.5 * min(nx, ny) * pixsize):
        return  # a beam as large as the image says nothing
    margin = 0.5 * major / pixsize + 0.03 * min(nx, ny)
    # Position angle runs from north (up) through east (left), which is anticlockwise on the screen.
    ellipse = Ellipse(
        (margin - 0.5, margin - 0.5),
        width=minor / pixsize,
        height=major / pixsize,
        angle=math.degrees(angle),
        facecolor="white",
        edgecolor="black",
        linewidth=0.8,
        gid="beam",
    )
    if major / pixsize < _BEAM_SMALLEST * min(nx, ny):
        ellipse.set_edgecolor("white")
    ax.add_patch(ellipse)


def _title(image: Image) -> str:
    params, origin = image.params, image.origin
    weighting = params.weighting + (f" {params.robust:g}" if params.weighting == "briggs" else "")
    source = f"{figure_text(origin.field)}  {figure_text(origin.telescope)}".strip()
    beam = "no beam"
    if image.beam is not None:
        beam = f"beam {format_angle(image.beam[0], 3)} × {format_angle(image.beam[1], 3)}"
    return f"{source}\n{format_freq(image.freq[0])}, {weighting}, {beam}, noise {image.noise():.2g} Jy/beam"
