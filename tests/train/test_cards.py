"""Cards load as on the command line, and every mistake in one is one line."""

import pytest

from sam_jax import errors
from sam_jax.train import cards, settings, typed, workdir
from sam_jax.train.config import CARDS, default_coefficients

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
    for name, values in {"sam": {"rho": 0.3}, "unified_sam": {"lam": "1/t"}}.items():
        fragment = f"def get_config():\n    return {values}\n"
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
        # No fragment beside the card: that of the package.
        (":usam", {"name": "usam", "rho": 0.2, "eps": 1e-12, "mask": None}),
        (":sgd", {"name": "none"}),
        (":none", {"name": "none"}),
    ],
)
def test_suffix_chooses_the_method_with_all_its_coefficients(card, suffix, expected):
    assert cards.configuration(f"{card}{suffix}")["method"] == expected


def test_values_have_the_types_of_their_settings(card):
    config = cards.load(
        str(card),
        "--config.learning_rate=1",
        "--config.data.flip=True",
        "--config.clip_norm=2",
        "--config.schedule.name=step",
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
    assert config["method"]["lam"] == expected


def test_options_of_a_model_are_given_as_a_whole(card):
    config = cards.load(str(card), '--config.model.options={"depth": 1}')
    assert config.model.options == {"depth": 1}


def test_a_word_of_its_own_may_be_a_number_that_is_not_finite(card):
    words = cards.parse(["main", "--config.clip_norm", "-inf"], lambda words: words)
    assert words[-1] == "--config.clip_norm=-inf"


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
        ("--config.optimizer.adm.b1=1", "optimizer 'adm': did you mean 'adam'?"),
        ("--confg.seed=1", "unexpected argument '--confg.seed=1'"),
        ("stray", "unexpected argument 'stray': settings are written --config.name="),
        ("--config.schedule=cosine", "did you mean --config.schedule.name=cosine?"),
        ("--config.weight_decay=0", "did you mean --config.weight_decay.value=0?"),
        ("--config.mesh=2", "there are config.mesh.data, config.mesh.fsdp"),
        # Names of other packages, and groups left out.
        ("--config.lr=0.1", "did you mean 'config.learning_rate'?"),
        ("--config.wd=0.1", "did you mean 'config.weight_decay.value'?"),
        ("--config.rho=0.1", "did you mean 'config.method.rho'?"),
        ("--config.momentum=0.1", "did you mean 'config.optimizer.sgd.momentum'?"),
        ("--config.late_phase.start=0", "'config.cadence.late_phase.start'?"),
        ("--config.cadence.k=5", "did you mean 'config.cadence.every_k.k'?"),
    ],
)
def test_wrong_overrides_are_one_line_with_the_nearest_name(card, override, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        cards.load(str(card), override)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "changed", [["--config.method=asam"], ["--config.method.eta=1"]]
)
def test_another_method_is_a_suffix_of_the_card(card, changed):
    with pytest.raises(errors.UserError, match=r"--config=.*card\.py:(asam|METHOD)$"):
        cards.load(f"{card}:sam", *changed)


def parse(*words):
    """The card, the folder and the settings of a command line."""
    values = cards.flags.FlagValues()
    for name in ("config", "workdir"):
        cards.flags.DEFINE_string(name, None, "", flag_values=values)
    _, *changes = cards.parse(["program", *words], values)
    return values.config, values.workdir, changes


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--config.epochs=2"], ["--config.epochs=2"]),
        (["--config.epochs", "2"], ["--config.epochs=2"]),
        (["-config.learning_rate", "-1"], ["--config.learning_rate=-1"]),
        (["--config.data.flip"], ["--config.data.flip=True"]),
        (["--noconfig.data.flip"], ["--config.data.flip=False"]),
        (["--config.wandb.name=a=b\nc"], ["--config.wandb.name=a=b\nc"]),
    ],
)
def test_ways_to_write_a_setting(words, changes):
    expected = ("x.py", "y", changes)
    assert parse("--config=x.py", *words, "--workdir=y") == expected
    assert parse(*words, "--config", "x.py", "--workdir", "y") == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=a", "--config=b"], "--config is given 2 times: give it once"),
        (["-config=a", "--config=b"], "--config is given 2 times: give it once"),
        (["--config", "a", "--config=b"], "--config is given 2 times"),
        (["--workdir=a", "--workdir=b"], "--workdir is given 2 times"),
        (["--config.epochs=1", "--config.epochs", "2"], "--config.epochs is given 2"),
        (["--config.remat", "--noconfig.remat"], "--config.remat is given 2 times"),
        (["--workdr=x"], "flag 'workdr': did you mean --workdir?"),
        (["--epochs=3"], "flag 'epochs': did you mean --config.epochs?"),
        (["--rho=3"], "flag 'rho': did you mean --config.method.rho?"),
        (["--confg.seed=1"], "Unknown command line flag 'confg.seed'"),
        (["--conf=a"], "Unknown command line flag 'conf'"),
        (["--config"], "Missing value for flag --config"),
    ],
)
def test_wrong_command_lines_are_one_line(words, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        parse(*words)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("clip_norm", 1),
        ("method_group_size", 8),
        ("model.width", 8),
        ("data.train_examples", 100),
        ("data.data_dir", "x"),
        ("data.manual_dir", "x"),
        ("wandb.name", "x"),
        ("data.sampling.scores", "x.npy"),
        ("optimizer.sgd.momentum", 0.9),
        ("method.mask", "weights"),
    ],
)
def test_none_is_none_where_it_has_a_meaning(card, key, before):
    importance = "--config.data.sampling.name=importance"
    for value in (before, None):
        changes = [f"--config.{key}={before}", f"--config.{key}={value}"]
        made = cards.load(str(card), importance, *changes)
        assert settings.flat(typed.plain(made))[key] == value


