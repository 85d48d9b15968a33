"""A report of scores: figures that choose their form, tables that say all, a folder that is whole or not at all."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from rich.console import Console

import vis2img.train.report.folder as report_folder
from vis2img.errors import OutputError
from vis2img.train.evaluate.scores import Score, Summary, summaries, to_json
from vis2img.train.report.folder import check_report_folder
from vis2img.train.report.plots import looks, task_figures
from vis2img.train.report.scores_page import print_table, score_tables, write_report

NAN = math.nan
NAMES = ("imaging varies", "image-only", "CLEAN", "random weights", "pixels")


def made(seeds: int = 5) -> list[Score]:
    """Four tasks and five representations, with some seeds; the pixels are not fine-tuned."""
    rng = np.random.default_rng(0)
    scores = []
    for i, name in enumerate(NAMES):
        for seed in range(seeds):

            def add(task: str, setting: str, metric: str, x: float, name=name, seed=seed, best=0.9 - 0.05 * i) -> None:
                scores.append(Score(task, name, setting, metric, x, seed, best + 0.02 * rng.normal()))

            for share in (0.01, 0.1, 1.0):
                add("classification", "k-NN", "accuracy", share)
                if name != "pixels":
                    add("classification", "fine-tuned", "accuracy", share)
            for k in (1, 3, 10):
                add("similarity", "cosine", "precision", k)
            for share in (0.01, 0.05, 0.5):
                add("anomaly", "isolation forest", "recall", share)
                scores.append(Score("anomaly", name, "random order", "recall", share, seed, share))
            add("anomaly", "isolation forest", "recall over random", 0.05)
            for parameter in ("robust", "band"):
                add("invariance", parameter, "distance ratio", NAN)
    scores.append(Score("classification", "chance", "k-NN", "accuracy", 0.01, 0, 0.5))
    scores.append(Score("classification", "chance", "k-NN", "accuracy", 1.0, 0, 0.5))
    return scores


def drawn(seeds: int = 5) -> dict[str, Figure]:
    return {title: figure for _, title, figure in task_figures(summaries(made(seeds)))}


def test_positions_make_curves_and_single_numbers_bars() -> None:
    found = drawn()
    assert list(found) == ["classification", "similarity", "anomaly: curves", "anomaly: single numbers", "invariance"]
    bars = {title for title, figure in found.items() if any(axis.patches for axis in figure.axes)}
    assert bars == {"anomaly: single numbers", "invariance"}


def test_a_curve_goes_through_the_means_and_its_band_through_the_interval() -> None:
    rows = [
        r for r in summaries(made()) if (r.task, r.setting, r.representation) == ("classification", "k-NN", "CLEAN")
    ]
    axis = next(axis for axis in drawn()["classification"].axes if axis.get_title() == "k-NN")
    line = next(line for line in axis.lines if line.get_label() == "CLEAN")
    np.testing.assert_allclose(line.get_xdata(), [0.01, 0.1, 1.0])
    np.testing.assert_allclose(line.get_ydata(), [r.mean for r in rows])
    band = next(c for c in axis.collections if to_hex(c.get_facecolor()[0]) == to_hex(line.get_color()))
    corners = band.get_paths()[0].vertices
    for row in rows:
        y = corners[np.isclose(corners[:, 0], row.x), 1]
        assert y.min() == pytest.approx(row.low) and y.max() == pytest.approx(row.high)
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "share of labels"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1%", "10%", "100%"]


def test_neighbours_are_counted_and_not_shares() -> None:
    (axis,) = drawn()["similarity"].axes
    assert axis.get_xlabel() == "neighbours k"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "3", "10"]


def test_recall_is_shown_beside_random_order_which_has_no_panel_of_its_own() -> None:
    (axis,) = drawn()["anomaly: curves"].axes
    line = next(line for line in axis.lines if line.get_label() == "random order")
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert line.get_xdata()[0] == pytest.approx(0.01) and line.get_xdata()[-1] == pytest.approx(0.5)
    (bars,) = drawn()["anomaly: single numbers"].axes
    assert bars.get_xlabel() == "recall over random, share of patches looked at: 5%"
    assert bars.get_xlim()[1] > 1.0 or max(p.get_width() for p in bars.patches) < 1


def test_bars_have_the_length_of_the_mean_and_an_error_of_half_the_interval() -> None:
    rows = [r for r in summaries(made()) if r.task == "invariance" and r.representation == "image-only"]
    (axis,) = drawn()["invariance"].axes
    container = next(c for c in axis.containers if c.get_label() == "image-only" and hasattr(c, "errorbar"))
    np.testing.assert_allclose([bar.get_width() for bar in container], [r.mean for r in rows])
    segments = container.errorbar.lines[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(s[:, 0]) for s in segments], [r.high - r.low for r in rows])
    assert [t.get_text() for t in axis.get_yticklabels()] == ["robust", "band"]
    assert axis.get_xlabel() == "distance ratio (lower is better)"


def test_a_representation_has_one_colour_in_all_figures() -> None:
    seen: dict[str, set[str]] = {name: set() for name in NAMES}
    for figure in drawn().values():
        for axis in figure.axes:
            for line in axis.lines:
                if line.get_label() in seen:
                    seen[line.get_label()].add(to_hex(line.get_color()))
            for container in axis.containers:
                if container.get_label() in seen and hasattr(container, "patches"):
                    seen[container.get_label()].add(to_hex(container.patches[0].get_facecolor()))
    assert all(len(colours) == 1 for colours in seen.values())
    assert len(set.union(*seen.values())) == len(NAMES)


def test_many_representations_are_told_apart_and_chance_takes_no_colour() -> None:
    found = looks(["chance", *(f"run {i}" for i in range(28))])
    assert len(set(found.values())) == 28 and "chance" not in found


def test_what_was_not_measured_is_left_out_of_the_picture_but_not_of_the_table() -> None:
    rows = summaries([Score("t", "a", "s", "R2", NAN, 0, NAN), Score("t", "b", "s", "R2", NAN, 0, 0.5)])
    ((_, _, figure),) = task_figures(rows)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.5]
    (table,) = score_tables(rows)
    assert [cell.text for cell in table.rows[0][2]] == ["–", "0.500"]


def test_a_table_has_a_row_for_each_place_and_a_cell_for_each_representation() -> None:
    rows = [Summary("t", "a", "s", "m", 0.05, 3, 0.8, 0.7, 0.9), Summary("t", "b", "s", "m", 1.0, 1, 0.5, NAN, NAN)]
    (table,) = score_tables(rows)
    assert table.representations == ("a", "b")
    assert [(place, [cell.text for cell in cells]) for _, place, cells in table.rows] == [
        ("5%", ["0.800 ± 0.100", "–"]),
        ("100%", ["–", "0.500"]),
    ]
    assert table.seeds == ""


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images = 0
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes) -> None:
        self.images += tag == "img"
        assert tag not in ("script", "link", "iframe")
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "new" / "report"
    picture = Figure(figsize=(1, 1))
    facts = {"run": "runs/a <b>", "command": "vis2img evaluate runs/a"}
    page = write_report(folder, made(), title="What a & b are worth", facts=facts, pictures=[("Attention", picture)])
    assert page == folder / "report.html"
    return folder


def test_the_page_needs_nothing_else_and_says_what_chance_is(folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    assert all(link.startswith(("data:image/png;base64,", "#task-")) for link in page.links)
    assert page.images == 6
    for phrase in (
        "What a & b are worth",
        "runs/a <b>",
        "one over the number of classes",
        "share of the class that is asked for",
        "In random order the share found is the share looked at",
        "as far away as another patch",
        "Attention",
    ):
        assert phrase in page.text
    assert "://" not in (folder / "report.html").read_text()


def test_all_means_are_on_the_page(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    for row in summaries(made()):
        assert str(row) in text


def test_the_files_hold_every_score_and_every_mean(folder: Path) -> None:
    scores = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [float(row["value"]) for row in scores] == [score.value for score in made()]
    means = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    assert [float(row["mean"]) for row in means] == [row.mean for row in summaries(made())]
    pictures = sorted(folder.glob("figure-*.png"))
    assert len(pictures) == 6 and pictures[-1].name == "figure-06-attention.png"
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert len(list(folder.iterdir())) == 3 + 6


def few(value: float = 0.5) -> list[Score]:
    return [Score("regression", "trained", "flux, ridge", "R2", NAN, 0, value)]


def test_a_report_is_replaced_only_on_request_and_nothing_old_stays(tmp_path: Path) -> None:
    picture = [("Map", Figure(figsize=(1, 1)))]
    write_report(tmp_path / "r", few(), title="old", facts={}, pictures=picture)
    with pytest.raises(OutputError, match=r"holds a report already; use --overwrite"):
        write_report(tmp_path / "r", few(), title="new", facts={})
    assert "old" in (tmp_path / "r" / "report.html").read_text()
    (tmp_path / "r" / ".report-0123abcd.tmp").mkdir()  # a run that was killed left it
    write_report(tmp_path / "r", few(0.7), title="new", facts={}, overwrite=True)
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert names == ["figure-01-regression.png", "headlines.csv", "report.html", "scores.csv", "summary.csv"]
    assert "new" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_things_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other things than a report \(thesis.tex\)"):
        write_report(tmp_path, few(), title="t", facts={}, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(OutputError, match="is not a folder"):
        check_report_folder(tmp_path / "r", overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        check_report_folder(tmp_path / "r" / "below", overwrite=True)


def test_a_full_disk_leaves_the_old_report_whole_and_makes_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path / "old", few(), title="old", facts={})
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    write, count = report_folder._write, iter(range(100))

    def full(path: Path, content: bytes) -> None:
        if next(count) % 2:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(report_folder, "_write", full)
    with pytest.raises(OutputError, match="old cannot be written: No space left"):
        write_report(tmp_path / "old", few(0.7), title="new", facts={}, overwrite=True)
    with pytest.raises(OutputError, match="No space left"):
        write_report(tmp_path / "new", few(0.7), title="new", facts={})
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_the_page_comes_last_so_that_a_kill_leaves_no_page_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path / "r", few(), title="old", facts={})
    moved = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        moved.append(target.name)
        assert not (tmp_path / "r" / "report.html").exists()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_report(tmp_path / "r", few(), title="new", facts={}, overwrite=True)
    assert moved[-1] == "report.html" and len(moved) == 5


def printed(rows: list[Summary], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(rows, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_number_is_legible_in_terminals_of_any_width(width: int) -> None:
    rows = [row for row in summaries(made()) if row.task in ("similarity", "invariance")]
    text = printed(rows, width)
    found = re.findall(r"\d\.\d{3} (?:± \d\.\d{3}|\+\d\.\d{3} -\d\.\d{3})", text)
    assert sorted(found) == sorted(str(row) for row in rows)
    assert max(map(len, text.splitlines())) <= width and "…" not in text


@pytest.mark.parametrize("width", [60, 200])
def test_values_of_few_seeds_are_legible_too(width: int) -> None:
    rows = [row for row in summaries(made(3)) if row.task in ("similarity", "invariance")]
    text = printed(rows, width)
    numbers = [f"{value:.3f}" for row in rows for value in (row.mean, *row.values)]
    assert sorted(re.findall(r"\d\.\d{3}", text)) == sorted(numbers)
    assert max(map(len, text.splitlines())) <= width and "…" not in text and "±" not in text


def test_it_is_said_what_intervals_are_of(tmp_path: Path) -> None:
    page = write_report(tmp_path / "r", made(3), title="t", facts={}).read_text()
    told = " ".join(printed(summaries(made(3)), 100).split())
    for text in (page, told):
        assert "over seeds with the 95% interval of the mean" in html.unescape(text)
        assert "Fewer than 5 seeds have no interval" in text
    assert " ± " not in page
    means = list(csv.DictReader(io.StringIO((tmp_path / "r" / "summary.csv").read_text())))
    assert {row["interval"] for row in means} == {""} and all(row["low"] == "" for row in means)
    assert {len(row["values"].split()) for row in means if row["representation"] != "chance"} == {3}


def test_few_seeds_are_points_in_the_pictures() -> None:
    rows = [r for r in summaries(made(3)) if r.representation == "CLEAN"]
    for title, task, setting in (("classification", "classification", "k-NN"), ("invariance", "invariance", "band")):
        wanted = [value for row in rows if (row.task, row.setting) == (task, setting) for value in row.values]
        axis = next(axis for axis in drawn(3)[title].axes if axis.get_title() in (setting, ""))
        points = [line for line in axis.lines if line.get_marker() == "."]
        shown = np.concatenate(
            [line.get_ydata() if title == task == "classification" else line.get_xdata() for line in points]
        )
        assert np.isin(np.round(wanted, 9), np.round(shown, 9)).all()
        assert not [c for c in axis.collections if len(c.get_paths()[0].vertices) > 4]  # no bands


def test_names_are_not_taken_for_markup() -> None:
    rows = summaries([Score("t", "[red]run[/red]", "[bold]", "m", NAN, 0, 0.5)])
    assert "[red]run[/red]" in printed(rows, 100) and "[bold]" in printed(rows, 100)


def test_of_a_long_curve_round_positions_are_printed() -> None:
    rows = summaries([Score("anomaly", "a", "s", "recall", i / 1000, 0, i / 1000) for i in range(1, 1001)])
    places = re.findall(r"│ +([\d.]+%)", printed(rows, 100))
    assert places == ["0.1%", "0.2%", "0.5%", "1%", "2%", "5%", "10%", "20%", "50%", "100%"]


def test_json_has_null_for_what_is_no_number() -> None:
    rows = summaries(few())
    (record,) = json.loads(to_json(rows))
    assert record == {
        "task": "regression",
        "representation": "trained",
        "setting": "flux, ridge",
        "metric": "R2",
        "x": None,
        "n": 1,
        "mean": 0.5,
        "low": None,
        "high": None,
        "interval": "",
        "values": [0.5],
    }


def test_a_report_of_nothing_is_a_page(tmp_path: Path) -> None:
    page = write_report(tmp_path / "r", [], title="Nothing", facts={})
    assert "Nothing" in page.read_text() and len(list((tmp_path / "r").iterdir())) == 3
