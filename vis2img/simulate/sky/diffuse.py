"""Layouts of diffuse emission: odd radio circles, and the halos and relics of galaxy clusters.

They are laid out as seen on the sky, so no foreshortening follows: shells and halos look round from anywhere,
and the relics that are found are those seen edge on (van Weeren et al. 2019).
"""

from __future__ import annotations

import math

import numpy as np

from vis2img.simulate.sky.layout import Part, core_part

_RING_NODES = 16
# exp(-r) as a sum of Gaussians: FWHM and peak of each, by least squares (weight r, for the flux) between 0 and 6.
_EXPONENTIAL_FWHM = np.array([0.4, 1.0, 2.2, 4.0, 6.5])
_EXPONENTIAL_PEAK = np.array([0.1531, 0.2658, 0.3327, 0.1672, 0.0230])


def ring(rng: np.random.Generator) -> list[Part]:
    """Odd radio circle: a limb-brightened ring with faint emission inside, in 60% with a central source.

    About 1 arcmin across, with a rim some 0.15 to 0.3 of the radius wide and uneven around, indices of -1.6 to
    -0.8 (Norris et al. 2021, 2022: three of the first five have a galaxy at the centre).
    """
    core = rng.uniform(0.02, 0.12) * float(rng.random() < 0.6)
    inside, thick = rng.uniform(0.02, 0.1), rng.uniform(0.15, 0.3)
    angle = (np.arange(_RING_NODES) + rng.random()) * 2 * math.pi / _RING_NODES
    radius = rng.uniform(0.97, 1.03, _RING_NODES)
    lopsided = 1 + rng.uniform(0.0, 0.4) * np.cos(angle - rng.uniform(0, 2 * math.pi))
    flux = lopsided * rng.uniform(0.7, 1.3, _RING_NODES)
    centre = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # 1.6 times the spacing along the rim: one ring and not beads, and no straight ends that stick out of it.
    fwhm = np.tile([1.6 * 2 * math.pi / _RING_NODES, thick], (_RING_NODES, 1))
    index = np.full(_RING_NODES, rng.uniform(-1.6, -0.8))
    rim = Part(centre, fwhm, angle + math.pi / 2, flux * (1 - core - inside) / flux.sum(), index)
    disc = Part(np.zeros((1, 2)), np.full((1, 2), 1.2), np.zeros(1), np.array([inside]), index[:1])
    return [core_part(rng, core), rim, disc] if core else [rim, disc]


def halo(rng: np.random.Generator) -> list[Part]:
    """Giant radio halo: smooth, round or somewhat elongated, its brightness falling as exp(-r / r_e).

    The profile is that of Murgia et al. 2009, as a sum of concentric Gaussians; the widest has a FWHM of 6.5 r_e,
    which is the size: close to the 3 sigma contour that is quoted for halos (1 to 2 Mpc with r_e of 100 to 300
    kpc, van Weeren et al. 2019). Index -1.5 to -1.1, the same all over; axis ratio 0.65 to 1.
    """
    flux = _EXPONENTIAL_PEAK * _EXPONENTIAL_FWHM**2
    n = len(flux)
    fwhm = _EXPONENTIAL_FWHM[:, None] * [1.0, rng.uniform(0.65, 1.0)]
    return [Part(np.zeros((n, 2)), fwhm, np.zeros(n), flux / flux.sum(), np.full(n, rng.uniform(-1.5, -1.1)))]


def relic(rng: np.random.Generator) -> list[Part]:
    """Peripheral cluster relic: a thin arc around a centre outside it, sharp outwards, trailing inwards.

    The arc spans 25 to 65 degrees of a circle around the cluster, with a length 3 to 8 times its width; the
    spectrum steepens from the shock front (-1.0 to -0.7) to the inside (-1.6 to -1.2), as in van Weeren et al.
    2019. The cluster lies along -x; what fills it is not part of the source.
    """
    span = math.radians(rng.uniform(25.0, 65.0))
    trail = span * rng.uniform(0.06, 0.14)
    front_index, back_index = rng.uniform(-1.0, -0.7), rng.uniform(-1.6, -1.2)
    front_share = rng.uniform(0.45, 0.7)
    parts = []
    for n, back, width, share, index in (
        (7, 0.0, 0.9 * trail, front_share, front_index),
        (4, 0.7 * trail, 1.6 * trail, 1 - front_share, back_index),
    ):
        angle = span * (np.arange(n) - (n - 1) / 2) / n
        flux = np.cos(angle / span * 2.4) * rng.uniform(0.7, 1.3, n)  # fainter towards both ends
        centre = (1 - back) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        fwhm = np.tile([1.5 * span / n, width], (n, 1))
        parts.append(Part(centre, fwhm, angle + math.pi / 2, share * flux / flux.sum(), np.full(n, index)))
    return parts
