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


def clean_image(
    ms: str | Path,
    params: ImagingParams,
    out: str | Path,
    *,
    niter: int = 50_000,
    auto_threshold: float = 3.0,
    auto_mask: float | None = 5.0,
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
    niter : int
        At most so many minor iterations.
    auto_threshold, auto_mask : float
        CLEAN stops at this many times the noise, and beyond the mask threshold only in what was found before.
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
        scheme = [params.weighting, *([f"{params.robust}"] if params.weighting == "briggs" else [])]
        command = [
            *(
                program,
                "-name",
                f"{folder}/clean",
                "-temp-dir",
                str(folder),
                "-j",
                str(nthreads),
                "-no-update-model-required",
            ),
            *("-size", *map(str, params.npix), "-scale", f"{params.pixsize / ARCSEC:.12g}asec", "-weight", *scheme),
            *("-niter", str(niter), "-mgain", "0.8", "-auto-threshold", str(auto_threshold)),
            *(("-auto-mask", str(auto_mask)) if auto_mask is not None else ()),
            *(("-taper-gaussian", f"{params.taper / ARCSEC:.12g}asec") if params.taper else ()),
            *(("-multiscale",) if multiscale else ()),
            str(ms),
        ]
        # OpenBLAS takes WSClean's own threads for its, and WSClean refuses.
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, check=False
        )
        made = folder / "clean-image.fits"
        if done.returncode or not made.exists():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Vis2imgError(f"wsclean failed on {ms}: {said[-1] if said else f'exit code {done.returncode}'}")
        if noise > 0:
            fits.setval(made, "NOISE", value=noise, comment="Jy/beam, to stretch pictures by")
        to_disk(made)
        made.replace(out)
    return out
