"""Sums, means and maxima over devices, for functions that also run on one."""

from collections.abc import Callable
from typing import TypeVar

Tree = TypeVar("Tree")


def over_devices(operation: Callable[[Tree, str], Tree], tree: Tree, axis_name: str | None) -> Tree:
    """Apply `jax.lax.pmean`, ``psum`` or ``pmax`` over the device axis, if there is one."""
    return tree if axis_name is None else operation(tree, axis_name)
