"""CLEAN images by WSClean, the classical product that dirty images are compared with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from astropy.io import fits

from vis2img.errors import OutputError, Vis2imgError
from vis2img.files import staging, to_disk
from vis2img.imaging.params import ImagingParams
from vis2img.units import ARCSEC

# CLEAN stops at 3 times the noise, and below 5 times goes on only where components are already.
_CLEAN = ["-niter", "50000", "-mgain", "0.8", "-auto-threshold", "3.0", "-auto-mask", "5.0"]


def clean_image(
    ms: str | Path,
    params: ImagingParams,
    out: str | Path,
    *,
    multiscale: bool = False,
    noise: float = 0.0,
    nthreads: int = 1,
    overwrite: bool = False,
) -> Path:
    """Deconvolve a field with WSClean and keep the restored image (Offringa et al. 2014, MNRAS 444, 606).

    The measurement set is only read. Size, pixel scale, weighting and taper are those of ``params``, so that the image
    covers the pixels of the dirty one; what thins data out (``band`` and the like) must keep everything.

    Parameters
    ----------
    ms : path
    params : ImagingParams
    out : path
        FITS image, Jy/beam of the fitted beam. Written in one move.
    multiscale : bool
        For extended emission.
    noise : float
        Jy/beam, written as NOISE into the header if above 0: views of the image are then stretched by it.
    nthreads : int
    overwrite : bool

    Raises
    ------
    Vis2imgError
        If WSClean is not installed or fails; its last line is in the message.
    OutputError
        If ``out`` exists and ``overwrite`` is not set.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; choose another output or overwrite it")
    program = shutil.which("wsclean")
    if program is None:
        raise Vis2imgError(
            "CLEAN images need the program wsclean, which is not installed (Debian: apt install wsclean)"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging(out) as folder:
        options = ["-j", str(nthreads), *_CLEAN, *(["-multiscale"] if multiscale else [])]
        image = _restored([program, *options], ms, params, folder)
        if noise > 0:
            fits.setval(image, "NOISE", value=noise, comment="Jy/beam, to stretch pictures by")
        to_disk(image)
        image.replace(out)
    return out


def _restored(wsclean: list[str], ms: str | Path, params: ImagingParams, folder: Path) -> Path:
    """Return the restored image that WSClean leaves in ``folder``."""
    robust = [f"{params.robust}"] if params.weighting == "briggs" else []
    taper = ["-taper-gaussian", f"{params.taper / ARCSEC:.12g}asec"] if params.taper else []
    geometry = ["-size", *map(str, params.npix), "-scale", f"{params.pixsize / ARCSEC:.12g}asec"]
    places = ["-name", f"{folder}/clean", "-temp-dir", str(folder), "-no-update-model-required"]
    command = [*wsclean, *places, *geometry, "-weight", params.weighting, *robust, *taper, str(ms)]

    # OpenBLAS takes WSClean's own threads for its, and WSClean refuses.
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, check=False
    )
    image = folder / "clean-image.fits"
    if run.returncode or not image.exists():
        lines = (run.stderr or run.stdout).strip().splitlines()
        raise Vis2imgError(f"wsclean failed on {ms}: {lines[-1] if lines else f'exit code {run.returncode}'}")
    return image
