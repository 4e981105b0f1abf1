"""Runs that begin with the weights of another one, or of another library."""

import json
import re
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import (
    build,
    cards,
    export,
    loaded,
    loop,
    pretrained,
    start,
)
from tests.data import images
from tests.train import runs

# ── Runs that begin with another one ─────────────────────────────────────────────────


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    changes = {"data.name": "digits/0-4", "data.validation": 50, "epochs": 1}
    return runs.Finished(tiny(**changes), tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tiny, first):
    """``second(**changes)``: settings of a run that begins with the first."""
    changes = {"data.name": "digits/5-9", "data.validation": 50, "epochs": 2}
    changes |= {"init_from": str(first.folder), "freeze": "Dense_0", "ema_decay": 0.9}

    def make(**more):
        return tiny("friendly_sam", **(changes | more))

    return make


def begun(config):
    run = build.build(config)
    found = start.of(run)
    assert found is not None
    return run, found


def test_a_run_begins_with_another_one(first, second):
    run, found = begun(second())
    theirs = loaded.load_run(first.folder)
    head = "params.Dense_1.bias, params.Dense_1.kernel"
    assert found.words() == (
        f"{first.folder}, step {theirs.step}: 2 of 4 arrays; drawn as the classes "
        f"differ: {head}; left: {head}"
    )
    assert set(found.fresh.values()) == {"the classes differ"}
    assert sorted(found.fresh) == ["params.Dense_1.bias", "params.Dense_1.kernel"]
    assert found.matched == ["params.Dense_0.bias", "params.Dense_0.kernel"]
    assert found.left == sorted(found.fresh)

    begins, drawn = run.init(run.seed, found.given), run.init(run.seed)
    np.testing.assert_array_equal(
        begins.frozen["Dense_0"]["kernel"], theirs.params["Dense_0"]["kernel"]
    )
    jax.tree.map(np.testing.assert_array_equal, begins.params, drawn.params)
    assert not np.array_equal(
        begins.frozen["Dense_0"]["kernel"], drawn.frozen["Dense_0"]["kernel"]
    )
    # The averages and what method and optimizer keep begin there too.
    run, found = begun(second(freeze=None))
    average, _ = run.init(run.seed, found.given).average
    np.testing.assert_array_equal(
        average["Dense_0"]["kernel"], theirs.params["Dense_0"]["kernel"]
    )


def test_it_is_said_and_goes_on_without_what_it_began_with(
    first, second, disturb, tmp_path, capsys
):
    config = second(init_from=str(tmp_path / "first"))
    shutil.copytree(first.folder, tmp_path / "first")
    whole = runs.Finished(config, tmp_path / "whole")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "begins with" in said and "(520 frozen)" in said
    report = json.loads((tmp_path / "whole" / start.FILE).read_text())
    assert report["fresh"] == dict.fromkeys(
        ["params.Dense_1.bias", "params.Dense_1.kernel"], "the classes differ"
    )

    def crash():
        raise ZeroDivisionError

    disturb(6, crash)
    with pytest.raises(ZeroDivisionError):
        loop.train_and_evaluate(config, tmp_path / "again")
    disturb()
    shutil.rmtree(tmp_path / "first")
    runs.Finished(config, tmp_path / "again")
    runs.assert_same_run(config, tmp_path / "again", whole.folder)
    with pytest.raises(errors.UserError, match="there is no such run"):
        loop.train_and_evaluate(config, tmp_path / "third")
    assert not (tmp_path / "third").exists()

    run = loaded.load_run(whole.folder, "last")
    theirs = loaded.load_run(first.folder)
    jax.tree.map(
        np.testing.assert_array_equal, run.params["Dense_0"], theirs.params["Dense_0"]
    )
    assert run.evaluate().accuracy == whole.results["last"]["test"]["accuracy"]


@pytest.mark.parametrize("to", ["npz", "safetensors"])
def test_an_export_begins_as_its_run(first, second, tmp_path, to):
    if to == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"x.{to}"
    export.export(loaded.load_run(first.folder, "last"), to, path)
    _, of_file = begun(second(init_from=str(path)))
    _, of_run = begun(second(init_from=f"{first.folder}@last"))
    assert of_file[2:] == of_run[2:] and of_file.matched
    jax.tree.map(np.testing.assert_array_equal, of_file.given, of_run.given)


# ── What the arrays have to be ───────────────────────────────────────────────────────


