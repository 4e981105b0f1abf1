"""A run card as a setting of the theory: the method and the function."""

from collections.abc import Mapping
from typing import Any

from sam_jax import data, errors
from sam_jax.data import splits
from sam_jax.theory import conditions, families
from sam_jax.train import coefficients, optimizer, schedule, settings, typed

# What is known about the loss of a network.
NETWORK: Mapping[str, Any] = {
    "convex": False,
    "strong_convexity": 0.0,
    "pl": 0.0,
    "bounded_below": True,
}
# Settings of the data, each of which draws at random unless it is 0 or False.
AUGMENTATIONS = (
    *("crop", "flip", "alternate_flip", "cutout", "resized_crop", "randaugment"),
    *("mixup", "cutmix"),
)


def setting_of(config: settings.Settings) -> conditions.Setting:
    """A run card as a setting of the theory.

    Args:
        config: of the run.

    Returns:
        The setting; the loss is known to be bounded below and non-convex.

    Raises:
        UserError: if a setting is outside its range.
    """
    unit = schedule.Unit(steps_per_epoch(config), 0)
    unit = unit._replace(total_steps=config.epochs * unit.steps_per_epoch)
    optimizer.make_optimizer(config, unit.steps_per_epoch)  # refuses what is wrong
    rho = config.method.coefficients.get("rho", 0.0)
    others = typed.plain(config.method)
    step_size = _family(config.schedule, config.learning_rate, unit)
    decay = config.weight_decay
    name = config.method.name
    return conditions.Setting(
        method="sgd" if name == coefficients.BASELINE else name,
        step_size=step_size,
        radius=_radius(rho, step_size, unit),
        coefficients={k: others[k] for k in others.keys() - {"name", "rho"}},
        stochastic=bool(_sources_of_noise(config)),
        fresh_samples=_draws_anew(config) or not _draws_batches(config),
        others=_others(config),
        outside_decay=0.0 if decay.kind == "loss" else decay.value,
        every_update=isinstance(config.cadence, settings.Always),
        horizon=unit.total_steps,
        **NETWORK,
    )


def training_examples(config: settings.Settings) -> int | None:
    """Number of training examples; None if it is not known.

    That is where the data set is not in the catalog, or classes are made rare.

    Raises:
        UserError: if the validation split leaves none.
    """
    if config.data.name not in data.CATALOG or config.data.imbalance != 1:
        return None
    whole = data.CATALOG[config.data.name].train_examples
    left = whole - splits.validation_examples(config.data.validation, whole)
    wanted = config.data.train_examples
    return left if wanted is None else min(wanted, left)


