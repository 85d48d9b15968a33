"""Presets: configurations of runs, a YAML file each, whose head tells the command, its time and the expected score.

They may be named by whoever makes runs; a preset knows neither where a run goes nor its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vis2img.configs.load import build, read_config
from vis2img.train.run.config import TrainConfig


def preset(name: str, out: Path = Path("run"), ms: Sequence[Path] = (Path("field.ms"),)) -> TrainConfig:
    """Return the run of a preset, with its folder and its measurement sets."""
    path = Path(__file__).parent / f"{name}.yaml"
    record = read_config(path)
    data = {**record["data"], "ms": [str(each) for each in ms]}
    return build(TrainConfig, {**record, "out": str(out), "data": data}, path)
