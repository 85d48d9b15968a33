"""``vis2img image`` with more than one image: cubes, intervals, draws, Stokes parameters, sets, primary beams."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits

from vis2img.measurementset import open_ms
from vis2img.params import Selection
from vis2img.series import make_images

SIZE = ("--npix", "64", "--pixsize", "20arcsec")
SOURCES = ((1.0, 0.0005, 0.0008), (0.4, -0.001, 0.0003))


def data(path) -> np.ndarray:
    return fits.getdata(path)


def single(made, **changes) -> np.ndarray:
    selection = {k: changes.pop(k) for k in ("channels", "times", "stokes") if k in changes}
    ms = open_ms(made.path)
    selection = Selection(**selection)
    return ms.image(ms.imaging_params(selection, npix=64, pixsize=np.radians(20 / 3600), **changes), selection).data


def test_channels_out_writes_a_cube_and_its_mean(cli, make_ms, tmp_path) -> None:
    made = make_ms(channels=6, sources=SOURCES)
    out = tmp_path / "cube.fits"
    result = cli("image", made.path, *SIZE, "--channels-out", 3, "--psf", "-o", out, "--json")
    assert result.code == 0, result.err
    cube = data(out)
    assert cube.shape == (1, 3, 64, 64)
    for i in range(3):
        np.testing.assert_allclose(cube[0, i], single(made, channels=(2 * i, 2 * i + 2)), atol=1e-6)
    header = fits.getheader(out)
    assert header["CRVAL3"] == pytest.approx(1.0025e9) and header["CDELT3"] == pytest.approx(1e7)
    mean = data(tmp_path / "cube-MFS.fits")
    planes = data(tmp_path / "cube-psf.fits")
    assert planes.shape == cube.shape and planes[0, :, 32, 32] == pytest.approx([1, 1, 1], abs=1e-3)
    np.testing.assert_allclose(mean[0, 0], cube[0].mean(axis=0), atol=0.05)
    written = {str(path) for path in tmp_path.glob("cube*")}
    assert written == set(json.loads(result.out)["outputs"])


def test_channels_that_do_not_divide_evenly_become_files(cli, make_ms, tmp_path) -> None:
    made = make_ms(channels=7, sources=SOURCES)
    assert cli("image", made.path, *SIZE, "--channels-out", 3, "-o", tmp_path / "a.fits").code == 0
    names = {path.name for path in tmp_path.glob("a*.fits")}
    assert names == {"a-0000.fits", "a-0001.fits", "a-0002.fits", "a-MFS.fits"}
    np.testing.assert_allclose(data(tmp_path / "a-0002.fits")[0, 0], single(made, channels=(4, 7)), atol=1e-6)


def test_intervals_out(cli, make_ms, tmp_path) -> None:
    made = make_ms(times=5, sources=SOURCES)
    assert cli("image", made.path, *SIZE, "--intervals-out", 2, "-o", tmp_path / "a.fits").code == 0
    for i, times in enumerate([(0, 2), (2, 5)]):
        np.testing.assert_allclose(data(tmp_path / f"a-t000{i}.fits")[0, 0], single(made, times=times), atol=1e-6)
    starts = [fits.getheader(tmp_path / f"a-t000{i}.fits")["DATE-OBS"] for i in range(2)]
    assert starts == ["2020-01-01T06:00:00.000", "2020-01-01T06:00:16.000"]


def test_draws_differ_by_seed_and_replay(cli, make_ms, tmp_path) -> None:
    made = make_ms(times=8, sources=SOURCES)
    result = cli("image", made.path, *SIZE, "--draws", 3, "--keep-times", 0.5, "--sampling-seed", 7, "--json",
                 "-o", tmp_path / "a.fits")  # fmt: skip
    assert result.code == 0, result.err
    assert [image["params"]["sampling_seed"] for image in json.loads(result.out)["images"]] == [7, 8, 9]
    images = [data(tmp_path / f"a-d000{i}.fits")[0, 0] for i in range(3)]
    for i, image in enumerate(images):
        np.testing.assert_allclose(image, single(made, keep_times=0.5, sampling_seed=7 + i), atol=1e-6)
    assert np.abs(images[0] - images[1]).max() > 1e-3


def test_many_images_come_in_order_and_an_error_reaches_the_caller(make_ms) -> None:
    made = make_ms(times=8, sources=SOURCES)
    ms = open_ms(made.path)
    params = [ms.imaging_params(npix=64, keep_times=0.5, sampling_seed=i) for i in range(5)]
    images = list(make_images(ms.read(), params, workers=3))
    assert [image.params.sampling_seed for image in images] == list(range(5))
    with pytest.raises(Exception, match="keeps no visibility"):
        list(make_images(ms.read(), [params[0], ms.imaging_params(npix=64, uvrange=(1e7, 2e7))], workers=2))


def test_stokes_parameters_are_planes(cli, make_ms, tmp_path) -> None:
    made = make_ms(corrs=("XX", "XY", "YX", "YY"), sources=SOURCES)
    made.edit("DATA", lambda d: d * np.array([1.2, 0.1 + 0.3j, 0.1 - 0.3j, 0.8], np.complex64))
    made.edit("DATA", lambda d: np.stack([d[..., 0], d[..., 0] * 0.2, d[..., 0] * 0.2j, d[..., 3]], axis=-1))
    out = tmp_path / "a.fits"
    assert cli("image", made.path, *SIZE, "--stokes", "IQUV", "-o", out).code == 0
    cube = data(out)
    assert cube.shape == (4, 1, 64, 64) and fits.getheader(out)["CRVAL4"] == 1
    i, q, u, v = cube[:, 0]
    # XX = 1.2 s, YY = 0.8 s, XY = 0.24 s, YX = 0.24i s: I = s, Q = 0.2 s, U and V mix the cross-hands.
    np.testing.assert_allclose(q, 0.2 * i, atol=1e-5)
    for stokes, plane in zip("IQUV", (i, q, u, v), strict=True):
        np.testing.assert_allclose(plane, single(made, stokes=stokes), atol=1e-6)
    assert cli("image", make_ms("two").path, *SIZE, "--stokes", "IV").error().endswith("needs XY and YX, or RR and LL")


def test_measurement_sets_together(cli, make_ms, tmp_path) -> None:
    whole, first, second = (make_ms(name, times=6, sources=SOURCES) for name in ("whole", "first", "second"))
    for made, keep in ((first, slice(0, 3)), (second, slice(3, 6))):
        late = np.ones((6, 21), bool)
        late[keep] = False
        made.edit("FLAG", lambda flag, late=late: flag | late.reshape(-1, 1, 1))
    together = tmp_path / "both.fits"
    assert cli("image", first.path, second.path, *SIZE, "-o", together).code == 0
    np.testing.assert_allclose(data(together)[0, 0], single(whole), atol=1e-5)


def test_primary_beam(cli, make_ms, tmp_path) -> None:
    made = make_ms(sources=SOURCES)
    out = tmp_path / "a.fits"
    assert (
        cli("image", made.path, "--npix", 64, "--pixsize", "2arcmin", "--pb", "--pb-cutoff", 0.2, "-o", out).code == 0
    )
    image, beam, corrected = (data(tmp_path / f"a{kind}.fits")[0, 0] for kind in ("", "-pb", "-pbcor"))
    assert beam[32, 32] == pytest.approx(1, abs=1e-3) and beam.min() < 0.1
    inside = beam >= 0.2
    np.testing.assert_allclose(corrected[inside], image[inside] / beam[inside], rtol=1e-5)
    assert np.isnan(corrected[~inside]).all() and (~inside).any()
    # Half power at 1.01 GHz: 42.6 arcmin from the centre, scaled from 67 arcmin of L band at 1.284 GHz (Mauch et al.
    # 2020); the UHF receiver, whose band is nearer, has a beam 5% wider.
    assert np.interp(-0.5, -beam[32, 32:], 2.0 * np.arange(32)) == pytest.approx(42.6 * 1.05, rel=0.03)
    elsewhere = make_ms("vla", telescope="EVLA")
    assert "only for MeerKAT" in cli("image", elsewhere.path, *SIZE, "--pb", "-o", tmp_path / "b.fits").error()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--channels-out", 5), "channels_out = 5, but there are 4 channels"),
        (("--intervals-out", 9), "intervals_out = 9, but there are 6 times"),
        (("--channels-out", 0), "at least 1"),
        (("--draws", 2, "--channels-out", 2), "--draws"),
        (("--stokes", "IX"), "stokes 'IX'"),
        (("--tukey-taper", "500"), "tukey_taper"),
        (("--rank-filter", "0.5"), "rank_filter"),
        (("--spw", "one"), "is no spectral window"),
        (("--spw", "0,3"), "spectral window 3"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(cli, make_ms, tmp_path, options, message) -> None:
    result = cli("image", make_ms().path, *SIZE, *options, "-o", tmp_path / "a.fits")
    assert result.code != 0 and message in result.err
    assert not list(tmp_path.glob("a*"))


def test_existing_parts_are_not_replaced(cli, make_ms, tmp_path) -> None:
    (tmp_path / "a-t0001.fits").write_text("mine")
    result = cli("image", make_ms().path, *SIZE, "--intervals-out", 2, "-o", tmp_path / "a.fits")
    assert "a-t0001.fits" in result.error() and (tmp_path / "a-t0001.fits").read_text() == "mine"


def test_all_spectral_windows_of_a_real_set_are_named(cli, real_ms, tmp_path) -> None:
    """LOFAR after baseline-dependent averaging: windows of 3, 4, 1 and 8 channels."""
    out = tmp_path / "a.fits"
    result = cli("image", real_ms("lofar_dp3_bda"), "--spw", "all", "--npix", 128, "--json", "-o", out)
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert len(record["spw"].split(",")) > 1 and fits.getheader(out)["VI_SPW"] == record["spw"]
    alone = cli("image", real_ms("lofar_dp3_bda"), "--npix", 128, "--json", "-o", tmp_path / "b.fits")
    assert json.loads(alone.out)["nvis"] < record["nvis"]
