"""What ``--help`` prints: tyro's boxes as plain columns, the common options whole and the others by name.

tyro writes what is known of each option into boxes, which are read here.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

HELP = ("-h", "--help", "--help-all")
_COLUMN = 24  # where descriptions begin
_WIDEST = 100
# Defaults that say nothing: that nothing is set, a flag that is off, a range without ends.
_NO_DEFAULT = re.compile(r"\s*\(default: (none|None|False|:|0:|'{}'|)\)$")

_DEFAULT = re.compile(r"\(default: \S{1,20}\)$")
_UNBROKEN = "\0"  # a blank where no line is broken
_MANY = re.compile(r"\[+([A-Z ]+) \[\1 \.\.\.\]\]+")  # [STR [STR ...]]: any number of them


@dataclass
class _Group:
    """A box: its title, what stands above its options, and each option with its description."""

    title: str
    about: list[str] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)


def help_text(boxes: str, common: Collection[str] | None, width: int) -> str:
    """Return the help of a command.

    Parameters
    ----------
    boxes : str
        What tyro prints, one box under the other.
    common : collection of str or None
        Options, as ``data.ms``, that are described; of others the names are listed. None: all are described.
    width : int
        Of the terminal.
    """
    width = max(60, min(width, _WIDEST))
    preface, groups = _read(_MANY.sub(r"\1 ...", boxes).replace("``", ""))
    lines = [piece for line in _joined(preface) for piece in _wrapped(line, width)]
    for group in groups:
        lines += _of_group(group, common, width)
    if common is not None:
        lines += ["", "--help-all describes every option."]
    return "\n".join(lines).strip("\n") + "\n"


def _read(boxes: str) -> tuple[list[str], list[_Group]]:
    """Return what stands above the boxes, and the boxes."""
    preface: list[str] = []
    groups: list[_Group] = []
    for line in boxes.splitlines():
        if line.startswith("╭"):
            groups.append(_Group(line.strip("╭╮─ ")))
        elif not groups:
            preface.append(line.rstrip())
        elif line.startswith("│"):
            _add(groups[-1], line[2:].rstrip("│ "))
    while preface and not preface[-1]:
        preface.pop()
    return preface, groups


def _joined(lines: list[str]) -> list[str]:
    """Return paragraphs as one line each."""
    joined: list[str] = []
    for line in lines:
        if joined and all(each and not each.startswith(" ") for each in (joined[-1], line)):
            joined[-1] += f" {line}"
        else:
            joined.append(line)
    return joined


def _add(group: _Group, line: str) -> None:
    """Add a line of a box: of the option above where it is indented."""
    text = line.strip()
    if not text or set(text) == {"─"}:
        group.about, group.options = ([name for name, _ in group.options], []) if text else (group.about, group.options)
    elif line[0] == " " and group.options:
        name, about = group.options[-1]
        group.options[-1] = name, f"{about} {text}".strip()
    else:
        name, _, about = text.partition("  ")
        group.options.append((name, about.strip()))


def _of_group(group: _Group, common: Collection[str] | None, width: int) -> Iterator[str]:
    shown = [option for option in group.options if common is None or _is_common(option[0], common)]
    others = [name for name, _ in group.options if name not in dict(shown) and "--help" not in name]
    if not shown and not others:
        return
    yield ""
    yield from _wrapped(f"{group.title}: {' '.join(group.about)}".strip(), width)
    for name, about in shown:
        yield from _of_option(name, _NO_DEFAULT.sub("", about), width)
    if others:
        names = ", ".join(re.findall(r"--[\w.-]+", name)[-1] for name in others)
        yield from textwrap.wrap(
            f"also {names}", width, initial_indent="  ", subsequent_indent=" " * 4, break_on_hyphens=False
        )


def _is_common(invocation: str, common: Collection[str]) -> bool:
    names = re.findall(r"--([\w.-]+)", invocation)
    return not names or any(name in common for name in (*names, *(name.removeprefix("no-") for name in names)))


def _of_option(name: str, about: str, width: int) -> Iterator[str]:
    about = _DEFAULT.sub(lambda found: found[0].replace(" ", _UNBROKEN), about)
    lines = textwrap.wrap(about, width - _COLUMN, break_on_hyphens=False, break_long_words=False) or [""]
    lines = [line.replace(_UNBROKEN, " ") for line in lines]
    if len(name) + 4 <= _COLUMN:
        yield f"  {name:<{_COLUMN - 2}}{lines.pop(0)}".rstrip()
    else:
        yield f"  {name}"
    for line in lines:
        yield f"{'':{_COLUMN}}{line}".rstrip()


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line of prose in pieces; examples and tables, which are indented, stay whole."""
    whole = len(line) <= width or line.startswith(" ")
    return [line] if whole else textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False)
