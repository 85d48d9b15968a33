"""The transform between images and visibilities: the one module that knows the sign of the phase and ducc0's flips.

For a source of flux S at direction cosines (l, m, n) from the phase centre a CASA measurement set holds

    V(u, v, w) = S exp(+2 pi i (u l + v m + w (n - 1)) nu / c) ,

with l east and m north: the sign by which CASA, WSClean and simms read and write the UVW column. ducc0 returns
``[npix_x, npix_y]``; with ``flip_v`` and one transpose the image has the orientation of :mod:`vis2img.coordinates`
(checked against an explicit DFT and WSClean).

Reference: Arras et al. 2021, A&A 646, A58 (the w-gridding of ducc0).
"""

from __future__ import annotations

import ducc0
import numpy as np

from vis2img.shapes import Complex64, Float32, Float64

_CONVENTION = {"do_wgridding": True, "divide_by_n": False, "flip_v": True}


def vis_to_dirty(
    uvw: Float64[np.ndarray, "row 3"],
    chan_freq: Float64[np.ndarray, " chan"],
    vis: Complex64[np.ndarray, "row chan"],
    weight: Float32[np.ndarray, "row chan"],
    npix: tuple[int, int],
    pixsize: float | tuple[float, float],
    *,
    total: float,
    epsilon: float,
    nthreads: int = 1,
) -> Float32[np.ndarray, "y x"]:
    """Return the dirty image in Jy/beam: the weighted adjoint transform over ``total``.

    Parameters
    ----------
    uvw : float64 [row, 3]
        Baseline coordinates in m.
    chan_freq : float64 [chan]
        Frequencies in Hz, increasing.
    vis : complex64 [row, chan]
        Visibilities in Jy.
    weight : float32 [row, chan]
        Imaging weights.
    npix : (int, int)
        Image size (npix_x, npix_y); even, at least 32.
    pixsize : float or (float, float)
        Pixel size in rad at the image centre, of x and y if they differ.
    total : float
        Sum of the imaging weights of all that goes into the image.
    epsilon : float
        Accuracy asked of ducc0, relative L2; single precision allows 1e-5 at best.
    nthreads : int
        Threads of ducc0; one call per core beats one call with all of them.

    Returns
    -------
    float32 [y, x]
        A unit point source peaks at 1. The sky is not divided by n = sqrt(1 - l^2 - m^2), so that this
        holds anywhere in the image.
    """
    pixsize_x, pixsize_y = pixsize if isinstance(pixsize, tuple) else (pixsize, pixsize)
    image = np.empty((npix[1], npix[0]), np.float32)
    ducc0.wgridder.vis2dirty(
        uvw=uvw,
        freq=chan_freq,
        vis=vis,
        wgt=weight,
        pixsize_x=pixsize_x,
        pixsize_y=pixsize_y,
        epsilon=epsilon,
        nthreads=nthreads,
        dirty=image.T,
        **_CONVENTION,
    )
    image /= total
    return image


def dirty_to_vis(
    uvw: Float64[np.ndarray, "row 3"],
    chan_freq: Float64[np.ndarray, " chan"],
    image: Float32[np.ndarray, "y x"],
    pixsize: float,
    *,
    epsilon: float,
    nthreads: int = 1,
) -> Complex64[np.ndarray, "row chan"]:
    """Return the visibilities of an image of the sky: the adjoint of :func:`vis_to_dirty` without its weights.

    Parameters
    ----------
    uvw : float64 [row, 3]
        Baseline coordinates in m.
    chan_freq : float64 [chan]
        Frequencies in Hz, increasing.
    image : float32 [y, x]
        Flux density in Jy per pixel, as in a list of point sources: not divided by n. Sides even, at least 32.
    pixsize : float
        Pixel size in rad at the image centre.
    epsilon : float
        Accuracy asked of ducc0, relative L2; single precision allows 1e-5 at best.
    nthreads : int
        Threads of ducc0.

    Returns
    -------
    complex64 [row, chan]
        Jy: the sum over pixels of S exp(+2 pi i (u l + v m + w (n - 1)) nu / c).
    """
    return ducc0.wgridder.dirty2vis(
        uvw=uvw,
        freq=chan_freq,
        dirty=image.T,
        pixsize_x=pixsize,
        pixsize_y=pixsize,
        epsilon=epsilon,
        nthreads=nthreads,
        **_CONVENTION,
    )
