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
METHODS = [*methods.names(), "sgd"]


def told(capsys, *argv):
    assert theory.main(["check", *argv]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "card", tiers.cases(("configs/digits_sam.py",), CARDS, "all methods, all cards")
)
def test_every_card_and_method_has_an_answer(card):
    for method in METHODS:
        config = cards.load(f"{card}:{method}")
        lines = list(check.explain(config, f"{card}:{method}"))
        assert max(map(len, lines)) <= check.WIDTH
        # All cards train on batches with momentum and a cosine: nothing covers that.
        assert "No theorem of the three papers covers this run." in lines
        silent = f"None speaks of {method}, whatever its settings are."
        speaks = method == "sgd" or method in conditions.methods()
        assert (silent in lines) != speaks
        assert len(lines) <= 66  # it can be read at one go


def test_why_the_card_of_sam_is_not_covered(capsys):
    text = " ".join(told(capsys, "--config=configs/cifar10_sam.py").split())
    for reason in (
        "batches of 128 of 45,000 examples (shuffled: each is seen once per epoch), "
        "augmentation (crop, flip)",
        "full gradients (deterministic)? No: a step sees a sample of f",
        "No: there is momentum 0.9",
        "cosine from 0.1 to 0 in 70200 steps: made for this number of steps",
        "sum t_k = infinity? No: t_k is 0 from some k on (1, 2)",
    ):
        assert reason in text


@pytest.mark.parametrize("recipe", check.RECIPES, ids=lambda recipe: recipe.theorem)
@pytest.mark.parametrize("card", ["cifar10_sam.py", "digits_sam.py:vasso"])
def test_what_it_says_to_change_suffices(recipe, card):
    card = f"configs/{card}"
    config = cards.load(card)

    def of_theorem(config):
        verdicts = conditions.assess(run_cards.setting_of(config))
        [found] = [v for v in verdicts if v.theorem.name.startswith(recipe.theorem)]
        return found

    assert of_theorem(config).applies is False
    first, *overrides = shlex.split(check.changes(config, card, recipe))
    changed = cards.load(first.removeprefix("--config="), *overrides)
    verdict = of_theorem(changed)
    assert verdict.failures == []
    # Without any one of the changes it does not.
    assert overrides
    for left_out in overrides:
        fewer = [override for override in overrides if override != left_out]
        partly = cards.load(first.removeprefix("--config="), *fewer)
        assert of_theorem(partly).applies is False, left_out


@pytest.mark.parametrize(
    "method", tiers.cases(("sam", "usam", "vasso", "sgd"), METHODS, "every method")
)
def test_it_keeps_a_method_that_will_do(method):
    card = f"configs/digits_sam.py:{method}"
    config = cards.load(card)
    for recipe in check.RECIPES:
        first, *overrides = shlex.split(check.changes(config, card, recipe))
        changed = cards.load(first.removeprefix("--config="), *overrides)
        verdicts = conditions.assess(run_cards.setting_of(changed))
        [found] = [v for v in verdicts if v.theorem.name.startswith(recipe.theorem)]
        assert found.failures == []
        has_radius = "rho" in config.method.coefficients
        kept = cards.load(card, *overrides) if has_radius else config
        verdicts = conditions.assess(run_cards.setting_of(kept))
        [found] = [v for v in verdicts if v.theorem.name.startswith(recipe.theorem)]
        replaced = changed.method.name != config.method.name
        assert (
            any("method" in c.text or "direction" in c.text for c in found.failures)
            == replaced
        )


def test_a_covered_run_says_what_is_left_to_know(capsys):
    text = told(
        capsys,
        "--config=configs/digits_sam.py:usam",
        "--config.batch_size=1167",
        "--config.data.crop=0",
        "--config.optimizer.sgd.momentum=0.0",
        "--config.schedule.name=constant",
        "--config.weight_decay.kind=loss",
    )
    assert "Covered, as far as it can be known" in text
    assert "if rho_k <= nu/L with nu < 1" in text


