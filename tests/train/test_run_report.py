"""A run ends in a report, which never stands in the way of the run."""

import base64
import dataclasses
import io
import json
import signal

import numpy as np
import PIL.Image
import pytest

from sam_jax import commands, page
from sam_jax.train import build, examined, loaded, loop
from tests.train.ended import go_on, warnings


def test_the_report_shows_the_predictions_of_the_last_evaluation(both, tmp_path):
    kept = examined.read(both.ended)
    run = loaded.load_run(both.ended, "last")
    expected = run.evaluate()
    assert kept["step"] == 12 and kept["examples"] == expected.examples
    for name in ("accuracy", "loss", "ece", "nll", "top_5"):
        assert kept[name] == pytest.approx(getattr(expected, name), rel=1e-5), name
    np.testing.assert_array_equal(kept["confusion"], expected.confusion)
    np.testing.assert_allclose(kept["bins"], expected.bins, rtol=1e-4)
    surest = kept["mistakes"][0]
    assert surest["index"] == expected.mistakes[0]["index"]
    image = PIL.Image.open(io.BytesIO(base64.b64decode(surest["image"])))
    pixels = build.load_data(run.config.data).test.split.images
    np.testing.assert_array_equal(np.asarray(image), pixels[surest["index"], ..., 0])
    text = (both.ended / "report.html").read_text()
    assert f"{100 * (1 - kept['accuracy']):.2f}" in text and surest["image"] in text
    # Without them, the command evaluates.
    folder = both.copy("ended", tmp_path)
    before = (folder / "scores.json").read_text()
    (folder / "scores.json").unlink()
    assert commands.main(["report", str(folder)]) == 0
    assert not (folder / "scores.json").exists()
    assert commands.main(["report", str(folder), "--evaluate"]) == 0
    again = examined.read(folder)
    assert again["nll"] == pytest.approx(json.loads(before)["nll"], rel=1e-5)
    assert surest["image"] in (folder / "report.html").read_text()


def test_a_run_that_was_stopped_has_a_report_as_well(both):
    text = (both.stopped / "report.html").read_text()
    assert "not finished: 1.5 of 3 epochs" in text
    assert not (both.stopped / "scores.json").exists()


@pytest.mark.parametrize("how", ["off", "no_images"])
def test_a_report_is_as_the_run_asks_for(both, tmp_path, how):
    config = dataclasses.replace(both.config, report=how)
    folder = both.copy("stopped", tmp_path)
    (folder / "report.html").unlink()
    loop.train_and_evaluate(config, folder)
    assert (folder / "report.html").exists() == (how != "off")
    kept = examined.read(folder)
    assert kept is None if how == "off" else kept["mistakes"][0]["image"] is None


def test_a_report_that_cannot_be_written_ends_no_run(
    both, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(page, "text", no_report)
    monkeypatch.setattr(examined, "write", no_report)
    folder = both.copy("stopped", tmp_path)
    (folder / "report.html").unlink()
    _, shown = go_on(both, folder, capsys)
    first, second = warnings(shown)
    assert "scores.json could not be written" in first and "No space left" in first
    assert "report.html could not be written" in second
    assert "report  " not in shown, "nothing is shown that is not there"


def test_a_run_without_an_evaluation_has_no_report(both, tmp_path, disturb, capsys):
    disturb(2, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(loop.Stopped):
        loop.train_and_evaluate(both.config, tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
    assert not warnings(capsys.readouterr().out)


def no_report(*_, **__):
    raise OSError(28, "No space left on device")


def test_no_report_hides_the_first_error(both, tmp_path, monkeypatch, disturb):
    monkeypatch.setattr(page, "text", no_report)

    def crash():
        raise ZeroDivisionError

    disturb(7, crash)  # after an evaluation
    with pytest.raises(ZeroDivisionError):
        loop.train_and_evaluate(both.config, tmp_path / "run")
