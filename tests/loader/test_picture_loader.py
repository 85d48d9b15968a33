"""Cutouts: every picture once in an epoch, centred, stretched by its own noise, changed as asked; exact resume."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import fields_of
from vis2img.loader.loader import Loader
from vis2img.loader.picture_loader import CutoutBatch, CutoutLoader
from vis2img.pictures.cutting import Pictures, Square, cut_picture, open_pictures, picture_noise
from vis2img.train.step import turn_views
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment, ViewChange, change_pixels
from vis2img.views.stretch import Stretch

VIEWS = ViewConfig(patch_npix=32, global_size=16, local_size=8, n_local=2)
PLAIN = CutoutAugment(rotate=False)
LINEAR = Stretch("linear")  # pixel values are the brightness over 5 times the noise


def pictures(count: int = 7, npix: int = 48, seed: int = 0) -> np.ndarray:
    """Noise of 4 units and a source in the middle, int16 [n, y, x], as surveys are stored."""
    y, x = np.indices((npix, npix)) - (npix - 1) / 2
    source = np.exp(-((x / 3) ** 2 + (y / 1.5) ** 2) / 2)
    noise = np.random.default_rng(seed).normal(scale=4.0, size=(count, npix, npix))
    return np.rint(noise + 200 * np.arange(1, count + 1)[:, None, None] * source).astype(np.int16)


def central_views(pictures: Pictures, patch_npix: int, size: int, stretch: Stretch) -> np.ndarray:
    """Cut the whole patch of each picture, neither turned nor changed."""
    views = np.empty((len(pictures), size, size, 1), np.float32)
    for number in range(len(pictures)):
        cut_picture(pictures, number, Square(0.0, 0.0, float(patch_npix)), views[number, :, :, 0], stretch)
    return views


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "cutouts.npz"
    np.savez(path, images_i16=pictures(), scale_mJy=np.full(7, 0.05, np.float32))
    return path


def config(*paths: Path, **changes: object) -> LoaderConfig:
    return LoaderConfig(cutouts=tuple(map(str, paths)), **{"batch_size": 4, "views": VIEWS, **changes})


def same(a: CutoutBatch, b: CutoutBatch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def one(image: np.ndarray, tmp_path: Path, patch: int = 16):
    """Open one picture."""
    path = tmp_path / "one.npz"
    np.savez(path, images=image[np.newaxis])
    return open_pictures([path], patch)


def test_batches_have_fixed_shapes_and_every_picture_comes_once_in_an_epoch(npz: Path) -> None:
    with CutoutLoader(config(npz), seed=1) as loader:
        batches = [loader.next_batch() for _ in range(14)]
        report = loader.report()
    for batch in batches:
        assert batch.global_views.shape == (2, 4, 16, 16, 1) and batch.global_views.dtype == np.float32
        assert batch.local_views.shape == (2, 4, 8, 8, 1) and batch.turns.shape == (4, 4) and len(batch) == 4
        assert set(batch.arrays()) == {"global", "local", "turns"}
        assert np.isfinite(batch.global_views).all() and np.isfinite(batch.local_views).all()
    order = np.concatenate([batch.picture for batch in batches]).reshape(8, 7)
    assert (np.sort(order) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in order}) == 8  # shuffled anew
    assert report["fresh_draws"] == 7 and report["epochs"] == 8 and report["draw_reuse"] == 56 * 4 / 7
    # The middle of every view lies in its patch, and so does all of it.
    box = np.concatenate([batch.box.reshape(-1, 3) for batch in batches])
    assert (np.abs(box[:, :2]).max(axis=1) + box[:, 2] / 2 <= 16 + 1e-9).all() and np.abs(box[:, :2]).max() > 5
    angles = np.concatenate([batch.angle.ravel() for batch in batches])
    assert np.histogram(angles, 8, (0, 2 * math.pi))[0].min() > 10
    with pytest.raises(Vis2imgError, match="closed"):
        loader.next_batch()


def test_batches_follow_from_the_seed_alone_and_go_on_exactly(npz: Path) -> None:
    every = {"noise": (0.0, 1.0), "gain": (0.5, 2.0), "offset": (-1.0, 1.0), "blur_probability": 0.5,
             "clip_probability": 0.5, "erase_probability": 0.5}  # fmt: skip
    wanted = config(npz, augment=CutoutAugment(**every), cutters=1, prefetch=1)
    with CutoutLoader(wanted, seed=1) as loader:
        first = [loader.next_batch() for _ in range(6)]
    with CutoutLoader(replace(wanted, cutters=3, prefetch=5), seed=1) as loader:
        again = [loader.next_batch() for _ in range(3)]
        state = json.loads(json.dumps(loader.state()))  # batches cut ahead do not count
    assert state["batches"] == 3 and all(same(a, b) for a, b in zip(first, again, strict=False))
    with CutoutLoader(wanted, seed=1, state=state) as loader:
        assert all(same(loader.next_batch(), batch) for batch in first[3:])
    with CutoutLoader(wanted, seed=2) as loader:
        assert not same(loader.next_batch(), first[0])
    assert not any(np.array_equal(a.global_views, b.global_views) for a, b in pairwise(first))


def test_hosts_share_a_batch_without_doubles(npz: Path) -> None:
    with CutoutLoader(config(npz), seed=1) as loader:
        whole = loader.next_batch()
    for host in range(2):
        with CutoutLoader(config(npz), seed=1, host=host, hosts=2) as loader:
            part = loader.next_batch()
        np.testing.assert_array_equal(part.global_views, whole.global_views[:, 2 * host : 2 * host + 2])
        np.testing.assert_array_equal(part.picture, whole.picture[2 * host : 2 * host + 2])
    with pytest.raises(ParameterError, match="not a multiple of the 3 hosts"):
        CutoutLoader(config(npz), hosts=3)


def test_other_pictures_than_those_of_the_start_are_refused(npz: Path) -> None:
    with CutoutLoader(config(npz), seed=1) as loader:
        loader.next_batch()
        state = loader.state()
    changed = pictures()
    changed[3, 20, 20] += 1
    np.savez(npz, images_i16=changed)
    with pytest.raises(Vis2imgError, match=r"cutouts\.npz: these are not the pictures"):
        CutoutLoader(config(npz), seed=1, state=state)


def test_an_unturned_whole_patch_is_the_middle_of_the_picture_over_its_noise(tmp_path: Path) -> None:
    image = pictures(1)[0]
    opened = one(image, tmp_path)
    out = np.empty((16, 16), np.float32)
    cut_picture(opened, 0, Square(0, 0, 16.0), out, LINEAR)
    wanted = (image[16:32, 16:32] - np.median(image)) / (5 * opened.noise[0])
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    assert opened.noise[0] == pytest.approx(4.0, rel=0.12)  # the source is a tenth of so small a picture
    # Half the pixels: each is a mean with triangular weights, and a flat picture stays what it is.
    half = np.empty((8, 8), np.float32)
    cut_picture(opened, 0, Square(0, 0, 16.0), half, LINEAR)
    weights = np.array([1, 3, 3, 1]) / 8
    block = image[17:21, 19:23] - np.median(image)  # about output pixel (y 1, x 2)
    assert half[1, 2] == pytest.approx(weights @ block @ weights / (5 * opened.noise[0]), rel=1e-4, abs=1e-5)
    # The default stretch, by its formula.
    cut_picture(opened, 0, Square(0, 0, 16.0), out, Stretch())
    np.testing.assert_allclose(out, 2 * np.arcsinh(wanted * 5 / 10), rtol=1e-4, atol=1e-5)
    views = central_views(opened, 16, 16, Stretch())
    assert views.shape == (1, 16, 16, 1) and np.array_equal(views[0, :, :, 0], out)


@pytest.mark.parametrize("degrees", [90, 30, -72])
def test_a_turn_is_counterclockwise_about_the_middle_and_keeps_flux(tmp_path: Path, degrees: float) -> None:
    y, x = np.indices((61, 61)) - 30.0
    image = (np.exp(-((x - 9) ** 2 + (y - 4) ** 2) / 8) * 1000).astype(np.float32)
    image += np.random.default_rng(0).normal(scale=1.0, size=image.shape).astype(np.float32)
    opened = one(image, tmp_path)
    out = np.empty((41, 41), np.float32)
    angle = math.radians(degrees)
    cut_picture(opened, 0, Square(0, 0, 41.0), out, None, ViewChange(angle=angle))
    view = out * opened.noise[0]
    cy, cx = ndimage.center_of_mass(np.where(view > 100, view, 0))
    # A view turned by an angle about the middle shows the sky turned back by it.
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) @ [9, 4]
    assert [cx - 20, cy - 20] == pytest.approx(back, abs=0.1)
    assert view.sum() == pytest.approx(image.sum(), rel=0.05) and view.max() == pytest.approx(1000, rel=0.05)
    if degrees == 90:
        np.testing.assert_allclose(view, np.rot90(image[10:51, 10:51]), atol=0.5)
    # The noise stays about what it is between the pixels too.
    far = np.concatenate([view[:8, :8].ravel(), view[-8:, :8].ravel(), view[-8:, -8:].ravel()])
    assert 0.7 < np.std(far) < 1.1


def test_sources_in_the_middle_stay_there_under_every_turn(npz: Path) -> None:
    views = replace(VIEWS, global_scale=(1.0, 1.0), n_local=0, stretch=LINEAR, global_size=32)
    with CutoutLoader(config(npz, views=views, augment=CutoutAugment()), seed=0) as loader:
        batch = loader.next_batch()
    turned = np.asarray(turn_views({k: v for k, v in batch.arrays().items() if k != "local"})["global"])
    for view in turned.reshape(-1, 32, 32):
        peak = np.where(view > 0.4 * view.max(), view, 0)
        assert ndimage.center_of_mass(peak) == pytest.approx((15.5, 15.5), abs=0.5)


def test_beyond_the_edge_a_turned_picture_is_mirrored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    opened = one(rng.normal(size=(32, 32)).astype(np.float32), tmp_path, 32)
    out = np.empty((32, 32), np.float32)
    cut_picture(opened, 0, Square(0, 0, 32.0), out, None, ViewChange(angle=math.pi / 4))
    assert 0.5 < np.std(out[:5, :5]) < 2 and np.isfinite(out).all()  # a corner is neither empty nor a smear


def test_the_noise_of_rounded_cut_off_and_plain_pictures() -> None:
    noise = np.random.default_rng(1).normal(size=40_000)
    for sigma in (1.2, 4.0, 30.0):  # the plain median deviation of the first is 1 step, 24% too much
        assert picture_noise(np.rint(sigma * noise).astype(np.int16)) == pytest.approx(sigma, rel=0.12)
    assert picture_noise((3 * noise).astype(np.float32)) == pytest.approx(3.0, rel=0.03)
    cut = np.where(noise > 2.5, noise, 0.0).astype(np.float32)  # more than half are 0
    assert picture_noise(cut) == pytest.approx(2.5 / 3, rel=0.01)
    assert picture_noise(np.where(noise > 2.5, 9, 0).astype(np.uint8)) == pytest.approx(0.37, abs=0.02)


def test_blank_pixels_become_background_and_bad_pictures_are_named(tmp_path: Path) -> None:
    images = pictures(6).astype(np.float64) + 50
    images[1, :, :5] = np.nan  # a little
    images[2, :30] = np.nan  # more than half
    images[3] = 7.0
    images[4, 4, 4] = np.inf
    path = tmp_path / "blank.npz"
    np.savez(path, images=images)
    opened = open_pictures([path], 32)
    assert len(opened) == 4 and opened.background == pytest.approx(50, abs=2)
    assert [name.rsplit(" ", 1)[1] for name in opened.names] == ["0", "1", "4", "5"]
    why = list(opened.skipped.values())
    assert "row 2: 62% of its pixels are blank" in why[0] and "row 3: all of its pixels are 7" in why[1]
    views = replace(VIEWS, patch_npix=48)
    with CutoutLoader(config(path, views=views), seed=0) as loader:
        batches = [loader.next_batch() for _ in range(4)]
        assert list(loader.unused().values()) == why
    assert all(np.isfinite(batch.global_views).all() and np.isfinite(batch.local_views).all() for batch in batches)
    out = np.empty((48, 48), np.float32)
    cut_picture(opened, 1, Square(0, 0, 48.0), out)
    assert (out[:, :4] == 0).all() and (out[:, 6:] != 0).mean() > 0.85  # whole numbers may be the median


def test_files_and_folders_are_read_and_what_cannot_be_is_told_in_one_line(npz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fits"
    folder.mkdir()
    for i, image in enumerate(pictures(3, npix=60, seed=4)):
        fits.writeto(folder / f"{i}.fits", image)
    small = tmp_path / "small.npz"
    np.savez(small, images_u8=np.ones((2, 20, 20), np.uint8))
    opened = open_pictures([npz, folder, small], 32)
    assert len(opened) == 10 and len(opened.skipped) == 2
    assert opened.images[0].dtype == np.int16 and opened.images[0].base is opened.images[6].base  # as stored, one copy
    assert opened.images[7].shape == (60, 60) and opened.images[7].dtype == np.float32
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK nothing")
    wrong = tmp_path / "complex.npz"
    np.savez(wrong, images=np.ones((1, 40, 40), complex))
    for path, words in (
        (broken, r"cannot read the cutouts .*broken\.npz"),
        (wrong, r"complex\.npz: pictures must be real"),
        (small, r"no picture can be used: .*small\.npz row 0: 20 x 20 pixels are fewer than views\.patch_npix = 32"),
        (tmp_path / "none.npz", r"none\.npz"),
    ):
        with pytest.raises(Vis2imgError, match=words) as error:
            CutoutLoader(config(path))
        assert "\n" not in str(error.value)


def test_big_endian_and_wide_numbers_give_the_same_views(tmp_path: Path) -> None:
    views = {}
    for kind in ("<i2", ">i2", "<i4", "<f8", ">f4"):
        path = tmp_path / "kind.npz"
        np.savez(path, images=pictures().astype(kind))
        views[kind] = central_views(open_pictures([path], 32), 32, 16, LINEAR)
    np.testing.assert_array_equal(views["<i2"], views[">i2"])
    np.testing.assert_allclose(views["<f8"], views[">f4"], rtol=1e-6)
    np.testing.assert_allclose(views["<f8"], views["<i2"], rtol=0.2, atol=0.1)  # but for the noise, which is rounded


def test_pixels_change_as_they_are_asked_to() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(32, 32)).astype(np.float32)

    def changed(**what: object) -> np.ndarray:
        view = base.copy()
        change = ViewChange(**what)
        assert change.of_pixels
        change_pixels(view, change, change.blur, np.random.default_rng(1))
        return view

    np.testing.assert_allclose(changed(gain=2.0), 2 * base, rtol=1e-6)
    np.testing.assert_allclose(changed(offset=-0.5), base - 0.5, atol=1e-6)
    np.testing.assert_array_equal(changed(clip=1.0), np.where(base < 1, 0, base))
    blurred = ndimage.gaussian_filter(base, 1.7, mode="nearest", truncate=6 / 1.7 + 0.01)
    np.testing.assert_allclose(changed(blur=1.7), blurred, atol=1e-3)
    added = changed(noise=3.0) - base
    assert np.std(added) == pytest.approx(3.0, rel=0.1) and abs(added.mean()) < 0.4
    erased = changed(erase=(0.25, 0.5, 0.25, 0.125))
    assert (erased[16:20, 8:16] == 0).all() and (erased != base).sum() == 32
    assert not ViewChange(angle=1.0).of_pixels


def test_augmentations_are_drawn_from_their_ranges() -> None:
    augment = CutoutAugment(
        noise=(0.5, 1.0), gain=(0.5, 2.0), offset=(-1, 1), blur=(1, 2), blur_probability=0.5, clip=(3, 3),
        clip_probability=0.25, erase=(0.1, 0.2), erase_probability=1.0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = [augment.draw(rng) for _ in range(800)]
    assert 0.5 <= min(c.noise for c in drawn) < 0.52 and 0.98 < max(c.noise for c in drawn) <= 1
    logs = np.log2([c.gain for c in drawn])
    assert np.abs(logs).max() <= 1 and abs(logs.mean()) < 0.08  # log-uniform
    assert np.mean([c.blur > 0 for c in drawn]) == pytest.approx(0.5, abs=0.06)
    assert {c.clip for c in drawn} == {0.0, 3.0} and np.mean([c.clip > 0 for c in drawn]) == pytest.approx(
        0.25, abs=0.05
    )
    for c in drawn:
        left, lower, width, height = c.erase
        assert 0.1 - 1e-9 <= width * height <= 0.2 + 1e-9 and 0.5 - 1e-9 <= width / height <= 2 + 1e-9
        assert left >= 0 and lower >= 0 and left + width <= 1 and lower + height <= 1
    assert PLAIN.draw(rng) == ViewChange()


def test_illegal_settings_are_refused(npz: Path) -> None:
    for values in ({"noise": (2.0, 1.0)}, {"gain": (0.0, 1.0)}, {"blur": (0.0, 11.0)}, {"erase_probability": 1.5}):
        with pytest.raises(ParameterError, match=next(iter(values))):
            CutoutAugment(**values)
    for changes, words in (
        ({"ms": ("a.ms",)}, "cannot both be given"),
        ({"weights": (1.0,)}, "weights"),
        ({"subbands": 2}, "one input channel"),
    ):
        with pytest.raises(ParameterError, match=words):
            config(npz, **changes)
    with pytest.raises(ParameterError, match="CutoutLoader"):
        Loader(config(npz))
    with pytest.raises(ParameterError, match="no fields in cutouts"):
        fields_of(config(npz))
    with pytest.raises(ParameterError, match="cutouts is empty"):
        CutoutLoader(LoaderConfig(ms=("a.ms",)))
