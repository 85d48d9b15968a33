"""Telescopes, noise and primary beams of simulations, against figures and formulas written out here."""

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("simms")

from vis2img.errors import ParameterError
from vis2img.simulate.instruments import TELESCOPES, band_named, layout_of, power_beam, sefd_at

LIGHT_SPEED = 299792458.0


def test_sefd_of_meerkat_is_that_of_its_imager(shared_data):
    rows = [line for line in (shared_data / "sky" / "meerkat_sefd_L.csv").read_text().splitlines() if line[0].isdigit()]
    mhz, hand_h, hand_v = np.array([[float(x) for x in row.split(",")] for row in rows]).T
    ours = sefd_at("meerkat", mhz * 1e6)
    assert np.abs(ours / ((hand_h + hand_v) / 2) - 1).max() < 0.03


def test_sefd_of_unknown_telescopes_is_asked_for():
    with pytest.raises(ParameterError, match=r"SEFD of kat-7 from 1300 to 1400 MHz is not known; give sefd"):
        sefd_at("kat-7", np.array([1.3e9, 1.4e9]))
    with pytest.raises(ParameterError, match="band 'K' is not known of the telescope meerkat; it has L, UHF"):
        band_named("meerkat", "K")


@pytest.mark.parametrize("name", sorted(TELESCOPES))
def test_layouts_are_those_of_their_telescopes(name):
    layout = layout_of(name)
    place = np.array(layout["antlocations"], float)
    assert len(place) == len(layout["antnames"]) == len(set(layout["antnames"]))
    number, longest = {
        "meerkat": (64, 7.7e3),
        "vla-a": (27, 36.4e3),
        "vla-b": (27, 11.1e3),
        "vla-c": (27, 3.4e3),
        "vla-d": (27, 1.03e3),
        "askap-like": (36, 6.0e3),
        "skamid": (197, 150e3),
    }.get(name, (None, None))
    if number:
        metres = np.radians(place[:, :2]) * 6.371e6 * [math.cos(math.radians(place[0, 1])), 1.0]
        lengths = np.hypot(*(metres[:, None] - metres[None]).transpose(2, 0, 1))
        assert len(place) == number
        assert lengths.max() == pytest.approx(longest, rel=0.12)


def test_beam_of_meerkat_is_the_holographed_one():
    """67 arcmin wide at 1284 MHz (Mauch et al. 2020), and 4% longer in elevation, which the angle turns."""
    freqs = np.array([1284e6])
    half = np.radians(67 / 60) / 2
    up, across = (power_beam("meerkat", freqs, 13.5, np.array([angle])) for angle in (0.0, math.pi / 2))
    zero = np.zeros(1)
    for beam in (up, across):
        assert beam(zero, zero, freqs) == pytest.approx(1, abs=0.01)
        for l, m in ((half, 0.0), (0.0, half)):
            assert beam(np.array([l]), np.array([m]), freqs) == pytest.approx(0.5, abs=0.03)
    along_north = up(zero, np.array([half]), freqs)[0, 0]
    assert along_north - across(zero, np.array([half]), freqs)[0, 0] > 0.01


def test_s_band_has_a_beam_of_its_own():
    """Not the L band's scaled with wavelength: half power at 0.5 of the widths in the table of the holography."""
    import simms

    table = Path(simms.__file__).parent / "skymodel" / "beam_data" / "MKAT-MA-S-JIM-2020.csv"
    rows = np.array([[float(x) for x in line.split(",")] for line in table.read_text().splitlines()[2:] if line])
    row = rows[np.abs(rows[:, 0] - 2500).argmin()]
    half = np.radians(row[5:].mean() / 60) / 2
    freqs = np.array([row[0] * 1e6])
    beam = power_beam("meerkat", freqs, 13.5, np.linspace(0, math.pi / 2, 5))
    for l, m in ((half, 0.0), (0.0, half)):
        assert beam(np.array([l]), np.array([m]), freqs) == pytest.approx(0.5, abs=0.02)


def test_beam_of_other_dishes_narrows_with_diameter_and_frequency():
    beam = power_beam("vla-c", np.array([1.4e9]), 25.0, np.zeros(1))
    freqs = np.array([1.0e9, 1.5e9, 2.0e9])
    half = 0.6 * LIGHT_SPEED / freqs / 25.0
    for angle in (0.0, 1.0):
        power = beam(half * math.cos(angle), half * math.sin(angle), freqs)
        assert power.shape == (3, 3)
        np.testing.assert_allclose(np.diag(power), 0.5, atol=0.01)
