"""What the three papers prove about a run card, in plain words."""

import dataclasses
import json
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import config_dict

from sam_jax import data, errors
from sam_jax.data import splits
from sam_jax.theory import conditions, families
from sam_jax.train import cards, optimizer, schedule
from sam_jax.train import config as config_lib

WIDTH = 88


class Recipe(NamedTuple):
    """Settings of the trainer with which a theorem speaks of a run.

    Attributes:
        theorem: the beginning of its name.
        methods: names that will do as they are in the fragments, the first for others.
        settings: what must be set, key of the card -> value.
        radius: the name of the radius' schedule.
        gives: what follows, in a few words.
    """

    theorem: str
    methods: tuple[str, ...]
    settings: Mapping[str, Any]
    radius: str
    gives: str


_PLAIN = {
    "optimizer.name": "sgd",
    "optimizer.sgd.momentum": 0.0,
    "optimizer.sgd.nesterov": False,
    "clip_norm": None,
}
_FULL = {"data.crop": 0, "data.flip": False, "data.cutout": 0}  # and the batch size
_CONSTANT = {"schedule.name": "constant"}
_AS_STATED = {"weight_decay.kind": "loss", "cadence.name": "always"}

RECIPES: Sequence[Recipe] = (
    Recipe(
        "Khanh et al., Theorem 3.3",
        ("sam", "friendly_sam", "vasso", "random_sam", "async_sam", "gsam", "none"),
        _FULL | _PLAIN | {"schedule.name": "diminish1"},
        "diminish1",
        "lim ||grad f|| = 0",
    ),
    Recipe(
        "Khanh et al., Theorems 4.1",
        ("usam", "extragradient", "none"),
        _FULL | _PLAIN | _CONSTANT | {"weight_decay.kind": "loss"},
        "constant",
        "lim ||grad f|| = 0 with a constant step size and radius, both small",
    ),
    Recipe(
        "Si and Yun, Theorem 3.4",
        ("sam", "none"),
        _FULL | _PLAIN | _CONSTANT | _AS_STATED,
        "constant",
        "the mean of ||grad f||^2 is at most O(1/T) + (L rho)^2",
    ),
    Recipe(
        "Si and Yun, Theorems 4.3",
        ("sam", "none"),
        _PLAIN | _CONSTANT | _AS_STATED,
        "constant",
        "the mean of E||grad f||^2 is at most O(1/T + eta + (L rho)^2), on batches",
    ),
    Recipe(
        "Oikonomou and Loizou, Theorem 3.7",
        ("usam", "sam", "none"),
        _PLAIN | _CONSTANT | _AS_STATED,
        "constant",
        "a bound of min E||grad f||^2 for a given number of steps, on batches",
    ),
)


def check(card: str | None, overrides: Sequence[str]) -> int:
    """Prints which theorems cover a run card, which do not and why.

    Args:
        card: path of the card, with ``:method`` if it should be another one.
        overrides: such as ``"--config.learning_rate=0.05"``.

    Returns:
        The exit code, 0.

    Raises:
        UserError: for an unknown card or setting, or one outside its range.
    """
    for override in overrides:
        if not override.startswith("--config."):
            raise errors.UserError(
                f"unexpected argument {override!r}: settings are written "
                "--config.name=value"
            )
    config = cards.load(card, *overrides) if card else cards.loaded(None)
    print("\n".join(explain(config, card or "")))
    return 0


def explain(config: config_lib.Config, card: str) -> Iterator[str]:
    """The answer, line by line, wrapped at `WIDTH` columns.

    Args:
        config: of the run.
        card: as it was given.

    Yields:
        The lines.

    Raises:
        UserError: if a setting is outside its range.
    """
    setting = setting_of(config)
    verdicts = conditions.assess(setting)
    applying = [v for v in verdicts if v.applies is not False]
    failing = [v for v in verdicts if v.applies is False]
    for_networks = [v for v in failing if not _is_for_special_functions(v)]
    special = [v.theorem.name for v in failing if _is_for_special_functions(v)]

    yield card
    for what, text in describe(config, setting).items():
        yield from _wrapped(f"  {what:<11}", text)
    yield ""
    if applying:
        yield "Covered, as far as it can be known:"
    else:
        yield "No theorem of the three papers covers this run."
    if setting.method not in conditions.methods():
        yield f"None speaks of {setting.method}, whatever its settings are."
    for verdict in applying:
        yield from _wrapped("  * ", f"{verdict.theorem.name}: {verdict.theorem.about}")
        for condition in verdict.unknown:
            yield from _wrapped("    if ", f"{condition.text} ({condition.reason})")
    if for_networks:
        yield "\nNot covered:"
    for verdict in for_networks:
        yield from _wrapped("  * ", f"{verdict.theorem.name}: {verdict.theorem.about}")
        for condition in verdict.failures:
            text = f"{condition.text}? No: {condition.reason}"
            yield from _wrapped("    - ", text)
    if special:
        yield from _wrapped(
            "  * ",
            f"{'; '.join(special)}: for convex or Polyak-Lojasiewicz functions, which "
            "a network's loss is not",
        )
    mendable = [(v, r) for v in for_networks for r in RECIPES if _is_of(r, v)]
    if mendable:
        yield "\nTo be covered, change:"
    for verdict, recipe in mendable:
        yield from _wrapped("  * ", f"{verdict.theorem.name}: {recipe.gives}")
        yield from _wrapped("    ", changes(config, card, recipe))
    yield ""
    yield from _wrapped(
        "",
        "Every theorem asks for a gradient that is Lipschitz continuous, with a "
        "constant L. A network with ReLU has none, and of no network L is known here: "
        "take the above as a guide.",
    )


