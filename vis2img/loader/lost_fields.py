"""Fields of a run that goes on: numbered as when it started, whatever has been damaged or mended since.

Which draw comes when, and with which random numbers, follows from the number of a field and from how many there are.
So a field that can no longer be opened keeps its place, and one that could not be then, and can now, gets none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vis2img.draws.draw import Draw
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import MeasurementSetError
from vis2img.imaging.params import ImagingParams
from vis2img.loader.fields import FieldSet


@dataclass(frozen=True)
class LostField:
    """The place of a field that cannot be opened any more; see :class:`vis2img.draws.field.Field`."""

    path: str
    why: str
    prior: ImagingPrior
    pixsize: float
    channels: int

    def __str__(self) -> str:
        return self.path

    def draw(self, params: ImagingParams, nthreads: int = 1) -> Draw:
        """Refuse: there is nothing to draw."""
        raise MeasurementSetError(self.why)


def as_started(found: FieldSet, names: Sequence[str]) -> FieldSet:
    """Return the fields that can be opened now in the places that they had when their run was started.

    Parameters
    ----------
    found : FieldSet
        Those that can be opened now.
    names : sequence of str
        What all fields were called then. Where there are as many now, they are the same, wherever they lie.

    Raises
    ------
    MeasurementSetError
        If none of them can be opened.
    """
    if len(names) == len(found.fields):
        return found

    number = {str(field): i for i, field in enumerate(found.fields)}
    places = [number.get(name) for name in names]
    like = next((i for i in places if i is not None), None)
    if like is None:
        why = next(iter(found.skipped.values()), "they have other names")
        raise MeasurementSetError(f"none of the fields that this run was started with is there: {why}; restore them")

    first = found.fields[like]
    fields = [
        found.fields[i]
        if i is not None
        else LostField(name, _reason(found, name), first.prior, first.pixsize, first.channels)
        for name, i in zip(names, places, strict=True)
    ]
    order = [like if i is None else i for i in places]
    told = {field.why for field in fields if isinstance(field, LostField)}
    return replace(
        found,
        skipped={path: why for path, why in found.skipped.items() if why not in told},
        fields=fields,
        weights=[found.weights[i] for i in order],
        patches=[found.patches[i] for i in order],
        maps=[found.maps[i] for i in order],
    )


def _reason(found: FieldSet, name: str) -> str:
    told = [why for path, why in found.skipped.items() if path in name or name in why]
    return told[0] if told else f"{name} cannot be opened any more"
