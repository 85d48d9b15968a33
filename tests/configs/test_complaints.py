"""What is wrong with a command line, in our words and in one line."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("image a.ms --npix", "--npix: a value is missing behind it"),
        ("image a.ms --weighting robust", "--weighting: 'robust' is unknown; choose from natural, uniform, briggs"),
        ("image a.ms --robust x", "--robust: 'x' is not a number"),
        ("image a.ms --threads 1.5", "--threads: '1.5' is not a whole number"),
        ("image a.ms --band 0.5", "--band takes 2 values"),
        ("image a.ms --band x y", "--band: FLOAT FLOAT is wanted, not 'x y'"),
        ("image a.ms --wieghting natural", "unknown option --wieghting; perhaps you meant --weighting"),
        ("image a.ms --no-png yes", "'yes' belongs to no option"),
        ("simulate -o s --size-range 1 2", "--size-range: ANGLE ANGLE is wanted, not '1 2'"),
        ("simulate -o s --points 1 2", "--points: FLOAT FLOAT FLOAT is wanted, not '1 2'"),
        ("info", "MS is missing"),
        ("info a.ms b.ms", "'b.ms' belongs to no option"),
    ],
)
def test_mistakes_are_told_in_our_words(cli, words: str, told: str) -> None:
    message = cli(*words.split()).error(2)
    assert told in message and f"vis2img {words.split()[0]} --help" in message
    assert not any(leak in message for leak in ("typing", "Tuple", "Spec", "literal", "float:", "Expected"))


@pytest.mark.parametrize("out", [".", "", "/"])
def test_a_folder_as_output_is_no_bug(cli, make_ms, tmp_path, monkeypatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_ms().path
    assert "is a folder; name a file in it, e.g. " in cli("image", path, "-o", out).error(1)
    assert "is a folder; name a file in it, e.g. " in cli("embed", "none", path, "-o", out).error(1)
    cli("augment", path, "-o", out).error(1)
    cli("average", path, "-o", out).error(1)
