"""Typed command lines: a dataclass per command, parsed by tyro, with every mistake told in one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
import types
from collections.abc import Iterator
from typing import Any, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from vis2img.errors import UsageError
from vis2img.inputs import expand_home

Command = TypeVar("Command")
_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parse ``X | None`` as X: leaving the option out says None, and errors and help speak of X only."""
    if get_origin(info.type) not in (Union, types.UnionType):
        return None
    inner = [option for option in get_args(info.type) if option is not type(None)]
    if len(inner) != 1 or len(get_args(info.type)) != 2:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return PrimitiveConstructorSpec(
        nargs=spec.nargs,
        metavar=spec.metavar,
        instance_from_str=spec.instance_from_str,
        is_instance=lambda value: value is None or bool(spec.is_instance(value)),
        str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
        choices=spec.choices,
    )


def parse(command: type[Command], argv: list[str], prog: str, default: Command | None = None) -> Command:
    """Return the ``command`` dataclass that ``argv`` spells; its docstring is the help text.

    ``default``, if given, holds the values of what ``argv`` leaves out.

    Raises
    ------
    UsageError
        One line that names the option.
    SystemExit
        After ``--help``.
    """
    complaint = io.StringIO()
    wants_help = "-h" in argv or "--help" in argv
    try:
        with contextlib.redirect_stderr(complaint), contextlib.nullcontext() if wants_help else _wide():
            return tyro.cli(
                command,
                prog=prog,
                args=[_at_home(word) for word in argv],
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_REGISTRY,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        advice = f" ({prog} --help)"
        raise UsageError(f"{_condense(complaint.getvalue()).removesuffix(advice)}{advice}") from None


def _at_home(word: str) -> str:
    """Return a word with a path in it as a shell would give it, which passes over the ~ of ``--out=~/run``."""
    option, equals, value = word.partition("=")
    return f"{option}={expand_home(value)}" if equals and option.startswith("--") else expand_home(word)


def value_of(argv: list[str], name: str) -> str | None:
    """Return what an option is given, before everything else is parsed."""
    for i, word in enumerate(argv):
        if word == name and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Make tyro write its complaints without line breaks, which could split the name of an option."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _condense(box: str) -> str:
    """Return what matters of tyro's error box in one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ ").strip() for line in text.splitlines()]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith(("╭", "╰")) or not line:
            continue
        if set(line) == {"─"}:
            sections.append([])
        else:
            sections[-1].append(line)
    message = " ".join(sections[0])
    message = re.sub(r"^Error parsing (--\S+): ", r"\1: ", message)
    message = re.sub(r"^Error parsing \S+: ", "", message)  # the name of a group of options says nothing
    message = re.sub(r"^Missing from [^:]*: (\S+).*", r"\1 is missing", message)
    message = re.sub(r" Expected 1 values\.$", "", message)
    suggestion = re.search(r"Perhaps you meant:.*?(--[\w-]+)", " ".join(sum(sections[1:], [])))
    guess = f"; perhaps you meant {suggestion[1]}" if suggestion else ""
    return f"{message.rstrip('.') or 'the command line cannot be understood'}{guess}"
