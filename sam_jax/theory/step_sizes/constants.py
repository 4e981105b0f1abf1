"""The arguments of the rules and bounds: the letters of the three papers."""

import math
from typing import Any, NamedTuple

from sam_jax import checks
from sam_jax.theory import finite_sums, problems, sampling

Real = Any  # a number, or an array of them
EXACT = sampling.ExpectedResidual(0.0, 1.0, 0.0)  # full gradients


class Constants(NamedTuple):
    """The constants of a function and of its samples that the theorems use.

    Attributes:
        mu: constant of the Polyak-Lojasiewicz inequality, such as a constant of strong
            convexity, in (0, L]; 0 if there is none.
        L: smoothness > 0, beta in Si and Yun: of f for full gradients, otherwise of the
            sampled functions. Oikonomou and Loizou write L_max, the
            largest L_i. Their proof needs the largest smoothness over all samples,
            weights included (derived), which is smaller under importance sampling but
            may exceed L_max under other probabilities; see
            `sampling.sampled_smoothness`.
        residual: A, B and C of the expected residual condition.
        variance: sigma^2 >= 0, an upper bound of E||g - grad f||^2; infinite if none is
            known.
        second_moment: M^2 > 0, an upper bound of E||g||^2; likewise.
    """

    mu: float
    L: float
    residual: sampling.ExpectedResidual = EXACT
    variance: float = math.inf
    second_moment: float = math.inf

    @property
    def growth(self) -> float:
        """B mu + A, which bounds E||g||^2 <= 2 (B mu + A) (f - f*) + C at worst."""
        return self.residual.B * self.mu + self.residual.A

    def check_curvature(self) -> None:
        """Refuses an L that is not finite and > 0, and a mu that is not in (0, L].

        Raises:
            ValueError: with both sides' values.
        """
        checks.positive("L", self.L)
        if not 0 < self.mu <= self.L:
            raise ValueError(
                f"mu must be in (0, L], got mu = {self.mu:g} and L = {self.L:g}"
            )


class Rule(NamedTuple):
    """A constant radius rho and step size gamma, eta in Si and Yun.

    Both are numbers; the bounds of `si_yun` take arrays too, and broadcast them.
    """

    rho: Real
    gamma: Real


def constants(
    problem: finite_sums.FiniteSum,
    scheme: sampling.Sampling,
    smoothness: float | None = None,
) -> Constants:
    """Constants of a finite sum under a sampling; L is the paper's L_max if not given.

    Example:
        >>> problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
        >>> constants(problem, sampling.uniform(3)).residual
        ExpectedResidual(A=1.0, B=0.0, C=2.0)
    """
    return Constants(
        problem.pl,
        problem.largest_smoothness if smoothness is None else smoothness,
        sampling.expected_residual(scheme, problem),
    )


def deterministic(problem: problems.Problem) -> Constants:
    """Constants for full gradients, as in Corollary 3.4: A = 0, B = 1, C = 0."""
    return Constants(problem.pl, problem.smoothness)


def interpolated(known: Constants) -> Constants:
    """The same with C = 0, as if all components shared their minimizer."""
    return known._replace(residual=known.residual._replace(C=0.0))
