"""Fine-tuning learns what labels say, starts from the weights it is given, and leaves them alone."""

import jax
import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT
from vis2img.train.evaluate.finetune import FineTuning, _augmented, fine_tune, learning_rates
from vis2img.train.evaluate.folds import Samples
from vis2img.train.evaluate.tune_config import FineTuneConfig

CONFIG = FineTuneConfig(steps=200, batch_size=16, lr=3e-3, shift=1, rotate=False, zoom=1.0).from_scratch()


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


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"lr": 0.0}, {"smoothing": 1.0}, {"shift": -1}, {"layer_decay": 0.0}, {"zoom": 0.5}]
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        FineTuneConfig(**change)


def test_labels_out_of_range_are_refused(network, pictures):
    model, variables = network
    with pytest.raises(ParameterError, match="from 0 to 1"):
        fine_tune(model, variables, pictures[0], pictures[1] + 1, 2, CONFIG, seed=0)


def test_rates_fall_by_a_factor_for_each_block_towards_the_input():
    names = ("conv1", "bn1", "layer1_0", "layer2_0", "layer2_1", "layer10_0", "pool")
    params = {"backbone": {name: {"kernel": np.ones(2)} for name in names}, "head": {"bias": np.ones(1)}}
    rates = learning_rates(params, FineTuneConfig(layer_decay=0.5, head_rate=10.0))
    found = [rates["backbone"][name]["kernel"] for name in names]
    assert found == [0.5**4, 0.5**4, 0.5**3, 0.5**2, 0.5, 1.0, 1.0] and rates["head"]["bias"] == 10.0


def test_without_any_angle_and_zoom_a_picture_lies_in_one_of_eight_ways():
    image = np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32)
    config = FineTuneConfig(shift=0, rotate=False, zoom=1.0)
    views = _augmented(np.repeat(image[None, ..., None], 64, axis=0), config, np.random.default_rng(1))[..., 0]
    ways = [np.rot90(each, k) for each in (image, image[:, ::-1]) for k in range(4)]
    which = [int(np.argmin([np.abs(view - way).max() for way in ways])) for view in views]
    assert {*which} == {*range(8)}
    assert max(np.abs(view - ways[i]).max() for view, i in zip(views, which, strict=True)) < 1e-5


def test_a_turn_by_any_angle_keeps_the_middle_and_what_is_round():
    y, x = np.indices((33, 33)) - 16
    blob = np.exp(-(x**2 + y**2) / 18).astype(np.float32)
    blobs, config = np.repeat(blob[None, ..., None], 8, axis=0), FineTuneConfig(shift=0, zoom=1.0)
    views = _augmented(blobs, config, np.random.default_rng(0))
    np.testing.assert_allclose(views, blobs, atol=0.03)


def test_what_is_finished_is_not_trained_again(network, pictures, tmp_path, monkeypatch):
    model, variables = network
    images, label = pictures
    samples = Samples(images, label, np.arange(120))

    def run(**changes):
        config = FineTuneConfig(**{"steps": 2, "batch_size": 16, **changes})
        return list(FineTuning(model, [variables], config=config, folder=tmp_path / "kept").run(samples, seeds=(0, 1)))

    first = run()
    monkeypatch.setattr("vis2img.train.evaluate.finetune.fine_tune", None)
    assert run() == first and len(list((tmp_path / "kept").iterdir())) == 2
    with pytest.raises(TypeError):
        run(lr=1e-3)
