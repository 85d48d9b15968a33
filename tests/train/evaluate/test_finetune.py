"""Fine-tuning learns what labels say, starts from the weights it is given, and leaves them alone."""

import jax
import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT
from vis2img.train.evaluate.finetune import FineTuneConfig, FineTuning, fine_tune
from vis2img.train.evaluate.folds import Samples

CONFIG = FineTuneConfig(steps=200, batch_size=16, lr=3e-3, shift=1)


@pytest.fixture(scope="module")
def network():
    model = DINOModel(ViT(patch=4, dim=24, depth=2, heads=2, img_size=8), DINOHead(out_dim=8, hidden=8, bottleneck=4))
    sample = np.zeros((1, 8, 8, 1), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), [sample])
    return model, {"params": variables["params"]["backbone"], "batch_stats": {}}


@pytest.fixture(scope="module")
def pictures():
    """One spot or two, anywhere: no turn or shift changes the class."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 60)
    images = 0.1 * rng.normal(size=(120, 8, 8, 1))
    for image, two in zip(images, label, strict=True):
        for y, x in rng.choice(36, 1 + two, replace=False)[:, None] // [6, 1] % 6 + 1:
            image[y, x, 0] += 3.0
    return images.astype(np.float32), label


def test_labels_are_learnt_and_the_start_is_left_alone(network, pictures):
    model, variables = network
    images, label = pictures
    before = jax.tree.map(np.array, variables)
    told = fine_tune(model, variables, images[:80], label[:80], 2, CONFIG, seed=0)
    found = told(images[80:])
    assert found.shape == (40, 2) and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == label[80:]).mean() > 0.9
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, variables))


def test_what_is_told_does_not_depend_on_how_a_picture_lies_nor_on_its_neighbours(network, pictures):
    model, variables = network
    images, label = pictures
    told = fine_tune(model, variables, images[:80], label[:80], 2, FineTuneConfig(steps=3, batch_size=16), seed=0)
    straight = told(images[80:83])
    np.testing.assert_allclose(told(images[80:83, ::-1].swapaxes(1, 2)), straight, atol=1e-5)
    np.testing.assert_allclose(told(images[82:83]), straight[2:], atol=1e-5)


def test_a_seed_tests_on_a_fold_of_its_own_sources(network, pictures):
    model, variables = network
    images, label = pictures
    names = np.array(["one", "two"])[label]
    tuning = FineTuning(model, [variables], (0.1, 1.0), config=CONFIG)
    found = list(tuning.run(Samples(images, names, np.arange(120)), seeds=(0, 1)))
    assert [(name.seed, name.x, name.metric) for name, _ in found[:4]] == [
        (0, 0.1, "accuracy"), (0, 0.1, "balanced accuracy"), (0, 0.1, "macro-F1"), (0, 1.0, "accuracy"),
    ]  # fmt: skip
    assert len(found) == 12 and all(value > 0.8 for name, value in found if name.x == 1.0)
    # Labels that say nothing are not learnt: what is tested was not trained on.
    shuffled = np.random.default_rng(1).permutation(names)
    tuning = FineTuning(model, [variables], config=CONFIG)
    (_, accuracy), *_ = tuning.run(Samples(images, shuffled, np.arange(120)), seeds=[0])
    assert accuracy < 0.75


def test_a_test_set_of_its_own_is_what_is_tested(network, pictures):
    model, variables = network
    images, label = pictures
    train, test = Samples(images[:80], label[:80], np.arange(80)), Samples(images[80:], 1 - label[80:], np.arange(40))
    (_, accuracy), *_ = FineTuning(model, [variables], config=CONFIG).run(train, test, [0])
    assert accuracy < 0.1


@pytest.mark.parametrize("change", [{"steps": 0}, {"lr": 0.0}, {"smoothing": 1.0}, {"shift": -1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        FineTuneConfig(**change)


def test_labels_out_of_range_are_refused(network, pictures):
    model, variables = network
    with pytest.raises(ParameterError, match="from 0 to 1"):
        fine_tune(model, variables, pictures[0], pictures[1] + 1, 2, CONFIG, seed=0)
