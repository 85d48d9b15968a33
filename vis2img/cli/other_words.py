"""Words of WSClean and of CASA's tclean that people write: told by ours (``docs/conventions.md`` has the table)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vis2img.configs.values import keys_of
from vis2img.errors import UsageError

_CLEAN = "not wanted: vis2img makes dirty images and does not deconvolve"
_CHOSEN = "not wanted: it is always so"
WSCLEAN = {
    "size": "--npix 1024,768",
    "scale": "--pixsize 2arcsec",
    "name": "-o NAME.fits",
    "weight": "--weighting briggs --robust 0",
    "pol": "--stokes IQUV",
    "channels-out": "--channels-out 8",
    "intervals-out": "--intervals-out 4",
    "channel-range": "--channels 0:32",
    "interval": "--times 0:100",
    "data-column": "--column CORRECTED_DATA",
    "field": "--field 3C286",
    "spws": "--spw 0,2",
    "shift": "--phase-centre 12h30m49.4s,12d23m28s",
    "make-psf": "--psf",
    "make-psf-only": "--psf",
    "apply-primary-beam": "--pb",
    "taper-gaussian": "--taper 10arcsec",
    "taper-tukey": "--tukey-taper 500 --uvrange 0:20000",
    "taper-inner-tukey": "--tukey-inner-taper 500 --uvrange 100:20000",
    "minuv-l": "--uvrange 100:20000",
    "maxuv-l": "--uvrange 100:20000",
    "weighting-rank-filter": "--rank-filter 3",
    "wgridder-accuracy": "--epsilon 1e-4",
    "j": "--threads 8",
    "quiet": "--quiet",
    "verbose": "--debug",
    "niter": _CLEAN,
    "mgain": _CLEAN,
    "gain": _CLEAN,
    "auto-threshold": _CLEAN,
    "auto-mask": _CLEAN,
    "multiscale": _CLEAN,
    "join-channels": _CLEAN,
    "no-dirty": _CLEAN,
    "gridder": _CHOSEN,
    "use-wgridder": _CHOSEN,
}
CASA = {
    "vis": "obs.ms, without an option",
    "imagename": "-o NAME.fits",
    "imsize": "--npix 1024,768",
    "cell": "--pixsize 2arcsec",
    "weighting": "--weighting briggs",
    "robust": "--robust 0",
    "stokes": "--stokes IQUV",
    "datacolumn": "--column CORRECTED_DATA",
    "field": "--field 3C286",
    "spw": "--spw 0 --channels 0:32",
    "antenna": "--antennas m000,m001",
    "timerange": "--times 0:100",
    "uvrange": "--uvrange 0.1k:20k",
    "uvtaper": "--taper 10arcsec",
    "phasecenter": "--phase-centre 12h30m49.4s,12d23m28s",
    "nchan": "--channels-out 8",
    "specmode": "--channels-out 8",
    "niter": _CLEAN,
    "deconvolver": _CLEAN,
    "threshold": _CLEAN,
    "gridder": _CHOSEN,
}


def refuse_other_words(argv: Sequence[str], prog: str, command: type) -> None:
    """Refuse words that are WSClean's or CASA's, and name ours.

    Parameters
    ----------
    argv : sequence of str
        Words behind the command.
    prog : str
        The command, for the message.
    command : type
        Its dataclass, for the names of its options.

    Raises
    ------
    UsageError
        One line with the option that is meant.
    """
    own = {name.replace("_", "-") for name in _names(command)}
    for before, word in zip(["", *argv], argv, strict=False):
        name = word.lstrip("-").partition("=")[0]
        said, ours = word.partition("=")[0], None
        if re.fullmatch(r"-[a-z][a-z-]*(=.*)?", word) and name not in ("o", "h"):
            ours = WSCLEAN.get(name) or (f"--{name}" if name in own else None)
        elif re.fullmatch(r"--[a-z-]+(=.*)?", word) and name not in own:
            ours = CASA.get(name) or WSCLEAN.get(name)
        elif re.fullmatch(r"[a-z]+=.*", word) and not before.startswith("-") and not Path(word).exists():
            said, ours = f"{said}=", CASA.get(name)
        if ours:
            raise UsageError(f"{said} is {ours}{'' if ours in (_CLEAN, _CHOSEN) else ' here'} ({prog} --help)")
    words = " ".join(argv)
    if pair := re.search(r"--npix (\d+) (\d+)(?!\S)", words):
        raise UsageError(f"{pair[0]} is one word here: --npix {pair[1]},{pair[2]} ({prog} --help)")
    if pair := re.search(r"--weighting briggs (-?[\d.]+)(?!\S)", words):
        raise UsageError(f"{pair[0]} is two options here: --weighting briggs --robust {pair[1]} ({prog} --help)")


def _names(command: type) -> Iterator[str]:
    """Yield the names of the options of a command; those of its groups have no prefix."""
    for name, key in keys_of(command).items():
        if key.nested:
            yield from _names(key.kind)
        else:
            yield name
