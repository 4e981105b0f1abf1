"""What the three papers prove about a run card, in plain words."""

import dataclasses
import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.theory import run_cards
from sam_jax import errors
from sam_jax.theory import conditions, families
from sam_jax.train import cards, coefficients, settings, typed

WIDTH = 88


class Recipe(NamedTuple):
    """Settings of the trainer with which a theorem covers a run.

    Attributes:
        theorem: the beginning of its name.
        method: for runs with a method that the theorem does not cover.
        settings: the required settings, key of the card -> value.
        radius: the name of the radius' schedule.
        gives: the conclusion, in a few words.
    """

    theorem: str
    method: str
    settings: Mapping[str, Any]
    radius: str
    gives: str


_DEFAULTS = settings.flat(typed.defaults(settings.Settings))
_PLAIN = {
    "optimizer.name": "sgd",
    "optimizer.sgd.momentum": 0.0,
    "optimizer.sgd.nesterov": False,
    "clip_norm": None,
    "learning_rate_factors": None,
    "method_group_size": None,
}
_FULL = {  # and the batch size
    **{
        f"data.{name}": type(_DEFAULTS[f"data.{name}"])(0)  # 0 or False
        for name in run_cards.AUGMENTATIONS
    },
    "augment.name": None,
    "data.sampling.name": "shuffle",
}
_FRESH = {  # draws with replacement, which mixing refuses
    "data.sampling.name": "importance",
    "data.stream": False,
    "data.mixup": 0.0,
    "data.cutmix": 0.0,
}
_CONSTANT = {"schedule.name": "constant", "schedule.warmup_epochs": 0.0}
_AS_STATED = {"weight_decay.kind": "loss", "cadence.name": "always"}

RECIPES: Sequence[Recipe] = (
    Recipe(
        "Khanh et al., Theorem 3.3",
        "sam",
        _FULL | _PLAIN | {"schedule.name": "diminish1"},
        "diminish1",
        "lim ||grad f|| = 0",
    ),
    Recipe(
        "Khanh et al., Theorems 4.1",
        "usam",
        _FULL | _PLAIN | _CONSTANT | {"weight_decay.kind": "loss"},
        "constant",
        "lim ||grad f|| = 0 with a constant step size and radius, both small",
    ),
    Recipe(
        "Si and Yun, Theorem 3.4",
        "sam",
        _FULL | _PLAIN | _CONSTANT | _AS_STATED,
        "constant",
        "the mean of ||grad f||^2 is at most O(1/T) + (L rho)^2",
    ),
    Recipe(
        "Si and Yun, Theorems 4.3",
        "sam",
        _PLAIN | _CONSTANT | _AS_STATED | _FRESH,
        "constant",
        "the mean of E||grad f||^2 is at most O(1/T + eta + (L rho)^2), on batches",
    ),
    Recipe(
        "Oikonomou and Loizou, Theorem 3.7",
        "usam",
        _PLAIN | _CONSTANT | _AS_STATED | _FRESH,
        "constant",
        "a bound of min E||grad f||^2 for a given number of steps, on batches",
    ),
)


def check(card: str | None, overrides: Sequence[str]) -> int:
    """Prints which theorems cover a run card, which do not and why.

    Args:
        card: path of the card, with ``:method`` for another method.
        overrides: such as ``"--config.learning_rate=0.05"``.

    Returns:
        The exit code, 0.

    Raises:
        UserError: for an unknown card or setting, or one outside its range.
    """
    for override in overrides:
        if not override.startswith("--config."):
            raise errors.UserError(
                f"unexpected argument {override!r}: a run card is written "
                "--config=CARD.py, a setting --config.name=value"
            )
    config = cards.load(card, *overrides)
    print("\n".join(explain(config, card or "")))
    return 0


