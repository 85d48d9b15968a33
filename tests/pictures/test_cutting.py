"""Views of pictures: the middle of them, over their own noise, turned about it and mirrored beyond the edge."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.helpers.pictures import noisy_pictures
from vis2img.pictures.cutting import Pictures, Square, cut_picture, open_pictures, picture_noise
from vis2img.views.pixel_changes import ViewChange
from vis2img.views.stretch import Stretch

LINEAR = Stretch("linear")  # pixel values are the brightness over 5 times the noise


def central_views(pictures: Pictures, patch_npix: int, size: int, stretch: Stretch) -> np.ndarray:
    """Cut the whole patch of each picture, neither turned nor changed."""
    views = np.empty((len(pictures), size, size, 1), np.float32)
    for number in range(len(pictures)):
        cut_picture(pictures, number, Square(0.0, 0.0, float(patch_npix)), views[number, :, :, 0], stretch)
    return views


def one(image: np.ndarray, tmp_path: Path, patch: int = 16):
    """Open one picture."""
    path = tmp_path / "one.npz"
    np.savez(path, images=image[np.newaxis])
    return open_pictures([path], patch)


def test_an_unturned_whole_patch_is_the_middle_of_the_picture_over_its_noise(tmp_path: Path) -> None:
    image = noisy_pictures(1)[0]
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


def test_beyond_the_edge_a_turned_picture_is_mirrored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    opened = one(rng.normal(size=(32, 32)).astype(np.float32), tmp_path, 32)
    out = np.empty((32, 32), np.float32)
    cut_picture(opened, 0, Square(0, 0, 32.0), out, None, ViewChange(angle=math.pi / 4))
    assert 0.5 < np.std(out[:5, :5]) < 2 and np.isfinite(out).all()  # a corner is neither empty nor a smear


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_what_lies_beyond_the_edge_is_what_a_padded_picture_shows(
    tmp_path: Path, mirror: bool, angle: float, kind: type
) -> None:
    image = (noisy_pictures(1)[0][:41, :32] + 300).astype(kind)
    opened = one(image, tmp_path, 16)
    background = opened.background[0]
    padding = {"mode": "symmetric"} if mirror else {"constant_values": background}
    # Wide and shifted, so that a part of the view lies more than a whole picture away.
    wide = replace(opened, images=[np.pad(image, 200, **padding).astype(np.float32)])
    views = np.empty((2, 24, 24), np.float32)
    for pictures, view in zip((opened, wide), views, strict=True):
        cut_picture(
            pictures, 0, Square(12.3, -7.6, 110.0), view, None, ViewChange(angle=angle, zoom=0.3, mirror=mirror)
        )
    np.testing.assert_allclose(views[0], views[1], rtol=1e-4, atol=1e-4 * np.abs(views).max())
    assert ((views[0] == 0).mean() > 0.5) != mirror


@pytest.mark.parametrize("mirror", [True, False])
def test_a_zoomed_shifted_and_turned_view_is_that_of_scipy(tmp_path: Path, mirror: bool) -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(90, 80)), 4.0)
    opened = one(smooth.astype(np.float32), tmp_path, 40)
    x, y, side, angle, size = 25.0, -18.0, 52.0, 2.2, 40
    out = np.empty((size, size), np.float32)
    change = ViewChange(angle=angle, zoom=0.8, mirror=mirror)
    cut_picture(opened, 0, Square(x, y, side), out, None, change)

    b, a = (np.indices((size, size)) + 0.5) * side / size - side / 2
    a, b = a + x, b + y
    cos, sin = math.cos(angle), math.sin(angle)
    row, column = 44.5 + sin * a + cos * b, 39.5 + cos * a - sin * b
    mode = {"mode": "reflect"} if mirror else {"mode": "constant", "cval": opened.background[0]}
    wanted = ndimage.map_coordinates(smooth, [row, column], order=3, **mode) - opened.background[0]
    # But within a pixel or two of an edge where the picture breaks off.
    apart = np.maximum(np.abs(row - np.clip(row, 0, 89)), np.abs(column - np.clip(column, 0, 79)))
    edge = np.minimum.reduce([np.abs(row + 0.5), np.abs(row - 89.5), np.abs(column + 0.5), np.abs(column - 79.5)])
    far = (edge > 3) if not mirror else np.ones_like(edge, bool)
    assert (apart > 3).mean() > 0.1 and far.mean() > 0.6
    np.testing.assert_allclose((out * opened.noise[0])[far], wanted[far], atol=0.04 * np.abs(wanted).max())


def test_the_noise_of_rounded_cut_off_and_plain_pictures() -> None:
    noise = np.random.default_rng(1).normal(size=40_000)
    for sigma in (1.2, 4.0, 30.0):  # the plain median deviation of the first is 1 step, 24% too much
        assert picture_noise(np.rint(sigma * noise).astype(np.int16), True) == pytest.approx(sigma, rel=0.12)
    assert picture_noise((3 * noise).astype(np.float32), False) == pytest.approx(3.0, rel=0.03)
    cut = np.where(noise > 2.5, noise, 0.0).astype(np.float32)  # more than half are 0
    assert picture_noise(cut, False) == pytest.approx(2.5 / 3, rel=0.01)
    assert picture_noise(np.where(noise > 2.5, 9, 0).astype(np.uint8), True) == pytest.approx(0.37, abs=0.02)


def test_big_endian_and_wide_numbers_give_the_same_views(tmp_path: Path) -> None:
    views = {}
    for kind in ("<i2", ">i2", "<i4", "<f8", ">f4"):
        path = tmp_path / "kind.npz"
        np.savez(path, images=noisy_pictures().astype(kind))
        views[kind] = central_views(open_pictures([path], 32), 32, 16, LINEAR)
    np.testing.assert_array_equal(views["<i2"], views[">i2"])
    np.testing.assert_allclose(views["<f8"], views[">f4"], rtol=1e-6)
    np.testing.assert_allclose(views["<f8"], views["<i2"], rtol=0.2, atol=0.1)  # but for the noise, which is rounded
