import dataclasses
import pathlib
import shlex

import pytest

from experiments.theory import __main__ as theory
from experiments.theory import check, run_cards
from sam_jax import errors, methods
from sam_jax.theory import conditions, families
from sam_jax.train import cards
from tests import tiers

CARDS = sorted(str(path) for path in pathlib.Path("configs").glob("*.py"))
DIGITS = "--config=configs/digits_sam.py"
METHODS = [*methods.names(), "sgd"]
PLAIN = [
    "--config.data.crop=0",
    "--config.optimizer.sgd.momentum=0.0",
    "--config.schedule.name=constant",
    "--config.weight_decay.kind=loss",
]


def of_theorem(config, name):
    verdicts = conditions.assess(run_cards.setting_of(config))
    [found] = [v for v in verdicts if name in v.theorem.name]
    return found


def changed(config, card, recipe):
    """The card and its overrides that a recipe tells."""
    first, *overrides = shlex.split(check.changes(config, card, recipe))
    return first.removeprefix("--config="), overrides


def told(capsys, *argv):
    assert theory.main(["check", *argv]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "card", tiers.cases(("configs/digits_sam.py",), CARDS, "all methods, all cards")
)
def test_every_card_and_method_has_an_answer(card):
    for method in METHODS:
        # Not every method takes the step at several rates.
        config = cards.load(f"{card}:{method}", "--config.learning_rate_factors=None")
        lines = list(check.explain(config, f"{card}:{method}"))
        assert max(map(len, lines)) <= check.WIDTH
        # All cards train on batches with momentum and a cosine: nothing covers that.
        assert "No theorem of the three papers covers this run." in lines
        silent = f"No theorem covers {method}, with any settings."
        speaks = method == "sgd" or method in conditions.methods()
        assert (silent in lines) != speaks
        assert len(lines) <= 80  # it can be read at one go


def test_why_the_card_of_sam_is_not_covered(capsys):
    text = " ".join(told(capsys, "--config=configs/cifar10_sam.py").split())
    for reason in (
        "batches of 128 of 45,000 examples (shuffled: each is seen once per epoch), "
        "augmentation (crop, flip)",
        "full gradients (deterministic)? No: a step sees a sample of f",
        "No: there is momentum 0.9",
        "cosine from 0.1 to 0 in 70200 steps: a finite number of steps",
        "sum t_k = infinity? No: t_k is 0 from some k on (1, 2)",
    ):
        assert reason in text


@pytest.mark.parametrize("recipe", check.RECIPES, ids=lambda recipe: recipe.theorem)
@pytest.mark.parametrize("card", ["cifar10_sam.py", "digits_sam.py:vasso"])
def test_what_it_says_to_change_suffices(recipe, card):
    card = f"configs/{card}"
    config = cards.load(card)
    assert of_theorem(config, recipe.theorem).applies is False
    first, overrides = changed(config, card, recipe)
    assert of_theorem(cards.load(first, *overrides), recipe.theorem).failures == []
    # Without any one of the changes it does not.
    assert overrides
    for left_out in overrides:
        fewer = [override for override in overrides if override != left_out]
        partly = cards.load(first, *fewer)
        assert of_theorem(partly, recipe.theorem).applies is False, left_out


RADIUS = '--config.method.rho={"name": "diminish1", "value": 0.1}'


@pytest.mark.parametrize("recipe", check.RECIPES, ids=lambda recipe: recipe.theorem)
@pytest.mark.parametrize(
    ("card", "given"),
    [
        ("imagenet_resnet50_sam.py", ()),  # with a warm-up, and streamed
        ("digits_sam.py", (RADIUS,)),
        ("cifar10_long_tailed_sam.py:sam", ()),  # of a number that is not known
        (
            "cifar10_sam.py",
            ("--config.model.name=wrn16_8", "--config.model.options.dropout=0.2"),
        ),
    ],
)
def test_it_suffices_for_warm_ups_scheduled_radii_and_dropout(recipe, card, given):
    card = f"configs/{card}"
    first, overrides = changed(cards.load(card, *given), card, recipe)
    by_key = {word.partition("=")[0]: word for word in (*given, *overrides)}
    known = [word for word in by_key.values() if not word.endswith("=ALL")]
    told_to = cards.load(first, *known)
    for failure in of_theorem(told_to, recipe.theorem).failures:
        assert len(known) < len(by_key) and "a sample of f" in failure.reason
    drawn = "--config.data.sampling.name=importance" in known
    assert not (drawn and told_to.data.stream)  # which the trainer refuses


def test_the_size_of_a_long_tailed_set_is_not_known():
    config = cards.load("configs/cifar10_long_tailed_sam.py")
    assert run_cards.training_examples(config) is None