@pytest.fixture
def source(second, monkeypatch):
    """``source(changes, arrays)``: what is made of these arrays."""
    inner = {"Dense_0.kernel": (64, 8), "Dense_0.bias": (8,)}
    inner |= {"Dense_1.kernel": (8, 5), "Dense_1.bias": (5,)}

    def make(changes=None, config=None, class_names=("a",), fill=0.5):
        shapes = {f"params.{name}": shape for name, shape in inner.items()}
        shapes |= changes or {}
        arrays = {
            name: np.full(shape, fill, np.float16)
            for name, shape in shapes.items()
            if shape is not None
        }
        found = pretrained.Source("there", arrays, class_names=class_names)
        monkeypatch.setattr(pretrained, "read", lambda *_: found)
        return begun(second(**({"freeze": None} | (config or {}))))[1]

    return make


def test_the_head_is_drawn_where_the_classes_differ(source):
    head = ["params.Dense_1.bias", "params.Dense_1.kernel"]
    assert sorted(source().fresh) == head
    names_alike = tuple("56789")
    for class_names in (names_alike, None):  # or nobody knows their names
        assert source(class_names=class_names).fresh == {}
    other = {"params.Dense_1.kernel": (8, 7), "params.Dense_1.bias": (7,)}
    assert sorted(source(other, class_names=None).fresh) == head
    gone = dict.fromkeys(head)
    found = source(gone, class_names=None)
    assert found.fresh == dict.fromkeys(head, "it is not there")
    asked = source(config={"init_fresh": "Dense_0"}, class_names=None)
    assert set(asked.fresh.values()) == {"config.init_fresh says"}
    assert sorted(asked.fresh) == ["params.Dense_0.bias", "params.Dense_0.kernel"]
    assert asked.given[0]["Dense_1"]["bias"].dtype == np.float32
    assert source({"extra": (2,)}).left == ["extra", *head]


