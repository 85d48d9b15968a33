"""``vis2img train``: train a DINO model from a configuration file."""

from __future__ import annotations

import sys
import typing
from pathlib import Path

from vis2img.cli import signals
from vis2img.cli.progress import Bars
from vis2img.configs.help_text import HELP as HELP_OPTIONS
from vis2img.errors import OutputError, UsageError, printable
from vis2img.train.run.stopping import ABANDONED, Stopped, StopRequest
from vis2img.train.weights.released import SUFFIX, find

if typing.TYPE_CHECKING:
    from vis2img.train.run.config import TrainConfig

HELP = """usage: vis2img train CONFIG [--resume] [--quiet] [--debug] [--steps N] [--data.batch-size N] [--KEY VALUE ...]

Train a DINO or BYOL model straight from measurement sets, as a YAML configuration says. Every key of
the file is an option too and takes precedence; --help behind CONFIG lists them, --help-all describes them all.
The same command goes on from the last checkpoint of the run folder (key 'out'); so does the run folder
in place of CONFIG. Exported or released weights in its place (vis2img weights) begin a run with their settings.
SIGTERM (Slurm's warning) and Ctrl-C save first; a second Ctrl-C does not.
Several hosts: srun vis2img train CONFIG, one task for each host.

options beside those of --help behind CONFIG:
  --resume  a run folder that holds no run is an error, instead of a start
  --quiet   no progress and no bars; warnings and the last line stay
  --debug   the traceback of an error, and warnings of the libraries

examples:
  vis2img train run.yaml
  vis2img train run.yaml --steps 20000 --out runs/longer
  vis2img train runs/first --resume
  vis2img train run.yaml --model.weights dino_deitsmall8_pretrain.pth --model.variant small
  vis2img train run.yaml --optim.objective byol
  vis2img train weights.safetensors --out runs/again --data.ms a.ms    # anew, as these weights were
  vis2img train run.yaml --help

a small run.yaml:
  out: runs/first
  steps: 2000
  data:
    ms: [a.ms, b.ms]
    batch_size: 64
  model: {variant: tiny, patch: 8}
  optim: {warmup_steps: 200}
"""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    if not argv or argv[0] in HELP_OPTIONS:
        print(HELP)
        return 0 if argv else 2
    quiet, resume = "--quiet" in argv, "--resume" in argv
    words = [word for word in argv if word not in ("--quiet", "--resume")]
    if not words or words[0].startswith("--"):
        raise UsageError(f"name a configuration or a run folder first: {prog} CONFIG ({prog} --help)")
    # From the first moment, as what is imported from here on takes seconds and bears no interruption.
    with StopRequest(impatient=True).listening() as stop:
        try:
            print(_train(Path(words[0]), words[1:], prog, resume, quiet, stop), flush=True)
        except Stopped:
            print("stopped before the run began, run the same command to start it", flush=True)
        signals.leave_work_behind(ABANDONED)
    return 0


def _train(path: Path, options: list[str], prog: str, resume: bool, quiet: bool, stop: StopRequest) -> str:
    """Train, and return the last line to print."""
    config = _prepare(path, options, f"{prog} {path}", resume)
    stop.check()
    from vis2img.train.run.run import train

    stop.check()

    def warn(message: str) -> None:
        print(printable(f"{prog}: warning: {message}"), file=sys.stderr)

    def tell(field: str) -> None:
        print(printable(field), file=sys.stderr)

    with Bars(quiet=quiet) as bars:
        told = None if quiet else tell
        result = train(config, progress=bars, on_dashboard=_tell_dashboard, on_warning=warn, on_field=told, stop=stop)
    state = "finished" if result.finished else "stopped, run the same command to go on"
    left = f"; {len(result.unused)} of {result.inputs} inputs left out" if result.unused else ""
    return f"{result.folder}: step {result.step} of {config.steps}, {state}{left}"


def _prepare(path: Path, options: list[str], prog: str, resume: bool) -> TrainConfig:
    """Return the configuration in a file or a run folder, with the options over it, of a run that can start."""
    from vis2img.configs.load import load, override
    from vis2img.train.run.folder import TrainConfig, check_inputs, keep_compiled, read_config_of

    if resume and not path.exists():
        raise OutputError(f"{path}: there is no such run folder, nor a configuration of that name")
    source = find(path)
    if source.is_file() and source.suffix == SUFFIX:
        config = _again(source, options, prog)
    elif path.is_dir():
        resume, config = True, override(read_config_of(path), options, prog)
    else:
        config = load(TrainConfig, path, options, prog)
    if resume and not (Path(config.out) / "config.yaml").is_file():
        raise OutputError(f"{config.out} holds no run to go on with; leave out --resume to start one")
    check_inputs(config)
    keep_compiled(Path(config.out))  # this loads JAX
    return config


def _again(weights: Path, options: list[str], prog: str) -> TrainConfig:
    """Return the configuration that weights were trained with, with the options over it: place and data are not in it.

    Raises
    ------
    UsageError
        If the options do not name them.
    """
    from vis2img.configs.load import override
    from vis2img.train.embed.check import read_export

    words = [option.partition("=")[0] for option in options]
    if not {*words} & {"--out", "--help", "--help-all", "-h"}:
        raise UsageError(
            f"{prog}: name a run folder (--out) and the data (--data.ms or --data.cutouts): {weights.name} has all "
            "other settings"
        )
    return override(read_export(weights)[0], options, prog)


def _tell_dashboard(link: str) -> None:
    print(f"dashboard: {link}", file=sys.stderr)
