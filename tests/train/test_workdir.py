"""A folder is one run's: others, and other settings, are kept out."""

import dataclasses
import fcntl
import json
import pathlib

import optax
import pytest

from sam_jax import errors
from sam_jax.train import workdir


def claim(folder, config):
    with workdir.claimed(folder, config):
        pass


def refused(folder, config):
    with pytest.raises(errors.UserError) as raised:
        claim(folder, config)
    message = str(raised.value)
    assert "\n" not in message
    assert "give another --workdir" in message
    return message


def test_makes_the_folder_and_records_the_configuration(tmp_path, tiny):
    folder = tmp_path / "a" / "b"
    claim(folder, tiny(seed=7))
    stored = json.loads((folder / workdir.CONFIG_FILE).read_text())
    assert stored["seed"] == 7
    assert stored["method"] == {"name": "sam", "rho": 0.05, "eps": 1e-12, "mask": None}


def test_the_same_configuration_comes_back(tmp_path, tiny):
    claim(tmp_path, tiny())
    claim(tmp_path, tiny())
    assert (tmp_path / workdir.CONFIG_FILE).exists()


def test_another_configuration_is_refused_with_what_differs(tmp_path, tiny):
    claim(tmp_path, tiny())
    settings = {"method.rho": 0.3, "seed": 1, "log_every_steps": 7}
    message = refused(tmp_path, tiny(**settings))
    assert "method.rho: 0.05 -> 0.3; seed: 0 -> 1" in message
    assert "log_every_steps" not in message
    other = refused(tmp_path, tiny("unified_sam"))
    assert "method.name: sam -> unified_sam" in other


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("wandb.mode", "offline"),
        ("wandb.name", "x"),
        ("mesh.data", 8),
        ("log_every_steps", 7),
        ("checkpoint.every_epochs", 7),
        ("eval_batch_size", 7),
        ("data.data_dir", "x"),
        ("data.manual_dir", "x"),
        ("data.download", False),
        ("data.path", "x"),
        ("data.cache_dir", "x"),
    ],
)
def test_settings_that_compute_nothing_are_free(tmp_path, tiny, setting, value):
    claim(tmp_path, tiny())
    claim(tmp_path, tiny(**{setting: value}))
    stored = json.loads((tmp_path / workdir.CONFIG_FILE).read_text())
    for key in setting.split("."):
        stored = stored[key]
    assert stored == value, "the newest settings are recorded"


def test_a_foreign_folder_is_refused_and_left_as_it_was(tmp_path, tiny):
    (tmp_path / "thesis.tex").write_text("x")
    assert "not the folder of a run" in refused(tmp_path, tiny())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_address_is_refused(tmp_path, tiny, monkeypatch):
    """Else it would be a local folder of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError, match="not an address: two slashes follow"):
        claim(pathlib.Path("gs://bucket/run"), tiny())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, tiny):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "run", tmp_path / "file"):
        assert f"{tmp_path / 'file'} is not a folder" in refused(folder, tiny())
    (tmp_path / "link").symlink_to("nothing")
    assert "link is a link to nothing" in refused(tmp_path / "link", tiny())


def test_a_damaged_record_is_refused(tmp_path, tiny):
    claim(tmp_path, tiny())
    for damaged in (b'{"seed": ', b"\xff\xfe{}"):
        (tmp_path / workdir.CONFIG_FILE).write_bytes(damaged)
        assert "config.json is damaged" in refused(tmp_path, tiny())


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_texts_that_are_words_for_numbers_stay_texts(tmp_path, tiny, word):
    names = {"wandb.name": word, "wandb.project": word, "data.data_dir": word}
    free = {"limit": float("inf")}
    config = tiny(**names, **{"model.options": free, "augment.options": free})
    claim(tmp_path, config)
    assert workdir.stored(tmp_path) == config
    claim(tmp_path, dataclasses.replace(config, log_every_steps=9))


def test_a_schedule_that_a_card_has_made_continues(tmp_path, tiny):
    config = tiny(**{"method.rho": optax.constant_schedule(0.1)})
    claim(tmp_path, config)
    claim(tmp_path, config)


@pytest.mark.parametrize("left", [".lock", "config.tmp"])
def test_a_kill_before_the_record_was_written_does_no_harm(tmp_path, tiny, left):
    (tmp_path / left).write_text("{")
    claim(tmp_path, tiny())
    assert (tmp_path / workdir.CONFIG_FILE).exists()


def test_one_process_at_a_time(tmp_path, tiny):
    with workdir.claimed(tmp_path, tiny()):
        assert "another process is training in" in refused(tmp_path, tiny())
    claim(tmp_path, tiny())
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in refused(tmp_path, tiny())


def test_a_lock_that_is_a_link_is_refused(tmp_path, tiny):
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "theirs")
    with (
        pytest.raises(errors.UserError, match=r"cannot write to .*\.lock \("),
        workdir.claimed(tmp_path / "run", tiny()),
    ):
        pass
    assert (tmp_path / "theirs").read_text() == "kept"


def test_the_lock_is_given_back_after_an_error(tmp_path, tiny):
    with pytest.raises(ZeroDivisionError), workdir.claimed(tmp_path, tiny()):
        raise ZeroDivisionError
    claim(tmp_path, tiny())
    assert (tmp_path / ".lock").exists()


def test_a_fresh_folder_has_a_name_of_its_own(tmp_path, tiny, monkeypatch):
    class Noon(workdir.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 12, 0, 0)

    monkeypatch.setattr(workdir.datetime, "datetime", Noon)
    names = []
    for _ in range(3):
        folder = workdir.fresh(tiny(), tmp_path)
        assert not folder.exists()
        folder.mkdir()
        names.append(folder.relative_to(tmp_path))
    first = "2026-01-02_120000_digits_mlp_sam_rho0.05_seed0"
    assert names == [pathlib.Path(first + end) for end in ("", "_2", "_3")]
