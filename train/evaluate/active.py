"""Active learning of what is interesting: a human scores a few patches from 0 to 5, and the rest are ranked anew.

Two methods, each retrained after every score:

- "astronomaly" (Lochner & Bassett 2021, arXiv:2010.11202, and their published code): the raw anomaly score S, scaled
  to 0 to 5, is damped where a random forest expects a low human score U and a scored patch is near,
  S' = S tanh(delta - 1 + arctanh(U~)), with U~ = 0.1 + 0.85 U / 5 and delta = exp(d / mean d), d the distance to the
  nearest scored patch.
- "protege" (Lochner & Rudnick 2024, arXiv:2411.04188, and their published code): a Gaussian process (Matern kernel
  and noise) predicts the human score; patches are shown by their expected improvement over the best score so far
  with a trade-off of 0.5, which balances what is expected to be good against what is unknown. The raw score only
  decides what is shown first, and between patches of equal value: the recall can fall at first where anomalies are
  mere outliers that resemble nothing, and rises fast where they resemble each other.

Astronomaly only damps what the raw score calls strange, so it cannot bring up what that has missed; with many features
all distances are alike and it changes little.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import norm
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from sklearn.metrics import pairwise_distances_argmin_min

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.files import write_text
from vis2img.train.evaluate.anomaly import HEADLINE, components, outlier_scores, patches, recall_curve
from vis2img.train.evaluate.scores import Name, Pairs

METHODS = ("astronomaly", "protege")
HIGHEST = 5.0
TRADE_OFF = 0.5
CHECKPOINTS = (0, 20, 50, 100)


class ActiveSession:
    """Patches, the scores that a human gave some of them, and the order in which to look at the others.

    Parameters
    ----------
    vectors : float [n, dim]
        Embeddings.
    raw_scores : float [n]
        How strange each is before anybody has looked, the strangest highest, as
        :func:`vis2img.train.evaluate.anomaly.outlier_scores` returns.
        Until something is scored both methods rank by it.
    method : str
        "astronomaly" or "protege".
    seed : int
        Of the random forest.

    Attributes
    ----------
    human : dict of int to float
        The human score of each patch scored so far, in the order of scoring.

    Raises
    ------
    ParameterError
        If the method is unknown, or vectors and raw scores do not fit each other or are not finite.
    """

    def __init__(self, vectors: np.ndarray, raw_scores: np.ndarray, method: str = "astronomaly", seed: int = 0) -> None:
        if method not in METHODS:
            raise ParameterError(f"unknown method of active learning {method!r}; choose one of: {', '.join(METHODS)}")
        raw = np.asarray(raw_scores, dtype=np.float64)
        if raw.shape != (len(vectors),) or not np.isfinite(raw).all():
            raise ParameterError(f"raw scores [{raw.shape}] must be {len(vectors)} finite numbers, one for each patch")
        self.method, self.seed = method, seed
        self.human: dict[int, float] = {}
        self._fingerprint = _fingerprint(vectors)
        features = components(vectors)
        # Typical distances near 1, where the search for the kernel's length begins.
        self._features = features / np.sqrt((features.astype(np.float64) ** 2).sum(axis=1).mean())
        self._raw = HIGHEST * (raw - raw.min()) / max(np.ptp(raw), np.finfo(float).tiny)

    def next(self, n: int) -> np.ndarray:
        """Return the ``n`` patches to show next (fewer when fewer are left), none of which is scored yet."""
        value = self._trained()[1]
        order = np.lexsort((-self._raw, -value))
        return order[~np.isin(order, list(self.human))][:n]

    def score(self, indices: Sequence[int] | np.ndarray, human_scores: Sequence[float] | np.ndarray) -> None:
        """Take human scores of patches; a later score of the same patch replaces the earlier.

        Raises
        ------
        ParameterError
            If there is no such patch, or a score is not from 0 to 5.
        """
        scores: dict[int, float] = {}
        for index, value in zip(indices, human_scores, strict=True):
            if not 0 <= index < len(self._raw):
                raise ParameterError(f"patch {index} does not exist; there are {len(self._raw)}, counted from 0")
            if not 0 <= value <= HIGHEST:
                raise ParameterError(f"human score {value} of patch {index} must be from 0 to {HIGHEST:g}")
            scores[int(index)] = float(value)
        self.human |= scores

    def ranking(self) -> np.ndarray:
        """Return all patches [n], the most interesting first, scored ones among them."""
        return np.lexsort((-self._raw, -self._trained()[0]))

    def _trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the interest of each patch, and the value of having it scored next."""
        if not self.human:
            return self._raw, self._raw
        rows, values = np.array(list(self.human)), np.array(list(self.human.values()))
        if self.method == "protege":
            mean, spread = self._gaussian_process(rows, values)
            return mean, expected_improvement(mean, spread, values.max())

        forest = RandomForestRegressor(random_state=self.seed).fit(self._features[rows], values)
        distance = pairwise_distances_argmin_min(self._features, self._features[rows])[1]
        interest = damped(self._raw, forest.predict(self._features), distance)
        return interest, interest

    def _gaussian_process(self, rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted human score of each patch and its standard deviation."""
        # Scores that are all the same tell nothing of the kernel. As it is, and with a mean of 0, it leads away from
        # what was called dull and to the likes of what was called interesting.
        optimizer = "fmin_l_bfgs_b" if np.ptp(values) else None
        process = GaussianProcessRegressor(Matern() + WhiteKernel(), optimizer=optimizer)
        with warnings.catch_warnings():
            # With a few scores a length or a noise at its bound is the best there is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(self._features[rows], values)
            return process.predict(self._features, return_std=True)

    def save(self, path: Path) -> None:
        """Write the scores given so far as JSON, in one move; vectors are known by their hash."""
        content = {
            "method": self.method,
            "seed": self.seed,
            "vectors_sha256": self._fingerprint,
            "human": [[index, value] for index, value in self.human.items()],
        }
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray, raw_scores: np.ndarray) -> ActiveSession:
        """Read what :meth:`save` wrote, for the same vectors.

        Raises
        ------
        Vis2imgError
            If the file is missing, is no such file, or was made of other vectors.
        """
        try:
            content = json.loads(path.read_text())
            session = cls(vectors, raw_scores, content["method"], content["seed"])
            made_of, human = content["vectors_sha256"], np.array(content["human"], dtype=float).reshape(-1, 2)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Vis2imgError(f"cannot read the human scores of {path} ({error}); choose another file") from error
        if made_of != session._fingerprint:
            raise Vis2imgError(f"{path} holds scores of other embeddings; give those it was made of, or another file")
        session.score(human[:, 0].astype(int), human[:, 1])
        return session


def damped(raw: np.ndarray, predicted: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return Astronomaly's S' (formula in the module) of raw scores, predicted human scores and distances [n]."""
    trusted = 0.1 + 0.85 * predicted / HIGHEST
    mean = distance.mean()
    delta = np.exp(distance / mean if mean > 0 else distance)
    return raw * np.tanh(delta - 1 + np.arctanh(trusted))


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """Return how far each patch is expected to surpass ``best`` by more than the trade-off (Jones et al. 1998)."""
    gain = mean - best - TRADE_OFF
    z = gain / np.maximum(spread, 1e-12)
    return gain * norm.cdf(z) + spread * norm.pdf(z)


def _fingerprint(vectors: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors, dtype=np.float32).tobytes()).hexdigest()


