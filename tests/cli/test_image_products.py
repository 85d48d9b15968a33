"""``vis2img image`` with more than one image: cubes, intervals, draws, Stokes parameters, sets, primary beams."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from vis2img.dataset import open_ms
from vis2img.imaging.cubes import make_draws
from vis2img.imaging.fits import read_origin, read_selection
from vis2img.ms.selection import Selection

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


def test_summary_and_quick_look_are_of_the_mean_or_say_of_which(cli, make_ms, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr("vis2img.imaging.picture.draw_image", lambda image, ax, title: drawn.append((image, title)))
    made, out = make_ms(channels=6, sources=SOURCES), tmp_path / "a.fits"
    split = ("--channels-out", 3, "--overwrite", "-o", out)
    told = json.loads(cli("image", made.path, *SIZE, *split, "--json").out)
    mean = data(tmp_path / "a-MFS.fits")[0, 0]
    assert told["peak_jy_beam"] == pytest.approx(mean.max()) and told["nvis"] == 6 * 126
    assert told["freq_hz"] == pytest.approx(1.0125e9, rel=1e-3) and told["beam_deg"]
    text = cli("image", made.path, *SIZE, *split, "--intervals-out", 2).out
    assert "shown mean of 3 channel ranges, interval t0000 of 2" in text.splitlines()
    np.testing.assert_array_equal(drawn[0][0].data, mean)
    assert [title.splitlines()[-1] for _, title in drawn] == [
        "mean of 3 channel ranges",
        "mean of 3 channel ranges, interval t0000 of 2",
    ]


def test_beyond_the_horizon_there_is_no_sky(cli, make_ms, tmp_path) -> None:
    """Blank pixels are those that have no coordinates to astropy; the peak is another, however bright they would be."""
    made, out = make_ms(size_m=6.0, sources=((2.0, 0.3, -0.4), (1.0, -0.98, 0.1))), tmp_path / "a.fits"
    how = ("--npix", 64, "--pixsize", "1.7deg", "--weighting", "uniform", "--psf", "--json", "-o", out)
    told = json.loads(cli("image", made.path, *how).out)
    y, x = np.mgrid[:64, :64]
    ra, _ = WCS(fits.getheader(out)).celestial.all_pix2world(x, y, 0)
    assert 500 < np.isnan(ra).sum() < 700
    for name in ("a.fits", "a-psf.fits"):
        np.testing.assert_array_equal(np.isnan(data(tmp_path / name)[0, 0]), np.isnan(ra))
    pixels = data(out)[0, 0]
    assert told["peak_jy_beam"] == pytest.approx(np.nanmax(pixels)) and 0 < told["noise_jy_beam"] < 1
    assert (tmp_path / "a.png").stat().st_size > 1000


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


def test_a_flagged_part_is_a_blank_plane(cli, make_ms, tmp_path) -> None:
    """Of 4 planes and 3 intervals: one plane throughout, and one interval whole; the quick look shows another."""
    made = make_ms(times=6, channels=8, sources=SOURCES)

    def flag(flags):
        flags[:, 2:4] = True
        flags[: 2 * 21] = True  # the first two times
        return flags

    made.edit("FLAG", flag)
    out = tmp_path / "a.fits"
    result = cli("image", made.path, *SIZE, "--channels-out", 4, "--intervals-out", 3, "--psf", "--json", "-o", out)
    assert result.code == 0, result.err
    (line,) = result.err.splitlines()
    assert line.startswith("vis2img: warning: no visibility with weight is in 6 of the planes, which are blank: ")
    assert line.endswith("t0000-0000, t0000-0001, t0000-0002, t0000-0003, t0001-0001, t0002-0001")
    for t in range(3):
        planes, psf, mean = (data(tmp_path / f"a-t000{t}{kind}.fits")[0] for kind in ("", "-psf", "-MFS"))
        for c in range(4):
            assert np.isnan(planes[c]).all() == np.isnan(psf[c]).all() == (t == 0 or c == 1)
            assert np.isfinite(planes[c]).all() == (t > 0 and c != 1)
        assert np.isfinite(mean).all() == (t > 0)
    beams = fits.getdata(tmp_path / "a-t0001.fits", "BEAMS")
    assert (beams["BMAJ"] > 0).tolist() == [True, False, True, True]
    records = json.loads(result.out)["images"]
    assert [record["nvis"] > 0 for record in records] == [False, True, True]
    assert records[0]["peak_jy_beam"] is None and records[1]["peak_jy_beam"] > 0.5
    assert (tmp_path / "a.png").stat().st_size > 1000
    quiet = cli("image", made.path, *SIZE, "--intervals-out", 3, "--quiet", "--overwrite", "-o", out)
    assert (quiet.code, quiet.err, quiet.out) == (0, "", "")


def test_where_every_part_is_empty_nothing_is_written(cli, make_ms, tmp_path) -> None:
    made = make_ms(sources=SOURCES)
    result = cli("image", made.path, *SIZE, "--intervals-out", 3, "--uvrange", "1e6:2e6", "-o", tmp_path / "a.fits")
    assert "every plane is empty" in result.error() and not list(tmp_path.glob("a*"))


def test_the_mean_carries_the_beam_of_the_whole_band(cli, make_ms, tmp_path) -> None:
    """With natural weights the mean is the image of all channels, whose beam, epoch and size it must have."""
    made = make_ms(channels=8, times=8, sources=SOURCES)
    retune(made, 0.6e9 + 0.1e9 * np.arange(8))
    options = ("--npix", 128, "--pixsize", "20arcsec", "--weighting", "natural", "--no-png")
    assert cli("image", made.path, *options, "--channels-out", 4, "-o", tmp_path / "a.fits").code == 0
    assert cli("image", made.path, *options, "-o", tmp_path / "b.fits").code == 0
    mean, whole = fits.getheader(tmp_path / "a-MFS.fits"), fits.getheader(tmp_path / "b.fits")
    middle = fits.getdata(tmp_path / "a.fits", "BEAMS")["BMAJ"][2] / 3600
    assert mean["BMAJ"] == pytest.approx(whole["BMAJ"], rel=1e-3)
    assert mean["BMIN"] == pytest.approx(whole["BMIN"], rel=1e-3)
    assert middle != pytest.approx(whole["BMAJ"], rel=0.02)
    for key in ("DATE-OBS", "CRVAL3", "CDELT3", "VI_FREQ", "VI_NVIS"):
        assert mean[key] == (pytest.approx(whole[key]) if isinstance(whole[key], float) else whole[key])


def retune(made, freq) -> None:
    """Give the spectral window other channels."""
    from casacore.tables import table

    with table(f"{made.path}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
        t.putcell("CHAN_FREQ", 0, freq)
        t.putcell("CHAN_WIDTH", 0, np.full(len(freq), freq[1] - freq[0]))


def test_many_images_come_in_order_and_an_error_reaches_the_caller(make_ms) -> None:
    made = make_ms(times=8, sources=SOURCES)
    ms = open_ms(made.path)
    params = [ms.imaging_params(npix=64, keep_times=0.5, sampling_seed=i) for i in range(5)]
    images = [made for (made,) in make_draws([[ms.read()]], params, workers=3)]
    assert [image.params.sampling_seed for image in images] == list(range(5))
    with pytest.raises(Exception, match="keeps no visibility"):
        list(make_draws([[ms.read()]], [params[0], ms.imaging_params(npix=64, uvrange=(1e7, 2e7))], workers=2))


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
    # Half power at 1007.5 MHz by katbeam itself, whichever way the dishes are turned: 42.7 to 45.4 arcmin from the
    # centre with the receivers of UHF, in whose middle this is nearer, and of L band.
    assert 42.6 < np.interp(-0.5, -beam[32, 32:], 2.0 * np.arange(32)) < 45.5
    headers = [fits.getheader(tmp_path / f"a{kind}.fits") for kind in ("", "-pb", "-pbcor")]
    assert [header["BUNIT"] for header in headers] == ["JY/BEAM", "", "JY/BEAM"]
    at_l = tmp_path / "l.fits"
    assert cli("image", made.path, "--npix", 64, "--pixsize", "2arcmin", "--pb", "--pb-band", "L", "-o", at_l).code == 0
    of_l = data(tmp_path / "l-pb.fits")[0, 0]
    assert 42.6 < np.interp(-0.5, -of_l[32, 32:], 2.0 * np.arange(32)) < 45.5
    assert np.abs(of_l - beam).max() > 5e-3


def test_all_planes_of_a_cube_have_the_beam_of_one_receiver(cli, make_ms, tmp_path) -> None:
    """900 to 1687 MHz is L band: its lower planes lie in the UHF band as well, but are none of it."""
    katbeam = pytest.importorskip("katbeam")
    made = make_ms(channels=8, sources=SOURCES)
    freq = np.linspace(900e6, 1687e6, 8)
    retune(made, freq)
    out = tmp_path / "a.fits"
    options = ("--npix", 64, "--pixsize", "1arcmin", "--channels-out", 8, "--pb", "--no-png", "-o", out)
    assert cli("image", made.path, *options).code == 0
    beams = data(tmp_path / "a-pb.fits")[0]
    assert fits.getheader(tmp_path / "a-pb.fits")["BUNIT"] == ""
    x = 24 / 60  # degrees from the centre
    turns = np.linspace(0, 2 * np.pi, 64)  # whatever the parallactic angle: between the narrowest and the widest
    for i in range(8):
        model = katbeam.JimBeam("MKAT-AA-L-JIM-2020")
        around = [model.I(x * np.cos(a), x * np.sin(a), min(freq[i] / 1e6, model.freqMHzlist[-1])) for a in turns]
        assert min(around) - 1e-3 <= beams[i, 32, 8] <= max(around) + 1e-3
    # A selection of low channels is still of the same receiver.
    low = ("--npix", 64, "--pixsize", "1arcmin", "--channels", "0:1", "--pb", "--no-png", "-o", tmp_path / "b.fits")
    assert cli("image", made.path, *low).code == 0
    np.testing.assert_allclose(data(tmp_path / "b-pb.fits")[0, 0], beams[0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"telescope": "EVLA"}, "only for MeerKAT"),
        ({"freq": (1.0e10, 1.1e10)}, "no receiver band of MeerKAT"),
        ({"band": "S"}, "outside the S band"),
        ({"freq": (1.8e9, 2.0e9)}, "no S-band model"),
    ],
)
def test_no_beam_model_is_told_before_any_work(cli, make_ms, tmp_path, monkeypatch, options, message) -> None:
    made = make_ms(channels=2, telescope=options.get("telescope", "MeerKAT"))
    if "freq" in options:
        retune(made, np.array(options["freq"]))
    monkeypatch.setattr(
        "vis2img.dataset.measurement_set.MeasurementSet.read_parts", lambda *args, **kwargs: pytest.fail("it was read")
    )
    band = ("--pb-band", options["band"]) if "band" in options else ()
    result = cli("image", made.path, *SIZE, "--pb", *band, "-o", tmp_path / "a.fits")
    assert message in result.error() and not list(tmp_path.glob("a*"))


@pytest.mark.parametrize(
    "options",
    [
        ("--channels-out", 3),  # of 7 channels: not evenly spaced
        ("--channels-out", 3, "--stokes", "IQ", "--psf", "--pb"),
        ("--stokes", "IV", "--psf"),
        ("--stokes", "QI", "--channels-out", 7, "--pb", "--intervals-out", 2),
        ("--stokes", "IQUV", "--channels-out", 7, "--pb", "--psf"),
        ("--draws", 2, "--keep-times", 0.5, "--stokes", "IV", "--pb"),
        ("--channels-out", 2, "--band", 0.2, 0.7),
    ],
)
def test_files_are_known_before_the_data_are_read(cli, make_ms, tmp_path, monkeypatch, options) -> None:
    """Any file that will be written and is there already stops the run before it reads."""
    made = make_ms(channels=7, corrs=("XX", "XY", "YX", "YY"), sources=SOURCES)
    made.edit("DATA", lambda d: d + 0.1)  # something in every hand
    folder = tmp_path / "out"
    folder.mkdir()
    command = ("image", made.path, *SIZE, *options, "-o", folder / "a.fits")
    done = cli(*command, "--json")
    assert done.code == 0, done.err
    written = sorted(folder.iterdir())
    record = json.loads(done.out)
    outputs = [path for image in record.get("images", [record]) for path in image["outputs"]]
    assert sorted(outputs) == [str(path) for path in written]
    monkeypatch.setattr(
        "vis2img.dataset.measurement_set.MeasurementSet.read_parts", lambda *args, **kwargs: pytest.fail("it was read")
    )
    for path in written:
        for other in folder.iterdir():
            other.unlink()
        path.write_bytes(b"mine")
        assert f"{path} exists already" in cli(*command).error()
        assert path.read_bytes() == b"mine" and list(folder.iterdir()) == [path]


def test_what_was_read_is_in_every_header(cli, make_ms, tmp_path) -> None:
    made, second = (make_ms(name, times=6, field="A field", sources=SOURCES) for name in ("my obs", "other"))
    for each in (made, second):
        each.edit("DATA", lambda d: d * np.array([1.2, 0.8], np.complex64))
    options = (
        *("--field", "A field", "--channels", "0:2", "--times", "1:5", "--antennas", "m000,m001,m002,m004"),
        *("--weight-column", "WEIGHT", "--stokes", "IQ", "--channels-out", "2", "--intervals-out", "2", "--pb"),
    )
    assert cli("image", made.path, second.path, *SIZE, *options, "-o", tmp_path / "a.fits").code == 0
    expected = Selection(
        field="A field",
        channels=(0, 2),
        times=(1, 5),
        antennas=("m000", "m001", "m002", "m004"),
        weight_column="WEIGHT",
        stokes="IQ",
    )
    for t in range(2):
        for kind in ("", "-MFS", "-pb", "-pbcor"):
            path = tmp_path / f"a-t000{t}{kind}.fits"
            assert read_selection(path) == expected
            assert read_origin(path)["ms"] == [str(made.path), str(second.path)]
            split = read_origin(path)["split"]
            assert (split["intervals_out"], split["interval"]) == (2, t) and "channel" not in split
    out = tmp_path / "b.fits"
    assert (
        cli("image", made.path, *SIZE, "--channels-out", 3, "--stokes", "IQ", "--channels", "0:4", "-o", out).code == 0
    )
    assert read_origin(tmp_path / "b-0001-Q.fits")["split"]["channel"] == 1


def test_sets_that_hardly_belong_together_are_told_of(cli, make_ms, tmp_path) -> None:
    first = make_ms("first")
    near = make_ms("near", phase_centre=(np.radians(150.2), np.radians(-30.0)))
    far = make_ms("far", phase_centre=(np.radians(153.0), np.radians(-30.0)))
    other = make_ms("other", telescope="EVLA")
    for made, words in ((near, ""), (far, "2.6deg away, more than a primary beam"), (other, "EVLA, not MeerKAT")):
        result = cli("image", first.path, made.path, *SIZE, "--overwrite", "-o", tmp_path / "a.fits")
        assert result.code == 0 and words in result.err
        assert len(result.err.splitlines()) == bool(words)
    assert cli("image", first.path, far.path, *SIZE, "--quiet", "--overwrite", "-o", tmp_path / "a.fits").err == ""


def test_the_beam_stays_on_the_pointing_when_the_phase_centre_was_moved(cli, make_ms, tmp_path) -> None:
    """CASA, DP3 and chgcentre change PHASE_DIR; DELAY_DIR is still where the dishes looked, unless it is nonsense."""
    from casacore.tables import table

    for name, delay, peak in (
        ("moved", (150.0 + 0.2 / np.cos(np.radians(30)), -30.0), (32 - 12, 32)),  # 12 arcmin east, to the left
        ("none", (np.nan, np.nan), (32, 32)),
        ("zero", (0.0, 0.0), (32, 32)),
    ):
        made = make_ms(name, sources=SOURCES)
        with table(f"{made.path}/FIELD", readonly=False, ack=False) as t:
            t.putcell("DELAY_DIR", 0, np.radians([delay]))
        out = tmp_path / f"{name}.fits"
        assert cli("image", made.path, "--npix", 64, "--pixsize", "1arcmin", "--pb", "-o", out).code == 0
        power = data(tmp_path / f"{name}-pb.fits")[0, 0]
        y, x = np.unravel_index(power.argmax(), power.shape)
        assert (x, y) == (pytest.approx(peak[0], abs=2), pytest.approx(peak[1], abs=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--channels-out", 5), "channels_out = 5, but there are 4 channels"),
        (("--intervals-out", 9), "intervals_out = 9, but there are 6 times"),
        (("--channels-out", 0), "at least 1"),
        (("--draws", 2, "--keep-times", 0.5, "--channels-out", 2), "--draws"),
        (("--draws", 2), "--draws without thinning are all alike"),
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
    options = ("--npix", 128, "--json", "-o")
    alone = cli("image", real_ms("lofar_dp3_bda"), "--spw", 0, *options, tmp_path / "b.fits")
    assert json.loads(alone.out)["nvis"] < record["nvis"] == 635
    default = cli("image", real_ms("lofar_dp3_bda"), *options, tmp_path / "c.fits")
    assert json.loads(default.out)["nvis"] == record["nvis"]


def test_averaged_data_know_receiver_pointing_and_selection(cli, make_ms, tmp_path) -> None:
    """Blocks of an L band set, imaged with the primary beam; what was read of the averages is told, and of which."""
    made = make_ms(channels=8, times=8, sources=SOURCES)
    retune(made, np.linspace(900e6, 1687e6, 8))
    store = tmp_path / "a.zarr"
    options = ("--npix", 64, "--pixsize", "20arcsec", "--time-block", 32, "--channel-blocks", 4)
    done = cli("average", made.path, "-o", store, *options)
    assert done.code == 0, done.err
    options = ("--npix", 64, "--pixsize", "20arcsec", "--channels", "0:2", "--channels-out", 2, "--pb", "--no-png")
    done = cli("image", store, *options, "-o", tmp_path / "a.fits")
    assert done.code == 0, done.err
    assert cli("image", made.path, *(x if x != "0:2" else "0:4" for x in options), "-o", tmp_path / "b.fits").code == 0
    for kind, tolerance in (("", 0.02), ("-pb", 2e-3)):
        ours, direct = data(tmp_path / f"a{kind}.fits"), data(tmp_path / f"b{kind}.fits")
        np.testing.assert_allclose(ours, direct, atol=tolerance)
    assert read_selection(tmp_path / "a.fits") == Selection(channels=(0, 2))
    assert read_origin(tmp_path / "a.fits")["ms"] == [str(store)]


def test_a_set_that_is_named_twice_is_refused(cli, make_ms, tmp_path) -> None:
    made = make_ms()
    result = cli("image", made.path, made.path, *SIZE, "-o", tmp_path / "a.fits")
    assert result.code != 0 and "named twice" in result.err
    assert not list(tmp_path.glob("a*"))


def test_a_telescope_without_beam_is_told_before_its_band(cli, make_ms, tmp_path) -> None:
    made = make_ms(telescope="EVLA", channels=2)
    result = cli("image", made.path, *SIZE, "--pb", "-o", tmp_path / "a.fits")
    assert result.code != 0 and "no primary beam model for the telescope 'EVLA'" in result.err
