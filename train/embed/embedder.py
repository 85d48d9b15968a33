"""A trained network that embeds: read from the folder of its run, or from the weights that were exported of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vis2img import __version__
from vis2img.configs.records import to_record
from vis2img.models.dino_head import DINOModel
from vis2img.train.embed.check import read_export
from vis2img.train.embed.patches import Variables
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import patch_angles
from vis2img.train.run.run import load_run
from vis2img.train.state import backbone_variables, build_model, create_state
from vis2img.train.weights.pretrained import load_pretrained
from vis2img.views.crops import ViewConfig

# Settings that have always been part of the hash of a network.
_FIRST_OF_VIEWS = {
    *("patch_npix", "global_size", "local_size", "n_global", "n_local", "global_scale", "local_scale", "rotate"),
    "stretch",
}
_FIRST_OF_STRETCH = {"kind", "softening", "power"}


@dataclass(frozen=True, eq=False)
class Embedder:
    """A trained network that embeds: from :meth:`of_run` or :meth:`of_export`.

    Parameters
    ----------
    config : TrainConfig
    model : DINOModel
    variables : dict
        Of the backbone.
    metadata : dict
        Text that goes with the table: run, step, role, network (a hash of weights and views) and version.
    angles : tuple of float
        Sides of the patches that it was trained on, rad; none where they were not written down.
    """

    config: TrainConfig
    model: DINOModel = field(repr=False)
    variables: Variables = field(repr=False)
    metadata: dict[str, str]
    angles: tuple[float, ...] = ()

    @classmethod
    def of(cls, path: Path, role: str = "teacher", step: int | None = None) -> Embedder:
        """Read a run folder, or a file of ``vis2img export``, which holds one network of one step."""
        return cls.of_export(path) if path.is_file() else cls.of_run(path, role, step)

    @classmethod
    def of_export(cls, path: Path) -> Embedder:
        """Read a file of ``vis2img export``; neither the run nor its data need be there.

        Raises
        ------
        Vis2imgError
            If it is none, or one of an earlier version, which does not tell how images were made.
        """
        config, header = read_export(path)
        size = config.data.views.global_size
        model = build_model(config.model, size, config.optim)
        shape = (size, size, config.data.channels)
        blank = jax.eval_shape(lambda: backbone_variables(create_state(jax.random.key(0), model, config.optim, shape)))
        variables = load_pretrained(blank, path, patch=None if config.model.is_resnet else config.model.patch)
        metadata = {"run": str(path.resolve()), "step": header["step"], "role": header["network"]}
        metadata["network"] = _hash(config, variables)
        angles = tuple(map(float, json.loads(header["patch_angle_rad"])))
        return cls(config, model, variables, {**metadata, "vis2img": __version__}, angles)

    @classmethod
    def of_run(cls, folder: str | Path, role: str = "teacher", step: int | None = None) -> Embedder:
        """Read the checkpoint of ``step``, or the last, of a run folder; ``role`` is "teacher" or "student".

        Raises
        ------
        Vis2imgError
            If the folder holds no run, or no checkpoint that can be read.
        """
        config, state, model = load_run(folder, step)
        run, at_step = str(Path(folder).resolve()), str(int(state.step))
        variables = backbone_variables(state, role)
        metadata = {"run": run, "step": at_step, "role": role, "network": _hash(config, variables)}
        return cls(config, model, variables, {**metadata, "vis2img": __version__}, patch_angles(Path(folder)))


def _told(views: ViewConfig) -> dict[str, Any]:
    """Return the settings of views; those that came later where they are not their defaults, for tables of before."""
    record, default = to_record(views), to_record(ViewConfig())
    stretch, usual = record["stretch"], default["stretch"]
    record["stretch"] = {k: v for k, v in stretch.items() if k in _FIRST_OF_STRETCH or v != usual[k]}
    return {k: v for k, v in record.items() if k in _FIRST_OF_VIEWS or v != default[k]}


def _hash(config: TrainConfig, variables: Variables) -> str:
    """Return a name for what a network makes of pictures: its weights, and how it is shown them."""
    shown: list[Any] = [_told(config.data.views), config.model.positions]
    if config.model.pooling or config.model.turns > 1:  # earlier names stay what they were
        shown += [config.model.pooling, config.model.turns]
    digest = hashlib.sha256(json.dumps(shown).encode())
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
