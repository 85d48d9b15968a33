"""Warnings about images: each fault is told of with its number, and sound images say nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers.measurement_sets import CENTRE
from vis2img.dataset import open_ms
from vis2img.errors import Vis2imgWarning
from vis2img.imaging.doubts import doubts
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.units import ARCSEC
from vis2img.visibilities import SPEED_OF_LIGHT


def _of(path, **changes) -> list[str]:
    ms = open_ms(path)
    return doubts(make_image(ms.read(), ms.imaging_params(**{"npix": 64, **changes})))


@pytest.mark.parametrize(
    "changes",
    [{}, {"npix": 128}, {"pixsize": 3 * ARCSEC}, {"taper": 60 * ARCSEC}, {"uvrange": (0.0, 500.0)}, {"robust": 2.0}],
)
def test_sound_images_say_nothing(make_ms, changes) -> None:
    assert _of(make_ms().path, **changes) == []


@pytest.mark.parametrize(("pixsize", "weighting"), [(60 * ARCSEC, "natural"), (200 * ARCSEC, "uniform")])
def test_pixels_that_leave_data_out_say_how_much(make_ms, pixsize: float, weighting: str) -> None:
    """The share by weight, counted one by one here; WSClean keeps the same ones."""
    made = make_ms()
    made.edit("WEIGHT", lambda w: np.random.default_rng(2).uniform(0.5, 2, w[:, :1].shape) * np.ones_like(w))
    vis = open_ms(made.path).read()
    uv = np.abs(vis.uvw[:, np.newaxis, :2] * vis.chan_freq[:, np.newaxis] / SPEED_OF_LIGHT).max(axis=2)
    share = vis.weight[uv > 1 / (2 * pixsize)].sum() / vis.weight.sum()
    image = make_image(vis, ImagingParams((64, 64), pixsize, weighting))
    assert image.off_grid == pytest.approx(share) and 0.2 < share < 1
    (text,) = doubts(image)
    assert f"are too coarse for {100 * share:.0f}% of the data by weight" in text


def test_pixels_far_finer_than_the_beam(make_ms) -> None:
    (text,) = _of(make_ms().path, pixsize=0.1 * ARCSEC, npix=128)
    assert "pixels wide, and 3 to 5 are enough" in text


def test_a_field_of_view_of_many_primary_beams(make_ms) -> None:
    (text,) = _of(make_ms(size_m=300.0).path, npix=256, pixsize=120 * ARCSEC)
    assert text.startswith("the image is 8.53deg wide, 5.63 primary beams of 1.5")


def test_a_place_far_from_the_pointing(make_ms) -> None:
    (text,) = _of(make_ms().path, phase_centre=(CENTRE[0], CENTRE[1] + np.radians(4.0)))
    assert text.startswith("the image is about a place 4deg from where the dishes pointed, 2.6")


def test_uvw_in_km(make_ms) -> None:
    made = make_ms()
    made.edit("UVW", lambda uvw: uvw / 1000)
    wide, text = _of(made.path)
    assert "primary beams of 1.5" in wide
    assert "is wider than the primary beam" in text and text.endswith("UVW holds m, were km written?")


def test_frequencies_in_ghz(make_ms) -> None:
    from casacore.tables import table

    made = make_ms()
    with table(f"{made.path}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
        t.putcol("CHAN_FREQ", t.getcol("CHAN_FREQ") / 1e9)
    (text,) = _of(made.path, pixsize=1e-4)
    assert text.startswith("the data are at 1.00") and "Hz, which no radio" in text


def test_commands_and_python_tell_of_it(make_ms, cli: Callable, tmp_path) -> None:
    path, how = make_ms().path, ("--npix", 64, "--pixsize", "100arcsec", "--no-png", "-o", tmp_path / "a.fits")
    done = cli("image", path, *how, "--intervals-out", 2, "--json")
    assert done.code == 0 and len(json.loads(done.out)["images"]) == 2
    (line,) = done.err.splitlines()
    assert line.startswith("vis2img: warning: pixels of 100arcsec are too coarse for ")
    assert cli("image", path, *how, "--quiet").err == ""
    ms = open_ms(path)
    with pytest.warns(Vis2imgWarning, match="too coarse"):
        ms.image(ms.imaging_params(npix=64, pixsize=200 * ARCSEC))
