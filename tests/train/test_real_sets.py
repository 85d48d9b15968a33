"""Every real measurement set takes a training step, or says in one line why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from vis2img.cluster.engine import Connection, Engine, connect
from vis2img.errors import MeasurementSetError
from vis2img.loader.config import LoaderConfig
from vis2img.loader.loader import Loader
from vis2img.ms.selection import Selection
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.parallel import make_parallel_step, replicate, shard, unreplicate
from vis2img.train.state import build_model, create_state
from vis2img.views.crops import ViewConfig

USABLE: dict[str, Selection] = {
    "alma_casacore_mssel": Selection(field="1", spw=1),
    "alma_gpuvmem_freq78": Selection(),
    "alma_gpuvmem_hd142_b9": Selection(),
    "ata_3c286_uvh5": Selection(weight_column="none"),
    "atca_miriad": Selection(),
    "casaformats_simple": Selection(),
    "dp3_ndppp_mini": Selection(),
    "hera_2458098_uvh5": Selection(),
    "karabo_oskar_sim": Selection(),
    "lofar_dp3_bda": Selection(),
    "lofar_dp3_generic": Selection(),
    "meerkat_den_0h60s_sim": Selection(column="MODEL_DATA"),
    "tart_2021": Selection(),
    "vla_tdem0003_irc10216": Selection(),
    "vlba_mojave_uvfits": Selection(),
}
REFUSED = {
    "askap_racs_SB39400_small": "UVW",
    "ata_3c286_uvh5": "weight",
    "dish_dp3": "100% flagged",
    "dp3_bda_mini": "POLARIZATION table has no row",
    "meerkat_den_0h60s_sim": "CORRECTED_DATA holds zeros only",
    "mwa_1061316296_uvfits": "100% flagged",
    "mwa_1090008640_birli": "autocorrelations only",
    "paper_zen2456865": "Stokes I needs",
}


@pytest.fixture(scope="module")
def workers() -> Iterator[Connection]:
    with connect(Engine(workers=1)) as connection:
        yield connection


@pytest.fixture(scope="module")
def one_step() -> Any:
    """Return a function that takes one step from the same initial state; compiled once."""
    config = ModelConfig(variant="micro", out_dim=32, hidden=16, bottleneck=8, drop_path=0.0)
    optim = OptimConfig(warmup_steps=0, freeze_last_layer_steps=0)
    model = build_model(config, 16)
    state = create_state(jax.random.key(0), model, optim, (16, 16, 1))
    step = make_parallel_step(model, optim, total_steps=2, n_devices=1)
    return lambda batch: step(replicate(state, 1), shard(batch, 1))


def loader_for(ms: str, selection: Selection, workers: Connection) -> Loader:
    views = ViewConfig(patch_npix=24, global_size=16, local_size=8, n_local=1)
    config = LoaderConfig(
        (ms,), batch_size=4, field_npix=96, selection=selection, views=views, draws_per_field=2, mode="sync"
    )
    return Loader(config, seed=0, connection=workers)


@pytest.mark.parametrize("name", USABLE)
def test_a_real_set_takes_a_training_step(name: str, real_ms, workers, one_step) -> None:
    with loader_for(str(real_ms(name)), USABLE[name], workers) as loader:
        batch = loader.next_batch()
    assert batch.global_views.std() > 0.01
    state, metrics = one_step(batch.arrays())
    values = {key: float(value) for key, value in unreplicate(metrics).items()}
    assert values["finite"] == 1 and 0 < values["loss"] < 20 and values["grad_norm"] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", REFUSED)
def test_a_set_that_cannot_be_used_says_why(name: str, real_ms, workers) -> None:
    path = real_ms(name)
    with pytest.raises(MeasurementSetError) as error, loader_for(str(path), Selection(), workers) as loader:
        loader.next_batch()
    text = str(error.value)
    assert REFUSED[name] in text and path.name in text and "\n" not in text
