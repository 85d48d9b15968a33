"""Pictures as a source: every picture once in an epoch, centred, changed as asked; exact resume; what is left out."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage

from tests.helpers.pictures import noisy_pictures
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader import picture_source
from vis2img.loader.batches import Batch
from vis2img.loader.bench import measure
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import fields_of
from vis2img.loader.loader import Loader
from vis2img.pictures.cutting import Square, cut_picture, open_pictures
from vis2img.train.step import turn_views
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment
from vis2img.views.stretch import Stretch

VIEWS = ViewConfig(patch_npix=32, global_size=16, local_size=8, n_local=2)
LINEAR = Stretch("linear")  # pixel values are the brightness over 5 times the noise


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "cutouts.npz"
    np.savez(path, images_i16=noisy_pictures(), scale_mJy=np.full(7, 0.05, np.float32))
    return path


def config(*paths: Path, **changes: object) -> LoaderConfig:
    return LoaderConfig(cutouts=tuple(map(str, paths)), **{"batch_size": 4, "views": VIEWS, **changes})


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in vars(a))


def test_batches_have_fixed_shapes_and_every_picture_comes_once_in_an_epoch(npz: Path) -> None:
    with Loader(config(npz), seed=1) as loader:
        batches = [loader.next_batch() for _ in range(14)]
        report = loader.report()
    for batch in batches:
        assert batch.global_views.shape == (2, 4, 16, 16, 1) and batch.global_views.dtype == np.float32
        assert batch.local_views.shape == (2, 4, 8, 8, 1) and batch.turns.shape == (4, 4) and len(batch) == 4
        arrays = batch.arrays()
        assert set(arrays) == {"global", "local", "turns", "imaging", "item", "patch", "sky"}
        assert {x.shape[1] for x in arrays.values()} == {4} and arrays["item"].tolist() == [batch.item.tolist()]
        assert np.isnan(arrays["imaging"]).all() and np.isnan(arrays["sky"]).all() and np.isnan(arrays["patch"]).all()
        assert np.isfinite(batch.global_views).all() and np.isfinite(batch.local_views).all()
    order = np.concatenate([batch.item for batch in batches]).reshape(8, 7)
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
             "clip_probability": 0.5, "erase_probability": 0.5, "zoom": (0.7, 1.4), "shift": 0.1,
             "power": (0.5, 2.0)}  # fmt: skip
    wanted = config(npz, augment=CutoutAugment(**every), cutters=1, prefetch=1)
    with Loader(wanted, seed=1) as loader:
        first = [loader.next_batch() for _ in range(6)]
    with Loader(replace(wanted, cutters=3, prefetch=5), seed=1) as loader:
        again = [loader.next_batch() for _ in range(3)]
        state = json.loads(json.dumps(loader.state()))  # batches cut ahead do not count
    assert state["batches"] == 3 and all(same(a, b) for a, b in zip(first, again, strict=False))
    with Loader(wanted, seed=1, state=state) as loader:
        assert all(same(loader.next_batch(), batch) for batch in first[3:])
    with Loader(wanted, seed=2) as loader:
        assert not same(loader.next_batch(), first[0])
    assert not any(np.array_equal(a.global_views, b.global_views) for a, b in pairwise(first))


def test_hosts_share_a_batch_without_doubles(npz: Path) -> None:
    with Loader(config(npz), seed=1) as loader:
        whole = loader.next_batch()
    for host in range(2):
        with Loader(config(npz), seed=1, host=host, hosts=2) as loader:
            part = loader.next_batch()
        np.testing.assert_array_equal(part.global_views, whole.global_views[:, 2 * host : 2 * host + 2])
        np.testing.assert_array_equal(part.item, whole.item[2 * host : 2 * host + 2])
    with pytest.raises(ParameterError, match="not a multiple of the 3 hosts"):
        Loader(config(npz), hosts=3)


def test_a_wait_that_a_signal_ends_loses_no_batch(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loader(config(npz), seed=1) as loader:
        first = [loader.next_batch() for _ in range(2)]
    started, slow = threading.Event(), picture_source.cut_pictures

    def wait_and_cut(*arguments: Any) -> Batch:
        started.set()
        time.sleep(0.5)
        return slow(*arguments)

    def interrupt(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(picture_source, "cut_pictures", wait_and_cut)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Loader(config(npz), seed=1) as loader:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(InterruptedError):
                loader.next_batch()
            assert started.is_set() and loader.state()["batches"] == 0
            assert all(same(loader.next_batch(), batch) for batch in first)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_other_pictures_than_those_of_the_start_are_refused(npz: Path) -> None:
    with Loader(config(npz), seed=1) as loader:
        loader.next_batch()
        state = loader.state()
    changed = noisy_pictures()
    changed[3, 20, 20] += 1
    np.savez(npz, images_i16=changed)
    with pytest.raises(Vis2imgError, match=r"cutouts\.npz: these are not the pictures"):
        Loader(config(npz), seed=1, state=state)


def test_sources_in_the_middle_stay_there_under_every_turn(npz: Path) -> None:
    views = replace(VIEWS, global_scale=(1.0, 1.0), n_local=0, stretch=LINEAR, global_size=32)
    with Loader(config(npz, views=views, augment=CutoutAugment()), seed=0) as loader:
        batch = loader.next_batch()
    turned = np.asarray(turn_views({k: v for k, v in batch.arrays().items() if k != "local"})["global"])
    for view in turned.reshape(-1, 32, 32):
        peak = np.where(view > 0.4 * view.max(), view, 0)
        assert ndimage.center_of_mass(peak) == pytest.approx((15.5, 15.5), abs=0.5)


def test_small_pictures_lie_in_background_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    np.savez(path, images=noisy_pictures(3, npix=20) + np.random.default_rng(0).uniform(size=(20, 20)))
    views = replace(VIEWS, patch_npix=40, global_scale=(1.0, 1.0), global_size=40, n_local=0, rotate=False)
    for zoom, filled in ((1.0, 20), (2.0, 40)):
        augment = CutoutAugment(rotate=False, zoom=(zoom, zoom), beyond="background")
        with Loader(config(path, views=views, augment=augment, batch_size=3), seed=0) as loader:
            batch = loader.next_batch()
        assert np.unique(batch.box[..., 2]) == pytest.approx(40 / zoom)
        shown = (batch.global_views[..., 0] != 0).mean(axis=(0, 1)) > 0.5
        assert shown.sum() == filled**2 and shown[20 - filled // 2 : 20 + filled // 2].sum() == filled**2
    with pytest.raises(Vis2imgError, match=r"20 x 20 pixels are fewer than views\.patch_npix = 40"):
        Loader(config(path, views=views))


def test_blank_pixels_become_background_and_bad_pictures_are_named(tmp_path: Path) -> None:
    images = noisy_pictures(6).astype(np.float64) + 50
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
    with Loader(config(path, views=views), seed=0) as loader:
        batches = [loader.next_batch() for _ in range(4)]
        assert list(loader.unused().values()) == why
    assert all(np.isfinite(batch.global_views).all() and np.isfinite(batch.local_views).all() for batch in batches)
    out = np.empty((48, 48), np.float32)
    cut_picture(opened, 1, Square(0, 0, 48.0), out)
    assert (out[:, :4] == 0).all() and (out[:, 6:] != 0).mean() > 0.85  # whole numbers may be the median


def test_files_and_folders_are_read_and_what_cannot_be_is_told_in_one_line(npz: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fits"
    folder.mkdir()
    for i, image in enumerate(noisy_pictures(3, npix=60, seed=4)):
        fits.writeto(folder / f"{i}.fits", image)
    small = tmp_path / "small.npz"
    np.savez(small, images_u8=np.ones((2, 20, 20), np.uint8))
    opened = open_pictures([npz, folder, small], 32)
    assert len(opened) == 10 and len(opened.skipped) == 2
    assert opened.images[0].dtype == np.int16 and opened.images[0].base is opened.images[6].base  # as stored, one copy
    assert opened.images[7].shape == (60, 60) and opened.images[7].dtype == np.int16
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
            Loader(config(path))
        assert "\n" not in str(error.value)


def test_illegal_settings_are_refused(npz: Path) -> None:
    for values in ({"noise": (2.0, 1.0)}, {"gain": (0.0, 1.0)}, {"blur": (0.0, 11.0)}, {"erase_probability": 1.5},
                   {"zoom": (0.1, 1.0)}, {"power": (2.0, 1.0)}, {"shift": 0.6}, {"beyond": "zero"}):  # fmt: skip
        with pytest.raises(ParameterError, match=next(iter(values))):
            CutoutAugment(**values)
    for changes, words in (
        ({"ms": ("a.ms",)}, "cannot both be given"),
        ({"weights": (1.0,)}, "weights"),
        ({"subbands": 2}, "one input channel"),
    ):
        with pytest.raises(ParameterError, match=words):
            config(npz, **changes)
    with pytest.raises(ParameterError, match="nothing to measure"):
        measure(config(npz))
    with pytest.raises(ParameterError, match="no fields in cutouts"):
        fields_of(config(npz))