@pytest.mark.parametrize("key", ["seed", "epochs", "data.name", "wandb.mode", "remat"])
def test_none_is_refused_where_it_has_no_meaning(card, key):
    with pytest.raises(errors.UserError, match=rf"config\.{key} .*None"):
        cards.load(str(card), f"--config.{key}=None")


def test_options_of_any_optimizer_are_settings(card):
    made = cards.load(
        str(card), "--config.optimizer.name=adam", "--config.optimizer.adam.b1=0.5"
    )
    assert made.optimizer.options == {"b1": 0.5}


FAILING = {
    "import": ("import nothing_like_it", "line 1: .* 'nothing_like_it'"),
    "syntax": ("def get_config(:", "invalid syntax .*line 1"),
    "end": ("import sys; sys.exit(0)", "line 1: SystemExit: 0"),
    "arithmetic": ("def get_config(): return 1 / 0", "line 1: ZeroDivisionError"),
    "name": ("def get_config(): return x", "line 1: NameError: name 'x'"),
    "key": (
        "from sam_jax.train.config import default_config as get\n"
        "def get_config(): get().epoch = 1",
        r"line 2: AttributeError: .*epoch",
    ),
    "renamed": (
        "from sam_jax.train.config import default_config as get\n"
        "def get_config(): get().checkpoint_every_epochs = 5",
        "line 2: setting config.checkpoint_every_epochs is now "
        "config.checkpoint.every_epochs$",
    ),
    "type": (
        "from sam_jax.train.config import default_config as get\n"
        "def get_config(): get().epochs = 'x'",
        "'epochs'",
    ),
    "file": ("def get_config(): open('/nowhere')", "line 1: FileNotFound.*'/nowhere'"),
    "nothing": ("def get_config(): pass", "no configuration"),
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
    with pytest.raises(errors.UserError, match="--config is missing"):
        cards.load(None)


def test_cards_of_the_package_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    expected = cards.load(f"{CARDS}/digits_sam.py:usam", "--config.epochs=3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits_sam").mkdir()  # a folder is not a card
    (tmp_path / "conftest.py").write_text("")
    assert cards.load("digits_sam:usam", "--config.epochs=3") == expected
    assert cards.load("digits_sam.py:usam", "--config.epochs=3") == expected
    with pytest.raises(errors.UserError) as caught:
        cards.load("digit_sam")
    assert str(caught.value) == (
        "unknown run card 'digit_sam': did you mean 'digits_sam'? There are: "
        + ", ".join(sorted(path.stem for path in CARDS.glob("*.py")))
    )
    with pytest.raises(errors.UserError, match=r"did you mean 'digits_sam'\?"):
        cards.load("configs/digits_sam.py")
    # One's own of the same name comes first.
    text = "from sam_jax.train import config\n"
    text += "def get_config(): c = config.default_config(); c.epochs = 7; return c\n"
    (tmp_path / "cifar10_sam.py").write_text(text)
    assert cards.load("cifar10_sam.py").epochs == 7


@pytest.mark.parametrize("method", ["momentum_sam", "usam", "gnp", "sparse_sam"])
def test_a_card_of_ones_own_takes_the_values_of_the_papers(method, tmp_path):
    card = tmp_path / "mine.py"
    text = (CARDS / "digits_sam.py").read_text()
    card.write_text(text)
    expected = cards.load(f"digits_sam:{method}").method
    assert cards.load(f"{card}:{method}").method == expected
    defaults = default_coefficients(method)
    assert expected.coefficients != {k: defaults[k] for k in expected.coefficients}
    # A fragment beside the card comes first.
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / f"{method}.py").write_text(
        "def get_config():\n    return {'rho': 0.123}\n"
    )
    found = cards.load(f"{card}:{method}").method
    assert found.coefficients["rho"] == 0.123
    assert cards.load(f"{card}:sam").method == cards.load("digits_sam:sam").method


def test_a_folder_holds_the_settings_of_its_run(tiny, tmp_path):
    config = tiny("vasso", **{"optimizer.name": "adamw", "cadence.name": "every_k"})
    with workdir.claimed(tmp_path / "run", config):
        pass
    assert settings.read(cards.continued(str(tmp_path / "run"))) == config
    changed = cards.continued(str(tmp_path / "run"), "--config.log_every_steps=7")
    assert settings.differences(settings.read(changed), config) == []
    assert settings.read(changed).log_every_steps == 7
    with pytest.raises(errors.UserError, match=r"did you mean 'config\.epochs'"):
        cards.continued(str(tmp_path / "run"), "--config.epoch=7")
    for wrong, why in {"no": "is not there", ".": "not the folder of a run"}.items():
        with pytest.raises(errors.UserError, match=f"{why}.*give a run card as well"):
            cards.continued(str(tmp_path / wrong))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