@pytest.mark.parametrize(
    ("arrays", "config", "message"),
    [
        ({"params.Dense_0.kernel": (3, 8)}, {}, r"is \[3, 8\] there, .* \[64, 8\]:"),
        ({"params.Dense_0.bias": None}, {}, "lacks 1 of 2 arrays .*Dense_0.bias .*it"),
        ({}, {"init_fresh": "Dense_5"}, "init_fresh: 'Dense_5' matches no array"),
        ({}, {"init_fresh": "."}, "init_fresh: '.' matches every array"),
        ({}, {"init_fresh": "Dense_0"}, "nothing of it is used"),
        (
            {},
            {"init_from": None, "init_fresh": "."},
            "has no effect, as config.init_from",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(source, arrays, config, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        source(arrays, config)
    assert "\n" not in str(raised.value)


def test_an_array_that_is_not_finite_is_refused(source):
    with pytest.raises(errors.UserError, match="bias is not finite: take"):
        source(fill=np.nan)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "there is no such run, and it is not a file of .safetensors"),
        ("no.npz", "there is no file no.npz"),
        ("broken.safetensors", "broken.safetensors cannot be read: .*; give a whole"),
        ("broken.npz", "broken.npz cannot be read: .*; give a whole file"),
        (
            "text.npz",
            "text.npz cannot be read: it is not a file of .*; give",
        ),
        (
            "other.npz",
            r"not a file of sam-jax export: its arrays are w; .* timm:other.npz",
        ),
        ("timm:other.npz", "timm has no network like this one"),
        ("hf:", "hf: names no file: give hf:FILE"),
        ("vision_transformer:B_16", "vision_transformer:B_16 names no file"),
        ("timm:resnet18@other.npz", "called resnet18_imagenet here, .* is mlp: set"),
        ("timm:resnet26@other.npz", "resnet26 is a network that is not here: unknown"),
        ("hf:google/vit-base-patch16-224", "called vit_b16 here"),
        ("torchvision:vit_b_16", "called vit_b16 here"),
        ("timm:wide_net", "needs timm, which is not installed: give a file"),
        (
            "future",
            r"future/config.json was written by another version \(unknown setting",
        ),
        ("damaged", "damaged/config.json is damaged"),
        ("{first}@7", "step 7 of .* is not kept: take 'best', 'last' or one of 4"),
    ],
)
def test_sources_that_are_not_there(
    first, second, given, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    for suffix in ("npz", "safetensors"):
        (tmp_path / f"broken.{suffix}").write_bytes(b"PK\x03\x04 no such thing")
    (tmp_path / "text.npz").write_text("words")
    np.savez(tmp_path / "other.npz", w=np.ones(3))
    shutil.copytree(first.folder, tmp_path / "future")
    settings = json.loads((tmp_path / "future" / "config.json").read_text())
    (tmp_path / "future" / "config.json").write_text(json.dumps(settings | {"new": 1}))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    config = second(init_from=given.format(first=first.folder))
    with pytest.raises(errors.UserError, match=message) as raised:
        start.of(build.build(config))
    assert "\n" not in str(raised.value)


def test_a_network_passed_as_an_object_has_no_name(second, tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, w=np.ones(3))
    config = second(init_from=f"timm:vit_tiny_patch16_224@{file}")
    with pytest.raises(errors.UserError, match="called vit_ti16 here"):
        pretrained.read(config)
    assert pretrained.read(config, object()).arrays["w"].shape == (3,)


def test_npz_of_bfloat16(second, tmp_path):
    file = tmp_path / "x.npz"
    of_pairs = {"bytes": np.zeros(3, "V1")}
    np.savez(file, w=np.asarray([1.5, -3.0], jax.numpy.bfloat16), **of_pairs)
    arrays = pretrained.read(second(init_from=f"timm:{file}")).arrays
    assert arrays.keys() == {"w"}
    np.testing.assert_array_equal(arrays["w"].astype(np.float32), [1.5, -3.0])


def test_a_transformer_without_a_head_is_found(second, tmp_path):
    file = tmp_path / "x.npz"
    given = ("embeddings.cls_token", "encoder.layer.0.output.dense.bias")
    np.savez(file, **{name: np.ones(3) for name in given})
    arrays = pretrained.read(second(init_from=f"hf:{file}")).arrays
    assert {name for name in arrays if not name.startswith("vit.")} == set()


def test_arrays_of_layers_that_have_no_place_are_said():
    arrays = {"blocks.0.w": 1, "blocks.0.ls1.gamma": 1, "blocks.9.w": 1, "head.w": 1}
    source = pretrained.Source("timm:some", arrays, "timm")
    (line,) = start._more_than_ours(source, {"blocks.0.w"})
    assert "1 arrays that this network has no place for (blocks.0.ls1.gamma)" in line
    assert start._more_than_ours(source, {"blocks.0.w", "blocks.0.ls1.gamma"}) == []


def test_published_weights_come_from_the_cache_of_the_library(
    second, tmp_path, monkeypatch
):
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    asked = []

    def hf_hub_download(*names):
        asked.append(names)
        return str(tmp_path / "model.safetensors")

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    known = types.SimpleNamespace(hf_hub_id="timm/some.a1_in1k")
    timm = types.SimpleNamespace(get_pretrained_cfg=lambda name: known)
    monkeypatch.setitem(sys.modules, "timm", timm)
    tensor = types.SimpleNamespace(numpy=lambda: np.zeros(3))
    state_dict = {"mlp.linear_1.weight": tensor, "bn1.num_batches_tracked": tensor}
    weights = types.SimpleNamespace(get_state_dict=lambda progress: state_dict)
    found = types.SimpleNamespace(
        get_model_weights=lambda name: types.SimpleNamespace(DEFAULT=weights)
    )
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=found))

    def arrays(init_from):
        return pretrained.read(second(init_from=init_from)).arrays.keys()

    assert arrays("timm:some") == arrays("hf:me/some") == {"w"}
    assert asked == [
        (name, "model.safetensors") for name in (known.hf_hub_id, "me/some")
    ]
    assert arrays("torchvision:some") == {"mlp.0.weight"}


# ── Other libraries' files, written and read here ────────────────────────────────────


def random_like(leaf):
    return np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32)


@pytest.mark.parametrize("name", ["resnet18_imagenet", "vit_s16"])
def test_what_is_exported_to_timm_begins_a_run(tiny, tmp_path, name):
    pytest.importorskip("safetensors")
    shape, options = (32, 32, 3), {"depth": 2} if name == "vit_s16" else {}
    changes = {"model.name": name, "model.width": 64, "model.options": options}
    run = runs.untrained(tiny(**changes), tmp_path, shape, draw=random_like)
    path = export.export(run, "timm", tmp_path / "x.safetensors")
    config = tiny(**changes, init_from=f"timm:{path}")
    made = build.steps(config, build.DataSpec(shape, 10, 100, 5))
    dataset = types.SimpleNamespace(class_names=run.class_names)
    assert pretrained.read(config).class_names == run.class_names
    found = start.of(build.Run(**vars(made), dataset=dataset))
    assert found.fresh == {} and found.left == [] and found.remarks == []
    jax.tree.map(
        np.testing.assert_array_equal, found.given, (run.params, run.model_state)
    )
    # Three patches in a row, or as many as before: neither is a square of them.
    for size, count in {(16, 48, 3): 3, (16, 64, 3): 4}.items():
        other = build.steps(config, build.DataSpec(size, 10, 100, 5))
        found = start.of(build.Run(**vars(other), dataset=dataset))
        assert found.resized == ["params.positions"] * (name == "vit_s16")
        if found.resized:
            assert found.given[0]["positions"].shape == (1, 1 + count, 64)
            assert not np.array_equal(
                found.given[0]["positions"], run.params["positions"]
            )


