"""One picture gives the same numbers in training, embedding and evaluation, whatever its file and type are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from vis2img.loader.batches import Share
from vis2img.loader.config import LoaderConfig
from vis2img.loader.picture_source import PictureSource
from vis2img.pictures.labels import read_labelled
from vis2img.train.embed.config import EmbedConfig
from vis2img.train.embed.inputs import patch_fields
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment
from vis2img.views.stretch import Stretch

SIDE = 32
VIEWS = ViewConfig(
    patch_npix=SIDE,
    global_size=16,
    local_size=8,
    n_local=0,
    global_scale=(1.0, 1.0),
    rotate=False,
    more_stretches=(Stretch("peak"), Stretch("quantile", clip=2.0)),
)
WHOLE = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
TYPES = [order + kind for kind in (*WHOLE, "f2", "f4", "f8") for order in "<>"]


def pictures(kind: str) -> np.ndarray:
    """Noise of a few steps about a level that is not 0, and a source, [3, y, x]."""
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    noise = np.random.default_rng(0).normal(0.0, 2.0, (3, SIDE, SIDE))
    return np.rint(40 + noise + 60 * np.exp(-(x**2 + y**2) / 18)).astype(kind)


def as_npz(folder: Path, images: np.ndarray) -> Path:
    np.savez(folder / "pictures.npz", images=images, label=np.array([0, 1, 0], ">i4"), fr=np.array([0, 1, 0], ">i8"))
    return folder / "pictures.npz"


def as_fits(folder: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        (folder / f"c{i % 2}").mkdir(exist_ok=True)
        fits.writeto(folder / f"c{i % 2}" / f"{i}.fits", image)
        fits.writeto(folder / f"{i}.fits", image)
    return folder


def trained_on(path: Path) -> np.ndarray:
    config = LoaderConfig(cutouts=(str(path),), views=VIEWS, batch_size=3, augment=CutoutAugment(rotate=False))
    source = PictureSource(config, Share(3, 1, 0, 1))
    batch = source.plan(0)()
    return np.asarray(batch.global_views)[0, np.argsort(batch.item)]


def embedded(path: Path) -> np.ndarray:
    config = LoaderConfig(cutouts=(str(path),), views=VIEWS, batch_size=3)
    (field,) = patch_fields(str(path), config, EmbedConfig(Path("run")), None)
    return np.concatenate([chunk.images for chunk in field.chunks()])


@pytest.mark.parametrize("kind", TYPES)
def test_npz_files_of_any_type(tmp_path: Path, kind: str) -> None:
    path = as_npz(tmp_path, pictures(kind))
    views = trained_on(path)
    np.testing.assert_array_equal(embedded(path), views)
    np.testing.assert_array_equal(read_labelled(path, views=VIEWS).images, views)
    assert 0.15 < views[..., 0].std() < 10 and (views[..., 1:].max(axis=(1, 2)) == 1).all()


def test_whole_numbers_are_the_same_however_wide_they_are(tmp_path: Path) -> None:
    """And near those of the numbers before they were rounded: steps of the noise are none of it."""
    found = []
    for kind in WHOLE:
        (tmp_path / kind).mkdir()
        found.append(trained_on(as_npz(tmp_path / kind, pictures(kind))))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_fits_images_give_what_npz_files_do(tmp_path: Path, kind: str) -> None:
    folders = [tmp_path / name for name in ("fits", "npz")]
    for folder in folders:
        folder.mkdir()
    path, other = as_fits(folders[0], pictures(kind)), as_npz(folders[1], pictures(kind))
    views = trained_on(path)
    np.testing.assert_array_equal(views, trained_on(other))
    images = read_labelled(path, views=VIEWS, label=None).images
    np.testing.assert_array_equal(images[:3], views)
