"""What the terminal shows: few plain lines in a file, a bar that cleans up after it."""

import io
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from sam_jax.train import report


class Clock:
    """A time that passes only when told to."""

    now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def plain():
    return io.StringIO()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def run(out, clock, steps=10, seconds=1.0):
    """Twenty examples per step, an evaluation every five steps."""
    out.progress(0, steps, 20)
    for step in range(1, steps + 1):
        clock.now += seconds
        out.step(step, {"loss": 1 / step, "accuracy": 0.5, "examples_per_second": 40.0})
        if step % 5 == 0:
            clock.now += 2
            scores = {"loss": 0.25, "accuracy": 0.9}
            out.evaluation(
                step / 5, steps / 5, step, {"validation": scores, "test": scores}
            )


# ── Plain lines


def test_an_evaluation_is_one_line_with_all_that_matters(plain, clock):
    with report.Report(plain, clock=clock) as out:
        run(out, clock)
    assert plain.getvalue().splitlines() == [
        # The mean of 1, 1/2, ..., 1/5; five steps and two seconds of evaluation.
        "epoch 1/2  step 5  train loss 0.4567 acc  50.00 %"
        "  val loss 0.2500 acc  90.00 %  test loss 0.2500 acc  90.00 %  40 ex/s  7.0 s",
        "step 8/10 (80 %)  loss 0.1250  acc  50.00 %  40 ex/s  3.0 s left",
        "epoch 2/2  step 10  train loss 0.1291 acc  50.00 %"
        "  val loss 0.2500 acc  90.00 %  test loss 0.2500 acc  90.00 %  40 ex/s  7.0 s",
    ]


def test_means_and_speed_weigh_rows_by_their_steps(plain, clock):
    with report.Report(plain, clock=clock) as out:
        out.progress(100, 200, 10)
        out.step(103, {"loss": 1.0, "examples_per_second": 10.0})  # three seconds
        out.step(104, {"loss": 5.0, "examples_per_second": 2.0})  # five seconds
        out.evaluation(1, 2, 104, {})
    assert "train loss 2.0000  5 ex/s" in plain.getvalue()


def test_an_evaluation_without_training_or_progress(plain):
    with report.Report(plain) as out:
        out.evaluation(0, 60, 0, {"test": {"loss": 2.5}})
        out.evaluation(10 / 3, 60, 0, {"test": {"accuracy": 1.0}})
    assert plain.getvalue().splitlines() == [
        "epoch  0/60  step 0  test loss 2.5000",
        "epoch 3.33/60  step 0  test acc 100.00 %",
    ]


@pytest.mark.parametrize(("hours", "most"), [(0.01, 4), (1, 250), (100, 500)])
def test_the_log_of_a_long_run_stays_short(plain, clock, hours, most):
    steps = 20000
    with report.Report(plain, clock=clock) as out:
        out.progress(0, steps, 20)
        for step in range(1, steps + 1):
            clock.now += hours * 3600 / steps
            out.step(step, {"loss": 0.5})
    lines = plain.getvalue().count("\n")
    assert most / 2 < lines <= most


def test_the_time_left_of_a_resumed_run_counts_only_its_own_steps(plain, clock):
    with report.Report(plain, clock=clock, interval=1.0) as out:
        out.progress(900, 1000, 20)
        for step in range(901, 911):
            clock.now += 2
            out.step(step, {"loss": 0.5})
    assert plain.getvalue().splitlines()[-1] == (
        "step 910/1000 (91 %)  loss 0.5000  3 min 00 s left"
    )


def test_a_file_gets_no_control_characters_and_no_wrapped_lines(
    plain, clock, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    command = "python -m sam_jax.main " + "--config.method.rho=0.05 " * 20
    with report.Report(plain, clock=clock, interval=0.5) as out:
        out.header({"continue": command})
        run(out, clock)
        out.warning("[red]not markup[/] " + "x" * 200)
        out.summary([{"weights": "last", "test accuracy": 0.5}], {"directory": "/run"})
    text = plain.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert f"continue  {command}\n" in text
    assert f"warning: [red]not markup[/] {'x' * 200}\n" in text


def test_fields_are_aligned(plain):
    with report.Report(plain) as out:
        out.header({"method": "sam", "batch size": "128"})
        out.header({})
    assert plain.getvalue() == "method      sam\nbatch size  128\n"


def test_the_summary_is_a_table_above_fields(plain):
    rows = [
        {"weights": "last", "epoch": 60.0, "test error": 0.0688, "test loss": 0.31},
        {"weights": "best", "epoch": 55, "test error": 0.1},
    ]
    with report.Report(plain) as out:
        out.summary(rows, {"wall time": report.duration(754)})
    assert plain.getvalue().splitlines() == [
        "",
        "weights  epoch  test error  test loss",
        "last        60      6.88 %     0.3100",
        "best        55     10.00 %          -",
        "",
        "wall time  12 min 34 s",
    ]


def test_a_summary_of_nothing_is_no_error(plain):
    with report.Report(plain) as out:
        out.summary([])
    assert plain.getvalue().strip() == ""


def test_quiet_writes_nothing(terminal, clock):
    stdout = sys.stdout
    with report.Report(terminal, quiet=True, clock=clock) as out:
        out.header({"method": "sam"})
        run(out, clock, seconds=100.0)
        assert sys.stdout is stdout  # What others print is their affair.
        out.warning("no")
        out.summary([{"weights": "last"}])
    assert terminal.getvalue() == ""


def test_steps_come_after_progress(plain):
    with report.Report(plain) as out, pytest.raises(RuntimeError, match="progress"):
        out.step(1, {"loss": 0.5})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.30259, "2.3026"), (1e10, "1e+10"), (float("inf"), "inf"), (0.0, "0")],
)
def test_numbers(value, shown):
    assert report.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(99.96, "1 min 40 s"), (5999, "99 min 59 s"), (6000, "1 h 40 min")],
)
def test_durations(seconds, shown):
    assert report.duration(seconds) == shown


