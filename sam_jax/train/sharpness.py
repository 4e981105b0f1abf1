"""How sharp the loss of a run is: measures by their names."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from sam_jax import checks, errors, sharpness
from sam_jax.sharpness import products
from sam_jax.train import optimizer
from sam_jax.train.settings import Always
from sam_jax.train.subject import Subject

Record = dict[str, Any]  # what `measure` returns of a measure, for JSON

# ── Measures ─────────────────────────────────────────────────────────────────────────


class Measure(NamedTuple):
    """A number, or a picture, of a loss.

    Attributes:
        about: what it is, in words.
        find: ``subject -> fields of its record``.
    """

    about: str
    find: Callable[[Subject], Record]


def _eigenvalues(subject: Subject, product: products.Product) -> Record:
    found = sharpness.top_eigenvalues(
        *(subject.loss, subject.params, subject.asked.k),
        batches=subject.batches,
        product=product,
        steps=max(100, subject.asked.k),
        seed=subject.asked.seed,
    )
    values, residuals = (np.asarray(x, float).tolist() for x in found[::2])
    several = {"values": values, "residuals": residuals} if len(values) > 1 else {}
    return {
        "value": values[0],
        "residual": residuals[0],
        "products": found.products,
        **several,
    }


def _estimate(
    subject: Subject,
    estimate: Callable[..., Any],
    unit: str,
    *args: Any,
    **keywords: Any,
) -> Record:
    found = estimate(
        *(subject.loss, subject.params, *args),
        batches=subject.batches,
        seed=subject.asked.seed,
        **keywords,
    )
    return {
        "value": found.value,
        "standard_error": found.standard_error,
        unit: found.evaluations,
    }


def _average_case(subject: Subject, adaptive: bool) -> Record:
    rho = subject.asked.rho
    measure = functools.partial(sharpness.average_case, adaptive=adaptive)
    return _estimate(subject, measure, "losses", rho) | {"rho": rho}


def _worst_case(
    subject: Subject,
    norm: Literal["l2", "linf"],
    adaptive: bool,
    normalized: bool = False,
) -> Record:
    found = sharpness.worst_case(
        subject.losses.of(subject.asked.batch_norm, normalized),
        *(subject.params, subject.asked.rho),
        batches=subject.batches,
        norm=norm,
        adaptive=adaptive,
        seed=subject.asked.seed,
    )
    cost = {"gradients": found.evaluations}
    return {"value": found.value, "rho": subject.asked.rho, **cost}


def _m_sharpness(subject: Subject) -> Record:
    groups = subject.groups
    found = sharpness.m_sharpness(
        *(subject.loss, subject.params, subject.asked.rho, groups),
        seed=subject.asked.seed,
    )
    counts = [int(np.count_nonzero(group.weights)) for group in groups]
    return {
        "value": found.value,
        "standard_error": found.standard_error,
        # On a group each: as many as these are on all examples.
        "gradients": found.evaluations // len(counts),
        "rho": subject.asked.rho,
        "m": max(counts),  # fewer where images of a stream are broken
        "examples": sum(counts),
    }


def _of_ascent(field: str) -> Callable[[Subject], Record]:
    return lambda subject: {
        "value": getattr(subject.ascent, field),
        "gradients": subject.ascent.evaluations,
        "rho": subject.asked.rho,
    }


def _sam_edge(subject: Subject) -> Record:
    """Of the last update: its learning rate and radius are those of the run."""
    run = subject.run
    method, base = run.config.method, run.config.optimizer
    rho = method.coefficients.get("rho", 0.0)
    if (
        method.name not in _EDGES
        or base.name != "sgd"
        or base.options["nesterov"]
        or not isinstance(rho, int | float)
        or method.coefficients.get("mask") is not None
        or not (method.name == "none" or isinstance(run.config.cadence, Always))
        or run.config.clip_norm
        or run.config.learning_rate_factors
    ):
        raise errors.UserError(
            f"sam_edge is known for {', '.join(_EDGES)} in every update, of all "
            "weights, with a number as config.method.rho, and for the optimizer sgd "
            "without nesterov, config.clip_norm or config.learning_rate_factors; "
            f"{run.folder} has others: leave it out"
        )
    made = optimizer.make_optimizer(run.config, run.preprocessing.steps_per_epoch)
    rate = np.asarray(made.learning_rate(max(run.step - 1, 0))).item()
    if not rate:
        raise errors.UserError(
            f"sam_edge: the learning rate of {run.folder} is 0 in update {run.step}: "
            "take another step"
        )
    norm, gradients = 1.0, 0
    if method.name != "usam":
        norm, gradients = subject.ascent.grad_norm, subject.ascent.evaluations
    momentum = base.options["momentum"] or 0.0  # widens the edge by 1 + momentum
    value = sharpness.sam_edge(norm, rate / (1 + momentum), float(rho))
    return {
        "value": value,
        "gradients": gradients,
        "rho": rho,
        "learning_rate": rate,
        "momentum": momentum,
    }


def _mean_loss(subject: Subject) -> Record:
    loss = products.mean_over(subject.batches, subject.loss)
    return {"value": float(loss(subject.params)), "losses": 1}


_EDGES = ("none", "sam", "usam")
_HESSIAN = sharpness.hessian_product
_PROBES = {"probes": 16}

MEASURES: Mapping[str, Measure] = {
    "loss": Measure("mean loss of the examples", _mean_loss),
    "gradient_norm": Measure("length of the gradient", _of_ascent("grad_norm")),
    "lambda_max": Measure(
        "largest eigenvalue of the Hessian",
        functools.partial(_eigenvalues, product=_HESSIAN),
    ),
    "gauss_newton_lambda_max": Measure(
        "largest eigenvalue of the Gauss-Newton matrix",
        functools.partial(_eigenvalues, product=sharpness.gauss_newton_product),
    ),
    "trace": Measure(
        "sum of all eigenvalues of the Hessian",
        lambda s: _estimate(s, sharpness.trace, "products", **_PROBES),
    ),
    "frobenius_norm": Measure(
        "root of the sum of all squared eigenvalues of the Hessian",
        lambda s: _estimate(s, sharpness.frobenius_norm, "products", **_PROBES),
    ),
    "worst_case": Measure(
        "largest rise of the loss within rho",
        functools.partial(_worst_case, norm="l2", adaptive=False),
    ),
    "worst_case_linf": Measure(
        "largest rise of the loss, each weight within rho",
        functools.partial(_worst_case, norm="linf", adaptive=False),
    ),
    "adaptive_worst_case": Measure(
        "largest rise of the loss within rho, in units of the weights",
        functools.partial(_worst_case, norm="l2", adaptive=True),
    ),
    "adaptive_worst_case_linf": Measure(
        "largest rise of the loss, each weight within rho of itself",
        functools.partial(_worst_case, norm="linf", adaptive=True),
    ),
    "logit_normalized_worst_case": Measure(
        "adaptive_worst_case_linf of normalized logits",
        functools.partial(_worst_case, norm="linf", adaptive=True, normalized=True),
    ),
    "average_case": Measure(
        "mean rise of the loss under Gaussian noise of size rho",
        functools.partial(_average_case, adaptive=False),
    ),
    "adaptive_average_case": Measure(
        "mean rise of the loss under Gaussian noise of rho times each weight",
        functools.partial(_average_case, adaptive=True),
    ),
    "m_sharpness": Measure("mean of the worst cases of m examples each", _m_sharpness),
    "sam_sharpness": Measure(
        "rise of the loss by SAM's own step of length rho", _of_ascent("value")
    ),
    "gradient_cosine": Measure(
        "cosine of the gradients before and behind SAM's own step", _of_ascent("cosine")
    ),
    "sam_edge": Measure("largest eigenvalue that the run is stable at", _sam_edge),
}
DEFAULT = ("lambda_max", "trace", "worst_case", "m_sharpness", "sam_sharpness")


# ── Measuring ────────────────────────────────────────────────────────────────────────


def names_of(
    asked: str | Sequence[str], known: Iterable[str], setting: str
) -> list[str]:
    """The names of measures, each once.

    Example:
        >>> names_of("trace, loss", MEASURES, "measures")
        ['trace', 'loss']
    """
    given = asked.split(",") if isinstance(asked, str) else asked
    names = list(dict.fromkeys(name.strip() for name in given))
    for name in names:
        if name not in known:
            raise errors.UserError(errors.unknown(f"measure in {setting}", name, known))
    return names


def measure(
    subject: Subject, measures: Mapping[str, Measure]
) -> Iterator[tuple[str, Record]]:
    """Measures one after the other.

    Yields:
        The name of each, and its record: ``about``; ``value``, ``residual``,
        ``standard_error`` (None where there is none), or the arrays of a picture; what
        it took, in ``products`` with a vector, ``gradients`` and ``losses`` of all
        examples, and ``seconds``; and on what: ``step``, ``split``, ``examples``,
        ``batch_norm``, ``seed``.

    Raises:
        UserError: if there are more eigenvalues than weights, or the loss is not
            finite.
    """
    numbers = {"value": None, "residual": None, "standard_error": None}
    asked = subject.asked
    for name, one in measures.items():
        clock = time.monotonic()
        try:
            found = one.find(subject)
        except checks.BadValue as error:
            raise errors.UserError(f"{name}: {error}") from error
        seconds = round(time.monotonic() - clock, 3)
        yield (
            name,
            {
                "about": one.about,
                **(numbers if "value" in found else {}),
                **{"products": 0, "gradients": 0, "losses": 0, "seconds": seconds},
                "step": subject.run.step,
                "split": "train",
                "examples": subject.examples,
                "batch_norm": asked.batch_norm,
                "seed": asked.seed,
                **found,
            },
        )
