"""What a user brings in a file stands in the place of a name, and works alike."""

import dataclasses
import itertools
import json
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import data, errors, models, plugins, train
from sam_jax.methods import observations
from sam_jax.train import (
    build,
    cards,
    loop,
    losses,
    own_data,
    settings,
    shared,
    workdir,
)
from tests import tiers
from tests.train import my_parts, runs
from tests.train.steps import SPEC, Trainer, batches, plain

FILE = str(pathlib.Path(my_parts.__file__).relative_to(runs.ROOT))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(runs.ROOT)


def reference(name):
    return f"{FILE}:{name}"


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", validation=100, train_examples=128)


@pytest.fixture
def brought(tiny):
    """``brought(model, loss, method, **settings)``: settings that name own parts."""

    def make(model="Net", loss="brier", method="sam", **changes):
        own = {"model.name": reference(model), "loss": reference(loss)}
        own |= {"model.width": None, "model.options": {}}
        return tiny(method, **{**own, **changes})

    return make


# ── Networks and losses ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("net", "method"),
    tiers.cases(
        [("Net", "looksam"), ("NnxNet", "functional_sam")],
        itertools.product(["Net", "NnxNet"], ["sam", "looksam", "functional_sam"]),
        why="two runs each",
    ),
)
def test_all_that_is_own_resumes_to_the_same_bits_and_is_loaded(
    brought, tmp_path, disturb, net, method
):
    # Groups of 16, BatchNorm and dropout; a whole run, and one that was stopped.
    own = {"model": net, "loss": "brier", "optimizer": "my_sgd"}
    own |= {"schedule": "triangle", "augment": "brighter", "metrics": "margins"}
    names = {
        key if key == "loss" else f"{key}.name": reference(name)
        for key, name in own.items()
    }
    config = brought(
        net,
        method=method,
        method_group_size=16,
        epochs=2,
        augment={"options": {"by": 5}},
        metrics={"options": {"over": 0.5}},
        **{"optimizer.options": {"momentum": 0.5}},
        **{
            key: name
            for key, name in names.items()
            if key not in ("model.name", "loss")
        },
    )
    whole = runs.Finished(config, tmp_path / "whole")
    disturb(3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(loop.Stopped):
        loop.train_and_evaluate(config, tmp_path / "stopped")
    disturb()
    loop.train_and_evaluate(config, tmp_path / "stopped")
    runs.assert_same_run(config, tmp_path / "stopped", whole.folder)
    seen = [row for row in whole.rows if row["split"] == "test"]
    assert 0 < seen[-1]["loss"] < seen[0]["loss"] < 2  # of Brier
    # The metrics are in the record, the results and TensorBoard.
    test = whole.results["last"]["test"]
    assert list(test) == ["loss", "accuracy", "first_label", "margin", "sure"]
    assert test["first_label"] == 9 and test["margin"] > 0 and 0 < test["sure"] < 1
    assert {name: seen[-1][name] for name in test} == test
    [events] = whole.folder.rglob("events*")
    assert b"test/margin" in events.read_bytes()
    # What its settings name is run when that is asked for.
    with pytest.raises(errors.UserError, match=r"my_parts.py.*own_code=True"):
        train.load_run(whole.folder, "last")
    again = [f"--config.{key}={name}" for key, name in names.items()]
    for number in range(len(again)):
        one_less = again[:number] + again[number + 1 :]
        with pytest.raises(errors.UserError, match=r"my_parts.py.*give that setting"):
            cards.continued(whole.folder, *one_less)
    assert settings.read(cards.continued(whole.folder, *again)) == config
    found = train.load_run(whole.folder, "last", own_code=True).evaluate().plain()
    for name, value in test.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("method", ["functional_sam", "esam"])
def test_methods_get_what_they_need_of_an_own_loss(tiny, method):
    # The package's cross-entropy, brought as if it were another.
    config = tiny(method)
    usual = build.steps(config, SPEC)
    own = build.steps(
        config, SPEC, loss=lambda x, b: losses.cross_entropy(x, b["label"])
    )
    batch, state = next(batches(1)), usual.init(usual.seed)
    expected, _ = jax.jit(usual.train_step)(state, batch)
    found, _ = jax.jit(own.train_step)(state, batch)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


@pytest.mark.parametrize("net", [my_parts.Net, my_parts.NnxNet])
def test_dropout_follows_the_key_and_evaluation_has_none(net):
    model = models.own.build(net, "net", {"features": 2}, {"num_classes": 3})
    images = jnp.ones((4, 8, 8, 1))
    params, state = model.init(jax.random.key(0), images)

    def logits(**options):
        outputs, changed = model.apply(params, state, images, **options)
        return losses.logits_of(outputs), changed

    first, again, other = (
        logits(train=True, key=jax.random.key(key))[0] for key in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    still, same = logits(train=False)
    np.testing.assert_array_equal(still, logits(train=False, key=jax.random.key(1))[0])
    jax.tree.map(np.testing.assert_array_equal, same, state)
    _, moved = logits(train=True, key=jax.random.key(1))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), moved, state)
    assert any(jax.tree.leaves(changed))
    assert all(
        isinstance(key.key, str)
        for path, _ in jax.tree_util.tree_leaves_with_path((params, state))
        for key in path[1:]
    )