def _is_of(recipe: Recipe, verdict: conditions.Verdict) -> bool:
    return verdict.theorem.name.startswith(recipe.theorem)


def _is_for_special_functions(verdict: conditions.Verdict) -> bool:
    return any(condition in _NOT_OF_NETWORKS for condition in verdict.failures)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


# ── What is run ──────────────────────────────────────────────────────────────────────

# What is known of the loss of a network.
_NETWORK: Mapping[str, Any] = {
    "convex": False,
    "strong_convexity": 0.0,
    "pl": 0.0,
    "bounded_below": True,
}


def _special_conditions() -> list[conditions.Condition]:
    """Those that fail for a network, whatever is run."""
    setting = conditions.Setting(step_size=families.Constant(1.0), **_NETWORK)
    anything = dataclasses.replace(setting, convex=None, strong_convexity=None, pl=None)
    pairs = zip(conditions.assess(setting), conditions.assess(anything), strict=True)
    return [
        condition
        for network, other in pairs
        for condition in network.failures
        if condition not in other.failures
    ]


_NOT_OF_NETWORKS = _special_conditions()


def setting_of(config: config_lib.Config) -> conditions.Setting:
    """A run card as a setting of the theory.

    Args:
        config: of the run.

    Returns:
        The setting; of the loss it is known that it is bounded below and not convex.

    Raises:
        UserError: if a setting is outside its range.
    """
    config_lib.check(config)
    unit = schedule.Unit(steps_per_epoch(config), 0)
    unit = unit._replace(total_steps=config.epochs * unit.steps_per_epoch)
    optimizer.make_optimizer(config, unit.steps_per_epoch)  # refuses what is wrong
    coefficients = {k: v for k, v in dict(config.method).items() if k != "name"}
    rho = coefficients.pop("rho", 0.0)
    step_size = _family(config.schedule, config.learning_rate, unit)
    decay = config.weight_decay
    name = config.method.name
    return conditions.Setting(
        method="sgd" if name == config_lib.BASELINE else name,
        step_size=step_size,
        radius=_radius(rho, step_size, unit),
        coefficients=coefficients,
        stochastic=bool(_sources_of_noise(config)),
        others=_others(config),
        outside_decay=0.0 if decay.kind == "loss" else decay.value,
        every_update=config.cadence.name == optimizer.ALWAYS,
        horizon=unit.total_steps,
        **_NETWORK,
    )


def training_examples(config: config_lib.Config) -> int | None:
    """Number of examples that are trained on; None if the data set is not catalogued.

    Raises:
        UserError: if the validation split leaves none.
    """
    if config.data.name not in data.CATALOG:
        return None
    whole = data.CATALOG[config.data.name].train_examples
    left = whole - splits.validation_examples(config.data.validation, whole)
    wanted = config.data.train_examples
    return left if wanted is None else min(wanted, left)


def steps_per_epoch(config: config_lib.Config) -> int:
    """Whole batches in an epoch; 1 if the size of the data set is not known.

    Raises:
        UserError: if there are fewer examples than in a batch.
    """
    examples = training_examples(config)
    if examples is None:
        return 1
    if config.batch_size > examples:
        raise errors.UserError(
            f"config.batch_size must be in [1, {examples}], the training examples, "
            f"got {config.batch_size}"
        )
    return examples // config.batch_size


def _family(
    spec: Mapping[str, Any], peak: float, unit: schedule.Unit
) -> families.Family:
    if peak == 0:
        return families.Constant(0.0)
    settings = dict(config_lib.default_config().schedule) | dict(spec)
    warmup = round(settings["warmup_epochs"] * unit.steps_per_epoch)
    family = _FAMILIES[settings["name"]](peak, unit, warmup, settings)
    return families.WarmUp(warmup, family) if warmup else family


def _step_decay(
    peak: float, unit: schedule.Unit, warmup: int, settings: Mapping[str, Any]
) -> families.Family:
    ends = (round(epoch * unit.steps_per_epoch) for epoch in settings["boundaries"])
    return families.StepDecay(peak, tuple(ends), settings["factor"])


