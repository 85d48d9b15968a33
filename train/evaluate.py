"""What a representation is worth: k-NN classification of labelled sky patches, beside its baselines.

The baselines are the same network with random weights and the pixels themselves. Folds are whole fields:
a source is never classified by its neighbours in the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.embed import cut_patches, embed_images, evaluation_draw
from train.run_config import TrainConfig
from train.state import backbone_variables, build_model, create_state
from vis2img.draws import Draw, FieldSource
from vis2img.errors import Vis2imgError
from vis2img.phase import direction_cosines, sky_position
from vis2img.sources import patch_angle

K_NEIGHBOURS = 7
# How the queries of a score are seen, beside a gallery that is centred and imaged in the fixed way.
QUERIES = {"same": "imaged alike", "across": "imaged otherwise", "shifted": "off centre"}


@dataclass(frozen=True, eq=False)
class LabelledPatches:
    """Labelled patches of several fields, seen in three ways.

    Parameters
    ----------
    fixed, varied, shifted : float32 [patch, size, size, 1]
        The same sources: centred and imaged in the fixed way; imaged under a random draw of each field; and
        in the fixed way up to an eighth of the patch off centre, as when a survey is tiled.
    label : str [patch]
        Class.
    field : int [patch]
        Which field.
    position : float64 [patch, 2]
        RA and Dec in rad.
    """

    fixed: np.ndarray
    varied: np.ndarray
    shifted: np.ndarray
    label: np.ndarray
    field: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Score:
    """Accuracy of one representation: mean and standard deviation over seeds, and the values."""

    name: str
    imaging: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """Standard deviation over seeds; 0 for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def labelled_patches(
    config: TrainConfig,
    sources: list[FieldSource],
    catalogues: Sequence[Path],
) -> LabelledPatches:
    """Cut the catalogued sources of each field.

    Parameters
    ----------
    config : TrainConfig
        Says how patches are cut.
    sources : list of FieldSource
        One for each catalogue.
    catalogues : list of Path
        Truth as written by ``vis2img simulate`` (FITS table with ra_deg, dec_deg, class).

    Raises
    ------
    Vis2imgError
        If a catalogue cannot be read, or fewer than two fields or classes are left.
    """
    from vis2img.sky import UNLABELLED, read_catalogue

    parts: list[tuple[np.ndarray, ...]] = []
    for i, (source, path) in enumerate(zip(sources, catalogues, strict=True)):
        truth = [s for s in read_catalogue(path) if s.class_name != UNLABELLED]
        position = np.array([[s.ra, s.dec] for s in truth]).reshape(-1, 2)
        labels = np.array([s.class_name for s in truth])
        draw, otherwise, views = evaluation_draw(source), evaluation_draw(source, varied=1 + i), config.data.views
        seen = (
            cut_patches(draw, source, views, position),
            cut_patches(otherwise, source, views, position),
            cut_patches(draw, source, views, _off_centre(position, draw, patch_angle(source, views))),
        )
        kept = reduce(np.intersect1d, [patches.kept for patches in seen])
        images = [patches.images[np.isin(patches.kept, kept)] for patches in seen]
        parts.append((*images, labels[kept], np.full(len(kept), i), position[kept]))
    result = LabelledPatches(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if len(np.unique(result.field)) < 2 or len(np.unique(result.label)) < 2:
        raise Vis2imgError("evaluation needs labelled sources of at least two classes in at least two fields")
    return result


def _off_centre(position: np.ndarray, draw: Draw, patch: float) -> np.ndarray:
    """Return RA and Dec [patch, 2] moved by up to an eighth of a patch, the same way every time."""
    moved = direction_cosines(position[:, 0], position[:, 1], draw.phase_centre)[:, :2]
    moved = moved + np.random.default_rng(len(position)).uniform(-patch / 8, patch / 8, moved.shape)
    return np.stack(sky_position(moved[:, 0], moved[:, 1], draw.phase_centre), axis=-1)


def knn_accuracy(
    gallery: np.ndarray, queries: np.ndarray, label: np.ndarray, field: np.ndarray, k: int = K_NEIGHBOURS
) -> float:
    """Return the balanced accuracy of cosine k-NN, each field classified by all the others.

    Parameters
    ----------
    gallery, queries : float [patch, dim]
        Vectors of the same patches; the gallery's rows of other fields classify a query.
    label : [patch]
        Class.
    field : [patch]
        Fold.
    k : int
        Neighbours that vote, weighted by similarity.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    guess = np.empty_like(label)
    for fold in np.unique(field):
        here = field == fold
        scale = StandardScaler().fit(gallery[~here])
        classifier = KNeighborsClassifier(min(k, int((~here).sum())), metric="cosine", weights="distance")
        classifier.fit(scale.transform(gallery[~here]), label[~here])
        guess[here] = classifier.predict(scale.transform(queries[here]))
    return float(balanced_accuracy_score(label, guess))


def pixels(images: np.ndarray) -> np.ndarray:
    """Return images [patch, y, x, 1] as vectors of their pixels."""
    return images.reshape(len(images), -1)


def random_variables(config: TrainConfig, seed: int) -> Any:
    """Return the backbone's variables of ``config`` as they are before training with ``seed``."""
    size = config.data.views.global_size
    model = build_model(config.model, size, config.optim)
    state = create_state(jax.random.key(seed), model, config.optim, (size, size, config.data.channels))
    return backbone_variables(state)


def score_representations(
    patches: LabelledPatches,
    model: Any,
    trained: Sequence[Any],
    untrained: Sequence[Any],
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Score trained networks, the same networks with random weights, and raw pixels.

    Parameters
    ----------
    patches : LabelledPatches
        Sources to classify.
    model : DINOModel
        The network.
    trained, untrained : list of dict
        The backbone's variables, one for each seed.

    Returns
    -------
    list of Score
        For queries seen as the gallery is (``same``), imaged otherwise (``across``) and off centre
        (``shifted``); the gallery is always centred and imaged in the fixed way.
    """
    encoders: list[tuple[str, list[Callable[[np.ndarray], np.ndarray]]]] = [
        ("trained", [encoder(model, variables) for variables in trained]),
        ("random weights", [encoder(model, variables) for variables in untrained]),
        ("pixels", [pixels]),
    ]
    scores, done, total = [], 0, sum(len(functions) for _, functions in encoders)
    for name, functions in encoders:
        values: dict[str, list[float]] = {imaging: [] for imaging in QUERIES}
        for encode in functions:
            for imaging, accuracy in accuracies(patches, encode).items():
                values[imaging].append(accuracy)
            done += 1
            if progress:
                progress(done, total)
        scores += [Score(name, imaging, tuple(found)) for imaging, found in values.items()]
    return scores


def accuracies(patches: LabelledPatches, encode: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Return the k-NN accuracy of one representation (images to vectors) for each way to see the queries."""
    gallery = encode(patches.fixed)
    queries = {"same": patches.fixed, "across": patches.varied, "shifted": patches.shifted}
    return {
        imaging: knn_accuracy(gallery, encode(images), patches.label, patches.field)
        for imaging, images in queries.items()
    }


def encoder(model: Any, variables: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns images into embeddings of a network."""
    return lambda images: embed_images(model, variables, images)
