"""The contract of fields, whatever they are made of, and how draws of them replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from vis2img.draws.draw import Draw
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import EmptyImageError
from vis2img.imaging.params import ImagingParams
from vis2img.random import draw_rng

_ATTEMPTS = 12  # parameters that are tried for a draw before it is given up


class Field(Protocol):
    """A field of the sky that makes its own draws, as measurement sets, averaged data and FITS images do.

    It is all that a worker needs. It pickles to a few kilobytes: what is read stays in the process that reads it. The
    text of it is what messages call it.
    """

    @property
    def path(self) -> str:
        """File or folder that it is read from."""

    @property
    def prior(self) -> ImagingPrior:
        """How its imaging varies; its field of view is that of every draw."""

    @property
    def pixsize(self) -> float:
        """Suggested pixel size in rad, in which patches are counted."""

    @property
    def channels(self) -> int:
        """Number of images in a draw: Stokes parameters times sub-bands."""

    def draw(self, params: ImagingParams, nthreads: int = 1) -> Draw:
        """Return the images under ``params``: the same bits for the same parameters and threads, in any process.

        Raises
        ------
        MeasurementSetError
            If the field cannot be read.
        EmptyImageError
            If the parameters leave nothing of it.
        """


def make_draw(
    field: Field,
    seed: int,
    number: int,
    index: int,
    nthreads: int = 1,
    image: Callable[[Field, ImagingParams, int], Draw] | None = None,
) -> Draw:
    """Make draw ``index`` of ``field``, which is ``number`` among the fields of a run with ``seed``.

    Parameters that leave no visibility with weight (a part of the band that is all flagged), nothing but zeros or fewer
    channels than sub-bands are drawn again. ``image`` takes the place of :meth:`Field.draw`, as
    :meth:`vis2img.draws.cache.DrawCache.draw` does, and gives the same.

    Raises
    ------
    MeasurementSetError
        If the field cannot be read.
    EmptyImageError
        If several sets of parameters in a row leave nothing.
    """
    rng = draw_rng(seed, number, index)
    for attempt in range(_ATTEMPTS):
        try:
            params = field.prior.draw(rng)
            draw = image(field, params, nthreads) if image else field.draw(params, nthreads)
            return replace(draw, field=number, index=index)
        except EmptyImageError as error:
            if attempt == _ATTEMPTS - 1:
                raise EmptyImageError(f"{field}: {_ATTEMPTS} sets of parameters left nothing: {error}") from error
    raise AssertionError("unreachable")
