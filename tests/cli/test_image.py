"""``vis2img image``: options reach the image, outputs are whole, the user's data stay as they are."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.helpers.command_line import fingerprint
from tests.helpers.measurement_sets import build_ms
from vis2img.cli.image import ImageCommand
from vis2img.configs.command_line import parse
from vis2img.coordinates import sky_position
from vis2img.imaging.fits import read_params

ARCSEC = math.pi / 648000

# Real sets: the words of the refusal, or None where there must be an image, and its least peak over noise.
REFUSED = {
    "alma_casacore_mssel": "100% flagged",
    "askap_racs_SB39400_small": "all UVW are zero",
    "ata_3c286_uvh5": "without a positive finite WEIGHT_SPECTRUM",
    "dish_dp3": "100% flagged",
    "dp3_bda_mini": "POLARIZATION table has no row",
    "meerkat_den_0h60s_sim": "CORRECTED_DATA holds zeros only",
    "mwa_1061316296_uvfits": "100% flagged",
    "mwa_1090008640_birli": "autocorrelations only",
    "paper_zen2456865": "Stokes I needs XX and YY",
}
IMAGED = {
    "alma_gpuvmem_freq78": 5,
    "alma_gpuvmem_hd142_b9": 5,
    "atca_miriad": 5,
    "casaformats_simple": 0,
    "dp3_ndppp_mini": 5,
    "hera_2458098_uvh5": 0,
    "karabo_oskar_sim": 20,
    "lofar_dp3_bda": 0,
    "lofar_dp3_generic": 3,
    "tart_2021": 5,
    "vla_tdem0003_irc10216": 5,
    "vlba_mojave_uvfits": 20,
}


def test_the_options_of_the_manual(make_ms, cli, tmp_path: Path) -> None:
    made = make_ms(columns=("DATA", "MODEL_DATA"), times=8)
    out = tmp_path / "out.fits"
    done = cli(
        "image", made.path, "--npix", "128,96", "--pixsize", "2arcsec", "--weighting", "briggs", "--robust", "-0.5",
        "--channels", "1:3", "--times", "0:5", "--uvrange", "100:20000", "--field", "SKY", "--spw", "0",
        "--column", "MODEL_DATA", "--phase-centre", "150.001,-30.001", "--taper", "10arcsec", "--antennas",
        "m000,m001,m003,5",
        "--psf", "-o", out, "--threads", "1",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.err == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ms", "out-psf.fits", "out.fits", "out.png"]
    for name in ("out.fits", "out-psf.fits", "out.png"):
        assert f"wrote {tmp_path / name}" in done.out
    params = read_params(out)
    assert params.npix == (128, 96) and params.pixsize == pytest.approx(2 * ARCSEC)
    assert (params.weighting, params.robust, params.uvrange) == ("briggs", -0.5, (100.0, 20000.0))
    assert params.taper == pytest.approx(10 * ARCSEC)
    assert params.phase_centre == pytest.approx((math.radians(150.001), math.radians(-30.001)))
    header = fits.getheader(out)
    assert header["VI_COLUM"] == "MODEL_DATA"
    assert 0 < header["VI_NVIS"] <= 6 * 5 * 2  # 4 antennas, 5 times, 2 channels
    assert fits.getdata(tmp_path / "out-psf.fits").max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-1,-30", (-1, -30)), ("10.5,-30.2", (10.5, -30.2)), ("0h42m0s,-45d30m0s", (10.5, -45.5))],
)
@pytest.mark.parametrize("joint", [" ", "="])
def test_negative_values_parse(text: str, expected: tuple[float, float], joint: str) -> None:
    argv = ["a.ms", *f"--phase-centre{joint}{text}".split(" "), *f"--robust{joint}-0.5".split(" ")]
    command = parse(ImageCommand, argv, "vis2img image")
    assert np.degrees(command.imaging.phase_centre) == pytest.approx(expected)
    assert command.imaging.robust == -0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pixsize", "2"], "--pixsize: '2' is not an angle"),
        (["--pixsize", "0arcsec"], "pixsize = 0.0 must be a positive number"),
        (["--npix", "33"], "use 32 or 34"),
        (["--npix", "16"], "at least 32"),
        (["--npix", "-64"], "at least 32"),
        (["--npix", "1024x768"], "--npix: '1024x768' is not an image size"),
        (["--channels", "3:1"], "channels 3:1 selects nothing"),
        (["--channels", "a:b"], "--channels: 'a:b' is not a range"),
        (["--times", "0-5"], "--times: '0-5' is not a range"),
        (["--uvrange", "20:10"], "keeps nothing"),
        (["--uvrange", "x"], "--uvrange: 'x' is not a uv range"),
        (["--weighting", "robust"], "--weighting: 'robust' is unknown; choose from natural"),
        (["--robust", "9"], "outside -5 to 5"),
        (["--robust", "nan"], "robust = nan"),
        (["--phase-centre", "10"], "--phase-centre: '10' is not a direction"),
        (["--phase-centre", "10,-100"], "beyond the pole"),
        (["--taper=-3arcsec"], "taper"),
        (["--weight-column", "SIGMA"], "--weight-column: 'SIGMA' is unknown"),
        (["--weightin", "natural"], "perhaps you meant --weighting"),
        (["--threads", "0"], "--threads 0"),
        (["--npix"], "--npix: a value is missing"),
        (["--npix", "4096", "--pixsize", "1deg"], "beyond the hemisphere"),
    ],
)  # fmt: skip
def test_bad_values_name_the_option(cli, tmp_path: Path, monkeypatch, options: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    message = cli("image", "no.ms", *options).error(2)
    assert words in message and "vis2img image --help" in message and "Annotated" not in message
    assert list(tmp_path.iterdir()) == []


def test_default_names_and_sizes(make_ms, cli, tmp_path: Path, monkeypatch) -> None:
    made = make_ms("my.field")
    monkeypatch.chdir(tmp_path)
    done = cli("image", f"{made.path}/", "--json")
    assert done.code == 0 and done.err == ""
    told = json.loads(done.out)
    assert told["outputs"] == ["my.field.fits", "my.field.png"]
    assert told["peak_jy_beam"] == pytest.approx(1, rel=1e-3)
    assert told["params"]["npix"][0] == told["params"]["npix"][1] >= 64
    assert told["nvis"] == 21 * 6 * 4 and told["column"] == "DATA"
    assert (tmp_path / "my.field.fits").is_file() and (tmp_path / "my.field.png").is_file()


def test_quiet_says_nothing(make_ms, cli, tmp_path: Path) -> None:
    done = cli("image", make_ms().path, "--npix", 64, "--quiet", "--no-png", "-o", tmp_path / "a.fits")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fits", "ms"]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("corrs", [("XX", "YY"), ("RR", "RL", "LR", "LL"), ("XX", "YY", "XY", "YX"), ("I",)])
def test_off_centre_source(make_ms, cli, tmp_path: Path, corrs: tuple[str, ...], descending: bool) -> None:
    """Flux and pixel as an explicit DFT predicts them, whatever the order of channels and correlations."""
    pixsize = 4 * ARCSEC
    made = make_ms(corrs=corrs, descending=descending, sources=[(1.5, 18 * pixsize, -7 * pixsize)])
    out = tmp_path / "a.fits"
    assert cli("image", made.path, "--npix", "128,64", "--pixsize", "4arcsec", "--no-png", "-o", out).code == 0
    data = fits.getdata(out)[0, 0]
    y, x = np.unravel_index(np.argmax(data), data.shape)
    assert (x, y) == (64 - 18, 32 - 7)
    assert data.max() == pytest.approx(1.5, rel=1e-3)


def test_phase_centre_moves_the_source_to_the_middle(make_ms, cli, tmp_path: Path) -> None:
    pixsize = 4 * ARCSEC
    l, m = 300 * pixsize, 200 * pixsize
    made = make_ms(sources=[(1.5, l, m)])
    ra, dec = sky_position(l, m, (math.radians(150), math.radians(-30)))
    centre = f"{math.degrees(ra):.10f},{math.degrees(dec):.10f}"
    out = tmp_path / "a.fits"
    done = cli(
        "image",
        made.path,
        "--npix",
        "64",
        "--pixsize",
        "4arcsec",
        "--no-png",
        "-o",
        out,
        "--phase-centre",
        centre,
    )
    assert done.code == 0, done.err
    data = fits.getdata(out)[0, 0]
    assert np.unravel_index(np.argmax(data), data.shape) == (32, 32)
    assert data.max() == pytest.approx(1.5, rel=1e-3)
    assert fits.getheader(out)["CRVAL1"] == pytest.approx(math.degrees(ra))


def test_nothing_of_the_users_is_modified(make_ms, cli, tmp_path: Path) -> None:
    path = make_ms(columns=("DATA", "CORRECTED_DATA"), weight_spectrum=True).path
    for lock in path.rglob("table.lock"):
        lock.unlink()
    before = fingerprint(path)
    assert cli("info", path).code == 0
    assert cli("image", path, "--npix", 64, "-o", tmp_path / "a.fits").code == 0
    assert cli("image", path, "--npix", 64, "-o", path / "a.fits").code == 1
    assert fingerprint(path) == before


UNPRIVILEGED = """
import os, sys
import vis2img.cli
if os.geteuid() == 0:
    # The interpreter may lie where only root reads: a first run imports everything that is imported late.
    warm, out = sys.argv[1:3]
    assert vis2img.cli.main(["image", warm, "--npix", "64", "--quiet", "--overwrite", "-o", out]) == 0
    import vis2img.cli.info
    os.setegid(65534)
    os.seteuid(65534)
