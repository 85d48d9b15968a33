"""Typed command lines: a dataclass per command, parsed by tyro, with every mistake told in one line."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import types
from collections.abc import Iterator
from typing import Any, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from vis2img.configs.complaints import one_line
from vis2img.configs.help_text import HELP, help_text
from vis2img.errors import UsageError
from vis2img.inputs import expand_home

Command = TypeVar("Command")
_ONE_COLUMN = 129  # of a terminal; from 130 on tyro puts boxes side by side
_NO_BREAKS = 10_000  # which could split the name of an option
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

    ``--help`` describes the options that ``command.COMMON`` names and lists the others; ``--help-all`` describes all.
    ``default``, if given, holds the values of what ``argv`` leaves out.

    Raises
    ------
    UsageError
        One line that names the option.
    SystemExit
        After ``--help`` and ``--help-all``.
    """
    complaint, boxes = io.StringIO(), io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    wants_help, width = any(word in HELP for word in argv), shutil.get_terminal_size().columns
    try:
        with (
            contextlib.redirect_stderr(complaint),
            contextlib.redirect_stdout(boxes) if wants_help else contextlib.nullcontext(),
            _columns(_ONE_COLUMN if wants_help else _NO_BREAKS),
        ):
            return tyro.cli(
                command,
                prog=prog,
                args=["--help"] if wants_help else [_at_home(word) for word in argv],
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_REGISTRY,
            )
    except SystemExit as stop:
        if not stop.code:
            common = None if "--help-all" in argv else getattr(command, "COMMON", None)
            print(help_text(boxes.buffer.getvalue().decode(), common, width), end="")
            raise
        advice = f" ({prog} --help)"
        raise UsageError(f"{one_line(complaint.getvalue()).removesuffix(advice)}{advice}") from None


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
def _columns(count: int) -> Iterator[None]:
    """Let tyro write for a terminal of so many columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
