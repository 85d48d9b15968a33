"""The sheet of views shows what the network gets: turned, on one scale, with who sees it."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from vis2img.errors import OutputError
from vis2img.train.objectives.augment import turn_views
from vis2img.train.run.view_sheet import VMAX, VMIN, draw_views, turned_views, view_sheet


def batch(channels: int = 1, n_local: int = 2, samples: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "global": rng.normal(size=(2, samples, 16, 16, channels)).astype(np.float32),
        "turns": rng.permutation((2 + n_local) * samples).reshape(-1, samples) % 8,
    }
    if n_local:
        arrays["local"] = rng.normal(size=(n_local, samples, 8, 8, channels)).astype(np.float32)
    return arrays


def test_views_are_turned_as_on_the_accelerator() -> None:
    arrays = batch(channels=2)
    ours, theirs = turned_views(arrays, 5), turn_views({name: jnp.asarray(x) for name, x in arrays.items()})
    assert len(np.unique(arrays["turns"])) == 8
    for name in ("global", "local"):
        np.testing.assert_array_equal(np.array(ours[name]), theirs[name])


def test_a_batch_without_turns_is_shown_as_it_is() -> None:
    arrays = {"global": batch()["global"]}
    views = turned_views(arrays, 2)
    assert list(views) == ["global"]
    np.testing.assert_array_equal(np.array(views["global"]), arrays["global"][:, :2])


def test_rows_are_samples_and_columns_views() -> None:
    figure = draw_views(turned_views(batch(), 3), "step 7: costs $5")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(figure.axes) == 3 * 4
    assert titles == [
        "global 1 (teacher, student)\n16 x 16 pixels",
        "global 2 (teacher, student)\n16 x 16 pixels",
        "local 1 (student)\n8 x 8 pixels",
        "local 2 (student)\n8 x 8 pixels",
    ]
    images = [axis.images[0] for axis in figure.axes]
    assert {image.get_clim() for image in images} == {(0, 1)} and {image.origin for image in images} == {"lower"}
    assert figure.texts[0].get_text() == r"step 7: costs \$5"


@pytest.mark.parametrize(("channels", "shape"), [(1, (16, 16)), (2, (16, 32)), (3, (16, 16, 3)), (4, (16, 64))])
def test_channels_are_colours_or_beside_each_other(channels: int, shape: tuple[int, ...]) -> None:
    arrays = batch(channels, n_local=0)
    figure = draw_views(turned_views(arrays, 1))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == shape
    if channels == 4:
        view = turned_views(arrays, 1)["global"][0][0]
        np.testing.assert_allclose(shown[:, 32:48], (view[..., 2] - VMIN) / (VMAX - VMIN), rtol=1e-6)


def test_parts_of_the_brightest_pixel_fill_the_scale() -> None:
    views = np.random.default_rng(0).uniform(0, 8, (2, 3, 16, 16, 2)).astype(np.float32)
    views[..., 1] /= 8
    views[0, 0, 0] = np.nan
    shown = np.asarray(draw_views(turned_views({"global": views}, 3)).axes[1].images[0].get_array())
    assert 1 < shown[:, :16].max() < 2 and 0.9 < shown[:, 16:].max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_no_number_stands_out(channels: int, tmp_path: Path) -> None:
    arrays = batch(channels, n_local=0)
    clean = view_sheet(arrays, tmp_path / "a.png")
    arrays["global"][0, 0, :8] = np.nan
    dirty = view_sheet(arrays, tmp_path / "b.png")
    cyan = (0, 255, 255, 255)
    assert not (clean == cyan).all(axis=-1).any()
    assert (dirty == cyan).all(axis=-1).any()


def test_the_file_is_the_picture_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "views.png"
    path.write_text("older")
    pixels = view_sheet(batch(), path, teacher_note="step 1", n_samples=100)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 4
    np.testing.assert_array_equal((imread(path) * 255).round().astype(np.uint8), pixels)
    assert [p.name for p in tmp_path.iterdir()] == ["views.png"]
    with pytest.raises(OutputError, match="does not exist"):
        view_sheet(batch(), tmp_path / "nowhere" / "views.png")


def test_many_views_of_many_channels_stay_a_picture(tmp_path: Path) -> None:
    pixels = view_sheet(batch(channels=4, n_local=8), tmp_path / "views.png")
    assert pixels.shape[1] < 4000
