"""Labelled pictures: which turns a vector is of, rows of pixels, labels counted, macro-F1."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from vis2img.pictures.labels import LabelledImages, symmetric_views
from vis2img.train.evaluate.classification import accuracies
from vis2img.train.evaluate.encoders import Encoder, pixel_encoders
from vis2img.train.evaluate.folds import validation_folds
from vis2img.train.evaluate.labelled_tasks import LabelledTasks


def bars(n: int = 80, size: int = 12, seed: int = 0) -> LabelledImages:
    """One bar or two, upright or lying: a turn moves a picture far, and the class tells how bright its middle is."""
    rng = np.random.default_rng(seed)
    images = 0.3 * rng.normal(size=(n, size, size, 1)).astype(np.float32)
    label = np.arange(n) % 2
    for image, two in zip(images, label, strict=True):
        bar = np.zeros((size, size), np.float32)
        bar[2:10, [3, 8] if two else [5, 6]] = 1
        image[..., 0] += np.rot90(bar, rng.integers(2))
    position = np.stack([np.arange(n) * 0.01, np.zeros(n)], axis=1)
    return LabelledImages(images, label, ("one", "two"), position, tuple(map(str, range(n))), {}, Path("p"))


def found(tasks: LabelledTasks, encoder: Encoder) -> dict[tuple[str, str], float]:
    return {(name.setting, name.metric): value for name, value in tasks.run(encoder, [0])}


def test_a_vector_is_the_mean_over_all_turns_or_the_picture_as_it_is():
    images = bars()
    asked: list[np.ndarray] = []

    def corner(pictures: np.ndarray) -> np.ndarray:
        asked.append(pictures)
        return pictures.reshape(len(pictures), -1)

    tasks = LabelledTasks(images, tasks=("classification",), shares=(1.0,))
    found(tasks, Encoder("mean", 0, corner))
    assert len(asked) == 8 and len({view.tobytes() for view in asked}) == 8
    asked.clear()
    found(tasks, Encoder("one", 0, corner, "one"))
    assert len(asked) == 1


def test_pixels_stand_upright_and_turned_and_turns_help_neighbours_where_pictures_turn():
    images = bars(40)
    encoders = pixel_encoders(images.images)
    assert [each.name for each in encoders] == ["pixels", "pixels, turned", "PCA of pixels", "PCA of pixels, turned"]
    tasks = LabelledTasks(images, tasks=("classification",), shares=(8, 1.0), folds=2)
    rows = {each.name: found(tasks, each) for each in encoders}
    assert set(rows["pixels"]) == {
        (setting, metric)
        for setting in ("k-NN", "k-NN, 8 labels", "linear probe", "linear probe, 8 labels")
        for metric in ("accuracy", "balanced accuracy", "macro-F1")
    }
    assert rows["pixels, turned"]["k-NN, 8 labels", "accuracy"] >= rows["pixels"]["k-NN, 8 labels", "accuracy"]


def test_neighbours_over_all_turns_are_those_by_the_nearest_turn():
    images = bars(30)
    (turned,) = [each for each in pixel_encoders(images.images) if each.name == "pixels, turned"]
    tasks = LabelledTasks(images, tasks=("classification",), shares=(1.0,), folds=3)
    fitted = found(tasks, turned)["k-NN", "accuracy"]
    rows = images.images.reshape(30, -1)
    views = symmetric_views(images.images).reshape(8, 30, -1)
    fold, right = validation_folds(images.label, np.arange(30), 3, 0), 0
    for i in range(3):
        part = views[:, fold != i]
        mean = part.reshape(-1, part.shape[-1]).mean(axis=0)
        for row, truth in zip(rows[fold == i] - mean, images.label[fold == i], strict=True):
            centred = part - mean
            cosine = (centred @ row / np.linalg.norm(centred, axis=2) / np.linalg.norm(row)).max(axis=0)
            votes = np.maximum(cosine, 1e-6)  # 20 of 20 samples vote
            right += (votes @ images.label[fold != i] > votes.sum() / 2) == truth
    assert fitted == pytest.approx(right / 30)


def test_macro_f1_is_that_of_scikit_learn_over_the_classes_that_are_tested():
    label, predicted = np.array(list("aaabbc")), np.array(list("aabbbd"))
    values = {name.metric: value for name, value in accuracies("k-NN", 1.0, 0, label, predicted)}
    f1 = f1_score(label, predicted, average=None, labels=["a", "b", "c"])
    assert values["macro-F1"] == pytest.approx(f1.mean()) and values["accuracy"] == pytest.approx(4 / 6)