def explain(config: settings.Settings, card: str) -> Iterator[str]:
    """The answer, line by line, wrapped at `WIDTH` columns.

    Args:
        config: of the run.
        card: as the user gave it.

    Yields:
        The lines.

    Raises:
        UserError: if a setting is outside its range.
    """
    setting = run_cards.setting_of(config)
    verdicts = conditions.assess(setting)
    applying = [v for v in verdicts if v.applies is not False]
    failing = [v for v in verdicts if v.applies is False]
    for_networks = [v for v in failing if not _is_for_special_functions(v)]
    special = [
        v.theorem.name.removesuffix(" (derived form)")
        for v in failing
        if _is_for_special_functions(v)
    ]

    yield card
    for what, text in run_cards.describe(config, setting).items():
        yield from _wrapped(f"  {what:<11}", text)
    yield ""
    if applying:
        yield "Covered, as far as is known:"
    else:
        yield "No theorem of the three papers covers this run."
    spoken_of = setting.method in conditions.methods()
    if not spoken_of:
        yield f"No theorem covers {setting.method}, with any settings."
    for verdict in applying:
        yield from _wrapped("  * ", f"{verdict.theorem.name}: {verdict.theorem.about}")
        for condition in verdict.unknown:
            yield from _wrapped("    if ", f"{condition.text} ({condition.reason})")
    yield "\nNot covered:"
    for number, verdict in enumerate(for_networks, 1):
        theorem = verdict.theorem
        yield from _wrapped(f"  {number}. ", f"{theorem.name}: {theorem.about}")
    yield from _wrapped(
        "  *  ",
        f"{'; '.join(special)}: for convex or Polyak-Lojasiewicz functions, which a "
        "network's loss is not",
    )
    # A method that no theorem covers fails many conditions that mean nothing then.
    if for_networks and spoken_of:
        yield "\nThe conditions that fail, and the numbers of their theorems:"
        for text, numbers in _obstacles(for_networks).items():
            of_all = len(numbers) == len(for_networks) > 1
            which = "all" if of_all else ", ".join(map(str, numbers))
            yield from _wrapped("  - ", f"{text} ({which})")
    recipes = [
        (n, r) for n, v in enumerate(for_networks, 1) for r in RECIPES if _is_of(r, v)
    ]
    if recipes:
        yield "\nTo be covered, change:"
    for number, recipe in recipes:
        yield from _wrapped(f"  {number}. ", recipe.gives)
        yield from _wrapped("     ", changes(config, card, recipe))
    yield ""
    yield from _wrapped(
        "",
        "Every theorem needs a Lipschitz continuous gradient, with a constant L. A "
        "network with ReLU does not have one, and L is not known here for any network: "
        "take the above as a guide.",
    )


def _obstacles(verdicts: Sequence[conditions.Verdict]) -> dict[str, list[int]]:
    """Each condition that fails, once, with the numbers of the theorems."""
    found: dict[str, list[int]] = {}
    for number, verdict in enumerate(verdicts, 1):
        for condition in verdict.failures:
            text = f"{condition.text}? No: {condition.reason}"
            found.setdefault(text, []).append(number)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


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


def _special_conditions() -> list[conditions.Condition]:
    """The conditions that fail for a network in every run."""
    setting = conditions.Setting(step_size=families.Constant(1.0), **run_cards.NETWORK)
    anything = dataclasses.replace(setting, convex=None, strong_convexity=None, pl=None)
    pairs = zip(conditions.assess(setting), conditions.assess(anything), strict=True)
    return [
        condition
        for network, other in pairs
        for condition in network.failures
        if condition not in other.failures
    ]


_NOT_OF_NETWORKS = _special_conditions()


# ── What to change ───────────────────────────────────────────────────────────────────


def changes(config: settings.Settings, card: str, recipe: Recipe) -> str:
    """The settings with which the theorem of a recipe covers a run.

    Args:
        config: of the run.
        card: as the user gave it.
        recipe: of the theorem.

    Returns:
        The command line's part.
    """
    method, changed = needed(config, recipe)
    path = card.partition(":")[0]
    suffix = f":{method}" if method else card[len(path) :]
    flags = (f"--config.{key}={_quoted(value)}" for key, value in changed.items())
    return " ".join([f"--config={path}{suffix}", *flags])


def _quoted(value: Any) -> str:
    # Without blanks, at which the line would be broken.
    compact = json.dumps(value, separators=(",", ":"))
    return shlex.quote(compact if isinstance(value, dict) else str(value))


def needed(config: settings.Settings, recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """The method (empty: as it is) and the settings that a recipe changes."""
    wanted = dict(recipe.settings)
    if wanted.keys() >= _FULL.keys():
        wanted["batch_size"] = run_cards.training_examples(config) or "ALL"
        if config.model.options.get("dropout"):
            wanted["model.options.dropout"] = 0.0
    now = _DEFAULTS | settings.flat(typed.plain(config))
    different = {k: v for k, v in wanted.items() if now[k] != v}
    [theorem] = [t for t in conditions.THEOREMS if t.name.startswith(recipe.theorem)]
    # The first condition of a theorem is that of the method.
    fits = theorem.needs[0](run_cards.setting_of(config)).holds
    method = config.method.name if fits else recipe.method
    if method != coefficients.BASELINE:
        rho = config.method.coefficients["rho"] if fits else 0.05
        scheduled = isinstance(rho, coefficients.Scheduled)
        peak = rho.value if scheduled else rho
        if recipe.radius != "constant":
            different["method.rho"] = {"name": recipe.radius, "value": peak}
        elif scheduled:
            different["method.rho"] = peak
    return ("" if fits else method), different
