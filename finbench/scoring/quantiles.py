"""Quantiles of the normal distribution and of Student's t, without scipy."""

from __future__ import annotations

import functools
import math

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def t_inside(t: float, df: float) -> float:
    """P(|T| <= t) for Student's t with ``df`` > 0 degrees of freedom, which need not be a whole number."""
    return 1 - _incomplete_beta(df / 2, 0.5, df / (df + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly its mirror image does so fast
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    d = 1 / (1 - (a + b) * x / (a + 1))
    c, product = 1.0, d
    for m in range(1, 1000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + step * d), 1 + step / c
            product *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * product


@functools.lru_cache(maxsize=4096)
def t_quantile(df: float, level: float = 0.95) -> float:
    """The t with P(|T| <= t) = ``level`` for Student's t; ``df`` at least 1."""
    if df > 200:  # Cornish-Fisher (Abramowitz and Stegun 26.7.5): right to seven digits from here on
        z = Z95 if level == 0.95 else normal_quantile(0.5 + level / 2)
        return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    low, high = 0.0, 1e4
    for _ in range(60):  # to 1e-14, the rounding of what is bisected
        middle = (low + high) / 2
        low, high = (middle, high) if t_inside(middle, df) < level else (low, middle)
    return (low + high) / 2


def normal_quantile(p: float) -> float:
    """Inverse of the standard normal distribution function, by bisection."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < p else (low, middle)
    return (low + high) / 2