codes = [vis2img.cli.main(part.split(chr(10))) for part in sys.argv[3:]]
sys.exit(max(codes))
"""


@pytest.fixture
def unprivileged(tmp_path: Path):
    """Run the command line as a user to whom permissions mean something."""
    warm = [build_ms(tmp_path / "warm.ms").path, tmp_path / "warm.fits"]

    def run(*commands: list[object]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", UNPRIVILEGED, *map(str, warm), *("\n".join(map(str, c)) for c in commands)]
        return subprocess.run(command, capture_output=True, text=True, cwd="/")

    return run


@pytest.fixture
def open_folder():
    """A folder that everybody may enter: those of pytest are the user's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_read_only_measurement_set(open_folder: Path, unprivileged) -> None:
    path = build_ms(open_folder / "obs.ms").path
    for lock in path.rglob("table.lock"):
        lock.unlink()
    for item in [path, *path.rglob("*")]:
        item.chmod(0o555 if item.is_dir() else 0o444)
    out = open_folder / "out"
    out.mkdir()
    out.chmod(0o777)
    before = fingerprint(path)
    done = unprivileged(["info", path], ["image", path, "--npix", 64, "-o", out / "a.fits"])
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.name for p in out.iterdir()) == ["a.fits", "a.png"]
    assert fingerprint(path) == before
    path.chmod(0o755)


