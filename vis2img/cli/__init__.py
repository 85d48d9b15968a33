"""The command line ``vis2img``: a table of commands, and every error as one line.

A command is a module with ``run(argv, prog) -> exit status``, imported only when it is called, so that
``vis2img info`` waits for neither JAX nor Dask.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from vis2img import __version__
from vis2img.cli import signals
from vis2img.cli.large_pages import use_large_pages
from vis2img.errors import UsageError, Vis2imgError, Vis2imgWarning, printable

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("info", "vis2img.cli.info", "show what a measurement set holds"),
    ("image", "vis2img.cli.image", "make a dirty image of a measurement set (FITS and PNG)"),
    ("average", "vis2img.cli.average", "average a measurement set so that a facet images many times faster"),
    ("augment", "vis2img.cli.augment", "show what an imaging prior does to a field: a contact sheet of its draws"),
    ("simulate", "vis2img.cli.simulate", "write simulated measurement sets with labels"),
    ("loader-bench", "vis2img.cli.loader_bench", "measure how fast the loader feeds a training step"),
    ("train", "vis2img.cli.train", "train a DINO model from a configuration file"),
    ("embed", "vis2img.cli.embed", "turn measurement sets, images or cutouts into a table of embeddings"),
    ("evaluate", "vis2img.cli.evaluate", "score trained models by several tasks, with a report"),
    ("study", "vis2img.cli.study", "compare ways of making views: imaging, image-only, CLEAN"),
    ("weights", "vis2img.cli.weights", "list the trained networks that come with vis2img, and show their cards"),
    ("export", "vis2img.cli.export", "write a trained backbone for PyTorch: safetensors with the names of timm"),
    ("demo", "vis2img.cli.demo", "simulate, train and evaluate a small model, start to end"),
)

EXIT_ERROR = 1  # something about the data, the disk or the machine
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vis2img`` and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; default: those of the process.
    """
    if argv is not None:
        return _run(argv)
    for stream in (sys.stdout, sys.stderr):  # of a terminal that knows fewer letters than names have
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] in (["train"], ["study"], ["demo"]):
        use_large_pages()
    signals.listen()
    status = _run(sys.argv[1:])
    signals.finish(status)
    return status


def _run(args: Sequence[str]) -> int:
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug and not sys.warnoptions:
                warnings.simplefilter("ignore")
                warnings.simplefilter("default", Vis2imgWarning)
                warnings.showwarning = _show_warning
            status = _dispatch(args)
        sys.stdout.flush()
        return status
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_ERROR if stop.code else 0
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing must be written any more, at exit neither.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            sys.excepthook(type(error), error, error.__traceback__)
        else:
            print(f"vis2img: error: {printable(_one_line(error))}", file=sys.stderr)
        return _exit_code(error)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"vis2img {__version__}")
        return 0
    name, *rest = args
    for command, module, _ in COMMANDS:
        if command == name:
            return int(importlib.import_module(module).run(rest, f"vis2img {name}"))
    near = difflib.get_close_matches(name, [command for command, _, _ in COMMANDS], n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"unknown command {name!r}{guess} (vis2img --help lists the commands)")


def _overview() -> str:
    commands = "\n".join(f"  {name:<14}{text}" for name, _, text in COMMANDS)
    return f"""usage: vis2img COMMAND [OPTIONS]

Self-supervised learning straight from radio-interferometer measurement sets.

commands:
{commands}

options:
  -h, --help  show this help; `vis2img COMMAND --help` shows a command's options and examples
  --version   show the version
  --debug     show the traceback of an error, and warnings of the libraries"""


def _show_warning(message: Warning | str, *where: object, **also: object) -> None:
    """Show a warning of ours in one line; others are not shown without ``--debug``."""
    print(f"vis2img: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, Vis2imgError):
        return text
    if isinstance(error, KeyboardInterrupt):
        return text or "interrupted"
    if isinstance(error, MemoryError):
        return "not enough memory; choose a smaller image (--npix) or less data (--channels, --times)"
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package and package not in {"vis2img", *sys.stdlib_module_names}:
        return f"this command needs the package {package}, which is not installed (pip install {package})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"this is a bug in vis2img: {type(error).__name__}: {text}; rerun with --debug for the traceback"


def _exit_code(error: BaseException) -> int:
    usual = EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_ERROR
    return int(getattr(error, "exit_code", usual))
