r"""Desingularizing functions of the Kurdyka-Lojasiewicz (KL) property.

:math:`\varphi'(f(x) - f(\bar x))\, \|\nabla f(x)\| \ge 1` near :math:`\bar x`, with a
concave :math:`\varphi`, :math:`\varphi(0) = 0` (Khanh et al. 2024, Definition 2.1). The
rates of Theorem 4.1 (v) hold for the powers. Its other parts and Theorem 3.3 (iii) hold
for every :math:`\varphi`, the latter under Assumption 2.3: some C > 0 with

.. math:: C / \varphi'(s + t) \le 1 / \varphi'(s) + 1 / \varphi'(t).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sam_jax.theory.step_sizes.constants import Real


@dataclasses.dataclass(frozen=True)
class Desingularizing:
    """A function phi on (0, end).

    Attributes:
        value: phi.
        slope: its derivative, > 0.
        end: the end of its domain.
    """

    value: Callable[[Real], np.ndarray]
    slope: Callable[[Real], np.ndarray]
    end: float = np.inf

    def assumption_2_3(self, points: np.ndarray) -> float:
        """The largest C of Assumption 2.3 over all pairs of points, [n].

        Raises:
            ValueError: if no two points have a sum in (0, end).

        Example:
            >>> round(power(1.0, 0.5).assumption_2_3(np.array([0.0625, 1.0])), 4)
            1.2127
        """
        s, t = np.meshgrid(points, points)
        inside = (np.minimum(s, t) > 0) & (s + t < self.end)
        if not inside.any():
            raise ValueError(f"no two points have a sum in (0, {self.end:g})")
        s, t = s[inside], t[inside]
        both = 1 / self.slope(s) + 1 / self.slope(t)
        return float((both * self.slope(s + t)).min())


def power(factor: float, q: float) -> Desingularizing:
    """The powers phi(t) = M t^(1-q), M > 0, of analytic and semialgebraic functions.

    Assumption 2.3 holds with C = 1, for s^q + t^q >= (s + t)^q (Remark G.1).

    Raises:
        ValueError: if q is not in [0, 1) or M not positive.
    """
    if not 0 <= q < 1 or not factor > 0:
        raise ValueError(f"q must be in [0, 1) and M > 0, got {q:g} and {factor:g}")
    return Desingularizing(
        lambda t: factor * np.asarray(t) ** (1 - q),
        lambda t: factor * (1 - q) * np.asarray(t) ** -q,
    )


# phi(t) = 1/log(1/t), of exp(-1/|x|): flatter than every power. 1/phi' = t log(t)^2 is
# concave up to 1/e, so that C = 1 (ours).
LOGARITHMIC = Desingularizing(
    lambda t: -1 / np.log(t),
    lambda t: 1 / (np.asarray(t) * np.log(t) ** 2),
    end=np.exp(-2.0),
)
