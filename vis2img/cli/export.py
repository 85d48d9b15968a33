"""``vis2img export``: the backbone of a run as a file that PyTorch and timm can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from vis2img.configs.command_line import parse
from vis2img.files import check_outputs


@dataclass(frozen=True)
class ExportCommand:
    """Write a trained backbone as safetensors with the names of timm.

    examples:
      vis2img export runs/first -o weights.safetensors
      vis2img export runs/first -o weights.safetensors --half
      vis2img export runs/first --step 5000 --student -o student.safetensors

    In Python, with timm:
      import json, safetensors, safetensors.torch, timm
      with safetensors.safe_open("weights.safetensors", "pt") as file:
          keywords = json.loads(file.metadata()["timm"])
      network = timm.create_model(**keywords)
      network.load_state_dict(safetensors.torch.load_file("weights.safetensors"))

    The header also holds variant, patch, img_size, channels, step, and how images were normalised.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of ``vis2img train``."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("weights.safetensors")
    """Output file (.safetensors)."""
    student: bool = False
    """Write the student instead of the teacher."""
    step: int | None = None
    """Step of a checkpoint that is still kept; default: the last."""
    half: bool = False
    """Write matrices and kernels in half precision: half the size, vectors alike to a thousandth."""
    overwrite: bool = False
    """Replace an existing output."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(ExportCommand, argv, prog)
    check_outputs([command.output], command.overwrite)
    from vis2img.train.run.folder import check_run

    check_run(command.run, command.step)  # before JAX is loaded
    from vis2img.train.run.export import export_run

    told = export_run(
        command.run,
        command.output,
        student=command.student,
        step=command.step,
        half=command.half,
        overwrite=command.overwrite,
    )
    name = f"{told['variant']}/{told['patch']}" if "patch" in told else told["variant"]
    print(f"{command.output}: {name} of {told['channels']} channels, {told['network']} of step {told['step']}")
    return 0
