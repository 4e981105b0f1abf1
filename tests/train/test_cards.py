"""Cards load as on the command line, and every mistake in one is one line."""

import pytest

from sam_jax import errors
from sam_jax.train import cards
from tests.train import runs

CARD = """
from sam_jax.train.config import default_config, load_method


def get_config(method: str = "sam"):
    config = default_config()
    config.method = load_method(method, card=__file__, overrides={"sam": {"rho": 0.7}})
    return config
"""


@pytest.fixture
def card(tmp_path):
    """A card with fragments for two methods beside it."""
    (tmp_path / "methods").mkdir()
    for name, settings in {"sam": {"rho": 0.3}, "unified_sam": {"lam": "1/t"}}.items():
        fragment = f"def get_config():\n    return {settings}\n"
        (tmp_path / "methods" / f"{name}.py").write_text(fragment)
    path = tmp_path / "card.py"
    path.write_text(CARD)
    return path


# ── What a card gives ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        # The card wins over the fragment, the fragment over the factory's default.
        ("", {"name": "sam", "rho": 0.7, "eps": 1e-12, "mask": None}),
        (":sam", {"name": "sam", "rho": 0.7, "eps": 1e-12, "mask": None}),
        (
            ":unified_sam",
            {
                "name": "unified_sam",
                "rho": 0.05,
                "lam": "1/t",
                "eps": 1e-12,
                "mask": None,
            },
        ),
        (":usam", {"name": "usam", "rho": 0.05, "eps": 1e-12, "mask": None}),
        (":sgd", {"name": "none"}),
        (":none", {"name": "none"}),
    ],
)
def test_suffix_chooses_the_method_with_all_its_coefficients(card, suffix, expected):
    assert cards.configuration(f"{card}{suffix}").method.to_dict() == expected


def test_overrides_keep_the_types_of_the_card(card):
    config = cards.configuration(
        str(card),
        "--config.learning_rate=1",
        "--config.data.flip",
        "--config.clip_norm=2",
        "--config.schedule.boundaries=(3, 4.5)",
        "--config.wandb.name=7",
        "--config.data.validation=500",
    )
    assert (config.learning_rate, type(config.learning_rate)) == (1.0, float)
    assert config.data.flip is True
    assert (config.clip_norm, type(config.clip_norm)) == (2.0, float)
    assert config.schedule.boundaries == (3, 4.5)
    assert config.wandb.name == "7"
    assert config.data.validation == 500


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.3", 0.3),
        ("1e-2", 0.01),
        ("1/t", "1/t"),
        ('{"name": "cosine", "value": 0.1}', {"name": "cosine", "value": 0.1}),
    ],
)
def test_a_coefficient_may_be_a_number_a_name_or_a_schedule(card, value, expected):
    config = cards.configuration(f"{card}:unified_sam", f"--config.method.lam={value}")
    assert config.method.lam == expected


def test_options_of_a_model_are_given_as_a_whole(card):
    config = cards.load(str(card), '--config.model.options={"depth": 1}')
    assert config.model.options == {"depth": 1}


def test_loading_leaves_no_trace(card):
    assert cards.load(str(card), "--config.seed=5").seed == 5
    assert cards.load(str(card)).seed == 0


# ── Mistakes ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.sed=1", "setting 'config.sed': did you mean 'config.seed'?"),
        (
            "--config.data.flp=1",
            "setting 'config.data.flp': did you mean 'config.data.flip'?",
        ),
        (
            "--config.method.roh=1",
            "setting 'config.method.roh': did you mean 'config.method.rho'?",
        ),
        ("--config.seed.x=1", "setting 'config.seed.x'"),
        ("--config.optimizer.adm.b1=1", "did you mean 'config.optimizer.adamw'?"),
        ("--confg.seed=1", "Unknown command line flag 'confg.seed'"),
        ("--workdr=x", "Unknown command line flag 'workdr'"),
        ("--config.seed=x", "--config.seed=x: .*'x'"),
        ("--config.seed=1.5", "--config.seed=1.5: .*'1.5'"),
        ("--config.learning_rate=high", "--config.learning_rate=high"),
        ("--config.clip_norm=high", "--config.clip_norm=high"),
        ("--config.data.flip=perhaps", "--config.data.flip=perhaps"),
        ("--config.schedule=cosine", "--config.schedule=cosine"),
    ],
)
def test_wrong_overrides_are_one_line_with_the_nearest_name(card, override, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        cards.load(str(card), override)
    assert "\n" not in str(raised.value)


def test_the_card_may_be_a_word_of_its_own():
    values = cards.flags.FlagValues()
    argv = ["", "--config", runs.DIGITS, "--config.sed=1"]
    cards.config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with pytest.raises(errors.UserError, match=r"did you mean 'config\.seed'\?"):
        cards.parse(argv, values)


FAILING = {
    "import": ("import nothing_like_it", "line 1: .* 'nothing_like_it'"),
    "syntax": ("def get_config(:", "invalid syntax .*line 1"),
    "arithmetic": ("def get_config(): return 1 / 0", "line 1: ZeroDivisionError"),
    "name": ("def get_config(): return x", "line 1: NameError: name 'x'"),
    "key": (
        "from sam_jax.train.config import default_config as get\n"
        "def get_config(): get().epoch = 1",
        r"line 2: AttributeError: .*epoch",
    ),
    "type": (
        "from sam_jax.train.config import default_config as get\n"
        "def get_config(): get().epochs = 'x'",
        "'epochs'",
    ),
    "file": ("def get_config(): open('/nowhere')", "cannot be loaded: .*'/nowhere'"),
    "nothing": ("def get_config(): pass", "--config is missing|no configuration"),
    "number": ("def get_config(): return 3", "no configuration"),
    "no function": ("x = 1", "get_config"),
}


@pytest.mark.parametrize("overrides", [(), ("--config.seed=1",)])
@pytest.mark.parametrize("case", FAILING)
def test_a_card_that_fails_is_one_line(tmp_path, case, overrides):
    content, message = FAILING[case]
    # A name of its own: a card of a name that was loaded before keeps what that had.
    path = tmp_path / f"{case.replace(' ', '_')}_{len(overrides)}.py"
    path.write_text(content)
    with pytest.raises(errors.UserError, match=message) as raised:
        cards.load(str(path), *overrides)
    assert "\n" not in str(raised.value)


def test_an_unknown_method_is_named_with_the_nearest(card):
    message = "unknown method 'unifed_sam': did you mean 'unified_sam'?"
    with pytest.raises(errors.UserError, match=message) as raised:
        cards.load(f"{card}:unifed_sam")
    assert str(raised.value).startswith("unknown method")
    assert "sgd" in str(raised.value)


@pytest.mark.parametrize("override", [(), ("--config.seed=1",)])
def test_a_missing_card_is_named_with_the_nearest(card, override):
    missing = card.with_name("crd.py")
    with pytest.raises(errors.UserError, match=f"did you mean '{card}'?") as raised:
        cards.load(str(missing), *override)
    assert "\n" not in str(raised.value)


def test_no_card_at_all():
    with pytest.raises(errors.UserError, match="--config is missing: give a run card"):
        cards.loaded(None)