def test_a_schedule_that_is_refused_is_named_by_its_setting():
    radius = '--config.method.rho={"name": "diminish3_released", "value": 0.1}'
    with pytest.raises(errors.UserError, match=r"^config\.method\.rho\.name=dimin"):
        run_cards.setting_of(cards.load("configs/digits_sam.py", radius))


@pytest.mark.parametrize(
    "method", tiers.cases(("sam", "usam", "vasso", "sgd"), METHODS, "every method")
)
def test_it_keeps_a_method_that_will_do(method):
    card = f"configs/digits_sam.py:{method}"
    config = cards.load(card)
    for recipe in check.RECIPES:
        first, overrides = changed(config, card, recipe)
        told_to = cards.load(first, *overrides)
        assert of_theorem(told_to, recipe.theorem).failures == []
        has_radius = "rho" in config.method.coefficients
        kept = cards.load(card, *overrides) if has_radius else config
        failed = of_theorem(kept, recipe.theorem).failures
        replaced = told_to.method.name != config.method.name
        assert (
            any("method" in c.text or "direction" in c.text for c in failed) == replaced
        )


def test_a_covered_run_says_what_is_left_to_know(capsys):
    text = told(capsys, f"{DIGITS}:usam", "--config.batch_size=1167", *PLAIN)
    assert "Covered, as far as is known" in text
    assert "if rho_k <= nu/L with nu < 1" in text


SCHEDULES = {
    "name=constant": families.Constant(0.1),
    "name=cosine": families.Cosine(0.1, 540),
    "name=linear": families.Linear(0.1, 540),
    "name=step": families.Constant(0.1),  # its first step is after the end
    "name=diminish1": families.Power(0.1, 1.0, 18),
    "name=diminish2": families.Power(0.1, 0.5001, 18),
    "name=diminish3": families.PowerLog(0.1, steps=18),
    "name=power": families.Power(0.1, 0.001, 1),
    "warmup_epochs=1.0": families.WarmUp(18, families.Cosine(0.1, 522)),
}


@pytest.mark.parametrize("override, expected", SCHEDULES.items())
def test_schedules_of_the_trainer_as_families(override, expected):
    config = cards.load("configs/digits_sam.py", f"--config.schedule.{override}")
    setting = run_cards.setting_of(config)
    assert setting.step_size == expected
    assert setting.radius == families.Constant(0.1)


@pytest.mark.parametrize(
    "rho, expected",
    [
        ('{"name": "diminish1", "value": 0.2}', families.Power(0.2, 1.0, 18)),
        (
            '{"name": "learning_rate", "value": 0.2, "low": 0.1}',
            families.Following(families.Cosine(0.1, 540), 0.2, 540, 0.1),
        ),
    ],
)
def test_a_radius_may_be_a_schedule(rho, expected):
    config = cards.load("configs/digits_sam.py", f"--config.method.rho={rho}")
    assert run_cards.setting_of(config).radius == expected


DRAWN = "data.sampling.name=importance"
NO_NOISE, SHUFFLED, FRESH = (True, True), (False, False), (False, True)


@pytest.mark.parametrize(
    "overrides, full_and_fresh, says",
    [
        (["batch_size=1167"], NO_NOISE, "full, without noise"),
        ([], SHUFFLED, "(shuffled: each is seen once per epoch)"),
        ([DRAWN], FRESH, "the images' squared norms"),
        (
            [DRAWN, "batch_size=1167"],
            FRESH,  # with replacement it is not all of them
            "batches of 1167 of 1,167 examples (drawn with replacement",
        ),
        ([DRAWN, "data.sampling.uniform=1.0"], FRESH, "replacement, uniformly)"),
        ([DRAWN, "data.sampling.scores=l.npy"], FRESH, "in proportion to l.npy"),
    ],
)
def test_how_examples_are_drawn(overrides, full_and_fresh, says):
    flags = [f"--config.{override}" for override in overrides]
    config = cards.load("configs/digits_sam.py", *PLAIN, *flags)
    setting = run_cards.setting_of(config)
    assert says in run_cards.describe(config, setting)["gradients"]
    names = "Yun, Theorem 3.4", "Yun, Theorems 4.3 and 4.5"
    verdicts = [of_theorem(config, name).applies for name in names]
    assert tuple(applies is None for applies in verdicts) == full_and_fresh