@pytest.mark.parametrize("net", [my_parts.Net, my_parts.NnxNet])
def test_convolutions_are_those_that_are_fast_in_a_loop(net, monkeypatch):
    calls = []
    real = models.convolution.conv_general_dilated

    def counted(*args, **options):
        calls.append(options)
        return real(*args, **options)

    monkeypatch.setattr(models.convolution, "conv_general_dilated", counted)
    model = models.own.build(net, "net", {}, {"num_classes": 3})
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    params, state = model.init(jax.random.key(0), images)
    calls.clear()
    found, _ = model.apply(params, state, images, train=False)
    assert len(calls) == 1
    monkeypatch.setattr(models.convolution, "conv_general_dilated", jax.lax.conv)
    monkeypatch.setattr(models.own, "_convolve", models.own._JAX)
    plain_net = models.own.build(net, "net", {}, {"num_classes": 3})
    expected, _ = plain_net.apply(params, state, images, train=False)
    np.testing.assert_allclose(
        losses.logits_of(found), losses.logits_of(expected), rtol=1e-5, atol=1e-6
    )


def test_from_python_modules_and_functions_do(tiny, tmp_path):
    found = loop.train_and_evaluate(
        tiny("sam", epochs=1),
        tmp_path,
        model=my_parts.WithoutFlag(num_classes=10),
        loss=my_parts.brier,
    )
    assert found["last"]["step"] == 4


def sequences(count, generator):
    """Tokens below 20; the label says how many are below 10."""
    tokens = generator.integers(0, 20, (count, 7))
    return tokens, (tokens < 10).sum(1) // 4


def rows(count, generator):
    """Five numbers; the label is the largest of the first three."""
    table = generator.normal(size=(count, 5))
    return table, table[:, :3].argmax(1)


@pytest.mark.parametrize(
    ("examples", "net"),
    [(sequences, my_parts.TokenNet), (rows, my_parts.TableNet)],
)
def test_a_network_need_not_be_for_images(tiny, tmp_path, examples, net):
    generator = np.random.default_rng(0)
    dataset = data.of_arrays(
        examples(256, generator), examples(100, generator), name="own"
    )
    config = tiny("sam", epochs=6, learning_rate=0.5)
    found = runs.Finished(config, tmp_path, dataset=dataset, model=net)
    tests = [row for row in found.rows if row["split"] == "test"]
    assert tests[-1]["loss"] < 0.9 * tests[0]["loss"]
    assert tests[-1]["accuracy"] > tests[0]["accuracy"]
    run = train.load_run(tmp_path, step="last", model=net)
    inputs = examples(20, np.random.default_rng(1))[0]
    taken = inputs.astype(run.preprocessing.dtype)
    assert run.predict(taken).shape == (20, dataset.num_classes)
    assert run.evaluate(dataset).accuracy == pytest.approx(tests[-1]["accuracy"])
    with pytest.raises(errors.UserError, match="the run takes"):
        run.predict(inputs.astype(np.float16))


