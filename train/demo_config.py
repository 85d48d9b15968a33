"""What the demonstration simulates and how it trains; nothing heavy is imported, so that ``--help`` costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vis2img.simulate.config import SimulateConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.presets import preset
from vis2img.units import ARCSEC


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration; the defaults take about four minutes on two cores."""

    out: Path = Path("demo")
    """Folder for measurement sets, run and report; what is there already is used again."""
    fields: int = 4
    """Simulated observations."""
    sources: int = 48
    """Labelled sources in each."""
    steps: int = 400
    """Training steps."""
    seed: int = 0
    """Seed of everything."""


def observation(config: DemoConfig, index: int) -> SimulateConfig:
    """Return the simulation of field ``index``: 64 MeerKAT dishes, a short track, a band of 8 channels."""
    return SimulateConfig(
        out=config.out / "data" / f"field{index}.ms",
        phase_centre=(np.radians(30.0 + 5 * index), np.radians(-30.0 - index)),
        dtime=64.0,
        ntimes=24,
        start_freq=1.0e9,
        chan_width=60e6,
        nchan=8,
        n_sources=config.sources,
        flux_range=(1e-2, 1e-1),
        size_range=(30 * ARCSEC, 90 * ARCSEC),
        fov=1400 * ARCSEC,
        min_separation=40 * ARCSEC,
        flag_fraction=0.05,
        seed=1000 * config.seed + index,
    )


def train_config(config: DemoConfig) -> TrainConfig:
    """Return the run: that of the preset, with the steps and the seed of the demonstration."""
    sets = [observation(config, i).out for i in range(config.fields)]
    run = preset("demo", config.out / "run", sets)
    return replace(
        run,
        optim=replace(run.optim, warmup_steps=config.steps // 10),
        steps=config.steps,
        seed=config.seed,
        checkpoint_every=max(1, config.steps // 4),
    )
