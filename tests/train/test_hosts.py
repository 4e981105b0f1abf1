"""Which processes make a run, and what they agree upon, as one process can tell."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time

import jax
import pytest

from sam_jax import data, errors
from sam_jax.train import agreement, build, hosts, settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("h:1", None, None), "--num_processes and --process_id missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("h:1", 2, 2), r"--process_id=2 must be in \[0, 1\]"),
        (("h:1", 2, -1), "--process_id=-1 must be in"),
        (("h:1", 0, 0), "--num_processes=0 must be at least 1"),
        (("host", 2, 1), "--coordinator=host must be HOST:PORT"),
        ((":1", 2, 1), "--coordinator=:1 must be HOST:PORT"),
        (("host:0", 2, 1), "must be HOST:PORT"),
        (("host:70000", 2, 1), "must be HOST:PORT"),
        (("no-such-host.invalid:1", 2, 1), "no process 0 at --coordinator=no-such"),
    ],
)
def test_flags_that_do_not_fit(settings, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        hosts.join(*settings, detect=False, timeout=1)
    assert "\n" not in str(raised.value)


def test_explicit_flags_and_the_cluster_exclude_each_other():
    with pytest.raises(errors.UserError, match="either --distributed or the three"):
        hosts.join("h:1", None, None, detect=True, timeout=1)
    with pytest.raises(errors.UserError, match="at least 1 second"):
        hosts.join(None, None, None, detect=True, timeout=0)


def test_a_port_in_use_is_refused():
    with (
        socket.create_server(("", 0)) as server,
        pytest.raises(
            errors.UserError, match=r"cannot listen at --coordinator=.*free port"
        ),
    ):
        port = server.getsockname()[1]
        hosts.join(f"127.0.0.1:{port}", 2, 0, detect=False, timeout=1)


@pytest.fixture
def connects(monkeypatch):
    """Arguments that JAX is called with."""
    called = []
    monkeypatch.setattr(
        hosts, "_connect", lambda _, **arguments: called.append(arguments)
    )
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)
    return called


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_process_0_listens_at_the_given_address(host, connects, free_port):
    address = f"{host}:{free_port}"
    hosts.join(address, 2, 0, detect=False, timeout=1)
    assert connects[0]["coordinator_bind_address"] == address
    with socket.create_server(("127.0.0.1", free_port)):
        hosts.join(address, 2, 1, detect=False, timeout=1)
    assert connects[1]["coordinator_bind_address"] is None  # it does not listen


def test_the_variable_of_jax_decides_where_to_listen(connects, free_port, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", f"[::]:{free_port}")
    hosts.join(f"10.1.2.3:{free_port}", 2, 0, detect=False, timeout=1)
    assert connects[0]["coordinator_bind_address"] is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.1.1", None), ("127.0.0.1", None), ("192.0.2.7", "refused")],
)
def test_the_name_of_a_host(address, expected, connects, free_port, monkeypatch):
    """One that means the loopback here is known to others by another address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, free_port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    if expected == "refused":  # no address of this machine
        with pytest.raises(errors.UserError, match="give an address of its host"):
            hosts.join(f"node7:{free_port}", 2, 0, detect=False, timeout=1)
    else:
        hosts.join(f"node7:{free_port}", 2, 0, detect=False, timeout=1)
        assert connects[0]["coordinator_bind_address"] is None


