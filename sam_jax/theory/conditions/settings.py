"""What is run, and what is known about the function."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sam_jax.theory import families, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import constants

_NO_RADIUS = families.Constant(0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is run, and on what. None is unknown.

    Attributes:
        method: name of a method of `sam_jax`, or ``"sgd"`` for none (also with full
            gradients). Two methods of `sam_jax.theory.inexact` step along any g^k near
            the gradient: ``"igd"``, where ``radius`` is eps_k in
            ||g^k - grad f(x^k)|| <= eps_k, and ``"igdr"``, where it is nu_k in
            ||g^k - grad f(x^k)|| <= nu_k ||grad f(x^k)||.
        step_size: t_k.
        radius: rho_k; none for ``"sgd"``.
        coefficients: of the method, such as ``{"lam": 0.5}``; others have their
            defaults.
        smooth: whether the gradient is Lipschitz continuous.
        smoothness: L, its constant.
        descent: for a gradient that is not Lipschitz: whether f satisfies the L-descent
            condition f(y) <= f(x) + <grad f(x), y - x> + L/2 ||y - x||^2 with this L.
        sampled_smoothness: the largest L of a function that a single step sees, weights
            included; only needed if steps see samples.
        convex: whether f is convex.
        strong_convexity: mu; 0 if f is not strongly convex.
        pl: Polyak-Lojasiewicz constant; 0 if there is none.
        bounded_below: whether inf f(x^k) > -infinity.
        bounded_level_sets: whether all level sets of f are bounded; for a convex f one
            bounded nonempty level set suffices.
        kl_exponent: q of the Kurdyka-Lojasiewicz function M t^(1-q), in [0, 1).
        stochastic: whether a step sees a sample of f.
        fresh_samples: whether each is drawn independently of the iterate, with
            the gradient as its mean; False if the examples are shuffled and each is
            seen once per epoch.
        residual: A, B, C of the expected residual condition of the samples.
        variance: upper bound of E||g - grad f||^2.
        others: further parts of a step besides x - t g, such as ``"momentum 0.9"``.
        outside_decay: coefficient of a weight decay that is added to the direction
            instead of the function.
        every_update: whether the method is used in every update; if not, the others
            are plain gradient steps.
        horizon: number of steps, where it is fixed in advance.
    """

    method: str = "sam"
    step_size: families.Family
    radius: families.Family = _NO_RADIUS
    coefficients: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smooth: bool | None = None
    smoothness: float | None = None
    descent: bool | None = None
    sampled_smoothness: float | None = None
    convex: bool | None = None
    strong_convexity: float | None = None
    pl: float | None = None
    bounded_below: bool | None = None
    bounded_level_sets: bool | None = None
    kl_exponent: float | None = None
    stochastic: bool = False
    fresh_samples: bool = True
    residual: sampling.ExpectedResidual | None = None
    variance: float | None = None
    others: Sequence[str] = ()
    outside_decay: float = 0.0
    every_update: bool = True
    horizon: int | None = None

    def __post_init__(self) -> None:
        if self.method == "sgd" and self.radius != _NO_RADIUS:
            raise ValueError(f"method 'sgd' has no radius, got {self.radius}")
        for name in ("strong_convexity", "pl"):
            mu = getattr(self, name) or 0.0
            if self.smoothness is not None and not 0 <= mu <= self.smoothness:
                raise ValueError(
                    f"{name} must be in [0, L], got mu = {mu:g} and L = "
                    f"{self.smoothness:g}"
                )
        if self.kl_exponent is not None and not 0 <= self.kl_exponent < 1:
            raise ValueError(f"kl_exponent must be in [0, 1), got {self.kl_exponent!r}")

    @property
    def largest_smoothness(self) -> float | None:
        """L of the function that a step sees."""
        return self.sampled_smoothness if self.stochastic else self.smoothness

    @property
    def seen_residual(self) -> sampling.ExpectedResidual | None:
        """A, B and C; without samples, those of full gradients."""
        return self.residual if self.stochastic else constants.EXACT

    @property
    def seen_variance(self) -> float | None:
        """The bound of the variance; 0 for full gradients."""
        return self.variance if self.stochastic else 0.0

    @property
    def growth_constant(self) -> float | None:
        """The PL constant; a constant of strong convexity is also one."""
        known = [mu for mu in (self.pl, self.strong_convexity) if mu is not None]
        return max(known, default=None)


def on(problem: problems.Problem, **others: Any) -> Setting:
    """A setting on a problem whose constants are known.

    Constants that hold in a ball (`problems.Problem.radius`) are taken to hold wherever
    the iterates go.

    Args:
        problem: the function; with ``scheme=...``, a finite sum whose samples the steps
            see.
        **others: fields of `Setting`, and ``scheme``, a `sampling.Sampling`.

    Returns:
        The setting.

    Raises:
        ValueError: if constants contradict each other, or ``"sgd"`` has a radius.
        TypeError: if ``scheme`` is given for a problem that is not a finite sum.

    Example:
        >>> problem = problems.quadratic([1.0, 10.0], [1.0, 1.0])
        >>> on(problem, method="usam", step_size=families.Constant(0.1)).smoothness
        10.0
    """
    known: dict[str, Any] = {
        "smooth": math.isfinite(problem.smoothness),
        "smoothness": problem.smoothness,
        "convex": problem.convex,
        "strong_convexity": problem.strong_convexity,
        "pl": problem.pl,
        "bounded_below": True,
        "bounded_level_sets": True if problem.strong_convexity > 0 else None,
        "kl_exponent": 0.5 if problem.pl > 0 else None,
    }
    scheme = others.pop("scheme", None)
    if scheme is not None:
        if not isinstance(problem, finite_sums.FiniteSum):
            raise TypeError("a sampling scheme needs a finite sum")
        residual = sampling.expected_residual(scheme, problem)
        known |= {
            "stochastic": residual != (0.0, 1.0, 0.0),  # of the full batch
            "sampled_smoothness": sampling.sampled_smoothness(scheme, problem),
            "residual": residual,
        }
    return Setting(**(known | others))
