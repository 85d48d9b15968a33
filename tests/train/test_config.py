"""Settings are checked when made, and every field explains itself."""

import ast
import dataclasses
import inspect
import itertools
from dataclasses import replace

import pytest
import yaml

from vis2img.configs.load import load
from vis2img.configs.records import to_record
from vis2img.errors import ParameterError
from vis2img.train import config
from vis2img.train.demo_config import DemoConfig, train_config
from vis2img.train.run.config import TrainConfig
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (config.ModelConfig, "out_dim", 1),
        (config.ModelConfig, "patch", 0),
        (config.ModelConfig, "drop_path", 1.0),
        (config.OptimConfig, "base_lr", 0.0),
        (config.OptimConfig, "teacher_temp", -0.1),
        (config.OptimConfig, "clip_grad", -1.0),
        (config.OptimConfig, "warmup_steps", -1),
        (config.OptimConfig, "momentum_teacher", 1.1),
        (config.OptimConfig, "centre_momentum", 1.0),
        (config.OptimConfig, "base_lr", float("nan")),
    ],
)
def test_bad_values_are_named(make, field, value):
    group = {config.ModelConfig: "model", config.OptimConfig: "optim"}[make]
    with pytest.raises(ParameterError, match=rf"^{group}\.{field} must .*got [^\n]*$"):
        make(**{field: value})


@pytest.mark.parametrize("make", [config.ModelConfig, config.OptimConfig])
def test_numbers_are_finite_everywhere(make):
    numbers = [field.name for field in dataclasses.fields(make) if field.type is float]
    assert len(numbers) > 1
    for name, value in itertools.product(numbers, (float("nan"), float("inf"), -float("inf"))):
        with pytest.raises(ParameterError, match=rf"\.{name} must "):
            make(**{name: value})


def test_the_networks_that_there_are_can_be_named():
    from vis2img.models import resnet, vit

    assert tuple(vit.VARIANTS) == config.TRANSFORMERS and config.PATCHES == vit.PATCHES
    assert set(config.RESNETS) == set(resnet.VARIANTS)
    with pytest.raises(ParameterError, match=r"patch must be 4, 8, 14 or 16, got 5"):
        config.ModelConfig(patch=5)
    with pytest.raises(ParameterError, match=r"variant must be micro, tiny, .* or resnet50, got large"):
        config.ModelConfig(variant="large")


@pytest.mark.parametrize("make", [config.ModelConfig, ViewConfig, CutoutAugment])
def test_flags_that_are_on_explain_what_off_means(make):
    """The option is --no-X then, with the same text."""
    on = [field.name for field in dataclasses.fields(make) if field.default is True]
    assert on
    for name, text in explained(make).items():
        assert name not in on or text.startswith("Whether "), (name, text)


@pytest.mark.parametrize("make", [config.ModelConfig, config.OptimConfig])
def test_every_field_has_a_docstring(make):
    assert list(explained(make)) == [field.name for field in dataclasses.fields(make)]


def explained(make):
    """Docstrings below the fields of a dataclass."""
    body = ast.parse(inspect.getsource(make)).body[0].body
    return {
        first.target.id: second.value.value
        for first, second in itertools.pairwise(body)
        if isinstance(first, ast.AnnAssign) and isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant)
    }


def test_a_saved_configuration_is_one_that_can_be_given_again(tmp_path):
    """As runs/first/config.yaml is, to train the same from another seed."""
    first = replace(train_config(DemoConfig()), steps=123, seed=4)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_record(first)))
    assert load(TrainConfig, path) == load(TrainConfig, path, []) == first
