"""Many simulated observations side by side: one seed and, if wanted, one pointing each; what is done is kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distributed import as_completed

from vis2img.cluster.engine import Engine, connect
from vis2img.errors import OutputError, Vis2imgError
from vis2img.machine import cores, free_bytes
from vis2img.progress import Progress, no_progress
from vis2img.random import pointing_rng
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.files import is_done, is_measurement_set
from vis2img.simulate.run import simulate

_DEC_RANGE = (math.radians(-75), math.radians(5))  # high enough at transit from MeerKAT, ASKAP and SKA-Mid


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign did: measurement sets that were made, were there already, and failed with their reason."""

    made: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def observations(config: SimulateConfig, count: int, *, scatter: bool = False) -> list[SimulateConfig]:
    """Return the configurations of ``count`` observations in the folder ``config.out``.

    Parameters
    ----------
    config : SimulateConfig
        ``out`` is a folder; observation i is ``out/NAME-0000i.ms`` with seed ``config.seed + i`` and the i-th part of
        the cutouts after that of ``config``.
    count : int
    scatter : bool
        Point each somewhere else, evenly over the sky from declination -75 to 5 degrees.
    """
    result = []
    for i in range(count):
        out, (part, parts) = config.out / f"{config.out.name}-{i:05d}.ms", config.cutout_part
        one = dataclasses.replace(config, out=out, seed=config.seed + i, cutout_part=((part + i) % parts, parts))
        if scatter:
            rng = pointing_rng(one.seed)
            low, high = map(math.sin, _DEC_RANGE)
            centre = (rng.uniform(0, 2 * math.pi), math.asin(rng.uniform(low, high)))
            one = dataclasses.replace(one, phase_centre=centre)
        result.append(one)
    return result


def simulate_many(
    configs: Sequence[SimulateConfig],
    *,
    workers: int = 0,
    scheduler: str | None = None,
    progress: Progress = no_progress,
) -> CampaignResult:
    """Simulate side by side on Dask workers, one thread each; goes on with what an earlier call left.

    Parameters
    ----------
    configs : sequence of SimulateConfig
        A measurement set that was made with the same values is kept, one made with others is an error
        (unless ``overwrite``), found before any work.
    workers : int
        Worker processes; 0: one per core.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same folders, or slurm, instead.
    progress : callable, optional
        Called with (observations done, observations in all).

    Returns
    -------
    CampaignResult
        An observation that fails does not stop the others.

    Raises
    ------
    OutputError
        If a target is something else than what would be made, or the folder is a measurement set.
    Vis2imgError
        If no scheduler answers.
    """
    done, wanted = _sort(configs)
    result = CampaignResult(kept=done)
    progress("observations", len(done), len(configs))
    if not wanted:
        return result

    at_most = min(workers or (0 if scheduler else cores()), len(wanted))
    # An observation may take what is free: its size is the user's choice.
    with connect(Engine(scheduler, at_most, worker_memory=0 if scheduler else free_bytes())) as connection:
        client = connection.client
        futures = {client.submit(_simulate, config, pure=False): config.out for config in wanted}
        for future in as_completed(list(futures), loop=client.loop):
            out = futures[future]
            try:
                future.result()
                if not out.is_dir():
                    raise Vis2imgError("the worker wrote where this process cannot see; give folders that both see")
                result.made.append(out)
            except Vis2imgError as error:
                result.failed[out] = str(error)
            except Exception as error:  # a worker that died, or ran out of memory
                result.failed[out] = f"{type(error).__name__}: {error}".splitlines()[0]
            progress("observations", len(done) + len(result.made) + len(result.failed), len(configs))
    result.made.sort()
    return result


def _sort(configs: Sequence[SimulateConfig]) -> tuple[list[Path], list[SimulateConfig]]:
    """Return the measurement sets that are done and the observations to make, whose folders are made."""
    for folder in {config.out.parent for config in configs}:
        inside = next((path for path in (folder, *folder.parents) if is_measurement_set(path)), None)
        if inside:
            raise OutputError(f"{inside} is a measurement set; give a folder for several observations")
    done, wanted = [], []
    for config in configs:
        if is_done(config):
            done.append(config.out)
        elif config.out.exists() and not config.overwrite:
            raise OutputError(
                f"{config.out} is there, but not as these values make it, or without its truth; "
                "use --overwrite or another folder"
            )
        else:
            wanted.append(_absolute(config))
    for folder in {config.out.parent for config in wanted}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    return done, wanted


def _absolute(config: SimulateConfig) -> SimulateConfig:
    """Return the configuration with paths that hold for workers in other folders too."""
    cutouts = tuple(path.absolute() for path in config.cutouts)
    catalogue = config.catalogue and config.catalogue.absolute()
    return dataclasses.replace(config, out=config.out.absolute(), cutouts=cutouts, catalogue=catalogue)


def _simulate(config: SimulateConfig) -> None:
    """Run on a worker, where the observation may stand already if an earlier worker died after publishing it."""
    if not is_done(config):
        simulate(config, nthreads=1)
