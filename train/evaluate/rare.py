"""Rare classes: how soon their sources come up, without help and with a person's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.active import ActiveLearning
from vis2img.train.evaluate.anomaly import Anomaly
from vis2img.train.evaluate.folds import Samples, without_copies
from vis2img.train.evaluate.scores import Pairs

PLANTED_SHARE = 0.05


@dataclass(frozen=True)
class RareClasses:
    """:class:`Anomaly` and :class:`ActiveLearning` with the sources of rare classes planted among all others.

    Parameters
    ----------
    rare : sequence of str
        Classes that are rare, together; by default each in turn. They are thinned out to a twentieth of the whole.
    """

    rare: Sequence[str] = ()

    def run(self, samples: Samples, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield what both do for each seed, the rare classes named in the settings; a class of no source is refused."""
        samples, _ = without_copies(samples, 1)
        classes = np.unique(samples.label)
        if len(classes) < 2:
            raise ParameterError("a search for rare sources needs sources of at least two classes")
        for name in self.rare:
            if name not in classes:
                raise ParameterError(f"no source is of the rare class {name!r}; there are {', '.join(classes)}")

        for seed in seeds:
            rng = np.random.default_rng([seed, len(samples)])
            for names in [tuple(self.rare)] if self.rare else [(name,) for name in classes]:
                rows = _thinned(np.isin(samples.label, names), rng)
                vectors, planted = samples.inputs[rows], np.isin(samples.label[rows], names)
                for evaluator in (Anomaly(), ActiveLearning()):
                    for what, value in evaluator.run(vectors, planted, [seed]):
                        yield replace(what, setting=f"{what.setting}: {', '.join(names)}"), value


def _thinned(rare: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return all rows that are not rare, and as many of the rare ones as make a twentieth of the whole."""
    others, members = np.flatnonzero(~rare), np.flatnonzero(rare)
    count = max(2, round(len(others) * PLANTED_SHARE / (1 - PLANTED_SHARE)))
    return np.concatenate([others, rng.choice(members, min(count, len(members)), replace=False)])
