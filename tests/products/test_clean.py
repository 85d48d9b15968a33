"""CLEAN images by WSClean: sources where and as bright as they are, the data untouched, errors in one line."""

import shutil

import numpy as np
import pytest

from tests.helpers.command_line import fingerprint
from vis2img.coordinates import lm_to_pixel
from vis2img.dataset import open_ms
from vis2img.draws.fits_field import FitsField
from vis2img.errors import OutputError, Vis2imgError
from vis2img.products.clean import clean_image


def needs_wsclean(test):
    missing = shutil.which("wsclean") is None
    return pytest.mark.wsclean(pytest.mark.skipif(missing, reason="WSClean is not installed")(test))


@pytest.fixture
def observed(make_ms):
    return make_ms(antennas=16, times=8, channels=4, sources=((3.0, 8e-4, -4e-4), (1.0, -9e-4, 5e-4)))


@needs_wsclean
def test_sources_are_where_they_are_and_sidelobes_are_gone(observed, tmp_path):
    ms = open_ms(observed.path)
    params = ms.imaging_params(npix=128)
    before = fingerprint(observed.path)
    out = clean_image(observed.path, params, tmp_path / "new" / "clean.fits")
    assert fingerprint(observed.path) == before
    assert [path.name for path in out.parent.iterdir()] == ["clean.fits"]
    draw, dirty = FitsField.open(out).draw(), ms.image(params).data
    clean = draw.data[0]
    assert clean.shape == dirty.shape
    for flux, l, m in observed.sources:
        x, y = (round(float(i)) for i in lm_to_pixel(l, m, params.npix, params.pixsize))
        assert min(x, y) > 8 and max(x, y) < 120
        around = clean[y - 2 : y + 3, x - 2 : x + 3]
        assert around.max() == pytest.approx(flux, rel=0.1)
        clean[y - 8 : y + 9, x - 8 : x + 9] = dirty[y - 8 : y + 9, x - 8 : x + 9] = 0
    assert np.abs(clean).max() < 0.1 * np.abs(dirty).max()
    with pytest.raises(OutputError, match="exists"):
        clean_image(observed.path, params, out)


@needs_wsclean
def test_views_are_stretched_by_the_noise_that_is_given_and_multiscale_keeps_the_flux(observed, tmp_path):
    ms = open_ms(observed.path)
    params = ms.imaging_params(npix=128)
    plain, told = (
        FitsField.open(
            clean_image(observed.path, params, tmp_path / f"{noise}.fits", noise=noise, multiscale=noise > 0)
        ).draw()
        for noise in (0.0, 0.25)
    )
    assert told.noise[0] == 0.25 and 0 < plain.noise[0] < 0.1
    assert told.data.max() == pytest.approx(plain.data.max(), rel=0.05)


@needs_wsclean
def test_what_wsclean_says_of_a_failure_is_passed_on(observed, tmp_path):
    params = open_ms(observed.path).imaging_params(npix=128)
    with pytest.raises(Vis2imgError, match=r"wsclean failed on .*nothere\.ms") as error:
        clean_image(tmp_path / "nothere.ms", params, tmp_path / "clean.fits")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*clean*"))


def test_a_missing_program_is_named_with_its_remedy(observed, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Vis2imgError, match="apt install wsclean"):
        clean_image(observed.path, open_ms(observed.path).imaging_params(npix=128), tmp_path / "clean.fits")
