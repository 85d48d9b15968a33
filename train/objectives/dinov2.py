"""What DINOv2 (Oquab et al. 2024, arXiv:2304.07193) adds to DINO: Sinkhorn centring, KoLeo and iBOT.

Each is a pure function; the configuration switches each by one field.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32, Int32, Key

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array, Scalar
from vis2img.train.objectives.devices import over_devices


def sinkhorn(
    logits: Float32[Array, "row out"],
    temperature: Scalar,
    *,
    axis_name: str | None,
    rounds: int = 3,
    mask: Bool[Array, " row"] | None = None,
) -> Float32[Array, "row out"]:
    """Teacher's answers that use all prototypes alike over the batch: Sinkhorn-Knopp, instead of centring.

    Caron et al. 2020 (arXiv:2006.09882), section 3.1; three rounds as there and in DINOv2.

    Parameters
    ----------
    logits
        Of the teacher.
    temperature
        Of the softmax that it replaces.
    axis_name
        Device axis: prototypes are used alike over the global batch.
    mask
        Rows over which prototypes are used alike, all by default; the others, which only fill up the shape, have no
        influence on these.

    Returns
    -------
    log_answers
        Each row of its exponential sums to 1.
    """

    def log_sum(x: Float32[Array, "row out"]) -> Float32[Array, "1 out"]:  # over all rows, those of other devices too
        if mask is not None:
            x = jnp.where(mask[:, None], x, -jnp.inf)
        top = over_devices(jax.lax.pmax, jnp.max(x, axis=0, keepdims=True), axis_name)
        # Without any row to count there is nothing to balance, and infinity less infinity would be no number.
        top = jnp.where(jnp.isneginf(top), 0.0, top)
        total = over_devices(jax.lax.psum, jnp.sum(jnp.exp(x - top), axis=0, keepdims=True), axis_name)
        return top + jnp.where(total > 0.0, jnp.log(total), 0.0)

    x = jax.lax.stop_gradient(logits) / temperature
    for _ in range(rounds):
        # In logarithms, as exp(logits / 0.04) overflows.
        x = jax.nn.log_softmax(x - log_sum(x), axis=1)
    return x


def koleo(
    embeddings: Float[Array, "batch dim"], *, axis_name: str | None = None, epsilon: float = 1e-8
) -> Float32[Array, ""]:
    """Kozachenko-Leonenko entropy of a batch, negated: what spreads embeddings evenly over the sphere.

    Sablayrolles et al. 2019 (arXiv:1806.03198), equation 5: minus the mean log distance to the nearest neighbour.

    Parameters
    ----------
    embeddings : (N, D)
        Of one view of each sample.
    axis_name : str, optional
        Device axis: neighbours are looked for among the samples of all devices.

    Returns
    -------
    ()
        Mean over the samples of this device.
    """
    own = l2_normalise(embeddings, axis=-1)
    everyone, first = own, jnp.zeros((), jnp.int32)
    if axis_name is not None:
        everyone = jax.lax.all_gather(own, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * own.shape[0]

    likeness = jax.lax.stop_gradient(own @ everyone.T)  # (N, all)
    itself = first + jnp.arange(own.shape[0])
    likeness = jnp.where(itself[:, None] == jnp.arange(everyone.shape[0])[None], -jnp.inf, likeness)
    nearest = everyone[jnp.argmax(likeness, axis=1)]  # (N, D)

    # The square root has no gradient at 0, where two samples are the same.
    distance = jnp.sqrt(jnp.sum((own - nearest) ** 2, axis=-1) + epsilon**2)
    return -jnp.mean(jnp.log(distance + epsilon))


class Masks(NamedTuple):
    """Which patches iBOT hides.

    Attributes
    ----------
    mask
        Whether a patch is hidden.
    candidates
        A random choice of patches, the hidden ones first.
    weight
        One over the number of hidden patches of a view for those that are hidden, else 0.
    """

    mask: Bool[Array, "*view patch"]
    candidates: Int32[Array, "*view candidate"]
    weight: Float32[Array, "*view candidate"]


def draw_masks(
    key: Key[Array, ""], n_patches: int, *, probability: float = 0.5, ratio: tuple[float, float] = (0.1, 0.5)
) -> Masks:
    """Choose patches to hide in one view: none, or a share drawn from ``ratio``, with the published settings.

    Patches are chosen one by one, not in blocks, so that shapes are static and the choice needs no host.

    Parameters
    ----------
    key, n_patches
        Random key, and number of patches, of the view.
    probability
        Of a view having any.
    ratio
        Range of the share.
    """
    any_key, share_key, order_key = jax.random.split(key, 3)
    order = jnp.argsort(jax.random.uniform(order_key, (n_patches,)))
    share = jax.random.uniform(share_key, minval=ratio[0], maxval=ratio[1])
    count = jnp.where(jax.random.uniform(any_key) < probability, jnp.round(share * n_patches), 0.0)
    rank = jnp.arange(n_patches).astype(jnp.float32)
    mask = jnp.zeros(n_patches, bool).at[order].set(rank < count)

    most = max(1, round(ratio[1] * n_patches))
    weight = jnp.where(rank[:most] < count, 1.0 / jnp.maximum(count, 1.0), 0.0)
    return Masks(mask, order[:most].astype(jnp.int32), weight)


def ibot_loss(
    student_logits: Float32[Array, "view candidate out"],
    teacher_logits: Float32[Array, "view candidate out"],
    centre: Float32[Array, " out"],
    weight: Float32[Array, "view candidate"],
    *,
    student_temp: Scalar,
    teacher_temp: Scalar,
    centre_momentum: float,
    centring: str = "mean",
    axis_name: str | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, " out"]]:
    """Cross-entropy of the student's hidden patches under what the teacher makes of them in full sight.

    Zhou et al. 2022 (arXiv:2111.07832), equation 2.

    Parameters
    ----------
    student_logits, teacher_logits
        Of candidate patches.
    centre
        Moving average of the teacher's patch logits before this batch.
    weight
        As in `Masks`.
    student_temp, teacher_temp, centre_momentum
        As in `vis2img.train.objectives.dino.dino_loss`.
    centring
        "mean" takes the centre off the teacher's logits; "sinkhorn" balances its answers over the hidden patches of
        the batch instead, each of which counts alike, as in DINOv2.
    axis_name
        Device axis, for "sinkhorn" alone: everything returned is of this device.

    Returns
    -------
    loss
        Mean over the hidden patches of a view, then over all views, those without any included [nat].
    new_centre
        Of the patch logits.
    """
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    log_student = jax.nn.log_softmax(student_logits / student_temp)
    if centring == "sinkhorn":
        rows = teacher_logits.reshape(-1, teacher_logits.shape[-1])
        rows = sinkhorn(rows, teacher_temp, axis_name=axis_name, mask=weight.reshape(-1) > 0.0)
        teacher = jnp.exp(rows).reshape(teacher_logits.shape)
    else:
        teacher = jax.nn.softmax((teacher_logits - centre[None, None]) / teacher_temp)

    loss = -jnp.sum(weight[:, :, None] * teacher * log_student) / weight.shape[0]
    batch_centre = jnp.mean(teacher_logits, axis=(0, 1))
    return loss, centre_momentum * centre + (1.0 - centre_momentum) * batch_centre
