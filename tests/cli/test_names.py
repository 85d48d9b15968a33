"""Names that mean something to HTML, matplotlib, rich or a terminal are names and no more, in every command."""

from __future__ import annotations

import io
import json
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from astropy.io import fits
from matplotlib.figure import Figure

from vis2img.cli.progress import Bars
from vis2img.errors import printable
from vis2img.imaging.figure_text import figure_text

NAMES = [
    "$x$",
    "a$b_1^{2",
    "$$",
    r"\$\frac{1}{0}$",
    "_hidden",
    "<script>alert(1)</script>",
    "a & 'b' \"c\"",
    "[/old]",
    "[red]x",
    "survey[/old].fits",
    "esc\x1b[2Jape\x07",
    "two\nlines\r\nor three",
    "ünïcødé 天空 🌌",
    "x" * 5000,
    " ",
    "=1+1",
    "%s {0} {x!r}",
]


def shown(text: str) -> str:
    """Return what matplotlib draws of a text that it takes for plain."""
    plain, math = matplotlib.text.Text()._preprocess_math(text)
    assert math is False
    return plain


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [name for name in NAMES if name != " "])
def test_figures_show_the_letters(name: str) -> None:
    figure = Figure()
    axis = figure.subplots()
    axis.set_title(f"{figure_text(name)} and {figure_text(name)}")
    axis.plot([0, 1], label=figure_text(name))
    assert [text.get_text() for text in axis.legend().get_texts()] == [figure_text(name)]
    figure.savefig(io.BytesIO(), format="png")
    drawn = shown(figure_text(name)).strip()
    assert len(drawn) <= 60 and "\n" not in drawn and drawn.isprintable()
    if name.isprintable() and len(name) < 60:
        assert drawn == name.strip()


def test_printable_text() -> None:
    assert printable("a\x1b[2J\x9b\u202eb") == r"a\x1b[2J\x9b\u202eb"
    assert printable("one\n\ttwo") == "one\n\ttwo"
    assert printable("ünïcødé 天空") == "ünïcødé 天空"
    assert printable("a\udcffb\rc") == r"a\udcffb c"
    printable("\udcff").encode()


@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_any_name(make_ms, cli, tmp_path, name: str) -> None:
    path = make_ms(field=name, telescope=name).path
    assert_plain(cli("info", path))
    out = tmp_path / "a.fits"
    done = cli("image", path, "--npix", 64, "-o", out)
    assert_plain(done)
    with fits.open(out) as hdus:
        hdus.verify("exception")
    assert fits.getheader(out)["OBJECT"].isascii()
    told = json.loads(cli("image", path, "--npix", 64, "-o", out, "--overwrite", "--no-png", "--json").out)
    assert told["field"].split() == name.split() or told["field"] == name.rstrip("\0")


@pytest.mark.parametrize("name", ["$x$", "esc\x1b[2Jape"])
def test_a_contact_sheet_of_any_name(make_ms, cli, tmp_path, name: str) -> None:
    how = ("--draws", 1, "--patches", 1, "--npix", 128, "--patch-npix", 32, "-o", tmp_path / "a.png")
    assert_plain(cli("augment", make_ms(field=name).path, *how))


@pytest.mark.parametrize("name", [name for name in NAMES if "/" not in name and len(name) < 100 and name != " "])
def test_a_file_of_any_name(make_ms, cli, tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_ms().path.rename(tmp_path / f"{name}.ms")
    assert_plain(cli("info", path))
    assert_plain(cli("image", path, "--npix", 64))
    done = cli("image", path, "--npix", 64, code := "--no-such")
    assert done.code == 2 and done.err.count("\n") == 1 and "\x1b" not in done.err, code
    again = cli("image", path, "--npix", 64)
    assert again.code == 1 and again.err.count("\n") == 1 and "\x1b" not in again.err


def assert_plain(done) -> None:
    assert done.code == 0, done.err
    assert all(c.isprintable() or c == "\n" for c in done.out + done.err)
    assert "bug" not in done.err


@pytest.mark.parametrize("name", NAMES)
def test_bars_of_any_name(monkeypatch, name: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bars() as bars:
        bars(name, 1, 2, name)
        bars(name, 2, 2, name)


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.add(tag)
        assert not any(key.startswith("on") for key, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMES)
def test_reports_of_any_name(tmp_path, name: str) -> None:
    from rich.console import Console

    from vis2img.train.evaluate.scores import Score, summaries
    from vis2img.train.report.embedding_map import map_figure
    from vis2img.train.report.page import Section
    from vis2img.train.report.page import write_report as write_page
    from vis2img.train.report.scores_page import print_table, write_report

    scores = [Score("classification", name, name, "accuracy", np.nan, seed, 0.5 + 0.1 * seed) for seed in range(3)]
    page = write_report(tmp_path / "report", scores, title=name, facts={name: name})
    print_table(summaries(scores), Console(file=io.StringIO()))
    write_page(tmp_path / "demo.html", name, name, [Section(name, name, table=((name, name),))])
    for path in (page, tmp_path / "demo.html"):
        tags = Tags()
        tags.feed(path.read_text())
        assert "script" not in tags.tags
        assert name.split() == [] or name.split()[0] in tags.text
    points = np.random.default_rng(0).normal(size=(30, 2))
    colour = np.array([name, "b"] * 15)
    map_figure(points, colour=colour, name=name).savefig(io.BytesIO(), format="png")