def test_a_read_only_output_folder(open_folder: Path, unprivileged) -> None:
    path = build_ms(open_folder / "obs.ms").path
    out = open_folder / "out"
    out.mkdir()
    out.chmod(0o555)
    done = unprivileged(["image", path, "--npix", 64, "-o", out / "a.fits"])
    assert done.returncode == 1
    assert done.stderr == (
        f"vis2img: error: {out}/a.fits cannot be written: no permission to write in the folder {out}\n"
    )
    assert list(out.iterdir()) == []


def test_modes_of_new_files_follow_the_umask(make_ms, cli, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert cli("image", make_ms().path, "--npix", 64, "-o", tmp_path / "a.fits").code == 0
    finally:
        os.umask(before)
    assert {oct((tmp_path / n).stat().st_mode & 0o777) for n in ("a.fits", "a.png")} == {"0o640"}


WIDE = "most of it is noise and sidelobes (fewer pixels with --npix)"


@pytest.mark.parametrize("name", [*REFUSED, *IMAGED])
def test_real_sets(real_ms, cli, tmp_path: Path, name: str) -> None:
    path = real_ms(name)
    before = fingerprint(path)
    told = cli("info", path)
    assert told.code == 0 and told.err == "" and "telescope" in told.out
    facts = json.loads(cli("info", path, "--json").out)
    assert facts["nrow"] > 0 and facts["partitions"]
    out = tmp_path / "a.fits"
    done = cli("image", path, "--npix", "256", "--no-png", "--json", "-o", out)
    if name in REFUSED:
        message = done.error(1)
        assert REFUSED[name] in message and name in message
        assert list(tmp_path.iterdir()) == []
    else:
        assert done.code == 0, done.err
        wide = [f"vis2img: warning: the image is 109deg wide, 11.1 primary beams of 9.81deg: {WIDE}"]
        assert done.err.splitlines() == (wide if name == "hera_2458098_uvh5" else [])
        data = fits.getdata(out)
        whole_sky = name in ("hera_2458098_uvh5", "tart_2021")  # corners beyond the horizon are blank
        assert np.isfinite(data).all() != whole_sky and np.nanstd(data) > 0
        made = json.loads(done.out)
        assert made["peak_jy_beam"] > IMAGED[name] * made["noise_jy_beam"]
    assert fingerprint(path) == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ata_3c286_uvh5", ["--weight-column", "none"]),
        ("meerkat_den_0h60s_sim", ["--column", "MODEL_DATA"]),
    ],
)
def test_the_advice_of_the_refusal_helps(real_ms, cli, tmp_path: Path, name: str, options: list[str]) -> None:
    done = cli("image", real_ms(name), "--npix", "128", "--no-png", "-o", tmp_path / "a.fits", *options)
    assert done.code == 0, done.err
    assert np.isfinite(fits.getdata(tmp_path / "a.fits")).all()