# Each makes the step another one than the theorems': a setting, and what is said of it.
OTHERS = {
    "data.mixup=0.2": "augmentation (mixup)",
    "data.cutmix=0.2": "augmentation (cutmix)",
    "data.randaugment=2": "augmentation (randaugment)",
    "data.resized_crop=0.5": "augmentation (resized_crop)",
    "data.alternate_flip=True": "augmentation (alternate_flip)",
    "method_group_size=389": "a perturbation of its own for each 389 examples",
    "learning_rate_factors=^Dense_0=0.1": "learning rates that differ by",
}


@pytest.mark.parametrize("override, says", OTHERS.items())
def test_what_makes_the_step_another_one_is_said(override, says):
    def asked(*more):
        flags = "--config.batch_size=1167", *PLAIN, *more
        return cards.load("configs/digits_sam.py:usam", *flags)

    assert of_theorem(asked(), "Theorems 4.1").failures == []
    config = asked(f"--config.{override}")
    said = run_cards.describe(config, run_cards.setting_of(config))
    assert any(says in text for text in said.values())
    assert of_theorem(config, "Theorems 4.1").failures
    recipe = next(r for r in check.RECIPES if "4.1" in r.theorem)
    assert override.partition("=")[0] in check.changes(config, "card.py", recipe)


def test_a_power_of_zero_is_constant_and_an_own_radius_is_refused():
    power = "--config.schedule.name=power", "--config.schedule.exponent=0.0"
    config = cards.load("configs/digits_sam.py", *power)
    assert run_cards.setting_of(config).step_size == families.Constant(0.1)
    own = dict(config.method.coefficients) | {"rho": lambda count: 0.1}
    method = dataclasses.replace(config.method, coefficients=own)
    with pytest.raises(errors.UserError, match="rho is your own function"):
        run_cards.setting_of(dataclasses.replace(config, method=method))


def test_a_radius_that_ends_says_so(capsys):
    radius = '--config.method.rho={"name": "cosine", "value": 0.1}'
    text = told(capsys, "--config=configs/digits_sam.py", radius)
    assert " ".join(text.split()).count("it says nothing about k -> infinity") == 2


def test_an_unknown_data_set_has_epochs_for_steps(capsys):
    name = "--config.data.name=emnist/letters"
    text = " ".join(told(capsys, "--config=configs/cifar10_sam.py", name).split())
    assert "an epoch counts as one: the size of emnist/letters is not known" in text


def test_a_cadence_keeps_what_needs_no_regular_use():
    overrides = [
        "--config.cadence.name=every_k",
        "--config.batch_size=1167",
        "--config.data.crop=0",
        "--config.optimizer.sgd.momentum=0.0",
        "--config.schedule.name=diminish1",
        '--config.method.rho={"name": "diminish1", "value": 0.1}',
    ]
    config = cards.load("configs/digits_sam.py", *overrides)
    assert of_theorem(config, "Corollary 3.5").failures == []
    constant = cards.load(
        "configs/digits_sam.py",
        *overrides[:-2],
        "--config.schedule.name=constant",
        "--config.weight_decay.kind=loss",
    )
    failed = of_theorem(constant, "Yun, Theorem 3.4").failures
    assert [c.text for c in failed] == ["the method is used in every update"]


IMPORTANCE = "--config.data.sampling.name=importance"
MISTAKES = {
    "unknown run card": ["--config=configs/cifar_sam.py"],
    "did you mean 'sam'": [f"{DIGITS}:sma"],
    "'config.epochs'": [DIGITS, "--config.epoch=3"],
    "unexpected argument": [DIGITS, "--epochs=3"],
    "batch_size": [DIGITS, "--config.batch_size=0"],
    r"\[1, 1167\]": [DIGITS, "--config.batch_size=9999"],
    "the theorems cover diminish3": [
        DIGITS,
        "--config.schedule.name=diminish3_released",
    ],
    "unknown config.schedule.name": [DIGITS, "--config.schedule.name=diminish"],
    "a run card is written --config=CARD.py": ["configs/digits_sam.py"],
    "returns no configuration": ["--config=configs/methods/sam.py"],
    "directory": ["--config=configs/methods"],
    "did you mean 'importance'": [DIGITS, "--config.data.sampling.name=import"],
    r"uniform must be a number in \[0, 1\], got 2.0": [
        DIGITS,
        IMPORTANCE,
        "--config.data.sampling.uniform=2.0",
    ],
    "--config is missing": [],
}


@pytest.mark.parametrize("message, argv", MISTAKES.items())
def test_mistakes_are_one_line(capsys, argv, message):
    assert theory.main(["check", *argv]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(errors.UserError, match=message):
        raise errors.UserError(line)


def test_other_commands_take_no_unknown_arguments(capsys):
    with pytest.raises(SystemExit):
        theory.main(["list", "--config.epochs=3"])
    assert "unrecognized arguments" in capsys.readouterr().err