# ── A terminal

HIDE, SHOW, ERASE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


def test_a_terminal_has_a_bar_and_whole_lines_above_it(terminal, clock):
    with report.Report(terminal, clock=clock) as out:
        run(out, clock)
        assert HIDE in terminal.getvalue()
        assert SHOW not in terminal.getvalue()
        out.message("a line")
        out.summary([{"weights": "last", "epoch": 2}])
    text = terminal.getvalue()
    assert text.count(HIDE) == text.count(SHOW) == 1
    # Where a line is printed the bar has just been erased.
    for line in ("a line", "\x1b[1mepoch 1/2"):
        assert f"{ERASE}{line}" in text
    # The bar is gone when the summary comes.
    after = text[text.index(SHOW) + len(SHOW) :]
    assert text.rindex(ERASE) > text.rindex("━")
    assert "weights  epoch" in re.sub(r"\x1b\[\d*m", "", after)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (130, "epoch 1/2  step 5  train loss 0.4567 acc  50.00 %  val loss"),
        (
            88,
            "epoch 1/2  train 0.457  50.00 %  val 0.250  90.00 %  test 0.250  90.00 %"
            "  40 ex/s  7.0 s\n",
        ),
        (
            79,
            "epoch 1/2  train 0.457  50.00 %  val 0.250  90.00 %  test 0.250  90.00 %"
            "  7.0 s\n",
        ),
    ],
)
def test_a_line_is_as_wide_as_the_terminal(
    terminal, clock, monkeypatch, columns, shown
):
    monkeypatch.setenv("COLUMNS", str(columns))
    with report.Report(terminal, clock=clock) as out:
        run(out, clock)
        out.summary([{"weights of": "last", "validation accuracy": 0.5, "x": "y" * 70}])
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", terminal.getvalue())
    assert shown in text
    if columns < 130:
        assert max(len(line) for line in text.splitlines() if "step" not in line) <= 88


def test_a_reader_that_leaves_is_an_error_of_the_caller(terminal):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, report.Report(pipe) as out:
        with pytest.raises(BrokenPipeError):
            out.message("a line")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # what is left goes there


def test_the_bar_of_a_resumed_run_begins_where_it_stopped(terminal):
    with report.Report(terminal) as out:
        out.progress(900, 1000, 20)
    assert "step 900/1000" in terminal.getvalue()
    assert " 90 %" in terminal.getvalue()


def test_no_color(terminal, clock, monkeypatch):
    def colors(text):
        return re.findall(r"\x1b\[[0-9;]*(?:3|9)[0-7]m", text)

    with report.Report(terminal, clock=clock) as out:
        run(out, clock)
    assert colors(terminal.getvalue())
    monkeypatch.setenv("NO_COLOR", "1")
    uncolored = Terminal()
    with report.Report(uncolored, clock=clock) as out:
        run(out, clock)
    assert "epoch 1/2" in uncolored.getvalue()
    assert not colors(uncolored.getvalue())


def test_a_dumb_terminal_gets_plain_lines(terminal, clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with report.Report(terminal, clock=clock) as out:
        run(out, clock)
    assert "epoch 1/2" in terminal.getvalue()
    assert "step 8/10 (80 %)" in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


def test_ctrl_c_leaves_the_terminal_clean():
    code = (
        "import time\n"
        "from sam_jax.train import report\n"
        "with report.Report() as out:\n"
        "    out.progress(0, 10, 20)\n"
        "    out.step(1, {'loss': 0.5})\n"
        "    out.message('ready')\n"
        "    time.sleep(60)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    text = ""
    try:
        while "ready" not in text:
            text += os.read(ours, 4096).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        while True:
            text += os.read(ours, 4096).decode(errors="replace")
    except OSError:  # The other side is closed.
        pass
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert text.count(HIDE) == 1
    assert SHOW in text.partition("ready")[2]
    assert text.endswith(ERASE) or text.rstrip().endswith(SHOW)
