"""What keeps a measurement set, or some of it, from being imaged: what ``vis2img image`` would say, told beforehand."""

from __future__ import annotations

import warnings

from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgWarning
from vis2img.ms.metadata import Metadata
from vis2img.ms.reading import open_parts
from vis2img.ms.selection import Selection, choice_of


def problems_of(meta: Metadata, selection: Selection | None = None) -> tuple[tuple[str, ...], str]:
    """Return what is wrong with a set, and what would be taken of it by default.

    Everything that reading ``selection`` would refuse or warn of is found by starting to read it; of data columns a
    sample is looked at. Sets of many rows, of which metadata are a sample too, are judged by their sub-tables.

    Returns
    -------
    problems : tuple of str
        One line each; none, where nothing was found.
    taken : str
        See :class:`vis2img.ms.choice.Choice`; empty where it is all.
    """
    selection = selection or Selection()
    told: list[str] = [*meta.problems, *meta.nonsense]
    taken = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Vis2imgWarning)
        try:
            if meta.exact:
                taken = choice_of(meta, selection).text
                parts = open_parts(meta, selection)
                troubles = [part.sample_trouble() for part in parts]
                told += [text for text in troubles if text]
        except (MeasurementSetError, ParameterError) as error:
            told.append(str(error))
    told += [str(each.message) for each in caught if issubclass(each.category, Vis2imgWarning)]
    short = [text.removeprefix(f"{meta.path}: ") for text in told]
    return tuple(text for i, text in enumerate(short) if not any(text in other for other in short[:i])), taken
