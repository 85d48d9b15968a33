"""Help: every option of every command is there, short by default, and nothing of Python shows."""

from __future__ import annotations

import re

import pytest

from vis2img.cli import COMMANDS
from vis2img.configs.help_text import help_text

LEAKS = re.compile(
    r"Primitive|Spec\(|typing|Tuple|Annotated|<class|dataclass|\(default: (none|None|False|:|)\)|``|\[\["
)
BOXES = """usage: it [-h] [OPTIONS] [[STR [STR ...]]]

Do one thing.
And more.

╭─ options ─────────────────────────────╮
│ -h, --help       show this            │
│ -o PATH, --out PATH                   │
│                  Where to, which is   │
│                  long. (default: none)│
│ --flag           On. (default: False) │
│ --rare X         Seldom. (default: 3) │
╰───────────────────────────────────────╯
╭─ a.b options ─────────────────────────╮
│ Of a group, of which much             │
│ is told.                              │
│ ───────────────────────────────────── │
│ --a.b.pair [FLOAT [FLOAT ...]]        │
│                  Two. (default: 0 1)  │
╰───────────────────────────────────────╯
"""


def test_boxes_become_columns() -> None:
    assert help_text(BOXES, None, 80).splitlines() == [
        "usage: it [-h] [OPTIONS] STR ...",
        "",
        "Do one thing. And more.",
        "",
        "options:",
        "  -h, --help            show this",
        "  -o PATH, --out PATH   Where to, which is long.",
        "  --flag                On.",
        "  --rare X              Seldom. (default: 3)",
        "",
        "a.b options: Of a group, of which much is told.",
        "  --a.b.pair FLOAT ...  Two. (default: 0 1)",
    ]


def test_others_than_the_common_ones_are_named() -> None:
    lines = help_text(BOXES, ("out",), 80).splitlines()
    assert "  also --flag, --rare" in lines and "  also --a.b.pair" in lines
    assert lines[-1] == "--help-all describes every option." and not any("Seldom" in line for line in lines)


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("out: x\ndata: {ms: [a.ms]}\n")
    return path


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_option_is_in_either_help(cli, name: str, run_file) -> None:
    words = {"train": [str(run_file)], "study": ["--steps", "3"]}.get(name, [])
    short, whole = (cli(name, *words, word) for word in ("--help", "--help-all"))
    assert short.code == whole.code == 0 and short.err == whole.err == ""
    options = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", whole.out)) - {"--help-all"}
    assert options - {"--help"} <= set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", short.out))
    assert len(short.out.splitlines()) <= 145
    for text in (short.out, whole.out):
        assert not LEAKS.search(text), LEAKS.search(text)
        prose = [line for line in text.splitlines() if not line.startswith("  vis2img ") and "usage:" not in line]
        assert max(map(len, prose)) <= 100


def test_common_options_are_options() -> None:
    """A name that is no option any more would hide from the short help what took its place."""
    from vis2img.cli.augment import AugmentCommand
    from vis2img.cli.image import ImageCommand
    from vis2img.cli.loader_bench import LoaderBenchCommand
    from vis2img.cli.simulate import SimulateCommand
    from vis2img.configs.values import keys_of
    from vis2img.train.run.config import TrainConfig
    from vis2img.train.study.config import StudyConfig

    def names(cls: type, prefix: str = "", flat: bool = False):
        for name, key in keys_of(cls).items():
            if key.nested:
                yield from names(key.kind, "" if flat else f"{prefix}{name}.", flat)
                yield from names(key.kind, prefix)
            else:
                yield f"{prefix}{name}".replace("_", "-")

    for command in (AugmentCommand, ImageCommand, LoaderBenchCommand, SimulateCommand, TrainConfig, StudyConfig):
        assert set(command.COMMON) <= set(names(command)), set(command.COMMON) - set(names(command))
