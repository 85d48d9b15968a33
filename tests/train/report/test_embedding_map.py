"""A map of embeddings: what goes into UMAP, how points are coloured, and thumbnails that do not overlap."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.train.report.embedding_map import map_figure, thumbnail_places, umap_points


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, np.ndarray]]:
    """Put in the place of UMAP, which compiles for half a minute, what keeps its settings and its input."""
    calls: list[tuple[dict, np.ndarray]] = []

    class Reducer:
        def __init__(self, **settings) -> None:
            self.settings = settings

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            calls.append((self.settings, vectors))
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Reducer))
    return calls


def vectors(count: int = 60, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32) + 5


def test_umap_is_asked_for_cosines_of_centred_vectors_with_the_seed(asked) -> None:
    umap_points(vectors(), seed=7)
    (settings, given), *_ = asked
    assert settings["metric"] == "cosine" and settings["n_neighbors"] == 15 and settings["random_state"] == 7
    np.testing.assert_allclose(given, vectors() - vectors().mean(axis=0), atol=1e-5)


def test_wide_vectors_are_reduced_to_fifty_components_that_keep_the_angles(asked) -> None:
    rng = np.random.default_rng(1)
    # A plane in 300 dimensions: components lose nothing of it.
    wide = (rng.normal(size=(80, 2)) @ rng.normal(size=(2, 300))).astype(np.float32)
    umap_points(wide)
    given = asked[0][1]
    assert given.shape == (80, 50)
    centred = wide - wide.mean(axis=0)
    np.testing.assert_allclose(given @ given.T, centred @ centred.T, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_groups_that_lie_apart_stay_apart_and_a_seed_gives_one_map() -> None:
    rng = np.random.default_rng(2)
    centres = 10 * np.eye(3, 120)
    label = np.repeat(np.arange(3), 40)
    found = umap_points((centres[label] + rng.normal(size=(120, 120))).astype(np.float32), seed=3)
    distance = np.linalg.norm(found[:, None] - found, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (label[distance.argmin(axis=1)] == label).mean() > 0.98
    again = umap_points((centres[label] + np.random.default_rng(2).normal(size=(120, 120))).astype(np.float32), seed=3)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (vectors(15), "more than 15"),
        (vectors().ravel(), r"shape \(480,\)"),
        (np.where(np.arange(60)[:, None] == 3, np.nan, vectors()), "1 of 60 embeddings hold NaN"),
        (np.ones((60, 8)), "all 60 vectors are the same"),
    ],
)
def test_vectors_without_a_map_are_refused(broken: np.ndarray, message: str, asked) -> None:
    with pytest.raises(ParameterError, match=message):
        umap_points(broken)
    assert not asked


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(Vis2imgError, match=r"umap-learn: pip install 'vis2img\[evaluate\]'"):
        umap_points(vectors())


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_labels_are_classes_the_frequent_ones_with_a_colour(asked) -> None:
    label = np.array([f"class {i}" for i in range(10) for _ in range(i + 1)])
    figure = map_figure(umap_points(vectors(55)), label, name="class")
    drawn = figure.axes[0].collections
    assert legend(figure) == ["other (6)", *(f"class {i} ({i + 1})" for i in range(9, 2, -1))]
    assert sum(len(c.get_offsets()) for c in drawn) == 55
    assert len({to_hex(c.get_facecolor()[0]) for c in drawn}) == 8
    np.testing.assert_allclose(drawn[1].get_offsets(), asked[0][1][:, :2][label == "class 9"])


@pytest.mark.parametrize(
    ("colour", "classes"),
    [
        (np.arange(60) % 3, True),
        (np.arange(60) % 2 == 0, True),
        (np.arange(60), False),
        (np.linspace(0, 1, 60), False),
    ],
)
def test_numbers_are_a_scale_unless_they_are_few_and_whole(colour: np.ndarray, classes: bool) -> None:
    figure = map_figure(vectors()[:, :2], colour, name="redshift")
    assert (figure.axes[0].get_legend() is not None) == classes
    assert [axis.get_ylabel() for axis in figure.axes[1:]] == ([] if classes else ["redshift"])


def test_an_unknown_target_is_grey() -> None:
    redshift = np.linspace(0, 1, 60)
    redshift[:7] = np.nan
    grey, known = map_figure(vectors()[:, :2], redshift).axes[0].collections
    assert len(grey.get_offsets()) == 7 and len(known.get_offsets()) == 53
    np.testing.assert_array_equal(known.get_array(), redshift[7:])


def test_the_point_nearest_to_the_centre_of_a_cell_stands_for_it() -> None:
    # A square of side 4 in 4 cells a side; two points share the cell in the lower left.
    points = np.array([[0.0, 0.0], [0.6, 0.4], [4.0, 4.0], [2.5, 0.1], [0.0, 4.0]])
    chosen, cell = thumbnail_places(points, grid=4)
    assert dict(zip(chosen.tolist(), map(tuple, cell.tolist()), strict=True)) == {
        1: (0, 0),
        3: (2, 0),
        2: (3, 3),
        4: (0, 3),
    }


def test_thumbnails_lie_where_their_points_are_and_do_not_overlap() -> None:
    points = np.random.default_rng(3).normal(size=(500, 2))
    images = np.broadcast_to(np.arange(500.0)[:, None, None], (500, 4, 4))
    figure = map_figure(points, np.array(["a", "b"])[np.arange(500) % 2], thumbnails=images)
    left, right = figure.axes
    boxes = np.array([image.get_extent() for image in right.images])
    low = points.min(axis=0) + np.ptp(points, axis=0) / 2 - np.ptp(points, axis=0).max() / 2
    cell = np.ptp(points, axis=0).max() / 20
    for box, image, frame in zip(boxes, right.images, right.patches, strict=True):
        index = int(np.asarray(image.get_array())[0, 0])
        assert np.all(np.abs((points[index] - low) / cell - [box[:2].mean(), box[2:].mean()]) <= 0.5 + 1e-9)
        assert to_hex(frame.get_edgecolor()) == to_hex(left.collections[index % 2].get_facecolor()[0])
    apart_x = (boxes[:, None, 0] >= boxes[:, 1]) | (boxes[:, None, 1] <= boxes[:, 0])
    apart_y = (boxes[:, None, 2] >= boxes[:, 3]) | (boxes[:, None, 3] <= boxes[:, 2])
    assert len(boxes) > 50 and (apart_x | apart_y | np.eye(len(boxes), dtype=bool)).all()


@pytest.mark.parametrize("shape", [(60, 4, 4, 1), (60, 4, 4, 3), (60, 4, 4, 2)])
def test_thumbnails_of_any_number_of_channels_can_be_drawn(shape: tuple[int, ...], tmp_path) -> None:
    images = np.random.default_rng(0).uniform(size=shape)
    map_figure(vectors()[:, :2], thumbnails=images).savefig(tmp_path / "map.png", dpi=20)
    assert (tmp_path / "map.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["colour", "thumbnails"])
def test_one_of_each_for_each_point(name: str) -> None:
    with pytest.raises(ParameterError, match=r"59 .* for 60 points"):
        map_figure(vectors()[:, :2], **{name: np.zeros((59, 4, 4))})
