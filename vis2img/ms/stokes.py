"""Stokes parameters, and the correlations that form them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hands:
    """The correlations that form a Stokes parameter: (first + sign * second) * factor.

    A single correlation has ``first == second`` and sign 0.
    """

    first: int
    second: int
    sign: float
    factor: complex
    label: str


# Stokes parameters of linear and circular feeds (Hamaker & Bregman 1996, A&AS 117, 161), as casacore counts
# them: I = (XX + YY) / 2. One parallel hand alone counts as I of an unpolarised sky.
_RECIPES: dict[str, tuple[tuple[tuple[str, ...], float, complex], ...]] = {
    "I": (
        (("I",), 0, 1),
        (("XX", "YY"), 1, 0.5),
        (("RR", "LL"), 1, 0.5),
        *(((hand,), 0, 1) for hand in ("XX", "YY", "RR", "LL")),
    ),
    "Q": ((("Q",), 0, 1), (("XX", "YY"), -1, 0.5), (("RL", "LR"), 1, 0.5)),
    "U": ((("U",), 0, 1), (("XY", "YX"), 1, 0.5), (("RL", "LR"), -1, -0.5j)),
    "V": ((("V",), 0, 1), (("XY", "YX"), -1, -0.5j), (("RR", "LL"), -1, 0.5)),
}
NEEDS = {
    "I": "XX and YY, or RR and LL",
    "Q": "XX and YY, or RL and LR",
    "U": "XY and YX, or RL and LR",
    "V": "XY and YX, or RR and LL",
}


def stokes_hands(stokes: str, corrs: tuple[str, ...]) -> Hands | None:
    """Return how ``corrs`` form a Stokes parameter, or None when they cannot."""
    for names, sign, factor in _RECIPES[stokes]:
        if all(name in corrs for name in names):
            first, second = corrs.index(names[0]), corrs.index(names[-1])
            return Hands(first, second, sign, factor, ("-" if sign < 0 else "+").join(names))
    return None