# The schedules of sam_jax.train.schedule, by name.
_FAMILIES: Mapping[str, Callable[..., families.Family]] = {
    "constant": lambda peak, unit, warmup, settings: families.Constant(peak),
    "cosine": lambda peak, unit, warmup, settings: families.Cosine(
        peak, unit.total_steps - warmup, peak * settings["final_fraction"]
    ),
    "linear": lambda peak, unit, warmup, settings: families.Linear(
        peak, unit.total_steps - warmup, peak * settings["final_fraction"]
    ),
    "step": _step_decay,
    "diminish1": lambda peak, unit, warmup, settings: families.Power(
        peak, 1.0, unit.steps_per_epoch
    ),
    "diminish2": lambda peak, unit, warmup, settings: families.Power(
        peak, 0.5001, unit.steps_per_epoch
    ),
    "diminish3": lambda peak, unit, warmup, settings: families.PowerLog(
        peak, steps=unit.steps_per_epoch
    ),
}


def _radius(
    rho: Any, step_size: families.Family, unit: schedule.Unit
) -> families.Family:
    if not isinstance(rho, Mapping | config_dict.ConfigDict):
        return families.Constant(float(rho))
    spec: dict[str, Any] = dict(rho)
    peak = spec.pop("value")
    if spec["name"] != "learning_rate":
        return _family(spec, peak, unit)
    low = spec.get("low", 0.0)
    return families.Following(step_size, peak, unit.total_steps, low)


def _sources_of_noise(config: config_lib.Config) -> list[str]:
    """Why a step does not see all of f."""
    examples = training_examples(config)
    found = []
    if examples != config.batch_size:
        of_all = f" of {examples:,}" if examples else ""
        found.append(f"batches of {config.batch_size}{of_all} examples")
    random = [name for name in ("crop", "flip", "cutout") if config.data[name]]
    if random:
        found.append(f"augmentation ({', '.join(random)})")
    if dict(config.model.options).get("dropout"):
        found.append("dropout")
    return found


def _others(config: config_lib.Config) -> tuple[str, ...]:
    """What happens to a direction before it becomes a step."""
    found = []
    name = config.optimizer.name
    momentum = dict(config.optimizer.get(name, {})).get("momentum") or 0.0
    if name != "sgd":
        found.append(f"the optimizer {name}")
    elif momentum:
        found.append(f"momentum {momentum:g}")
    if config.clip_norm is not None:
        found.append(f"clipping at {config.clip_norm:g}")
    return tuple(found)


def describe(config: config_lib.Config, setting: conditions.Setting) -> dict[str, str]:
    """What is run, in words."""
    step_size = str(setting.step_size)
    if setting.step_size.depends_on_horizon:
        step_size += ": made for this number of steps, it says nothing of k -> infinity"
    decay = setting.outside_decay
    besides = [*setting.others, *([f"weight decay {decay:g} w"] if decay else [])]
    return {
        "method": optimizer.describe(config)["method"],
        "step size": step_size,
        "radius": str(setting.radius),
        "gradients": ", ".join(_sources_of_noise(config)) or "full, without noise",
        "besides": ", ".join(besides) or "nothing: plain gradient steps",
    }


# ── What to change ───────────────────────────────────────────────────────────────────


def changes(config: config_lib.Config, card: str, recipe: Recipe) -> str:
    """What must be set for the theorem of a recipe to speak of a run.

    Args:
        config: of the run.
        card: as it was given.
        recipe: of the theorem.

    Returns:
        The command line's part.
    """
    method, settings = needed(config, recipe)
    path = card.partition(":")[0]
    suffix = f":{method}" if method else card[len(path) :]
    flags = (f"--config.{key}={_quoted(value)}" for key, value in settings.items())
    return " ".join([f"--config={path}{suffix}", *flags])


def _quoted(value: Any) -> str:
    return shlex.quote(json.dumps(value) if isinstance(value, dict) else str(value))


def needed(config: config_lib.Config, recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """The method (empty: as it is) and the settings that a recipe changes."""
    settings = dict(recipe.settings)
    if settings.keys() >= _FULL.keys():
        settings["batch_size"] = training_examples(config) or "ALL"
    different = {k: v for k, v in settings.items() if _read(config, k) != v}
    fits = config.method.name in recipe.methods
    method = config.method.name if fits else recipe.methods[0]
    if recipe.radius != "constant" and method != config_lib.BASELINE:
        rho = config.method.rho if fits else 0.05
        peak = rho if isinstance(rho, int | float) else rho["value"]
        different["method.rho"] = {"name": recipe.radius, "value": peak}
    return ("" if fits else method), different


def _read(config: config_lib.Config, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config