@pytest.mark.parametrize(
    "override, expected",
    [
        ("--config.schedule.name=constant", families.Constant(0.1)),
        ("--config.schedule.name=cosine", families.Cosine(0.1, 540)),
        ("--config.schedule.name=linear", families.Linear(0.1, 540)),
        (
            "--config.schedule.name=step",
            families.StepDecay(0.1, (1080, 2160, 2880), 0.2),
        ),
        ("--config.schedule.name=diminish1", families.Power(0.1, 1.0, 18)),
        ("--config.schedule.name=diminish2", families.Power(0.1, 0.5001, 18)),
        ("--config.schedule.name=diminish3", families.PowerLog(0.1, steps=18)),
        (
            "--config.schedule.warmup_epochs=1.0",
            families.WarmUp(18, families.Cosine(0.1, 522)),
        ),
    ],
)
def test_schedules_of_the_trainer_as_families(override, expected):
    config = cards.load("configs/digits_sam.py", override)
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


PLAIN = [
    "--config.data.crop=0",
    "--config.optimizer.sgd.momentum=0.0",
    "--config.schedule.name=constant",
    "--config.weight_decay.kind=loss",
]


@pytest.mark.parametrize(
    "overrides, full, fresh, says",
    [
        (["batch_size=1167"], True, True, "full, without noise"),
        ([], False, False, "(shuffled: each is seen once per epoch)"),
        (["data.sampling.name=importance"], False, True, "the images' squared norms"),
        (
            ["data.sampling.name=importance", "batch_size=1167"],
            False,  # with replacement it is not all of them
            True,
            "batches of 1167 of 1,167 examples (drawn with replacement",
        ),
        (
            ["data.sampling.name=importance", "data.sampling.uniform=1.0"],
            False,
            True,
            "(drawn with replacement, all alike)",
        ),
        (
            ["data.sampling.name=importance", "data.sampling.scores=l.npy"],
            False,
            True,
            "in proportion to l.npy",
        ),
    ],
)
def test_how_examples_are_drawn(overrides, full, fresh, says):
    flags = [f"--config.{override}" for override in overrides]
    config = cards.load("configs/digits_sam.py", *PLAIN, *flags)
    setting = run_cards.setting_of(config)
    assert says in run_cards.describe(config, setting)["gradients"]
    verdicts = {v.theorem.name: v.applies for v in conditions.assess(setting)}
    assert (verdicts["Si and Yun, Theorem 3.4 (derived form)"] is None) == full
    stochastic = verdicts["Si and Yun, Theorems 4.3 and 4.5 (derived form)"]
    assert (stochastic is None) == fresh


def test_a_radius_that_ends_says_so(capsys):
    radius = '--config.method.rho={"name": "cosine", "value": 0.1}'
    text = told(capsys, "--config=configs/digits_sam.py", radius)
    assert " ".join(text.split()).count("it says nothing of k -> infinity") == 2


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
    verdicts = conditions.assess(run_cards.setting_of(config))
    [found] = [v for v in verdicts if "Corollary 3.5" in v.theorem.name]
    assert found.failures == []
    constant = cards.load(
        "configs/digits_sam.py",
        *overrides[:-2],
        "--config.schedule.name=constant",
        "--config.weight_decay.kind=loss",
    )
    verdicts = conditions.assess(run_cards.setting_of(constant))
    [found] = [v for v in verdicts if "Theorem 3.4" in v.theorem.name]
    assert [c.text for c in found.failures] == ["the method is used in every update"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--config=configs/cifar_sam.py"], "unknown run card"),
        (["--config=configs/digits_sam.py:sma"], "did you mean 'sam'"),
        (["--config=configs/digits_sam.py", "--config.epoch=3"], "'config.epochs'"),
        (["--config=configs/digits_sam.py", "--epochs=3"], "unexpected argument"),
        (["--config=configs/digits_sam.py", "--config.batch_size=0"], "batch_size"),
        (
            ["--config=configs/digits_sam.py", "--config.batch_size=9999"],
            r"\[1, 1167\]",
        ),
        (
            ["--config=configs/digits_sam.py", "--config.schedule.name=diminish"],
            "unknown config.schedule.name",
        ),
        (["configs/digits_sam.py"], "a run card is written --config=CARD.py"),
        (["--config=configs/methods/sam.py"], "returns no configuration"),
        (["--config=configs/methods"], "directory"),
        (
            ["--config=configs/digits_sam.py", "--config.data.sampling.name=import"],
            "did you mean 'importance'",
        ),
        (
            [
                "--config=configs/digits_sam.py",
                "--config.data.sampling.name=importance",
                "--config.data.sampling.uniform=2.0",
            ],
            r"uniform must be a number in \[0, 1\], got 2.0",
        ),
        ([], "--config is missing"),
    ],
)
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
