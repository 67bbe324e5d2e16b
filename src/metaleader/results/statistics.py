"""What few seeds allow to say: pure functions of one number a seed, such as the paired differences of two learners.

Sources: Student's t interval and test; the sign-flip (permutation) test of Fisher; S. Holm, "A simple sequentially
rejective multiple test procedure", 1979; D. Schuirmann's two one-sided tests of equivalence, 1987.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Shaped

Interval: TypeAlias = list[float | None]  # mean, low, high

SPREAD = 1e-9
"""Values whose standard deviation is at most this share of the largest are taken for equal: only rounding is left."""
MOST_FLIPS = 40  # 2^20 sums of either half of the values take a second


def t_interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> Interval:
    """Mean and Student's t interval of it: mean -+ t s / sqrt(n), with n - 1 degrees of freedom.

    Args:
        values: one for each seed.
        level: share of such intervals that hold the true mean, if the values are normal.

    Returns:
        `[mean, low, high]`; without ends for a single value, and where all are equal, as then there is no spread to
        estimate from; all None where there is no value or one is not finite.
    """
    if len(values) == 0 or not np.isfinite(values).all():
        return [None, None, None]
    mean = float(values.mean())
    if len(values) == 1 or _equal(values):
        return [mean, None, None]
    from scipy import special  # takes longer to import than this package's own modules, and `--help` needs none of it

    half = float(special.stdtrit(len(values) - 1, (1 + level) / 2)) * _standard_error(values)
    return [mean, mean - half, mean + half]


def t_test(values: Float[np.ndarray, " n"], against: float = 0.0) -> float | None:
    """Two-sided p-value of Student's t test that the mean is `against`.

    Under 0.05, the 95 % interval of `t_interval` does not hold `against`. Values that are all equal have no spread, and
    t would be infinite whatever their number; their p-value is that of `sign_flip`, the least that n signs can give (of
    more than 40, that of 40).

    Args:
        values: one for each seed.
        against: the mean under the null hypothesis.

    Returns:
        The p-value; None for fewer than two values, or where one is not finite.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    if _equal(values):
        return sign_flip(values[:MOST_FLIPS], against)
    from scipy import special

    return float(2 * special.stdtr(len(values) - 1, -abs(float(values.mean()) - against) / _standard_error(values)))


def sign_flip(values: Float[np.ndarray, " n"], against: float = 0.0) -> float | None:
    """Exact two-sided p-value of the mean: the share of all 2^n flips of signs that lead as far from `against`.

    It supposes only that each value is as likely to lie above `against` as below by as much, and is at least 2 / 2^n:
    0.25 for three seeds, 0.03125 for six.

    Args:
        values: one for each seed.
        against: the centre under the null hypothesis.

    Returns:
        The p-value; None where there is no value, one is not finite, or there are more than 40: t will do there.
    """
    if not 0 < len(values) <= MOST_FLIPS or not np.isfinite(values).all():
        return None
    centred = values - against
    far = abs(float(centred.sum())) - SPREAD * float(np.abs(centred).sum())
    if far <= 0:
        return 1.0
    # The flips come in pairs of opposite sums. Those far above zero are counted by the sums of either half.
    one, other = (_flipped(half) for half in np.array_split(centred, 2))
    above = len(other) - np.searchsorted(np.sort(other), far - one)
    return float(2 * above.sum() / 2 ** len(values))


def _flipped(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " sums"]:
    """All sums of +-values, by doubling."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of m p-values, in their order.

    The k-th smallest becomes the largest of (m - j + 1) p_j over j = 1..k, and at most 1. Deciding where the corrected
    value is under 0.05 makes one wrong decision or more in at most 5 % of families, however the tests depend on one
    another.

        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def nearest(mean: float, boundaries: Sequence[float]) -> float:
    """The boundary between the answers yes and no that is nearest to a mean.

    A claim that a mean lies above (below) a number has that one boundary; a claim that it lies within a margin of 0 has
    two, and the t test against the nearer one is the larger of the two one-sided tests (TOST), doubled: equivalence is
    found at 0.05 where the 95 % interval lies within the margin, and refused where it lies outside.
    """
    return min(boundaries, key=lambda boundary: abs(mean - boundary))


def _standard_error(values: Float[np.ndarray, " n"]) -> float:
    return float(values.std(ddof=1)) / float(np.sqrt(len(values)))


def _equal(values: Shaped[np.ndarray, " n"]) -> bool:
    return float(values.std()) <= SPREAD * float(np.abs(values).max())
