"""Settings are checked when made, and every field explains itself."""

import ast
import dataclasses
import inspect
import itertools

import pytest

from train import config


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
    with pytest.raises(ValueError, match=f"^{field} must .*got [^\n]*$"):
        make(**{field: value})


@pytest.mark.parametrize("make", [config.ModelConfig, config.OptimConfig])
def test_every_field_has_a_docstring(make):
    body = ast.parse(inspect.getsource(make)).body[0].body
    explained = [
        first.target.id
        for first, second in itertools.pairwise(body)
        if isinstance(first, ast.AnnAssign) and isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant)
    ]
    assert explained == [field.name for field in dataclasses.fields(make)]
