"""The loss of clusters against numpy, and the clusters of vectors of which it is known where they belong."""

import jax
import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.models.projector import Projector
from vis2img.models.vit import ViT
from vis2img.train.clusters import clusters_of
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.clusters import cluster_loss
from vis2img.train.parallel import make_parallel_step, replicate, shard, unreplicate
from vis2img.train.state import create_state

NUMBERS = (3, 5)


def written_out(logits, codes):
    """Loss and accuracy in float64, sample by sample."""
    losses, hits = [], []
    for view in logits.astype(np.float64):
        for sample, row in enumerate(view):
            for head, (first, last) in enumerate(((0, 3), (3, 8))):
                part = row[first:last]
                losses.append(np.log(np.exp(part).sum()) - part[codes[head, sample]])
                hits.append(np.argmax(part) == codes[head, sample])
    return np.mean(losses), np.mean(hits)


def test_the_loss_is_the_cross_entropy_of_each_number_of_clusters(quick_jit):
    rng = np.random.default_rng(0)
    logits = (30 * rng.normal(size=(3, 7, 8))).astype(np.float32)  # large: an unsafe logarithm would be infinite
    codes = np.stack([rng.integers(0, count, 7) for count in NUMBERS]).astype(np.int32)
    loss, accuracy = quick_jit(lambda x, c: cluster_loss(x, c, NUMBERS))(logits, codes)
    expected = written_out(logits, codes)
    np.testing.assert_allclose([float(loss), float(accuracy)], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="8 logits and 2 codes do not fit"):
        cluster_loss(logits, codes, (3, 6))


def test_a_real_step_on_two_devices_is_that_on_one():
    optim = OptimConfig(objective="clusters", clusters=NUMBERS, base_lr=0.064, warmup_steps=0, momentum_teacher=0.9)
    model = DINOModel(ViT(patch=4, dim=24, depth=1, heads=2, img_size=8), Projector(sum(NUMBERS), 16))
    rng = np.random.default_rng(0)
    batch = {
        "global": rng.normal(size=(2, 4, 8, 8, 1)).astype(np.float32),
        "codes": np.stack([rng.integers(0, count, 4) for count in NUMBERS]).astype(np.int32),
    }
    state = create_state(jax.random.key(0), model, optim, (8, 8, 1))
    rows, moved = [], []
    for devices in (1, 2):
        step = make_parallel_step(model, optim, total_steps=10, n_devices=devices)
        after, metrics = step(replicate(state, devices), shard(batch, devices))
        rows.append({name: float(x) for name, x in unreplicate(metrics).items()})
        moved.append(jax.tree.map(lambda a, b: np.abs(a - b).max(), unreplicate(after).params, state.params))
    logits, _ = model.apply({"params": state.params}, [batch["global"].reshape(8, 8, 8, 1)], train=True)
    expected = written_out(np.asarray(logits).reshape(2, 4, 8), batch["codes"])
    for row in rows:
        np.testing.assert_allclose([row["loss"], row["accuracy"]], expected, rtol=1e-4)
    assert min(jax.tree.leaves(moved[0])) > 1e-4


def test_clusters_are_found_whatever_the_scale_of_their_directions():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(6, 40))
    which = np.repeat(np.arange(6), 30)
    vectors = (centres[which] + 0.05 * rng.normal(size=(180, 40))) * np.geomspace(1, 30, 40)
    codes = clusters_of(vectors.astype(np.float32), (2, 6))
    assert codes.shape == (180, 2) and codes.dtype == np.int32
    pairs = {(int(a), int(b)) for a, b in zip(which, codes[:, 1], strict=True)}
    assert len(pairs) == 6 and set(codes[:, 0]) == {0, 1}
    np.testing.assert_array_equal(codes, clusters_of(vectors.astype(np.float32), (2, 6)))


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ParameterError, match=r"optim\.clusters must be numbers of at least 2"):
        OptimConfig(clusters=(8, 1))
