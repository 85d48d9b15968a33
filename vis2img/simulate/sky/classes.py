"""Layouts of radio galaxies with jets: twin, bent, hybrid and restarted.

The ranges bracket the bulk of the population; they are not fits to it:

- ``fri`` and ``frii`` obey the definition of Fanaroff & Riley 1974: the distance between the brightest
  regions on either side of the nucleus is less (more) than half of the whole extent. FRI jets widen and fade
  outwards, with core fractions of 5 to 25% (Laing & Bridle 2014); FRII lobes end in hotspots, with cores of
  0.3 to 5% (Bridle & Perley 1984), length to width ratios of 2 to 6 (Leahy & Williams 1984) and arm lengths
  that differ by up to 1.6 (Scheuer 1995).
- ``bent``: an angle between the tails of 20 to 130 degrees, from narrow to wide-angle tails (Owen & Rudnick
  1976, O'Dea & Owen 1985), fading outwards. ``wat`` and ``nat`` split the range, each by its looks.
- ``hybrid``: one side as an FRI, the other as an FRII (Gopal-Krishna & Wiita 2000).
- ``ddrg``: two pairs of lobes with one core (Schoenmakers et al. 2000, Saikia & Jamrozy 2009).
- Spectral indices (S ~ nu^a): cores -0.3 to 0.2, hotspots -0.7 to -0.5, jets, lobes and tails -1.1 to -0.6.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vis2img.simulate.sky.layout import NODES, Part, core_part, fading, loguniform, shares


def fri(rng: np.random.Generator) -> list[Part]:
    """Twin jets that widen and fade outwards, in a C or an S shape."""
    core, decay = rng.uniform(0.05, 0.25), rng.uniform(0.2, 0.4)
    bend, mirror = rng.normal(0.0, 0.12), rng.choice([-1.0, 1.0])  # mirror: C shape, else S shape
    s = np.linspace(0.12, 0.88, NODES)
    parts = [core_part(rng, core)]
    for side, share in shares(rng, core, 2.0):
        length, curve = rng.uniform(0.8, 1.0), bend * (mirror if side < 0 else 1.0)
        fwhm = length * np.stack([np.full(NODES, 0.3), 0.06 + 0.3 * s * rng.uniform(0.7, 1.3)], axis=1)
        centre = length * np.stack([side * s, curve * s**2], axis=1)
        flux = fading(rng, s, decay, share)
        parts.append(Part(centre, fwhm, np.arctan2(2 * curve * s, side), flux, rng.uniform(-0.9, -0.6, NODES)))
    return parts


def frii(rng: np.random.Generator) -> list[Part]:
    """Two lobes that end in hotspots, with a faint core."""
    core = math.exp(rng.uniform(math.log(0.003), math.log(0.05)))
    arm = rng.uniform(1.0, 1.6) ** rng.choice([-1.0, 1.0])
    width = 1.4 / rng.uniform(2.0, 6.0)  # FWHM of a lobe; 1.4 and not the length of 2, as FWHMs add up across
    x = np.array([0.97, 0.82, 0.66, 0.48, 0.25])  # hotspot, three of the lobe, bridge
    parts = [core_part(rng, core)]
    for side, share in shares(rng, core, 2.5):
        length, hotspot = (arm if side > 0 else 1.0), rng.uniform(0.3, 0.6)
        flux = np.append(hotspot, (1 - hotspot) * np.array([0.42, 0.32, 0.2, 0.06]))
        along = np.append(rng.uniform(0.05, 0.1), [0.22, 0.26, 0.28, 0.4])
        across = np.append(rng.uniform(0.04, 0.09), width * np.array([0.9, 1.0, 0.75, 0.4]))
        lateral = rng.normal(0.0, width * np.array([0.2, 0.06, 0.06, 0.06, 0.06]))
        turn = rng.normal(0.0, math.radians(4))  # the two lobes are not quite in one line
        centre = np.stack([x, lateral], axis=1) @ _rotation(turn)
        fwhm = np.stack([along * length, across], axis=1)
        index = np.append(rng.uniform(-0.7, -0.5), rng.uniform(-1.1, -0.7, NODES - 1))
        parts.append(Part(side * length * centre, fwhm, np.full(NODES, turn), share * flux, index))
    return parts


def bent(rng: np.random.Generator) -> list[Part]:
    """Two tails swept to one side, at any angle between them from narrow to wide."""
    core, decay = rng.uniform(0.05, 0.25), rng.uniform(0.4, 0.9)
    final = math.radians(rng.uniform(20.0, 130.0)) / 2  # of a tail, from the common direction of both
    s = (np.arange(NODES) + 0.6) / NODES
    parts = [core_part(rng, core)]
    for side, share in shares(rng, core, 1.8):
        # A jet leaves nearly across the tails and is swept back: its angle relaxes to the final one.
        start = max(final, math.radians(rng.uniform(55.0, 85.0)))
        angle = side * (final + (start - final) * np.exp(-s / 0.25))
        centre = _path(s, angle) * rng.uniform(0.75, 1.0)
        fwhm = np.stack([np.full(NODES, 0.28), 0.06 + 0.16 * s * rng.uniform(0.7, 1.3)], axis=1)
        index = -0.65 - 0.45 * s + rng.normal(0, 0.05, NODES)  # steepens as the plasma ages
        parts.append(Part(centre, fwhm, angle, fading(rng, s, decay, share), index))
    return parts


def hybrid(rng: np.random.Generator) -> list[Part]:
    """One side as an FRI and the other as an FRII of the same length or up to 1.25 times it.

    Gopal-Krishna & Wiita 2000 define the class; cores of 1 to 15% lie between those of the two classes.
    """
    core = loguniform(rng, 0.01, 0.15)
    (_, first), (_, second) = shares(rng, core, 2.0)
    plume, lobe = fri(rng)[1], frii(rng)[2]  # sides +1 and -1
    return [core_part(rng, core), _with_flux(plume, first), _with_flux(lobe, second)]


def ddrg(rng: np.random.Generator) -> list[Part]:
    """Two pairs of lobes on one axis: old, faded outer ones, and inner ones that end in hotspots.

    The inner pair reaches 0.12 to 0.5 times as far as the outer one, and the two axes agree within 10 degrees
    (Schoenmakers et al. 2000; larger angles are rare, Saikia & Jamrozy 2009). The outer lobes get no more energy:
    half of them keep no hotspot, all are steep (-1.3 to -0.8). Inner share of the flux 15 to 50%.
    """
    core, inner, reach = loguniform(rng, 0.003, 0.05), rng.uniform(0.15, 0.5), rng.uniform(0.12, 0.5)
    misaligned = math.radians(rng.uniform(-10.0, 10.0))
    width, hotspot = 1.4 / rng.uniform(2.5, 6.0), rng.uniform(0.1, 0.3) * rng.integers(2)
    parts = [core_part(rng, core)]
    for side, share in shares(rng, core, 2.0):  # the outer pair
        length = rng.uniform(0.8, 1.0)
        x = length * np.array([0.97, 0.85, 0.68, 0.5])
        flux = np.append(hotspot, (1 - hotspot) * np.array([0.42, 0.35, 0.23]))
        fwhm = np.stack([[0.08, 0.24, 0.28, 0.3], np.append(0.08, width * np.array([0.9, 1.0, 0.8]))], axis=1)
        index = np.append(rng.uniform(-0.9, -0.7), rng.uniform(-1.3, -0.8, 3))
        lit = slice(0 if hotspot else 1, None)
        centre = np.stack([side * x, rng.normal(0.0, 0.05 * width, 4)], axis=1)
        part = Part(centre[lit], fwhm[lit], np.zeros(4)[lit], flux[lit], index[lit])
        parts.append(_with_flux(part, share * (1 - inner)))
    for side, share in shares(rng, core, 1.6):  # the inner pair
        x = rng.uniform(0.85, 1.0) * reach * np.array([0.95, 0.72])
        centre = side * x[:, None] * [math.cos(misaligned), math.sin(misaligned)]
        fwhm = reach * np.array([[0.1, 0.1], [0.45, 0.25]])
        tilt = np.full(2, misaligned)
        index = np.array([rng.uniform(-0.7, -0.5), rng.uniform(-0.9, -0.7)])
        parts.append(Part(centre, fwhm, tilt, share * inner * np.array([0.55, 0.45]), index))
    return parts


def wat(rng: np.random.Generator) -> list[Part]:
    """Wide-angle tail: straight jets that end at warm spots, then tails that bend back further.

    The angle from the nucleus to the two ends is 90 to 160 degrees as seen. Jets end abruptly after 20 to 50% of
    an arm (O'Dea & Owen 1985, Missaglia et al. 2019); beyond, the plumes widen, steepen and turn by 5 to 35
    degrees. Class and its wide angle: Owen & Rudnick 1976.
    """
    core, half = rng.uniform(0.02, 0.15), math.radians(rng.uniform(90.0, 160.0)) / 2
    parts, turn = [core_part(rng, core)], math.radians(rng.uniform(5.0, 35.0))
    for side, share in shares(rng, core, 1.8):
        spot, hot = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.4)
        s = np.append([0.5 * spot, spot], spot + (1 - spot) * np.array([0.3, 0.62, 0.95]))
        angle = np.array([0.0, 0.0, -turn, -turn, -turn])  # of each step, against the jet
        fwhm = np.stack([[0.45 * spot, 0.09, 0.3, 0.32, 0.34], [0.04, 0.09, 0.13, 0.2, 0.26]], axis=1)
        flux = np.append([0.05, hot], (0.95 - hot) * np.array([0.45, 0.33, 0.22]))
        index = np.append([-0.6, -0.6], [-0.75, -0.9, -1.1]) + rng.normal(0, 0.04, NODES)
        arm = Part(_path(s, angle), fwhm, angle, share * flux, index)
        parts.append(_swung(arm, side, half, rng.uniform(0.75, 1.0)))
    return parts


def nat(rng: np.random.Generator) -> list[Part]:
    """Narrow-angle (head) tail: jets swept back by the ram pressure of a fast galaxy.

    The angle from the nucleus to the two ends is 8 to 70 degrees as seen; the jets leave at a wider angle and
    curve back within a quarter of the tail (Owen & Rudnick 1976, O'Dea & Owen 1985). The head is bright, the
    tails fade and steepen from -0.6 to -1.2.
    """
    core, half = rng.uniform(0.05, 0.25), math.radians(rng.uniform(8.0, 70.0)) / 2
    parts, decay = [core_part(rng, core)], rng.uniform(0.4, 0.8)
    for side, share in shares(rng, core, 1.6):
        s = (np.arange(NODES) + 0.6) / NODES
        swept = math.radians(rng.uniform(25.0, 60.0))
        angle = swept * np.exp(-s / 0.2)
        fwhm = np.stack([np.full(NODES, 0.28), 0.04 + 0.12 * s * rng.uniform(0.7, 1.3)], axis=1)
        index = -0.6 - 0.6 * s + rng.normal(0, 0.04, NODES)
        flux = fading(rng, s, decay, share)
        arm = Part(_path(s, angle), fwhm, angle, flux, index)
        parts.append(_swung(arm, side, half, rng.uniform(0.8, 1.0)))
    return parts


def _path(s: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return the ends [n, 2] of steps that reach ``s`` [n] along the path and point along ``angle`` [n]."""
    return np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.diff(s, prepend=0.0)[:, None], axis=0)


def _rotation(angle: float) -> np.ndarray:
    """Return the matrix by which rows (x, y) are turned, counterclockwise."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _swung(arm: Part, side: float, half: float, length: float) -> Part:
    """Return an arm of length 1 turned for its last component to lie at the angle ``half`` from +x, mirrored by side.

    Setting the angle at the ends makes the drawn value the one that is seen, whatever the curvature.
    """
    turn = half - math.atan2(arm.centre[-1, 1], arm.centre[-1, 0])
    centre = length * (arm.centre @ _rotation(turn)) * [1.0, side]
    return replace(arm, centre=centre, fwhm=length * arm.fwhm, tilt=side * (arm.tilt + turn))


def _with_flux(part: Part, total: float) -> Part:
    return replace(part, flux=part.flux * total / part.flux.sum())
