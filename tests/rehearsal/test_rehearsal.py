"""What is read from compiled programs, and the command, on devices that JAX has."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from importlib import metadata

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_jax import errors
from sam_jax.rehearsal import hlo, processes, programs, report, topologies
from sam_jax.train import build, cards
from tests.train import test_commands

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ("--config.model.name=mlp", "--config.model.width=8", "--config.batch_size=64")


# ── Topologies ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "name", "size"),
    [
        ("v5e:4x4", "v5e:4x4", 16),
        ("v5litepod-256", "v5e:16x16", 256),
        ("v5p-32", "v5p:2x2x4", 16),  # named by cores
        ("v4-8", "v4:2x2x1", 4),
        ("v6e-8*4", "v6e:2x4*4", 32),
        ("v3:2x2", "v3:2x2", 8),  # a device for each core
    ],
)
def test_slices_by_their_names(text, name, size):
    found = topologies.read(text)
    assert (found.name, found.size) == (name, size)
    assert topologies.read(found.name) == found


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("v5e:44", "v5e:4x4"),
        ("v5e:2x2x2", "v5e:2x2"),
        ("v7:2x2", "v6e:2x2"),
        ("v5e-17", "v5e:16x16"),
        ("", "v3:2x2"),
        ("v5e:4x4*0", "v5e:4x4"),
        ("v5litepod-16*0", "v5e:4x4"),
    ],
)
def test_an_unknown_slice_is_answered_by_the_nearest(text, near):
    with pytest.raises(errors.UserError, match="unknown topology") as error:
        topologies.read(text)
    assert near in str(error.value)


@given(st.sampled_from(["v5e:4x4", "v5e:16x16", "v4:4x4x4"]), st.integers(2, 16))
def test_a_collective_takes_longer_with_more_bytes_and_never_less_than_its_hops(
    name, devices
):
    slice_ = topologies.read(name)
    nothing, much = (slice_.seconds(sent, devices) for sent in (0, 1e9))
    ways = {"v5e:4x4": 2, "v5e:16x16": 4, "v4:4x4x4": 6}[name]
    assert nothing > 0
    assert much - nothing == pytest.approx(1e9 / (45e9 * ways))


# ── Text of programs ─────────────────────────────────────────────────────────────────


PROGRAM = """
%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[2,4]{1,0} parameter(0)
  %w = bf16[4,8]{1,0} parameter(1)
  %product = f32[2,8]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
  ROOT %inner = f32[8]{0} all-reduce(%product), replica_groups=[2,2]<=[2,2]T(1,0), \
to_apply=%sum, metadata={op_name="jit(train_step)/first_pass/while/body/reduce_sum"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%t), condition=%condition, body=%body
  %stat = (f32[8]{0}, f32[8]{0}) all-reduce-start(%a, %b), replica_groups={{0,1,2,3}}, \
to_apply=%sum, metadata={op_name="jit(train_step)/second_pass/BatchNorm_0/reduce_sum"}
  %whole = (f32[4,2]{1,0}, f32[16,2]{1,0}) all-gather-start(%c), \
replica_groups=mesh['a'=2,'b'=2] {'a','b'}, dimensions={0}
  %part = f32[8]{0} reduce-scatter(%c), replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}, \