@dataclass(frozen=True)
class ActiveLearning:
    """Recall of planted anomalies with a person who scores some patches: 5 what is planted, 0 all else.

    Looked at is what was shown for scoring, in the order it was shown, and then the ranking.

    Parameters
    ----------
    batch : int
        Patches scored between two trainings.
    rounds : int
        Batches.
    """

    batch: int = 10
    rounds: int = 10

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ParameterError(f"batch of {self.batch} patches must be at least 1")

    def run(self, vectors: np.ndarray, planted: np.ndarray, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield "recall" of each method and of "no scores" (the raw order), and "recall in the first 5%" of each.

        x of "recall" is the number of patches looked at, all of them scored: 20, 50 and 100, as far as the batches
        reach them. x of "recall in the first 5%" is the number of scores given, 0 and as far as they are at most half
        of these 5%: of more, it would be decided before the learner has a say.

        ``planted`` [n] tells which patches of ``vectors`` [n, dim] are wanted; ``seeds`` are of the isolation forest
        that gives the raw scores, and of the learner.
        """
        for seed in seeds:
            raw = outlier_scores("isolation forest", vectors, seed)
            unhelped = recall_curve(np.argsort(-raw, kind="stable"), planted)
            for count in CHECKPOINTS:
                if 0 < count <= min(self.batch * self.rounds, len(planted)):
                    yield Name("active learning", "no scores", "recall", count, seed), unhelped[count]
            for method in METHODS:
                yield from self._session(ActiveSession(vectors, raw, method, seed), planted)

    def _session(self, session: ActiveSession, planted: np.ndarray) -> Pairs:
        name = Name("active learning", session.method, "recall", seed=session.seed)
        first = patches(HEADLINE, len(planted))
        for done in range(self.rounds + 1):
            if done:
                shown = session.next(self.batch)
                session.score(shown, HIGHEST * planted[shown])
            count = done * self.batch
            if count not in CHECKPOINTS or count > len(planted):
                continue

            ranking, seen = session.ranking(), np.array(list(session.human), dtype=int)
            curve = recall_curve(np.concatenate([seen, ranking[~np.isin(ranking, seen)]]), planted)
            if count:
                yield replace(name, x=count), curve[count]
            if 2 * count <= first:
                yield replace(name, metric="recall in the first 5%", x=count), curve[first]
