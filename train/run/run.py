"""A training run: views in, teacher out; resumable, watched, and stopped in good order.

The run folder (:mod:`vis2img.train.run.folder`) gets ``metrics.jsonl``, a line a step, ``tensorboard/``, ``views/`` and
``checkpoints/``. The same command goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from vis2img.cluster.engine import Connection, connect
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.draw_source import DrawSource
from vis2img.loader.loader import Loader
from vis2img.loader.places import Places
from vis2img.models.dino_head import DINOModel
from vis2img.progress import Progress, no_progress
from vis2img.train.hosts import is_first, start_hosts
from vis2img.train.parallel import AXIS
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import (
    absolute,
    check_inputs,
    held,
    leave_tidy,
    note_patches,
    open_folder,
    read_config_of,
    recorded_model,
    saved_steps,
)
from vis2img.train.run.fragile import fragile
from vis2img.train.run.loop import Loop, RunResult, full_rate
from vis2img.train.run.metrics_log import read_metrics
from vis2img.train.run.stopping import ABANDONED, Stopped, StopRequest
from vis2img.train.state import TrainState, backbone_variables, build_model, create_state
from vis2img.train.weights.describe import Architecture
from vis2img.train.weights.pretrained import learned_positions, load_pretrained

_PLACES = "places.npz"
_COMPILING = "the first step compiles now, which takes a while"
__all__ = ["ABANDONED", "RunResult", "load_run", "read_metrics", "train"]


def train(
    config: TrainConfig,
    *,
    progress: Progress = no_progress,
    on_dashboard: Callable[[str], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    on_field: Callable[[str], None] | None = None,
    stop: StopRequest | None = None,
) -> RunResult:
    """Train until ``config.steps``, from the last checkpoint of ``config.out`` if there is one.

    Parameters
    ----------
    config : TrainConfig
        The run.
    progress : callable, optional
        Told of the draws while the pool fills, and of the steps whenever metrics are read.
    on_dashboard : callable, optional
        Called with the address of Dask's dashboard, if there is one.
    on_warning : callable, optional
        Called with a line about settings known to be fragile, and about what looks wrong, as soon as it does.
    on_field : callable, optional
        Called with a line about each field, before anything is imaged: what is read of it, and what is not.
    stop : StopRequest, optional
        One that listens already; default: signals are listened to while this function runs.

    Raises
    ------
    Vis2imgError
        If the folder holds another run or another process trains in it, data cannot be used, or the loss stays
        non-finite.
    """
    folder = Path(config.out)
    check_inputs(config)
    config = _with_positions(absolute(config))
    start_hosts(config.hosts)
    first = not jax.distributed.is_initialized() or is_first()
    reached = (saved_steps(folder) or [0])[-1]
    if reached >= config.steps:
        open_folder(folder, config)
        leave_tidy(folder)
        return RunResult(folder, reached, True)
    listening = nullcontext(stop) if stop else StopRequest().listening()
    with listening as stop, held(folder) if first else nullcontext():
        open_folder(folder, config, first=first)
        if on_warning:
            for warning in fragile(config):
                on_warning(warning)
        try:
            # Workers before devices: JAX may take the accelerator and start threads, which new processes had better not
            # inherit. They may take long to come: from the queue of Slurm.
            with _connect(config, stop) as connection:
                if on_dashboard and connection and connection.dashboard_link:
                    on_dashboard(connection.dashboard_link)
                return _train(config, folder, connection, stop, progress, on_warning, on_field)
        except Stopped:
            return RunResult(folder, reached, False)


def _connect(config: TrainConfig, stop: StopRequest) -> AbstractContextManager[Connection | None]:
    if config.data.cutouts:  # of finished pictures nothing is to be made
        return nullcontext()
    if jax.process_count() > 1:  # hosts must leave off together, in the loop
        return connect(config.data.engine)
    return stop.call(lambda: connect(config.data.engine), Connection.close)


def _with_positions(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the positions of the weights it starts from, or of the run that is there.

    They belong to the record of the run, which is read when the file of weights may be gone.
    """
    model, folder = config.model, Path(config.out)
    if model.weights is None:
        return config
    if saved_steps(folder):
        kept = recorded_model(folder)
        positions, size = kept.get("positions"), kept.get("img_size")
    else:
        patch = None if model.is_resnet else model.patch
        width = model.width if model.is_resnet else None
        own = Architecture(model.variant, patch, model.registers, model.layer_scale > 0, width)
        positions, size = learned_positions(model.weights, own)
    settled = replace(model, positions=model.positions or positions, img_size=model.img_size or size)
    return replace(config, model=settled)