def test_arrays_of_images_are_as_the_data_set_they_come_from(tiny):
    config = tiny("sam")
    usual = build.build(config).dataset
    splits = (usual.train.split, usual.test.split)
    own = data.of_arrays(*((split.images, split.labels) for split in splits))
    assert (own.image_shape, own.num_classes) == ((8, 8, 1), 10)
    np.testing.assert_allclose(own.mean, usual.mean, rtol=0.05)
    of_both = (x.train.batches(batch_size=16, seed=1) for x in (own, usual))
    mine, theirs = (next(iter(each)) for each in of_both)
    np.testing.assert_array_equal(mine["image"], theirs["image"])


X, Y = np.zeros((4, 3)), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ((X, Y[:3]), (X, Y), "a whole number for each of 4"),
        ((X, Y * 0.5), (X, Y), "a whole number"),
        ((X, Y), (X[:, :2], Y), "in one form"),
        ((X, Y), (X.astype(int), Y), "in one form"),
        ((X, Y * 0), (X, Y * 0), "at least 2"),
        ((X.astype(str), Y), (X, Y), "must be numbers"),
        (X, (X, Y), "a pair of arrays"),
        ((X, Y - 1), (X, Y), "labels -1 to"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(train, test, words):
    with pytest.raises(errors.UserError, match=words) as raised:
        data.of_arrays(train, test)
    assert "\n" not in str(raised.value)


def test_names_of_classes_of_arrays():
    names = np.array(["cat", "dog"])
    assert data.of_arrays((X, Y), (X, Y), class_names=names).class_names == (
        "cat",
        "dog",
    )
    with pytest.raises(errors.UserError, match=r"'Cat' and 'cat ', one name but"):
        data.of_arrays((X, Y), (X, Y), class_names=["cat ", "Cat"])


def test_what_is_done_to_images_is_not_for_others(tiny):
    dataset = data.of_arrays((X, Y), (X, Y))
    for setting in ("crop", "mixup", "resized_crop"):
        changes = {f"data.{setting}": 1}
        with pytest.raises(errors.UserError, match=rf"config.data.{setting} is for im"):
            build.build(tiny("sam", batch_size=2, **changes), dataset=dataset)


# ── Methods and optimizers ───────────────────────────────────────────────────────────


def test_an_own_method_is_what_it_does_and_its_arguments_are_settings(tiny, net):
    card = f"{runs.DIGITS}:{reference('my_sam')}"
    config = cards.load(card, "--config.method.radius=0.25", "--config.method.twist=2")
    assert config.method.coefficients == {"radius": 0.25, "twist": 2}
    schedule = {"schedule.name": "constant"}
    mine = dataclasses.replace(tiny("sam", **schedule), method=config.method)
    own = Trainer(mine, net(), plain)
    sam = Trainer(tiny("sam", **schedule, **{"method.rho": 0.5}), net(), plain)
    [(a, _)], [(b, _)] = own.run(batches(1)), sam.run(batches(1))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_an_own_optimizer_is_what_it_does(tiny, net):
    schedule = {"schedule.name": "constant"}
    own = tiny("sam", **schedule, **{"optimizer.name": reference("my_sgd")})
    [(a, _)], [(b, _)] = (
        Trainer(config, net(), plain).run(batches(1))
        for config in (own, tiny("sam", **schedule))
    )
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


# ── Schedules, augmentation, metrics ─────────────────────────────────────────────────


def test_an_own_schedule_is_what_it_does_and_its_arguments_are_settings(chain):
    named = {"schedule.name": reference("triangle"), "schedule.options": {"top": 0.25}}
    rate = chain("none", **named).learning_rate  # 3 epochs of 4 updates
    found = [float(rate(count)) for count in range(13)]
    steps = np.arange(13) / 12
    expected = 0.1 * np.minimum(steps / 0.25, (1 - steps) / 0.75)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    warm = chain("none", **named, **{"schedule.warmup_epochs": 1.5}).learning_rate
    assert float(warm(3)) == pytest.approx(0.05) and warm(8) == rate(8)
    # It may branch on what it is given, which then is no argument of a program.
    of_run = settings.read({"schedule": {"name": named["schedule.name"]}})
    assert shared.numbers_of(of_run) == {} != shared.numbers_of(settings.read({}))
    # A coefficient may follow it as well; of a highest value of its own.
    rho = {"name": named["schedule.name"], "value": 0.3}
    made = chain("sam", **{"method.rho": rho})
    state = made.method.init(params := jnp.ones(2))
    for count in range(4):
        _, state = made.method.update(params, state, params, grad_fn=lambda w: w)
        norm = float(observations.diagnostics(state)["perturbation_norm"])
        assert norm == pytest.approx(0.3 * count / 6, abs=1e-6)


def test_an_own_augmentation_comes_before_the_others_whose_draws_stay(tiny, digits):
    dataset = dataclasses.replace(digits, mean=(0.0,), std=(1.0,))
    images, key = dataset.train.split.images[:4], jax.random.key(1)

    chosen = tiny(**{"data.crop": 2, "data.flip": True}).data
    after = own_data.augmentation(chosen, dataset)
    brighter = settings.Own(reference("brighter"))
    own = own_data.augmented(brighter, dataset, after)(key, images)
    plain = after(key, images)
    within = (own > 0) & (plain < 0.9)  # neither cut off nor at the end of the scale
    lifted = 255 * np.asarray(own - plain)[np.asarray(within)]
    assert 9.9 < lifted.min() < 11 < lifted.max() < 12.1


# ── Mistakes ─────────────────────────────────────────────────────────────────────────


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
    mine = f"--config.optimizer.name={reference('my_sgd')}"  # not what is there
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
    name = reference("my_sgd")
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
    "a tuple": (lambda y: (y, 3), True),
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
    ("changes", "message"),
    [
        (
            {"class_names": ("a", "b")},
            r"labels of the train set are 0 to 9, .* 2 class",
        ),
        ({"image_shape": (9, 8, 1)}, r"image_shape is \(9, 8, 1\)"),
        ({"mean": (0.5,) * 3}, "mean must have a number for each of 1 channels"),
        ({"std": ()}, "std must have a number"),
        ({"train": "floats"}, "inputs of the train set are float32"),
        ({"test": "negative"}, "labels of the test set are -1 to"),
    ],
)
def test_a_data_set_that_does_not_fit_itself(tiny, digits, changes, message):
    for name in {"train", "test"} & changes.keys():
        split = getattr(digits, name).split
        spoilt = {
            "floats": {"images": split.images.astype(np.float32)},
            "negative": {"true_labels": split.true_labels - 1},
        }[changes[name]]
        changes = {name: data.ArraySource(dataclasses.replace(split, **spoilt))}
    with pytest.raises(errors.UserError, match=message):
        build.build(tiny(), dataset=dataclasses.replace(digits, **changes))
    build.build(tiny(), dataset=digits)


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
        build.build(tiny(**{f"{setting}.name": reference("fails_anyhow")}))


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
    bad = tmp_path / "bad.py"
    bad.write_text("import nothing_of_that_name\n")
    for _ in range(2):  # not half imported
        with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
            plugins.load(f"{bad}:Net", "config.model.name")


def test_a_method_without_a_default_asks_for_a_value():
    with pytest.raises(errors.UserError, match=r"method.radius has no default"):
        cards.load(f"{runs.DIGITS}:{reference('my_sam')}")
    with pytest.raises(errors.UserError, match="'radios': did you mean 'radius'"):
        settings.read({"method": {"name": reference("my_sam"), "radios": 1}})
