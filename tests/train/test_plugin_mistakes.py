"""What a user brings and does not fit is told in one sentence, at the start."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from sam_jax import errors, models, plugins, train
from sam_jax.train import build, cards, loop, settings, workdir
from tests.train import my_parts, runs
from tests.train.steps import SPEC

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "mean"}, ["a number for each", "float32[]"]),
        ({"loss": "briar"}, ["config.loss", "did you mean 'brier'?"]),
        ({"model": "Nett"}, ["config.model.name", "did you mean 'Net'?"]),
        ({"model": "brier"}, ["needs a value for 'outputs'"]),
        ({"label_smoothing": 0.1}, ["config.label_smoothing=0"]),
        ({"remat": True}, ["config.remat", "nn.remat"]),
        ({"model.width": 3}, ["width", "features"]),
        ({"model.dtype": "bfloat16"}, ["dtype"]),
        (
            {"batch_norm": "batch", "method_group_size": 16},
            ["config.batch_norm=batch", "networks"],
        ),
    ],
)
def test_mistakes_are_one_sentence_at_the_start(brought, changes, words):
    with pytest.raises(errors.UserError) as raised:
        build.build(brought(**changes))
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "own", [models.build("mlp", num_classes=10), my_parts.WithoutFlag(10)]
)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"remat": True}, "config.remat"),
        ({"batch_norm": 8}, "config.batch_norm=8"),
        ({"batch_norm": "batch", "method_group_size": 16}, "config.batch_norm=batch"),
        ({"model.dtype": "bfloat16"}, "config.model.dtype=bfloat16"),
        ({"model.dtype": "float16"}, "config.model.dtype=float16"),
    ],
)
def test_a_network_that_is_made_already_refuses_what_it_cannot_follow(
    tiny, own, changes, words
):
    with pytest.raises(errors.UserError, match=words) as raised:
        build.steps(tiny(**changes), SPEC, model=own)
    assert "\n" not in str(raised.value)
    assert build.steps(tiny(), SPEC, model=own).model is not None


EVIL = "raise AssertionError('this file was run')"


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "sgd", "EVIL:f": {}},  # a key
        {"name": "EVIL:f"},
        {"name": "sgd", "sgd": {"x": ["EVIL:f"]}},
    ],
)
def test_code_of_a_folder_is_not_run_unasked(tiny, tmp_path, changed):
    evil = tmp_path / "evil.py"
    evil.write_text(EVIL)
    tree = json.loads(settings.to_json(tiny()))
    text = json.dumps(tree | {"optimizer": changed}).replace("EVIL", str(evil))
    (tmp_path / workdir.CONFIG_FILE).write_text(text)
    mine = f"--config.optimizer.name={runs.reference('my_sgd')}"  # not what is there
    for read in (
        lambda: train.load_run(tmp_path, "last"),
        lambda: cards.continued(tmp_path),
        lambda: cards.continued(tmp_path, mine, "--config.epochs=1"),
        lambda: workdir.claimed(tmp_path, tiny()).__enter__(),
    ):
        with pytest.raises(errors.UserError, match=r"evil.py:f, which is run only if"):
            read()


def test_of_own_optimizers_only_the_chosen_one_is_run(tmp_path):
    (tmp_path / "evil.py").write_text(EVIL)
    found = settings.read({"optimizer": {"name": "adam", f"{tmp_path}/evil.py:f": {}}})
    assert found.optimizer == settings.Optimizer("adam", {})


def test_a_folder_with_an_own_optimizer_goes_on_by_its_name(tiny, tmp_path):
    name = runs.reference("my_sgd")
    config = tiny(**{"optimizer.name": name})
    with workdir.claimed(tmp_path, config):
        pass
    again = cards.continued(tmp_path, f"--config.optimizer.name={name}")
    assert settings.read(again) == config
    other = dataclasses.replace(config, log_every_steps=9)
    with workdir.claimed(tmp_path, other):
        assert workdir.stored(tmp_path, {name}) == other


OUTPUTS = {  # what a network makes of its logits, and whether that will do
    "a dict": (lambda y: {"logits": y, "features": y[:, :2]}, True),
    "a tuple": (lambda y: (y, y[:, 0], None), True),
    "a number beside": (lambda y: (y, 3), False),
    "a mean beside": (lambda y: {"logits": y, "aux": jnp.mean(y**2)}, False),
    "nothing": (lambda y: None, False),
    "a list": (lambda y: [y], False),
    "an empty tuple": (lambda y: (), False),
    "a dict without logits": (lambda y: {"y": y}, False),
    "a number": (lambda y: 3.0, False),
    "integers": (lambda y: y.astype(int), False),
    "complex": (lambda y: y.astype(complex), False),
    "3 classes": (lambda y: y[:, :3], False),
    "11 classes": (lambda y: jnp.pad(y, [(0, 0), (0, 1)]), False),
    "one example": (lambda y: y[:1], False),
    "an axis more": (lambda y: y[:, None], False),
}


@pytest.mark.parametrize("loss", [None, my_parts.zeros], ids=["built-in", "own"])
@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_are_logits_of_each_class_for_each_example(tiny, net, case, loss):
    change, fits = OUTPUTS[case]
    own = net()

    def apply(*args, **options):
        logits, state = own.apply(*args, **options)
        return change(logits), state

    def metrics(apply):
        made = build.steps(tiny(), SPEC, model=models.Model(own.init, apply), loss=loss)
        shapes = made.abstract_state(), made.abstract_batch()
        return jax.eval_shape(made.train_step, *shapes)[1]

    if fits:
        assert metrics(apply) == metrics(own.apply)
        return
    with pytest.raises(errors.UserError, match="logits") as raised:
        metrics(apply)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("f = 3", "must be a function, with named arguments; it is 3"),
        ("f = dict", "must be a function, with named arguments"),
        ("def f(): pass", "must be a function of a learning rate"),
        ("def f(lr): return 3", "makes a int"),
        ("def f(lr, b): pass", r"\.b has no default: give a value"),
    ],
)
def test_an_optimizer_that_is_none(tiny, tmp_path, source, message):
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(errors.UserError, match=message):
        build.build(tiny(**{"optimizer.name": f"{tmp_path}/own.py:f"}))


@pytest.mark.parametrize(
    ("setting", "source"),
    [
        *(("method", "f = 3"), ("method", "f = dict"), ("method", "def f(): return 3")),
        *(("loss", "f = 3"), ("loss", "f = dict")),
    ],
)
def test_a_method_or_loss_that_is_none(tiny, tmp_path, setting, source):
    (tmp_path / "own.py").write_text(source)
    own = f"{tmp_path}/own.py:f"
    with pytest.raises(errors.UserError, match=rf"config.{setting}.*own.py:f\) must "):
        build.build(tiny(own) if setting == "method" else tiny(loss=own))


@pytest.mark.parametrize(
    ("setting", "source", "words"),
    [
        ("schedule", "def f(step): return (step, 1)", "one number for a step, got"),
        ("schedule", "def f(step): return 'a'", "one number for a step, got 'a'"),
        ("schedule", "def f(): return 1", r"own.py:f\) must be a function of step"),
        ("schedule", "def f(step, a): pass", "a value for 'a': set it in config.sche"),
        ("schedule", "def f(step, b=1): pass", "'a': There are: b"),
        ("schedule", "f = 3", "must be a function"),
        ("augment", "def f(key, x): return x[:, 1:]", "of the same shape and kind"),
        ("augment", "def f(key, x): return x.astype(int)", "of the same shape and k"),
        ("augment", "def f(key, x): pass", "of the same shape and kind.*; got None"),
        ("augment", "def f(images): pass", "must be a function of key and images"),
        ("augment", "def f(*, key, images): pass", "a function of key and images"),
        ("metrics", "def f(y, batch): return y", r"a dict of names and numbers.*\[32"),
        ("metrics", "def f(y, batch): return {'a': y}", "one for each of 32 examples"),
        ("metrics", "def f(y, batch): return {'a': 'x'}", "a dict of names and num"),
        ("metrics", "def f(y, batch): return {1: 2}", "a dict of names and numbers"),
        ("metrics", "def f(y, batch): return {'loss': 2}", "'loss', a name that the"),
        ("metrics", "def f(y, batch): return {'top_5': 2}", "'top_5', a name that"),
    ],
)
def test_schedules_augmentations_and_metrics_that_are_none(
    tiny, tmp_path, setting, source, words
):
    (tmp_path / "own.py").write_text(source)
    options = {f"{setting}.options": {"a": 1}} if "b=1" in source else {}
    with pytest.raises(errors.UserError, match=words) as raised:
        build.build(tiny(**{f"{setting}.name": f"{tmp_path}/own.py:f", **options}))
    assert "\n" not in str(raised.value) and f"config.{setting}" in str(raised.value)


@pytest.mark.parametrize("setting", ["augment", "metrics", "schedule"])
def test_a_name_that_is_none_of_the_package_nor_a_place(tiny, setting):
    with pytest.raises(errors.UserError, match=r"my_file\.py:function"):
        build.build(tiny(**{f"{setting}.name": "mine"}))
    with pytest.raises(ZeroDivisionError, match="of the user"):
        build.build(tiny(**{f"{setting}.name": runs.reference("fails_anyhow")}))


@pytest.mark.parametrize("setting", ["method", "optimizer"])
def test_what_fails_in_the_step_fails_before_the_folder(tiny, tmp_path, setting):
    (tmp_path / "own.py").write_text(
        "import optax\n"
        "def f(number=1):\n"
        "    return optax.GradientTransformation(lambda p: (), lambda u, s: (u, s))\n"
    )
    own = f"{tmp_path}/own.py:f"
    config = tiny(own) if setting == "method" else tiny(**{"optimizer.name": own})
    with pytest.raises(TypeError, match="takes 2 positional arguments"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_exception_of_the_users_own_is_theirs(brought):
    with pytest.raises(ZeroDivisionError, match="of the user"):
        build.build(brought(loss="fails"))


def test_a_file_that_is_missing_or_fails(tmp_path):
    with pytest.raises(errors.UserError, match=r"there is no file .*gone.py"):
        plugins.load(f"{tmp_path}/gone.py:Net", "config.model.name")
    ends = tmp_path / "ends.py"
    ends.write_text("import sys; sys.exit(0)\n")
    with pytest.raises(errors.UserError, match=r"ends.py ends the program"):
        plugins.load(f"{ends}:Net", "config.model.name")
    bad = tmp_path / "bad.py"
    bad.write_text("import nothing_of_that_name\n")
    for _ in range(2):  # not half imported
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
            plugins.load(f"{bad}:Net", "config.model.name")


def test_a_method_that_takes_the_step_needs_no_decay(tiny, tmp_path):
    (tmp_path / "own.py").write_text(
        "import optax\n\n\ndef f(learning_rate, rho=0.1):\n"
        "    return optax.sgd(learning_rate)\n"
    )
    name = f"{tmp_path}/own.py:f"
    build.build(tiny(name, **{"weight_decay.kind": "decoupled"}))
    decay = {"weight_decay.kind": "gradient", "weight_decay.value": 0.1}
    with pytest.raises(errors.UserError, match="and has no weight_decay: set"):
        build.build(tiny(name, **decay))


def test_a_method_without_a_default_asks_for_a_value():
    with pytest.raises(errors.UserError, match=r"method.radius has no default"):
        cards.load(f"{runs.DIGITS}:{runs.reference('my_sam')}")
    with pytest.raises(errors.UserError, match="'radios': did you mean 'radius'"):
        settings.read({"method": {"name": runs.reference("my_sam"), "radios": 1}})