def _train(
    config: TrainConfig,
    folder: Path,
    connection: Connection | None,
    stop: StopRequest,
    progress: Progress,
    on_warning: Callable[[str], None] | None,
    on_field: Callable[[str], None] | None,
) -> RunResult:
    _check_batch(config)
    model, template = _blank(config, AXIS)
    with _store(folder, config) as store:
        if store.steps():
            state, extra = store.restore_last_good(template, on_warning, repair=is_first())
        else:
            state, extra = _initial(template, config), {}
        places = None
        if config.optim.objective == "clusters":
            places = _places(config, folder, model, None if store.steps() else state, stop, progress)
        fastest = full_rate(config, model)  # while the workers have nothing to do yet
        with Loader(
            config.data,
            config.seed,
            connection=connection,
            state=_loader_state(extra, folder),
            host=jax.process_index(),
            hosts=jax.process_count(),
            places=places,
            progress=_before_compiling(progress) if is_first() else no_progress,
        ) as loader:
            if isinstance(loader.source, DrawSource) and is_first():
                located = loader.source.located
                note_patches(folder, [str(each) for each in located.fields], located.patches)
                if on_field:
                    for name, text in located.told.items():
                        on_field(f"{name}: {text}")
            return Loop(config, folder, store, loader, fastest, stop, progress, on_warning).run(state, model)


def _places(
    config: TrainConfig,
    folder: Path,
    model: DINOModel,
    state: TrainState | None,
    stop: StopRequest,
    progress: Progress,
) -> Places:
    """Return the places of a run and their clusters, which are found before its first step and kept in its folder.

    ``state`` is that before the first step; none: there are checkpoints.
    """
    path = folder / _PLACES
    if state is None:
        return Places.read(path)
    from vis2img.train.clusters import cluster_places

    variables, clusters = backbone_variables(state), config.optim.clusters
    found = stop.call(lambda: cluster_places(config.data, clusters, model, variables, config.seed, progress))
    found.write(path)
    return found


def _before_compiling(progress: Progress) -> Progress:
    """Return progress that says at the end of a stage what comes next."""

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        progress(stage, done, total, note or ("" if done < total else _COMPILING))

    return tell


def _initial(state: TrainState, config: TrainConfig) -> TrainState:
    """State at step 0, from the weights of others where the configuration says so."""
    if config.model.weights is None:
        return state
    patch = None if config.model.is_resnet else config.model.patch
    backbone = load_pretrained(backbone_variables(state), config.model.weights, patch=patch)

    def fill(tree: Any, arrays: Any) -> Any:
        return {**tree, "backbone": jax.tree.map(jax.numpy.array, arrays)} if arrays else tree

    params, stats = backbone["params"], backbone.get("batch_stats", {})
    return replace(
        state,
        params=fill(state.params, params),
        teacher=fill(state.teacher, params),
        stats={role: fill(tree, stats) for role, tree in state.stats.items()},
    )


def _loader_state(extra: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """State of this host's loader in a checkpoint."""
    if not extra:
        return None
    states = extra["loader"]
    if len(states) != jax.process_count():
        raise Vis2imgError(
            f"{folder} holds a run on {len(states)} hosts, and this is one on {jax.process_count()}: each host has its "
            "own share of draws and samples; start as many, or choose another out"
        )
    return dict(states[jax.process_index()])


def _blank(config: TrainConfig, axis_name: str | None = None) -> tuple[DINOModel, TrainState]:
    """Network and state of a run at step 0."""
    size = config.data.views.global_size
    model = build_model(config.model, size, config.optim, axis_name=axis_name)
    shape = (size, size, config.data.channels)
    return model, create_state(jax.random.key(config.seed), model, config.optim, shape)


def _store(folder: Path, config: TrainConfig) -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", max_to_keep=config.keep_checkpoints, keep_every=config.keep_every)


def _check_batch(config: TrainConfig) -> None:
    if config.devices and jax.process_count() > 1:
        raise Vis2imgError("devices cannot be chosen with several hosts: all of them are used")
    there = jax.local_device_count()
    if config.devices and config.devices > there:
        kind = jax.local_devices()[0].device_kind
        raise ParameterError(f"devices = {config.devices}, and this host has {there} ({kind}); leave it out to use all")
    devices = (config.devices or there) * jax.process_count()
    parts = devices * config.optim.accumulate
    if config.data.batch_size % parts:
        shares = f"the {devices} devices"
        if config.optim.accumulate > 1:
            shares += f" times optim.accumulate = {config.optim.accumulate}"
        raise Vis2imgError(
            f"data.batch_size = {config.data.batch_size} is not a multiple of {shares}; "
            f"use {config.data.batch_size + parts - config.data.batch_size % parts}"
        )


def load_run(folder: str | Path, step: int | None = None) -> tuple[TrainConfig, TrainState, DINOModel]:
    """Return configuration, state and model of a run folder, at a step or the last that is kept.

    Raises
    ------
    Vis2imgError
        If the folder holds no run, or no checkpoint that can be read.
    """
    folder = Path(folder)
    config = read_config_of(folder)
    model, template = _blank(config)
    with _store(folder, config) as store:
        state, _ = store.restore(template, step)
    return config, state, model
