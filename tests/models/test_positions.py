"""Positions at other sizes: as PyTorch's interpolation with the arguments that the published codes give it."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers.torch_networks import NO_TORCH, resized
from vis2img.models.positions import RESIZINGS, resize_positions

SIZES = [(16, 16), (28, 14), (15, 40), (6, 6), (12, 7), (1, 3), (37, 37)]


def grid_of(side=14):
    return np.random.default_rng(0).normal(size=(side, side, 8)).astype(np.float32)


@pytest.mark.parametrize("resizing", RESIZINGS)
@pytest.mark.parametrize("size", SIZES)
def test_positions_are_resized_as_published(size, resizing):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    theirs = resized(torch.tensor(grid_of()).permute(2, 0, 1)[None], size, resizing)[0].permute(1, 2, 0)
    assert theirs.shape[:2] == size
    np.testing.assert_allclose(resize_positions(grid_of(), *size, resizing), theirs, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_antialiased_positions_are_pillows(size):
    """An oracle without PyTorch, of the filter that its own copies."""
    planes = np.moveaxis(grid_of(), -1, 0)
    expected = [Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC) for plane in planes]
    np.testing.assert_allclose(resize_positions(grid_of(), *size, "antialias"), np.stack(expected, -1), atol=1e-5)


@pytest.mark.parametrize("resizing", RESIZINGS)
def test_native_sizes_and_constants_stay(resizing):
    grid = grid_of()
    assert resize_positions(grid, 14, 14, resizing) is grid
    np.testing.assert_allclose(resize_positions(np.full((5, 5, 2), 3.0, np.float32), 3, 9, resizing), 3.0, atol=1e-5)


def test_no_two_ways_are_alike():
    first, *others = (np.asarray(resize_positions(grid_of(37), 16, 16, resizing)) for resizing in RESIZINGS)
    for other in others:
        assert np.linalg.norm(other - first) > 0.05 * np.linalg.norm(first)
