"""Every class is what its definition says: measured on the drawn components and on the rendered brightness."""

import dataclasses
import math

import numpy as np
import pytest

from tests.helpers.skies import ARCSEC, offsets, render
from vis2img.simulate.sky.draw import ALL_CLASSES, CLASSES, draw_sky, draw_source

SEEDS = range(25)
SIZE = 100 * ARCSEC


def drawn(name, seed):
    source = draw_source(np.random.default_rng(seed), name, 0.3, -0.2, 1.0, SIZE)
    return source, np.stack(offsets(source, 0.3, -0.2), axis=1)


def angle_between(first, second):
    return math.degrees(math.acos(np.clip(first @ second / np.linalg.norm(first) / np.linalg.norm(second), -1, 1)))


def test_the_default_mix_stays():
    assert CLASSES == ("compact", "fri", "frii", "bent")
    assert set(ALL_CLASSES) == {*CLASSES, "hybrid", "wat", "nat", "ddrg", "ring", "halo", "relic"}


def test_every_class_can_be_part_of_a_sky():
    sky = draw_sky(np.random.default_rng(1), (0.4, 0.2), 0.02, 22, ALL_CLASSES)
    assert sorted(s.class_name for s in sky) == sorted(2 * ALL_CLASSES)


@pytest.mark.parametrize("seed", SEEDS)
def test_hybrid_is_fri_on_one_side_and_frii_on_the_other(seed):
    source, points = drawn("hybrid", seed)
    core, hotspot = points[0], points[6]
    without = dataclasses.replace(
        source, components=source.components[1:], flux=source.flux - source.components[0].flux
    )
    image, east, north = render(without)
    axis = (hotspot - core) / np.linalg.norm(hotspot - core)
    along = (east - core[0]) * axis[0] + (north - core[1]) * axis[1]
    reach = {}
    for side in (1, -1):
        ends = [
            side * (point - core) @ axis + 0.5 * math.hypot(c.major * cos, c.minor * math.sqrt(1 - cos**2))
            for c, point in zip(source.components[1:], points[1:], strict=True)
            for cos in [abs(math.sin(c.pa) * axis[0] + math.cos(c.pa) * axis[1])]
        ]
        peak = np.argmax(np.where(side * along > 0, image, 0))
        reach[side] = side * along.flat[peak] / max(ends)
    assert reach[1] > 0.5 > reach[-1], reach


@pytest.mark.parametrize("seed", SEEDS)
def test_double_double_has_two_aligned_pairs(seed):
    source, points = drawn("ddrg", seed)
    n = (len(points) - 5) // 2  # of one outer lobe
    outer = points[1 : 1 + n].mean(axis=0), points[1 + n : 1 + 2 * n].mean(axis=0)
    inner = points[-4:-2].mean(axis=0), points[-2:].mean(axis=0)
    axes = outer[0] - outer[1], inner[0] - inner[1]
    # 10 degrees at most in the source's own frame; foreshortening by up to 2 can double the tangent.
    assert angle_between(*axes) < 20
    assert 0.08 < np.linalg.norm(axes[1]) / np.linalg.norm(axes[0]) < 0.75
    for pair in (outer, inner):
        assert (pair[0] - points[0]) @ (pair[1] - points[0]) < 0  # on opposite sides of the core
    steep = np.array([c.spectral_index for c in source.components])
    assert steep[-4:].mean() > steep[1 : 1 + 2 * n].mean() + 0.1  # the outer pair is the older one


@pytest.mark.parametrize(("name", "low", "high"), [("wat", 90, 160), ("nat", 8, 70)])
def test_angle_between_the_tails(name, low, high):
    angles = []
    for seed in range(60):
        _, points = drawn(name, seed)
        angles.append(angle_between(points[5] - points[0], points[10] - points[0]))
    assert low - 0.1 < min(angles) < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < max(angles) < high + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wide_angle_tail_bends_back_beyond_its_jets(seed):
    source, points = drawn("wat", seed)
    jets = angle_between(points[2] - points[0], points[7] - points[0])
    tails = angle_between(points[5] - points[2], points[10] - points[7])
    assert tails < jets - 5
    indices = [c.spectral_index for c in source.components]
    assert indices[5] < indices[2] - 0.2 and indices[10] < indices[7] - 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_narrow_angle_tail_has_its_head_at_one_end(seed):
    source, points = drawn("nat", seed)
    tail = points[5] + points[10] - 2 * points[0]
    along = (points[1:] - points[0]) @ tail / np.linalg.norm(tail)
    assert along.min() > 0
    flux = np.array([c.flux for c in source.components])
    assert flux[1:3].sum() > flux[4:6].sum() and flux[6:8].sum() > flux[9:11].sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_ring_has_a_hole(seed):
    source, points = drawn("ring", seed)
    parts = [c for c in source.components if c.major > 0]  # without the central source
    hollow = dataclasses.replace(source, components=tuple(parts), flux=sum(c.flux for c in parts))
    image, east, north = render(hollow)
    (l0, m0) = points[[c.major > 0 for c in source.components]].mean(axis=0)
    radius, angle = np.hypot(east - l0, north - m0), np.arctan2(north - m0, east - l0)
    centre = image[radius < 0.1 * SIZE].mean()
    rim = [image[(np.abs(angle - a) < 0.2) & (radius > 0.3 * SIZE)].max() for a in np.linspace(-2.9, 2.9, 12)]
    assert min(rim) > 2 * centre
    beyond = image[radius > 0.6 * SIZE].max()
    assert beyond < 0.1 * max(rim)
    assert all(c.spectral_index <= -0.8 for c in parts)


def test_some_rings_have_a_central_source():
    found = sum(any(c.major == 0 for c in drawn("ring", seed)[0].components) for seed in range(100))
    assert 45 <= found <= 75  # 60 of 100, 3 sigma


@pytest.mark.parametrize("seed", SEEDS)
def test_a_halo_is_exponential(seed):
    source, points = drawn("halo", seed)
    assert np.abs(points - points[0]).max() < 1e-9
    scale = SIZE / 6.5  # r_e along the major axis, as documented

    def brightness(r):
        return sum(
            c.flux / (c.major * c.minor) * math.exp(-4 * math.log(2) * (r / c.major) ** 2) for c in source.components
        )

    for r in (0.3, 0.5, 1.5, 2.0, 3.0, 4.0):
        assert brightness(r * scale) / brightness(scale) == pytest.approx(math.exp(1 - r), rel=0.04)
    assert all(-1.5 <= c.spectral_index <= -1.1 for c in source.components)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_relic_is_a_thin_arc_that_steepens_inwards(seed):
    source, points = drawn("relic", seed)
    image, east, north = render(source)
    weight = image / image.sum()
    mean = np.array([(weight * east).sum(), (weight * north).sum()])
    centred = np.stack([(east - mean[0]).ravel(), (north - mean[1]).ravel()])
    small, large = np.linalg.eigvalsh(centred * weight.ravel() @ centred.T)
    assert math.sqrt(large / small) > 2.2
    front, back = points[:7], points[7:]
    bulge = front[3] - (front[0] + front[6]) / 2  # from the chord outwards
    assert np.linalg.norm(bulge) > 0.03 * SIZE
    assert (front.mean(axis=0) - back.mean(axis=0)) @ bulge > 0  # the front is on the outside
    index = np.array([c.spectral_index for c in source.components])
    assert index[:7].min() > index[7:].max()