to_apply=%sum, metadata={op_name="jit(train_step)/metrics/add"}
  %send = (f32[3,8,128]{2,1,0}, u32[], token[]) send(%x, %after), frontend_attributes=\
{_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:3}"}
  ROOT %out = f32[512,512]{0,1} copy(%x)
}
"""


def test_a_program_is_read_with_its_loops_and_places():
    program = hlo.Program(PROGRAM)
    inner, stat, whole, part, between = program.collectives()
    assert inner[:6] == ("all-reduce", (8,), 32, 2, "first pass", 3)
    np.testing.assert_array_equal(inner.groups, [[0, 2], [1, 3]])
    assert (stat.place, stat.bytes, stat.devices, stat.hidden) == (
        *("BatchNorm", 64, 4),
        True,
    )
    # XLA names no source of what it makes itself: that before it.
    assert (whole.bytes, whole.devices, whole.place) == (128, 4, "second pass")
    np.testing.assert_array_equal(part.groups, [[0, 1], [2, 3], [4, 5], [6, 7]])
    assert (part.place, part.sent) == ("metrics", 32)
    assert (between.name, between.sent) == (hlo.BETWEEN, 3 * 8 * 128 * 4)
    (product,) = program.products()
    assert (product.flops, product.times) == (2 * 2 * 4 * 8, 3)
    assert [each.name for each, _ in program.copies()] == ["out"]
    assert programs.loops(program) == 3


# ── A step ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def here(monkeypatch):
    """Slices are made of the devices that there are."""
    monkeypatch.setattr(
        topologies.Topology, "devices", lambda self: jax.devices()[: self.size]
    )
    yield topologies.read("v5e:2x4")
    programs.set_effort(0.0)  # as before


def told(topology, *changes):
    config = cards.load("digits_sam", *SMALL, *changes)
    return programs.told(config, topology, programs.shapes(config.data))


def test_a_rehearsal_of_a_step(here, tmp_path):
    found = told(here, "--config.accumulation_steps=4")
    assert found["fits"] and found["chips"] == 8 and found["per_chip"] == 8
    assert found["batch_norm"] == {"examples": 16, "one_chip": 8}
    assert found["loop_rounds"] == pytest.approx(4, rel=0.1)
    reduced = [row for row in found["collectives"] if row["kind"] == "all-reduce"]
    assert sum(row["bytes"] for row in reduced) > 2 * found["state_bytes"] / 2
    assert found["seconds"]["roofline"] > found["seconds"]["network"] > 0
    assert 0 < found["communication"] < 1
    assert [text.split()[0] for text in found["warnings"]] == ["the", "3"]
    text = report.table([found, found])
    assert text.startswith("|  | v5e:2x4 | v5e:2x4 |\n| --- ")
    assert "| BatchNorm's examples (one chip has) | 16 (8) | 16 (8) |" in text
    report.draw([found], tmp_path / "x.png", "x")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_warnings_before_a_step_is_compiled(here):
    config = cards.load("digits_sam", *SMALL, "--config.batch_size=24")
    run = programs.steps(config, here, programs.shapes(config.data))
    said = programs.warnings_of(config, run, 3)
    assert [text.split(":")[0] for text in said] == [
        "the network computes in float32, on a TPU in several passes through its units",
        "3 examples a chip are padded to 8",
        "3 of 3 kernels have fewer than 128 channels on a side, and are padded to that",
    ]

    def wider(state, batch):
        state, metrics = run.train_step(state, batch)
        return state._replace(step=state.step.astype("int64")), metrics

    with jax.enable_x64(True):
        changed = dataclasses.replace(run, train_step=wider)
        said = programs.warnings_of(config, changed, 8)
    assert any("the next one compiles again" in text for text in said)


def test_a_batch_that_the_chips_do_not_divide(here):
    with pytest.raises(errors.UserError, match="take 96 or 104"):
        told(here, "--config.batch_size=100")


def test_what_is_resident_and_what_is_streamed(here):
    given = "--config.steps_per_dispatch=10"
    assert "GiB of training images on every chip" in str(told(here, given)["warnings"])
    config = cards.load("digits_sam", *SMALL, given, "--config.data.stream=True")
    with pytest.raises(errors.UserError, match="steps_per_dispatch needs the training"):
        programs.steps(config, here, programs.Shapes((8, 8, 1), 10, 1000))


def test_a_mesh_of_fewer_chips_is_refused(here):
    with pytest.raises(errors.UserError, match=r"config\.mesh takes 4 of the 8 chips"):
        told(here, "--config.mesh.data=4")


def test_more_steps_that_cut_groups_are_advised(here):
    config = cards.load("digits_sam", *SMALL, "--config.method_group_size=16")
    run = programs.steps(config, here, programs.shapes(config.data))
    groups = config.batch_size // 16
    advice = programs.advice(run, 3e9, 2**31)
    assert f"--config.accumulation_steps={2 * groups}" in advice
    assert (
        build.build(
            dataclasses.replace(config, accumulation_steps=2 * groups)
        ).groups.chunks
        == 2
    )


@pytest.mark.parametrize(
    "said",
    [
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used "
        "20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries "
        "(20.50G) exceeds available HBM (15.75G).",
    ],
)
def test_what_does_not_fit_says_how_much_and_what_would(here, said):
    config = cards.load("digits_sam", *SMALL)
    run = programs.steps(config, here, programs.shapes(config.data))
    error = jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}")
    found = programs.too_large(error, run, 2**34)
    assert found["missing_bytes"] == 4.75 * 2**30
    assert found["advice"] == (
        "--config.accumulation_steps=2, --config.remat=True, "
        "--config.model.dtype=bfloat16, a smaller batch or more chips"
    )
    lost = {"topology": "v5e:2x4", "batch_size": 64, "per_chip": 8, "warnings": []}
    text = report.table([lost | found])
    assert "| fits | no: 4.75 GiB missing |" in text
    assert "needs 20.50 GiB of 15.75 GiB: try --config.accumulation_steps=2" in text
    with pytest.raises(errors.UserError, match="the compiler for TPUs fails: INTERNAL"):
        programs.too_large(jax.errors.JaxRuntimeError("INTERNAL: x"), run, 2**34)


# ── The command ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def answers(monkeypatch):
    """Requests are answered without a process; they are in the list."""
    asked = []

    def ask(wanted, waiting=None):
        asked.append(wanted)
        share = wanted["per_chip"] or 8
        result = {
            "topology": wanted["topology"],
            **{"chips": 8, "per_chip": share, "batch_size": 8 * share},
            **{"warnings": [], "hbm_bytes": 2**34, "fits": share <= 96},
        }
        if share > 96:
            sizes = {"needed_bytes": 2**35, "there_bytes": 2**34}
            return result | sizes | {"missing_bytes": 2**34, "advice": "remat"}
        return result | {"compile_seconds": 1.0}

    monkeypatch.setattr(processes, "check_compiler", lambda: None)
    monkeypatch.setattr(processes, "ask", ask)
    return asked


def said(capsys, *words):
    return test_commands.said(capsys, "rehearse", *words)


def test_the_command_asks_shows_and_writes(answers, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: None)
    words = ("--config=digits_sam", "--topology=v5e-8,v5e:4x4", f"--out={tmp_path}")
    code, out, err = said(capsys, *words, "--largest", "--config.seed=3")
    assert code == 0
    assert answers[0]["changes"] == ["--config.seed=3"]
    assert {wanted["topology"] for wanted in answers} == {"v5e:2x4", "v5e:4x4"}
    assert "| largest batch that fits | 768 | 768 |" in out
    assert "Predicted by the compiler, not run." in out
    assert "v5e:2x4, 4096 examples a chip" not in err
    assert "v5e:2x4, 96 examples a chip: compiled in 1 s" in err
    record = json.loads((tmp_path / "rehearsal.json").read_text())
    assert [r["largest_batch"] for r in record["results"]] == [768, 768]
    assert out.partition("\n\n")[2].strip() in (tmp_path / "rehearsal.md").read_text()


def test_of_several_slices_one_that_will_not_do_is_a_column(
    answers, capsys, monkeypatch
):
    real = processes.ask

    def ask(wanted, waiting=None):
        if wanted["topology"] == "v5e:4x4":
            raise errors.UserError("take 96 or 112")
        return real(wanted)

    monkeypatch.setattr(processes, "ask", ask)
    card = "--config=digits_sam"
    code, out, _ = said(capsys, card, "--topology=v5e:2x4,v5e:4x4")
    assert code == 0 and "| fits | yes | refused |" in out
    assert "warning: v5e:4x4: take 96 or 112" in out
    assert said(capsys, card, "--topology=v5e:4x4,v5e:4x4")[0] == 2
    code, _, err = said(capsys, card, "--topology=v5e:4x4")
    assert (code, err) == (2, "error: take 96 or 112\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config=digits_sam", "--topology=v5e:44"], "did you mean v5e:4x4"),
        (["--config=digits_sam"], "required: --topology"),
        (["--topology=v5e:2x2"], "--config is missing"),
        (["--config=digit_sam", "--topology=v5e:2x2"], "did you mean 'digits_sam'"),
        (["--config=digits_sam", "--topology=v5e:2x2", "--effort=2"], "in [-1, 1]"),
        (["--config=digits_sam", "--topology=v5e:2x2", "--image=8,x"], "integer >= 1"),
    ],
)
def test_mistakes_are_one_line(answers, capsys, words, message):
    code, _, err = said(capsys, *words)
    assert code == 2 and err.count("\n") == 1 and message in err
    assert answers == []


def test_the_compiler_that_is_missing_or_of_another_release(monkeypatch, capsys):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(processes.util, "find_spec", lambda name: None)
    words = "--config=digits_sam", "--topology=v5e:2x2"
    code, _, err = said(capsys, *words)
    needed = processes.required()
    assert needed.endswith(".*")
    assert (code, err.splitlines()) == (
        2,
        [
            "error: the compiler for TPUs is not installed: pip install "
            f'"libtpu=={needed}"'
        ],
    )
    monkeypatch.setattr(processes.util, "find_spec", lambda name: name)
    real = metadata.version
    monkeypatch.setattr(
        processes.metadata,
        "version",
        lambda name: "0.0.7" if name == "libtpu" else real(name),
    )
    code, _, err = said(capsys, *words)
    assert code == 2 and "libtpu 0.0.7 does not belong to jax" in err


def test_an_answer_comes_from_a_process_or_its_error_does(monkeypatch):
    """Here without the compiler: the mistakes of a request, and a process that dies."""
    wanted = {"card": "digits_sam", "changes": [], "topology": "v5e:9x9x9"}
    with pytest.raises(errors.UserError, match="unknown topology 'v5e:9x9x9'"):
        processes.ask(wanted)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(errors.UserError, match="ended with code 1"):
        processes.ask(wanted)


def test_the_environment_is_that_of_the_child_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    before = dict(os.environ)
    assert processes.environment()["TPU_SKIP_MDS_QUERY"] == "1"
    assert "XLA_FLAGS" not in processes.environment()
    assert dict(os.environ) == before


@pytest.mark.slow("compiles for TPUs")
def test_ctrl_c_ends_command_and_compiler(tmp_path):
    try:
        processes.check_compiler()
    except errors.UserError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "sam_jax", "rehearse", "--config=cifar10_sam"]
    process = subprocess.Popen(
        [*command, "--topology=v5e:2x2"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    group = process.pid

    def alive():
        lines = subprocess.run(
            ["ps", "-o", "args=", "-g", str(group)], capture_output=True, text=True
        )
        return "sam_jax.rehearsal" in lines.stdout

    deadline = time.monotonic() + 120
    while not alive() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    os.killpg(group, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.startswith("error: ended by SIGINT")
    while alive() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive()


@pytest.mark.slow("compiles for TPUs")
def test_the_command_with_the_real_compiler(tmp_path, capsys):
    try:
        processes.check_compiler()
    except errors.UserError as error:
        pytest.skip(str(error))
    words = ["--config=digits_sam", "--topology=v5e:2x4,v5e:2x2*2", *SMALL]
    words += [f"--out={tmp_path}", "--config.model.dtype=bfloat16"]
    code, out, _ = said(capsys, *words)
    assert code == 0
    one, two = json.loads((tmp_path / "rehearsal.json").read_text())["results"]
    assert one["chips"] == two["chips"] == 8
    kinds = {row["kind"] for row in two["collectives"]}
    assert hlo.BETWEEN in kinds and "| fits | yes | yes |" in out
    assert one["seconds"]["compiler"] > 0 and one["memory"]["peak"] > 0
    assert (tmp_path / "rehearsal.png").read_bytes().startswith(b"\x89PNG")
    # What is advised where it does not fit makes it fit.
    large = ["--config=digits_sam", "--topology=v5e:2x2", *SMALL]
    large[3] = "--config.model.width=40000"
    code, out, _ = said(capsys, *large)
    assert code == 0 and "| fits | no: " in out and "try --config.mesh.fsdp=4" in out
    code, out, _ = said(capsys, *large, "--config.mesh.fsdp=4")
    assert code == 0 and "| fits | yes |" in out
    code, _, err = said(capsys, *words[:1], "--topology=v5e:3x3")
    assert code == 2 and "the compiler refuses --topology=v5e:3x3" in err
