"""``vis2img train``: train a DINO model from a configuration file."""

from __future__ import annotations

import sys
from pathlib import Path

from vis2img.errors import OutputError

HELP = """usage: vis2img train CONFIG [--resume] [--steps N] [--data.batch-size N] [--KEY VALUE ...]

Train a DINO or BYOL model straight from measurement sets, as a YAML configuration says. Every key of
the file is an option too and takes precedence; --help behind CONFIG lists them all.
The same command goes on from the last checkpoint of the run folder (key 'out'); so does the run folder
in place of CONFIG. SIGTERM (Slurm's warning) and Ctrl-C save first. With --resume, a run folder that
holds no run is an error.
Several hosts: srun vis2img train CONFIG, one task for each host.

examples:
  vis2img train run.yaml
  vis2img train run.yaml --steps 20000 --out runs/longer
  vis2img train runs/first --resume
  vis2img train run.yaml --model.weights dino_deitsmall8_pretrain.pth --model.variant small
  vis2img train run.yaml --optim.objective byol
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
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    from train.run_config import TrainConfig
    from train.run_folder import read_config_of
    from vis2img.cli.app import parse
    from vis2img.config_file import config_arguments, read_config

    quiet, resume = "--quiet" in argv, "--resume" in argv
    options = [option for option in argv[1:] if option not in ("--quiet", "--resume")]
    path = Path(argv[0])
    if path.is_dir():
        resume, config = True, parse(TrainConfig, options, f"{prog} {path}", default=read_config_of(path))
    else:
        given = config_arguments(read_config(path), TrainConfig, path)
        config = parse(TrainConfig, [*given, *options], f"{prog} {path}")
    if resume and not (Path(config.out) / "config.yaml").is_file():
        raise OutputError(f"{config.out} holds no run to go on with; leave out --resume to start one")
    from train.run import train
    from vis2img.cli.progress import TrainingProgress

    def warn(message: str) -> None:
        print(f"{prog}: warning: {message}", file=sys.stderr)

    with TrainingProgress(quiet=quiet) as bar:
        result = train(config, progress=bar.step, on_fill=bar.fill, on_dashboard=_tell_dashboard, on_warning=warn)
    for why in result.unused.values():
        print(f"{prog}: not used: {why}", file=sys.stderr)
    state = "finished" if result.finished else "stopped, run the same command to go on"
    print(f"{result.folder}: step {result.step} of {config.steps}, {state}")
    return 0


def _tell_dashboard(link: str) -> None:
    print(f"dashboard: {link}", file=sys.stderr)
