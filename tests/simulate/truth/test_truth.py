"""What is true in a picture agrees with astropy's own projections and with analytic Gaussians."""

import json
import math
import time

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.simulate.sky.catalogue import write_catalogue
from vis2img.simulate.sky.source import SkyComponent, SkyCutout, SkySource, single_component_source
from vis2img.simulate.truth.masks_file import write_masks
from vis2img.simulate.truth.truth import Truth

ARCSEC = 4.84813681109536e-06
RA, DEC = math.radians(60), math.radians(-30)


def gaussian(ra=RA, dec=DEC, flux=1.0, major=0.0, minor=None, pa=0.0, *, number=0, name="compact", index=0.0):
    """Return a source of one component; sizes in arcsec, angle in degrees."""
    minor = major if minor is None else minor
    part = SkyComponent(ra, dec, flux, 1.4e9, major * ARCSEC, minor * ARCSEC, math.radians(pa), index)
    return single_component_source(number, name, part)


def tangent_wcs(ra=RA, dec=DEC, pixel=2.0, npix=(120, 80), turn=0.0, kind="SIN"):
    """Return a WCS with the pixel scale in arcsec, turned by an angle in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.crval = [math.degrees(ra), math.degrees(dec)]
    wcs.wcs.crpix = [npix[0] // 2 + 1, npix[1] // 2 + 1]
    sin, cos = math.sin(math.radians(turn)), math.cos(math.radians(turn))
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * pixel / 3600
    wcs.wcs.lonpole = 180.0
    wcs.wcs.radesys = "ICRS"
    wcs.pixel_shape = npix
    return wcs


def away(ra, dec, distance, angle):
    """Return the direction ``distance`` arcsec away at a position angle in degrees, by astropy."""
    there = SkyCoord(ra, dec, unit="rad").directional_offset_by(angle * u.deg, distance * u.arcsec)
    return there.ra.rad, there.dec.rad


def moments(image):
    """Return flux, mean (x, y) and covariance of an image [y, x]."""
    y, x = np.indices(image.shape)
    flux = image.sum()
    mean = np.array([(image * x).sum(), (image * y).sum()]) / flux
    offset = np.stack([x - mean[0], y - mean[1]])
    return flux, mean, np.einsum("iyx,jyx,yx->ij", offset, offset, image) / flux


@pytest.mark.parametrize("kind", ["SIN", "TAN", "CAR"])
@pytest.mark.parametrize("turn", [0, 37, 205])
def test_an_off_centre_source_is_in_the_pixel_astropy_says(kind, turn):
    position = away(RA, DEC, 55.0, 290)
    wcs = tangent_wcs(turn=turn, kind=kind)
    view = Truth([gaussian(*position, flux=0.3)]).at(wcs, (80, 120))
    x, y = map(float, wcs.world_to_pixel(SkyCoord(*position, unit="rad")))
    assert (view.x[0], view.y[0]) == pytest.approx((x, y), abs=1e-6)
    assert math.hypot(view.x[0] - 60, view.y[0] - 40) == pytest.approx(27.5, abs=0.5)  # off centre in both
    image = view.brightness()
    assert image.shape == (80, 120) and image[round(y), round(x)] == pytest.approx(0.3)
    assert np.argwhere(view.mask(0)).tolist() == [[round(y), round(x)]]
    x0, y0, x1, y1 = view.boxes()[0]
    assert (x0, y0, x1, y1) == pytest.approx((x - 0.5, y - 0.5, x + 0.5, y + 0.5), abs=1e-6)


def test_galactic_images_are_turned_into_their_own_frame():
    centre = SkyCoord(RA, DEC, unit="rad").galactic
    wcs = tangent_wcs(centre.l.rad, centre.b.rad)
    wcs.wcs.ctype = ["GLON-SIN", "GLAT-SIN"]
    position = away(RA, DEC, 40.0, 20)
    view = Truth([gaussian(*position)]).at(wcs, (80, 120))
    x, y = map(float, wcs.world_to_pixel(SkyCoord(*position, unit="rad")))
    assert (view.x[0], view.y[0]) == pytest.approx((x, y), abs=1e-4)


@pytest.mark.parametrize(("kind", "radesys"), [("ELON", ""), ("RA--", "GAPPT")])
def test_frames_that_astropy_does_not_know_are_refused(kind, radesys):
    wcs = tangent_wcs(RA, DEC)
    wcs.wcs.ctype = ["ELON-SIN", "ELAT-SIN"] if kind == "ELON" else wcs.wcs.ctype
    wcs.wcs.equinox, wcs.wcs.radesys = 1950.0, radesys
    with pytest.raises(ParameterError, match=radesys or "axes ELON, ELAT"):
        Truth([gaussian(RA, DEC)]).at(wcs, (80, 120))


def test_cubes_and_swapped_axes():
    position = away(RA, DEC, 55.0, 290)
    plain = tangent_wcs(turn=37)
    x, y = map(float, plain.world_to_pixel(SkyCoord(*position, unit="rad")))
    cube = WCS(naxis=3)
    cube.wcs.ctype = ["RA---SIN", "DEC--SIN", "FREQ"]
    cube.wcs.crval, cube.wcs.crpix = [*plain.wcs.crval, 1e9], [*plain.wcs.crpix, 1]
    cube.wcs.cd = np.block([[plain.wcs.cd, np.zeros((2, 1))], [np.zeros((1, 2)), np.full((1, 1), 1e6)]])
    swapped = WCS(naxis=2)
    swapped.wcs.ctype = ["DEC--SIN", "RA---SIN"]
    swapped.wcs.crval, swapped.wcs.crpix, swapped.wcs.cd = plain.wcs.crval[::-1], plain.wcs.crpix, plain.wcs.cd[::-1]
    for wcs in (cube, swapped):
        view = Truth([gaussian(*position)]).at(wcs, (80, 120))
        assert (view.x[0], view.y[0]) == pytest.approx((x, y), abs=1e-6)


def test_a_picture_of_the_whole_sky_holds_all():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt, wcs.wcs.crpix = ["RA---AIT", "DEC--AIT"], [-2, 2], [90.5, 45.5]
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 2 * math.pi, 300), np.arcsin(rng.uniform(-1, 1, 300))
    sources = [gaussian(*p, number=i) for i, p in enumerate(zip(ra, dec, strict=True))]
    view = Truth(sources).at(wcs, (90, 180))
    assert len(view) == 300 and view.brightness().sum() == pytest.approx(300)


def test_patches_are_sin_with_north_up():
    sources = [gaussian(*away(RA, DEC, 30.0, angle), number=angle) for angle in (0, 90)]
    view = Truth(sources).at_patch((RA, DEC), 2 * ARCSEC, (50, 40))
    assert view.shape == (40, 50)
    assert np.stack([view.x, view.y], 1) == pytest.approx(np.array([[25, 35], [10, 20]]), abs=1e-4)
    wcs = tangent_wcs(npix=(50, 40))
    there = Truth(sources).at(wcs, (40, 50))
    assert np.stack([there.x, there.y]) == pytest.approx(np.stack([view.x, view.y]), abs=1e-6)


@pytest.mark.parametrize(
    ("major", "minor"), [(0.0, 0.0), (0.8, 0.5), (3.0, 3.0), (25.0, 0.0), (25.0, 10.0), (40.0, 1.0)]
)
def test_flux_position_and_shape_of_a_gaussian(major, minor):
    position, pa = away(RA, DEC, 20.0, 250), 30.0
    source = gaussian(*position, flux=0.7, major=major, minor=minor, pa=pa)
    view = Truth([source]).at(tangent_wcs(npix=(140, 120)), (120, 140))
    flux, mean, covariance = moments(view.brightness())
    assert flux == pytest.approx(0.7, rel=1e-3)
    assert mean == pytest.approx([view.x[0], view.y[0]], abs=0.5 if major < 1 else 0.01)
    sin, cos = math.sin(math.radians(pa)), math.cos(math.radians(pa))
    axes = np.array([[-sin, -cos], [cos, -sin]])  # x to the west: major axis to the upper left
    expected = axes @ np.diag([(major / 2) ** 2, (minor / 2) ** 2]) @ axes.T / (8 * math.log(2))
    if major >= 3:
        assert covariance == pytest.approx(expected + np.eye(2) / 12, abs=0.03)  # a pixel adds 1/12


def test_fluxes_follow_the_frequency():
    truth = Truth([gaussian(flux=1.0, index=-0.8)])
    view = truth.at_patch((RA, DEC), ARCSEC, 32, freq=0.7e9)
    assert view.flux[0] == pytest.approx(2**0.8) and view.brightness().sum() == pytest.approx(2**0.8)
    assert len(truth.at_patch((RA, DEC), ARCSEC, 32, min_flux=1.5)) == 0
    assert len(truth.at_patch((RA, DEC), ARCSEC, 32, freq=0.7e9, min_flux=1.5)) == 1


def lopsided(pa_deg, npix=(31, 21), pixel=2.0):
    """Return a source that is a cutout: a bright blob to the east and a faint one to the north, x to the west."""
    pixels = np.zeros(npix[::-1], np.float32)
    pixels[10:12, 4:7] = 1.0  # east: x below the reference 15
    pixels[17:19, 15:17] = 0.25
    cutout = SkyCutout(pixels, pixel * ARCSEC, RA, DEC, 1.4e9, math.radians(pa_deg))
    return SkySource(0, "fri", RA, DEC, cutout.flux, 40 * ARCSEC, cutout=cutout)


@pytest.mark.parametrize("scale", [0.7, 2.0, 3.1])
@pytest.mark.parametrize("pa", [0, 90, 30])
def test_cutouts_turn_north_through_east(pa, scale):
    source = lopsided(pa)
    view = Truth([source]).at_patch((RA, DEC), scale * ARCSEC, (100, 96))
    image = view.brightness()
    assert image.sum() == pytest.approx(source.flux, rel=3e-3)
    # By hand: the eastern blob is 10 pixels of 2 arcsec off at 90 degrees, half a pixel to the north; pa is added.
    east, north = 20.0, 1.0
    angle, distance = math.degrees(math.atan2(east, north)) + pa, math.hypot(east, north)
    x = 50 - distance * math.sin(math.radians(angle)) / scale
    y = 48 + distance * math.cos(math.radians(angle)) / scale
    blob = image.copy()
    rows, columns = np.indices(image.shape)
    blob[np.hypot(columns - x, rows - y) * scale > 9] = 0
    flux, mean, _ = moments(blob)
    assert flux == pytest.approx(6.0, rel=0.01) and mean == pytest.approx([x, y], abs=0.05)


@pytest.mark.parametrize("turn", [0, 40])
def test_a_beam_blurs_gaussians_and_cutouts_and_keeps_the_flux(turn):
    truth = Truth([lopsided(30), gaussian(*away(RA, DEC, 50, 200), flux=2.0, number=1)])
    beam = (16 * ARCSEC, 8 * ARCSEC, math.radians(60))
    wcs = tangent_wcs(npix=(128, 128), turn=turn)
    wcs.wcs.cd = wcs.wcs.cd * [1.0, 1.4]  # pixels that are not square
    sharp = truth.at(wcs, (128, 128))
    blurred = truth.at(wcs, (128, 128), beam=beam)
    added = []
    for i in (0, 1):
        flux, mean, covariance = moments(blurred.brightness(i))
        before = moments(sharp.brightness(i))
        assert flux == pytest.approx(before[0], rel=2e-3) and mean == pytest.approx(before[1], abs=0.6)
        added.append(covariance - before[2])
    ends = [wcs.world_to_pixel(SkyCoord(*away(RA, DEC, 1, angle), unit="rad")) for angle in (60, 150)]
    along, across = np.array(ends) - 64  # pixels per arcsec along the axes of the beam, by astropy
    expected = (16**2 * np.outer(along, along) + 8**2 * np.outer(across, across)) / (8 * math.log(2))
    for found in added:
        assert found == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("pa", [0, 45, 100])
def test_boxes_hold_the_flux_and_little_else(pa):
    # The core is bright and small, so that the box cannot be that of the brightest pixels.
    far = [away(RA, DEC, distance, pa) for distance in (-30, 30)]
    parts = [SkyComponent(RA, DEC, 0.5, 1.4e9)]
    parts += [SkyComponent(*p, 0.25, 1.4e9, 20 * ARCSEC, 8 * ARCSEC, math.radians(pa + 30)) for p in far]
    sources = [SkySource(0, "frii", RA, DEC, 1.0, 80 * ARCSEC, tuple(parts)), lopsided(pa)]
    for source in sources:
        view = Truth([source]).at_patch((RA, DEC), ARCSEC, (160, 150))
        image = view.brightness()
        x0, y0, x1, y1 = view.boxes()[0]
        rows, columns = np.indices(image.shape)
        held = (rows >= y0) & (rows <= y1) & (columns >= x0) & (columns <= x1)
        assert image[held].sum() > 0.9 * source.flux
        if pa == 0 or source.cutout is None:  # the box of a turned cutout is that of its turned box
            bright = np.argwhere(image > 1e-5)  # far out in the lobes, of 1e-3
            assert x1 - x0 <= np.ptp(bright[:, 1]) + 1 and y1 - y0 <= np.ptp(bright[:, 0]) + 1


def test_the_mask_of_a_gaussian_is_its_contour_at_a_tenth_of_the_peak():
    view = Truth([gaussian(flux=1.0, major=30, minor=18, pa=20)]).at_patch((RA, DEC), ARCSEC, (90, 70))
    image, mask = view.brightness(), view.mask(0)
    assert image[mask].sum() == pytest.approx(0.9, abs=0.01)
    assert np.sum(mask ^ (image > 0.1 * image.max())) < 12  # pixels on the rim
    # Area of the ellipse at a tenth of the peak: pi ln(10) major minor / (4 ln 2).
    assert mask.sum() == pytest.approx(math.pi * math.log(10) * 30 * 18 / (4 * math.log(2)), rel=0.03)


def test_masks_keep_the_lobes_beside_a_bright_core():
    lobes = [SkyComponent(*away(RA, DEC, d, 90), 0.35, 1.4e9, 12 * ARCSEC, 12 * ARCSEC) for d in (-25, 25)]
    source = SkySource(0, "fri", RA, DEC, 1.0, 60 * ARCSEC, (SkyComponent(RA, DEC, 0.3, 1.4e9), *lobes))
    fine, coarse = (Truth([source]).at_patch((RA, DEC), size * ARCSEC, 96).mask(0) for size in (1, 2))
    assert fine[48, 23] and fine[48, 73] and fine[48, 48]
    assert coarse.sum() * 4 == pytest.approx(fine.sum(), rel=0.15)


def test_masks_of_sources_larger_than_the_picture_do_not_depend_on_it():
    truth = Truth([gaussian(flux=1.0, major=900, name="halo")])
    small = truth.at_patch(away(RA, DEC, 790, 270), ARCSEC, 64).mask(0)  # 0.1 of the peak is 820 arcsec out
    assert small.any() and not small.all()
    assert small[32].argmin() == pytest.approx(32 + 820 - 790, abs=6)  # to the west is to the right


def test_segmentation_gives_an_overlap_to_the_brightest():
    sources = [gaussian(flux=5.0, major=40, name="halo", number=7), gaussian(*away(RA, DEC, 10, 0), 0.1, number=3)]
    view = Truth(sources).at_patch((RA, DEC), ARCSEC, (80, 64))
    labels = view.segmentation()
    assert labels.shape == (64, 80) and labels.dtype == np.int32 and labels[0, 0] == 0
    assert labels[32, 40] == 1 and labels[42, 40] == 2 and (labels == 2).sum() == 1
    masks = view.masks()
    assert masks.shape == (2, 64, 80) and np.array_equal(masks.any(axis=0), labels > 0)
    reverse = Truth(sources[::-1]).at_patch((RA, DEC), ARCSEC, (80, 64)).segmentation()
    assert np.array_equal(reverse, np.array([0, 2, 1])[labels])


def test_counts_labels_and_classes():
    where = [(0, 0), (20, 45), (30, 200), (200, 90)]
    names = ["fri", "compact", "compact", "compact"]
    sources = [
        gaussian(*away(RA, DEC, *place), number=i, name=name)
        for i, (place, name) in enumerate(zip(where, names, strict=True))
    ]
    sources.append(gaussian(*away(RA, DEC, 15, 300), number=9, name=""))
    truth = Truth(sources)
    view = truth.at_patch((RA, DEC), 2 * ARCSEC, 64)
    assert view.counts == {"fri": 1, "compact": 2, "": 1} and len(view) == 4
    assert view.labels == ["fri", "compact", "compact", ""]
    chosen = truth.at_patch((RA, DEC), 2 * ARCSEC, 64, classes=["compact"])
    assert [s.source_id for s in chosen.sources] == [1, 2]
    record = view.to_coco(image_id=4)
    assert [entry["name"] for entry in record["categories"]] == ["compact", "fri"]
    assert [(entry["id"], entry["category_id"]) for entry in record["annotations"]] == [(0, 2), (1, 1), (2, 1)]
    assert record["annotations"][0]["bbox"] == pytest.approx([32, 32, 1, 1])  # pixel 32 begins 32 pixels in
    json.dumps(record)


def test_main_class_is_that_of_the_brightest_source_in_the_middle():
    halo = gaussian(flux=0.5, major=60, name="halo")
    other = gaussian(*away(RA, DEC, 40, 90), flux=9.0, name="fri", number=1)
    truth = Truth([halo, other])
    assert truth.at_patch((RA, DEC), 2 * ARCSEC, 64).main_class() == "halo"
    assert truth.at_patch(away(RA, DEC, 40, 90), 2 * ARCSEC, 64).main_class() == "fri"
    assert truth.at_patch(away(RA, DEC, 100, 0), 2 * ARCSEC, 64).main_class() == ""
    assert Truth([]).at_patch((RA, DEC), 2 * ARCSEC, 64).main_class() == ""


def test_sources_across_the_edge_are_seen_but_not_counted():
    outside = away(RA, DEC, 70, 270)  # 35 pixels to the right, 4 beyond the edge
    wide, point = gaussian(*outside, major=24, number=1), gaussian(*outside, number=2)
    view = Truth([wide, point]).at_patch((RA, DEC), 2 * ARCSEC, (62, 40))
    assert [s.source_id for s in view.sources] == [1] and view.counts == {} and not view.inside[0]
    assert view.boxes()[0, 2] > 61.5 and view.boxes(clip=True)[0, 2] == 61.5
    image = view.brightness(0)
    # The share of a Gaussian beyond a line: x = 66 seen from 61.5, sigma = 12 / 2.3548 pixels.
    share = 0.5 * math.erfc(4.5 / (12 / 2.35482) / math.sqrt(2))
    assert image.sum() == pytest.approx(share, rel=1e-3)
    assert image[20].argmax() == 61 and view.mask(0)[20, 61] and not view.mask(0)[20, 40]
    blurred = Truth([point]).at_patch((RA, DEC), 2 * ARCSEC, (62, 40), beam=24 * ARCSEC)
    assert blurred.brightness() == pytest.approx(image, abs=1e-9)
    # Beyond the circle around the picture, of 37 pixels, a wide beam still brings it in.
    assert len(Truth([point]).at_patch(away(RA, DEC, 40, 90), 2 * ARCSEC, (62, 40), beam=80 * ARCSEC)) == 1


@pytest.mark.parametrize("ra", [0.0, 2 * math.pi - 5 * ARCSEC])
def test_right_ascension_wraps(ra):
    sources = [gaussian((ra + d * ARCSEC) % (2 * math.pi), 0.1, number=i) for i, d in enumerate((-30, 30))]
    view = Truth(sources).at_patch((ra, 0.1), 2 * ARCSEC, 64)
    offset = 15 * math.cos(0.1)
    assert view.x == pytest.approx([32 + offset, 32 - offset], abs=1e-3) and view.y == pytest.approx(32, abs=1e-2)
    there = Truth(sources).at(tangent_wcs(ra, 0.1, npix=(64, 64)), (64, 64))
    assert there.x == pytest.approx(view.x, abs=1e-5)


@pytest.mark.parametrize("dec", [math.pi / 2, math.pi / 2 - 20 * ARCSEC, -math.pi / 2 + 20 * ARCSEC])
def test_near_the_pole(dec):
    sign = math.copysign(1.0, dec)
    positions = [(ra, sign * (math.pi / 2 - 25 * ARCSEC)) for ra in (0.4, 2.4, 4.4)]
    sources = [gaussian(*p, flux=1.0, major=9, minor=3, pa=0, number=i) for i, p in enumerate(positions)]
    view = Truth(sources).at_patch((0.4, dec), ARCSEC, (128, 120))
    wcs = tangent_wcs(0.4, dec, pixel=1.0, npix=(128, 120))
    x, y = wcs.world_to_pixel(SkyCoord(positions, unit="rad"))
    assert len(view) == 3 and view.x == pytest.approx(x, abs=1e-4) and view.y == pytest.approx(y, abs=1e-4)
    pole = wcs.world_to_pixel(SkyCoord(0, sign * 90, unit="deg"))
    for i in range(3):  # their long axes are along the meridians: towards the pole
        _, mean, covariance = moments(view.brightness(i))
        axis = np.linalg.eigh(covariance)[1][:, 1]
        towards = (np.array(pole) - mean) / np.linalg.norm(np.array(pole) - mean)
        assert abs(axis @ towards) > 0.999
        assert covariance.trace() == pytest.approx((81 + 9) / (8 * math.log(2)) + 1 / 6, rel=0.02)


def written(folder, sources, extra=None):
    """Write the files of a simulation, and return the path of the measurement set."""
    ms = folder / "obs.ms"
    write_catalogue(sources, folder / "obs.ms.truth.fits")
    (folder / "obs.ms.truth.json").write_text(json.dumps({"seed": 3, "telescope": "meerkat"}))
    if extra is not None:
        with fits.open(folder / "obs.ms.truth.fits") as hdus:
            table = Table.read(hdus["SOURCES"])
            table["apparent_flux_jy"] = extra
            new = fits.table_to_hdu(table)
            new.name = "SOURCES"
            fits.HDUList([hdus[0], new, hdus["COMPONENTS"]]).writeto(folder / "new.fits")
        (folder / "new.fits").replace(folder / "obs.ms.truth.fits")
    return ms


def test_files_are_read_by_either_name(tmp_path):
    parts = (SkyComponent(RA, DEC, 3.0, 1.4e9, spectral_index=-1.0), SkyComponent(RA, DEC, 1.0, 1.4e9))
    sources = [gaussian(major=12, minor=6, number=5), SkySource(6, "fri", RA, DEC, 4.0, 60 * ARCSEC, parts)]
    ms = written(tmp_path, sources, [0.25, 3.0])
    for path in (ms, str(ms) + "/", tmp_path / "obs.ms.truth.fits"):
        truth = Truth.read(path)
        assert truth.parameters == {"seed": 3, "telescope": "meerkat"}
        assert [s.source_id for s in truth.sources] == [5, 6]
    table = truth.table()
    assert list(table["class"]) == ["compact", "fri"] and table["size_arcsec"] == pytest.approx([12, 60])
    assert table["spectral_index"] == pytest.approx([0, -0.75]) and table["flux_jy"] == pytest.approx([1, 4])
    assert table["ra_deg"] == pytest.approx(60) and table["apparent_flux_jy"] == pytest.approx([0.25, 3])
    view = truth.at_patch((RA, DEC), 2 * ARCSEC, 64, apparent=True, min_flux=0.1)
    assert view.flux == pytest.approx([0.25, 3]) and view.brightness().sum() == pytest.approx(3.25, rel=1e-3)


def test_cutouts_come_back_from_files(tmp_path):
    source = lopsided(30)
    read = Truth.read(written(tmp_path, [source, gaussian(number=4)]))
    here, there = (t.at_patch((RA, DEC), ARCSEC, 64).brightness(0) for t in (Truth([source]), read))
    assert here.max() > 0.1 and there == pytest.approx(here, abs=1e-6)


@pytest.mark.parametrize("gone", ["obs.ms.truth.fits", "obs.ms.truth.json"])
def test_missing_files_are_named(tmp_path, gone):
    ms = written(tmp_path, [gaussian()])
    (tmp_path / gone).unlink()
    with pytest.raises(Vis2imgError, match="vis2img simulate") as error:
        Truth.read(ms)
    assert str(tmp_path / gone) in str(error.value) and "\n" not in str(error.value)


def test_damaged_and_wrong_input_gives_one_line(tmp_path):
    ms = written(tmp_path, [gaussian()])
    truth = Truth.read(ms)
    (tmp_path / "obs.ms.truth.json").write_text("{")
    with pytest.raises(Vis2imgError, match=r"obs\.ms\.truth\.json"):
        Truth.read(ms)
    with pytest.raises(ParameterError, match="apparent_flux_jy"):
        truth.at_patch((RA, DEC), ARCSEC, 32, apparent=True)
    with pytest.raises(ParameterError, match="celestial"):
        truth.at(WCS(naxis=2), (10, 10))
    with pytest.raises(ParameterError, match="beam"):
        truth.at_patch((RA, DEC), ARCSEC, 32, beam=(1.0, 2.0, 0.0))
    with pytest.raises(ParameterError, match="no source 1"):
        truth.at_patch((RA, DEC), ARCSEC, 32).mask(1)


def test_masks_are_written_whole(tmp_path):
    truth = Truth([gaussian(flux=2.0, major=20, number=11, name="fri"), gaussian(*away(RA, DEC, 40, 60), number=12)])
    wcs, path = tangent_wcs(turn=25), tmp_path / "masks.fits"
    header = wcs.to_header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, 120, 80
    assert write_masks(truth, wcs, path) == path
    write_masks(truth, header, tmp_path / "again.fits", min_flux=0.5)
    with fits.open(path) as hdus, fits.open(tmp_path / "again.fits") as again:
        labels, table = hdus[0].data, Table.read(hdus["LABELS"])
        assert labels.shape == (80, 120) and np.array_equal(again[0].data, labels)
        assert np.array_equal(labels, truth.at(wcs, (80, 120)).segmentation())
        assert list(table["class"]) == ["fri", "compact"] and list(table["source_id"]) == [11, 12]
        assert list(table["npix"]) == [(labels == 1).sum(), 1]
        x, y = map(float, WCS(hdus[0].header).world_to_pixel(SkyCoord(*away(RA, DEC, 40, 60), unit="rad")))
        assert labels[round(y), round(x)] == 2
    with pytest.raises(OutputError, match="exists"):
        write_masks(truth, wcs, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.fits", "masks.fits"]


def test_an_image_gives_its_wcs_frequency_and_beam():
    from vis2img.imaging.image import Image
    from vis2img.imaging.params import ImagingParams

    params = ImagingParams(npix=(64, 48), pixsize=2 * ARCSEC)
    image = Image(
        np.zeros((48, 64), np.float32), params, (RA, DEC), (0.7e9, 1e8), (10 * ARCSEC, 10 * ARCSEC, 0.0), 1.0, 1
    )
    position = away(RA, DEC, 30, 0)
    view = Truth([gaussian(*position, index=-1.0)]).at_image(image)
    assert view.shape == (48, 64) and (view.x[0], view.y[0]) == pytest.approx((32, 39), abs=1e-3)
    assert view.flux[0] == pytest.approx(2.0)
    # A point through the beam: flux over 2 pi sigma^2, sigma = 5 pixels / 2.35482.
    assert view.brightness().max() == pytest.approx(2 / (2 * math.pi * (5 / 2.35482) ** 2), rel=0.03)


def many(number):
    rng = np.random.default_rng(1)
    ra, dec = RA + rng.uniform(-0.01, 0.01, number) / math.cos(DEC), DEC + rng.uniform(-0.01, 0.01, number)
    return ra, dec, Truth([gaussian(*p, major=5, number=i) for i, p in enumerate(zip(ra, dec, strict=True))])


def test_the_index_finds_what_a_full_search_finds():
    ra, dec, truth = many(400)
    wcs = tangent_wcs(pixel=24.0, turn=15)
    x, y = wcs.world_to_pixel(SkyCoord(ra, dec, unit="rad"))
    inside = (x >= -0.5) & (x < 119.5) & (y >= -0.5) & (y < 79.5)
    view = truth.at(wcs, (80, 120))
    assert 20 < inside.sum() < 380
    found = np.array([source.source_id for source in view.sources])
    assert np.array_equal(found[view.inside], np.flatnonzero(inside))


@pytest.mark.slow
def test_ten_thousand_patches_in_twenty_seconds():
    ra, dec, truth = many(5000)
    start = time.perf_counter()
    found = 0
    for i in range(10_000):
        view = truth.at_patch((ra[i % 5000], dec[i % 5000]), 2 * ARCSEC, 64)
        found += view.main_class() == "compact" and len(view) == len(view.labels)
    elapsed = time.perf_counter() - start
    assert found == 10_000 and elapsed < 20, f"{elapsed:.1f} s"


@pytest.mark.parametrize(
    ("centre", "pixsize"), [((60.0, -30.0), 1e-5), ((1.0, -0.5), 2.0), ((1.0, -0.5), "2arcsec"), ((1.0, -0.5), -1e-5)]
)
def test_patches_in_other_units_are_refused(centre, pixsize):
    with pytest.raises(ParameterError, match="rad"):
        Truth([]).at_patch(centre, pixsize, 512)
