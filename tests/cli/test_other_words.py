"""Words of WSClean and CASA are told by ours, in one line; the table in the documents is that of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vis2img.cli.other_words import CASA, WSCLEAN

DOCS = Path(__file__).parents[2] / "docs" / "conventions.md"


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("-size 512 512", "--npix 1024,768"),
        ("-size=512", "--npix"),
        ("-scale 5asec", "--pixsize"),
        ("-name x", "-o NAME.fits"),
        ("-weight briggs 0", "--weighting briggs --robust 0"),
        ("-pol IQUV", "--stokes"),
        ("-channels-out 4", "--channels-out"),
        ("-j 4", "--threads"),
        ("-robust 0.5", "--robust"),
        ("-psf", "--psf"),
        ("-niter 1000", "does not deconvolve"),
        ("--imsize 512", "--npix"),
        ("--cell 2arcsec", "--pixsize"),
        ("imsize=512", "--npix"),
        ("cell=2arcsec", "--pixsize"),
        ("vis=a.ms", "without an option"),
        ("--npix 512 256", "--npix 512,256"),
        ("--weighting briggs -0.5", "--weighting briggs --robust -0.5"),
        ("--spw 0:0~7", "--spw 0 --channels 0:8"),
        ("--spw 1:5", "--spw 1 --channels 5:6"),
        ("--channels 0~7", "write 0:8"),
        ("--times 3~3", "write 3:4"),
        ("--uvrange 0.5~20klambda", "write 0.5k:20k"),
        ("--uvrange >100lambda", "write 100:"),
        ("--uvrange <1.5klambda", "write :1.5k"),
    ],
)
def test_a_word_of_another_program_is_told_by_ours(cli, words: str, ours: str) -> None:
    message = cli("image", "a.ms", *words.split()).error(2)
    assert ours in message and "vis2img image --help" in message


def test_what_the_message_says_is_understood(cli) -> None:
    """Each advice is a command line of our own: what is wrong with it is only that there is no measurement set."""
    for ours in {*WSCLEAN.values(), *CASA.values()}:
        if ours.startswith("-"):
            words = ours.replace("NAME", "x").split()
            assert "a.ms does not exist" in cli("image", "a.ms", *words).err or ours == "--debug"


def test_a_set_with_an_equals_sign_is_no_option(make_ms, cli, tmp_path, monkeypatch) -> None:
    make_ms().path.rename(tmp_path / "vis=a.ms")
    monkeypatch.chdir(tmp_path)
    assert cli("image", "vis=a.ms", "--npix", 64, "-o", "a.fits", "--no-png").code == 0


def test_the_table_of_the_documents_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(.*?)` \| (?:`(.*?)`|(.*?)) \|$", DOCS.read_text().partition("## Words of")[2], re.M)
    told = {word: ours or prose for cell, ours, prose in rows for word in cell.split("`, `")}
    wanted = {f"-{name}": ours for name, ours in WSCLEAN.items()} | {f"{name}=": ours for name, ours in CASA.items()}
    assert told == wanted