@pytest.mark.slow("a process that listens")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_else_is_open(host, free_port):
    program = f"""
import pathlib
from sam_jax.train import hosts
hosts.join("{host}:{free_port}", 1, 0, detect=False, timeout=30)
for family in ("tcp", "tcp6"):
    for line in pathlib.Path("/proc/net", family).read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == "0A" and int(local.split(":")[1], 16) == {free_port}:
            print(local.split(":")[0])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    # 127.0.0.1, written as IPv6, and ::1
    loopback = {"0100007F", "0" * 16 + "FFFF00000100007F", "0" * 24 + "01000000"}
    assert ran.stdout.split() and set(ran.stdout.split()) <= loopback


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (jax.errors.JaxRuntimeError("connection closed"), True),
        (TimeoutError("barrier"), True),
        (errors.UserError("could not save"), True),
        (agreement.Refused("a mistake"), False),
        (ValueError("a fault"), False),
    ],
)
def test_what_may_come_of_a_loss_waits_for_the_runtime(error, waits, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for number, expected in ((2, waits), (1, False)):
        monkeypatch.setattr(hosts, "several", lambda number=number: number > 1)
        with pytest.raises(type(error)), hosts.patient():
            raise error
        assert [seconds > hosts.HEARTBEAT_SECONDS for seconds in slept] == [True] * (
            expected
        )
        slept.clear()
    monkeypatch.setattr(hosts, "several", lambda: True)
    with pytest.raises(RuntimeError), hosts.patient():
        raise RuntimeError from error
    assert bool(slept) == (waits and not isinstance(error, errors.UserError))


@pytest.fixture
def other_says(monkeypatch):
    """``other_says(text)``: there is a process 1, and this is what it tells."""

    def install(text):
        monkeypatch.setattr(hosts, "several", lambda: True)
        monkeypatch.setattr(hosts, "is_first", lambda: True)
        monkeypatch.setattr(agreement, "exchange", lambda own: [own, text])

    return install


def test_different_data_are_refused(tiny, other_says):
    own = build.build(tiny()).dataset
    others = build.build(tiny(**{"data.label_noise": 0.1})).dataset
    other_says(json.dumps(data.class_counts(own) | data.fingerprint(own)))
    assert agreement.check_same_data(own) is None
    other_says(json.dumps(data.class_counts(others) | data.fingerprint(others)))
    with pytest.raises(
        agreement.Refused, match=r"different data \(train labels: \w+ and"
    ):
        agreement.check_same_data(own)


def test_different_settings_are_refused(tiny, other_says):
    own = tiny()

    def said(config, workdir):
        own = {"config": json.loads(settings.to_json(config)), "workdir": workdir}
        return json.dumps(agreement._flat(own))

    lies = {"data.data_dir": "elsewhere", "data.path": "a", "data.cache_dir": "b"}
    other_says(said(tiny(**lies), "run"))
    assert agreement.check_same(own, "run") is None
    other_says(said(tiny(**{"method.rho": 0.3, "mesh.data": 2}), "runs"))
    with pytest.raises(agreement.Refused, match="0 and 1 were started with") as raised:
        agreement.check_same(own, "run")
    for difference in ("mesh.data: 1 and 2", "rho: 0.05 and 0.3", "run and runs"):
        assert difference in str(raised.value)


def test_a_mistake_of_another_process_is_told(other_says):
    other_says("in use")
    with (
        pytest.raises(agreement.Refused, match="process 1 stops the run: in use"),
        agreement.agreed(),
    ):
        pass


@pytest.mark.parametrize(
    ("is_first", "message"),
    [(True, "process 1 stops the run: not here"), (False, "is not seen here: give a")],
)
def test_a_folder_that_is_not_shared_is_refused(
    is_first, message, monkeypatch, tmp_path
):
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "is_first", lambda: is_first)
    monkeypatch.setattr(hosts, "SEEN_SECONDS", 0)
    # Process 0 names a file and makes it; then process 1 says whether it sees it.
    last = "not here" if is_first else ""
    said = iter([["", ""], ['".shared-0"', ""], ["", ""], ["", last]])
    monkeypatch.setattr(agreement, "exchange", lambda own: next(said))
    with pytest.raises(agreement.Refused, match=message):
        agreement.check_shared(tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("403 Forbidden\nmore"), r"connect \(403 Forbidden\): fix"),
        (ValueError("no coordinator"), r"finds no cluster \(no coordinator\): give"),
    ],
)
def test_a_cluster_that_does_not_answer_is_one_line(error, message, monkeypatch):
    def initialize(**arguments):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(hosts, "_at_abort", lambda handler: None)
    with pytest.raises(errors.UserError, match=message) as raised:
        hosts.join(None, None, None, detect=True, timeout=1)
    assert "\n" not in str(raised.value)


# ── One process ──────────────────────────────────────────────────────────────────────


def test_one_process_agrees_with_itself(tmp_path):
    hosts.join(None, None, None, detect=False, timeout=1)
    assert not hosts.several()
    assert hosts.is_first()
    assert agreement.exchange("text") == ["text"]
    assert agreement.from_first(lambda: pathlib.Path("no JSON")) == pathlib.Path(
        "no JSON"
    )
    mistake = errors.UserError("mine")
    with pytest.raises(errors.UserError) as raised, agreement.agreed():
        raise mistake
    assert raised.value is mistake
    with agreement.on_first(lambda: contextlib.nullcontext("mine"), "others'") as value:
        assert value == "mine"
    agreement.check_shared(tmp_path / "nothing")
    assert (hosts.leave(3), hosts.abandon(4)) == (3, 4)