def steps_per_epoch(config: settings.Settings) -> int:
    """Whole batches in an epoch; 1 if the size of the data set is not known.

    Raises:
        UserError: if there are fewer examples than a batch has.
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
    kind: coefficients.Schedule,
    peak: float,
    unit: schedule.Unit,
    setting: str = "config.schedule",
) -> families.Family:
    if peak == 0:
        return families.Constant(0.0)
    warmup = round(kind.warmup_epochs * unit.steps_per_epoch)
    family = _after_warmup(kind, peak, unit, unit.total_steps - warmup, setting)
    return families.WarmUp(warmup, family) if warmup else family


def _after_warmup(
    kind: coefficients.Schedule,
    peak: float,
    unit: schedule.Unit,
    steps: int,
    setting: str,
) -> families.Family:
    match kind:
        case coefficients.Constant():
            return families.Constant(peak)
        case coefficients.Cosine(_, fraction):
            return families.Cosine(peak, steps, peak * fraction)
        case coefficients.Linear(_, fraction):
            return families.Linear(peak, steps, peak * fraction)
        case coefficients.Step(_, epochs, factor):
            ends = tuple(round(epoch * unit.steps_per_epoch) for epoch in epochs)
            ends = tuple(end for end in ends if end < unit.total_steps)
            if not ends:
                return families.Constant(peak)
            return families.StepDecay(peak, ends, factor)
        case coefficients.Diminish1():
            return families.Power(peak, 1.0, unit.steps_per_epoch)
        case coefficients.Diminish2():
            return families.Power(peak, 0.5001, unit.steps_per_epoch)
        case coefficients.Diminish3():
            return families.PowerLog(peak, steps=unit.steps_per_epoch)
        case coefficients.Power(_, exponent, of):
            length = unit.steps_per_epoch if of == "epoch" else 1
            if exponent == 0:
                return families.Constant(peak)
            return families.Power(peak, exponent, length)
        case coefficients.Diminish2Released() | coefficients.Diminish3Released():
            raise errors.UserError(
                f"{setting}.name={kind.name} is the schedule of the paper's "
                "code, an epoch late: the theorems cover "
                f"{kind.name.removesuffix('_released')}"
            )
        case coefficients.OwnSchedule():
            raise errors.UserError(
                f"{setting}.name={kind.name} is your own function: the "
                "theorems need facts that are known only for the package's schedules"
            )


def _radius(
    rho: Any, step_size: families.Family, unit: schedule.Unit
) -> families.Family:
    if callable(rho):
        raise errors.UserError(
            "config.method.rho is your own function: the theorems need facts that are "
            "known only for the package's schedules"
        )
    if not isinstance(rho, coefficients.Scheduled):
        return families.Constant(float(rho))
    kind, peak = rho.schedule, rho.value
    if isinstance(kind, coefficients.Tied):
        return families.Following(step_size, peak, unit.total_steps, kind.low)
    return _family(kind, peak, unit, "config.method.rho")


def _sources_of_noise(config: settings.Settings) -> list[str]:
    """The reasons why a step does not see all of f."""
    examples = training_examples(config)
    found = []
    if _draws_batches(config):
        of_all = f" of {examples:,}" if examples else ""
        how = "shuffled: each is seen once per epoch"
        sampling = config.data.sampling
        if isinstance(sampling, settings.Importance):
            score = sampling.scores or "the images' squared norms"
            how = f"drawn with replacement, in proportion to {score}"
            if sampling.uniform == 1:
                how = "drawn with replacement, uniformly"
        found.append(f"batches of {config.batch_size}{of_all} examples ({how})")
    random = [name for name in AUGMENTATIONS if getattr(config.data, name)]
    random += ["your own"] if config.augment.name else []
    if random:
        found.append(f"augmentation ({', '.join(random)})")
    if config.model.options.get("dropout"):
        found.append("dropout")
    return found


def _draws_anew(config: settings.Settings) -> bool:
    """Whether examples are drawn with replacement."""
    return isinstance(config.data.sampling, settings.Importance)


def _draws_batches(config: settings.Settings) -> bool:
    """Whether a batch is anything other than all examples."""
    return _draws_anew(config) or training_examples(config) != config.batch_size


def _others(config: settings.Settings) -> tuple[str, ...]:
    """The changes to a direction before it becomes a step."""
    found = []
    name = config.optimizer.name
    momentum = config.optimizer.options.get("momentum") or 0.0
    if name != "sgd":
        found.append(f"the optimizer {name}")
    elif momentum:
        found.append(f"momentum {momentum:g}")
    if config.clip_norm is not None:
        found.append(f"clipping at {config.clip_norm:g}")
    if config.learning_rate_factors is not None:
        found.append("learning rates that differ by the weights' names")
    group = config.method_group_size or config.batch_size
    if group < config.batch_size:
        found.append(f"a perturbation of its own for each {group} examples")
    return tuple(found)


def describe(config: settings.Settings, setting: conditions.Setting) -> dict[str, str]:
    """The run, in words."""
    unit = ""
    if training_examples(config) is None:
        unit = f" (an epoch counts as one: the size of {config.data.name} is not known)"
    decay = setting.outside_decay
    besides = [*setting.others, *([f"weight decay {decay:g} w"] if decay else [])]
    return {
        "method": optimizer.describe(config)["method"],
        "step size": _in_words(setting.step_size) + unit,
        "radius": _in_words(setting.radius),
        "gradients": ", ".join(_sources_of_noise(config)) or "full, without noise",
        "besides": ", ".join(besides) or "nothing: plain gradient steps",
    }


def _in_words(family: families.Family) -> str:
    if not family.depends_on_horizon:
        return str(family)
    return f"{family}: a finite number of steps, it says nothing about k -> infinity"
