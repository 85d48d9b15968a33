"""Sources as pictures, by the SIN projection written out on its own."""

import math

import numpy as np

ARCSEC = 4.84813681109536e-06


def offsets(source, ra0, dec0):
    """Return (l, m) of the components by the SIN projection, written out here on its own."""
    ra, dec = np.array([(c.ra, c.dec) for c in source.components]).T
    east = np.cos(dec) * np.sin(ra - ra0)
    north = np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(ra - ra0)
    return east, north


def render(source, npix=129):
    """Return the surface brightness of a source (points as 2% of its size) and l, m of the pixels."""
    grid = np.linspace(-0.75, 0.75, npix) * source.size
    east, north = np.meshgrid(grid, grid)
    image = np.zeros_like(east)
    for c, l0, m0 in zip(source.components, *offsets(source, source.ra, source.dec), strict=True):
        major, minor = (math.hypot(width, 0.02 * source.size) for width in (c.major, c.minor))
        along = (east - l0) * math.sin(c.pa) + (north - m0) * math.cos(c.pa)
        across = (east - l0) * math.cos(c.pa) - (north - m0) * math.sin(c.pa)
        peak = c.flux / (major * minor)
        image += peak * np.exp(-4 * math.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
    return image, east, north