def test_a_network_that_timm_does_not_have_is_not_exported(tiny, tmp_path):
    run = runs.untrained(tiny(), tmp_path)
    with pytest.raises(errors.UserError, match="timm has no network like this one"):
        export.export(run, "timm", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("option", "value"), [("gelu", "tanh"), ("norm_eps", 1e-2)])
def test_a_vit_that_timm_computes_otherwise(tiny, tmp_path, option, value):
    pytest.importorskip("safetensors")
    plain = {"model.name": "vit_ti16", "model.width": 64, "model.options": {"depth": 1}}
    changes = plain | {"model.options": {"depth": 1, option: value}}
    shape, path = (16, 16, 3), tmp_path / "x.safetensors"
    with pytest.raises(
        errors.UserError, match=rf"timm's network has {option}=.*{value}"
    ):
        export.export(runs.untrained(tiny(**changes), tmp_path, shape), "timm", path)
    assert not path.exists()
    # Nor is it silent in the other direction.
    run = runs.untrained(tiny(**plain), tmp_path / "plain", shape)
    export.export(run, "timm", path)
    made = build.steps(
        tiny(**changes, init_from=f"timm:{path}"), build.DataSpec(shape, 10, 100, 5)
    )
    dataset = types.SimpleNamespace(class_names=run.class_names)
    [remark] = start.of(build.Run(**vars(made), dataset=dataset)).remarks
    assert f"were trained with {option}=" in remark


# ── As the docs say ──────────────────────────────────────────────────────────────────


def test_the_recipe_of_low_rank_adaptation(tiny, tmp_path, monkeypatch):
    text = (runs.ROOT / "docs" / "fine_tuning.md").read_text()
    [recipe] = re.findall(r"```python\n# my_lora.py\n(.*?)```", text, re.DOTALL)
    [freeze] = re.findall(r'--config.freeze="(.*lora.*)"', text)
    (tmp_path / "my_lora.py").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    own = {"model.name": "my_lora.py:network", "model.options": {}, "model.width": None}
    made = build.steps(
        tiny(**own, freeze=freeze), build.DataSpec((32, 32, 3), 10, 100, 5)
    )
    shapes = jax.eval_shape(made.init, made.seed)
    trained = [x.shape for x in jax.tree.leaves(shapes.params)]
    # Two terms of two layers in each of twelve blocks, and the head.
    assert len(trained) == 12 * 2 * 2 + 2
    assert sorted(set(trained)) == [(8, 384), (10,), (384, 8), (384, 10)]


@pytest.mark.slow("trains three runs of cards")
def test_the_card_ends_better_than_from_scratch(tmp_path, optimized):
    flags = ("mesh.data=1", "eval_every_epochs=30", "checkpoint.every_epochs=30")

    def accuracy(card, name, *changes):
        config = cards.load(card, *changes, *map("--config.{}".format, flags))
        results = loop.train_and_evaluate(config, tmp_path / name)
        return results["last"]["test"]["accuracy"]

    tuned = str(runs.ROOT / "configs" / "digits_finetune_sam.py")
    first = ("--config.data.name=digits/0-4", "--config.epochs=10")
    assert accuracy(runs.DIGITS, "first", *first) > 0.97
    init_from = f"--config.init_from={tmp_path / 'first'}@last"
    seeds = ("--config.seed=1", "--config.data.seed=1")
    scratch = accuracy(tuned, "scratch", *seeds)
    assert accuracy(tuned, "second", init_from, *seeds) > scratch + 0.01
    # The same card takes other data, here grey images in a folder for each class.
    for number in range(40):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        images.write(path, images.pixels(number, side=8)[..., 0])
    other = {"data.name": "folder", "data.path": tmp_path / "images", "epochs": 1}
    other |= {"data.train_examples": None, "batch_size": 8, "data.cache_dir": ""}
    other = [f"--config.{key}={value}" for key, value in other.items()]
    accuracy(tuned, "third", init_from, *other)
    report = json.loads((tmp_path / "third" / start.FILE).read_text())
    assert set(report["fresh"]) == {"params.Dense_0.bias", "params.Dense_0.kernel"}
    assert len(report["matched"]) > 10
