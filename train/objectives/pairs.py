"""Pairs of views: each view of the teacher is a target for every view of the student but itself."""

import jax.numpy as jnp
from jaxtyping import Float

from vis2img.models.layers import Array


def check_pairs(student: Float[Array, "view _ _"], teacher: Float[Array, "global_view _ _"], n_global: int) -> None:
    """Refuse views that make no pairs.

    Parameters
    ----------
    student
        What the student makes of all views, the ``n_global`` global ones first.
    teacher
        What the teacher makes of the global ones.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    n_views, *rest = student.shape
    if teacher.shape != (n_global, *rest) or n_global > n_views:
        raise ValueError(f"{n_global} teacher views {teacher.shape} do not match {student.shape}")
    if n_global * (n_views - 1) == 0:
        raise ValueError("pairs need at least two views, one of them global")


def mean_over_pairs(
    student: Float[Array, "view batch out"], teacher: Float[Array, "global_view batch out"]
) -> Float[Array, ""]:
    """Scalar product of student and teacher, mean over pairs of different views and over samples; as `check_pairs`."""
    n_views, batch, _ = student.shape
    n_global = teacher.shape[0]

    # All views but itself = sum over views minus itself: V + n_global passes over K instead of V * n_global.
    others = jnp.sum(student, axis=0, keepdims=True) - student[:n_global]  # (n_global, B, K)
    return jnp.sum(teacher * others) / (n_global * (n_views - 1) * batch)


def squared_distance(
    student: Float[Array, "view batch width"], teacher: Float[Array, "global_view batch width"]
) -> Float[Array, ""]:
    """Squared distance of both, mean over pairs of different views and over samples; arrays as of `check_pairs`."""
    n_global = teacher.shape[0]
    check_pairs(student, teacher, n_global)
    # Differences themselves, as |a|^2 + |b|^2 - 2 ab loses digits where views agree.
    difference = student[:, None] - teacher[None]  # (V, n_global, B, W)
    same = jnp.arange(student.shape[0])[:, None] == jnp.arange(n_global)[None]
    of_pair = jnp.sum(difference**2, axis=(2, 3))
    return jnp.sum(jnp.where(same, 0.0, of_pair)) / (n_global * (student.shape[0] - 1) * student.shape[1])
