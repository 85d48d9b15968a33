"""``vis2img study``: what gives the better representation? The comparison in one command."""

from __future__ import annotations

from pathlib import Path

from vis2img.cli import signals
from vis2img.cli.progress import Bars
from vis2img.configs.help_text import HELP as HELP_OPTIONS

HELP = """usage: vis2img study [CONFIG.yaml] [--out DIR] [--arms ARM ...] [--seeds N] [--steps N | --budget TIME]
                     [--KEY VALUE ...]

Compare what networks are worth whose training differs in one thing, an arm: how views are made, by imaging
parameters that vary (each alone, and all), by augmentation of fixed dirty images (image-only), and of CLEAN
images (WSClean); or any settings of a run (variants, in CONFIG.yaml). Random weights, pixels and a network
trained with labels stand beside them. Fields are simulated, with labels, others for each seed; arms have the
same steps, or the same time (--budget 10min, measured first: leave the machine alone meanwhile).
Everything is kept in DIR, and the same command goes on with what is missing: DIR/report/report.html.
The same command, started several times (as an array of Slurm jobs, or one for each core or device), shares
the work.

examples:
  vis2img study
  vis2img study --out quick --arms image-only full --seeds 2 --steps 300 --fields 4 --test-fields 4
  vis2img study examples/study.yaml --out /data/study
  sbatch --array=1-9 --wrap "vis2img study examples/study.yaml --out /data/study"
  vis2img study examples/study.yaml --help
"""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    if argv and argv[0] in HELP_OPTIONS:
        print(HELP)
        return 0
    from vis2img.configs.load import draft, load, override
    from vis2img.train.study.config import StudyConfig, check_files

    quiet = "--quiet" in argv
    options = [option for option in argv if option != "--quiet"]
    if options and not options[0].startswith("-"):
        config = load(StudyConfig, Path(options[0]), options[1:], prog)
    else:
        config = override(draft(StudyConfig, {}, Path()), options, prog)
    check_files(config)
    from vis2img.train.run.stopping import ABANDONED
    from vis2img.train.study.run import Study  # which loads JAX

    with Bars(quiet) as bars:
        study = Study(config, bars)
        report = study.run()
    if study.stopped:
        print("stopped; the same command goes on")
        signals.leave_work_behind(ABANDONED)
    elif report is None:
        print("other processes are still at work on this study; the last of them writes the report")
    else:
        print(f"report: {report}")
    return 0