@pytest.mark.parametrize(
    ("name", "peak_jy", "tolerance"), [("karabo_oskar_sim", 1.0, 0.05), ("vlba_mojave_uvfits", 1.5, 0.15)]
)
def test_known_fluxes_at_the_centre(real_ms, cli, tmp_path: Path, name: str, peak_jy: float, tolerance: float) -> None:
    done = cli("image", real_ms(name), "--npix", "256", "--no-png", "--json", "-o", tmp_path / "a.fits")
    made = json.loads(done.out)
    assert made["peak_pixel"] == [128, 128]
    assert made["peak_jy_beam"] == pytest.approx(peak_jy, rel=tolerance)


@pytest.mark.wsclean
def test_wsclean_sees_the_same_sky(make_ms, cli, tmp_path: Path) -> None:
    """The sign convention of the synthetic sets and of the imager, by a peer."""
    import shutil

    if not shutil.which("wsclean"):
        pytest.skip("wsclean is not installed")
    pixsize = 4 * ARCSEC
    made = make_ms(sources=[(1.5, 18 * pixsize, -7 * pixsize), (0.4, -30 * pixsize, 20 * pixsize)])
    run = [
        "wsclean",
        "-size",
        "128",
        "96",
        "-scale",
        "4asec",
        "-weight",
        "natural",
        "-no-update-model-required",
    ]
    subprocess.run([*run, "-name", str(tmp_path / "w"), str(made.path)], check=True, capture_output=True, cwd=tmp_path)
    out = tmp_path / "a.fits"
    cli(
        "image",
        made.path,
        "--npix",
        "128,96",
        "--pixsize",
        "4arcsec",
        "--weighting",
        "natural",
        "--no-png",
        "-o",
        out,
    )
    ours, theirs = fits.getdata(out)[0, 0], fits.getdata(tmp_path / "w-dirty.fits")[0, 0]
    # WSClean is some percent off the explicit DFT on so few visibilities; positions and fluxes must agree.
    for x, y, flux in ((64 - 18, 48 - 7, 1.5), (64 + 30, 48 + 20, 0.4)):
        assert ours[y, x] == pytest.approx(theirs[y, x], abs=0.05)
        assert ours[y, x] == pytest.approx(flux, abs=0.25)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97
    mine, peer = fits.getheader(out), fits.getheader(tmp_path / "w-dirty.fits")
    for key in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2"):
        assert mine[key] == pytest.approx(peer[key], abs=1e-8), key
    assert [mine[f"CTYPE{i}"] for i in range(1, 5)] == [peer[f"CTYPE{i}"] for i in range(1, 5)]
