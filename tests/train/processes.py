"""Processes of one run, started as a user starts them."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.train import runs

DEVICES = 4  # of a run, whatever its processes
# Shuffling, label noise, augmentation and averages: all that is drawn at random. The
# first layer is cut over the devices, so that each process writes its own part of it.
SETTINGS = (
    *("--config.model.name=mlp", "--config.model.width=64", "--config.mesh.fsdp=4"),
    *("--config.data.train_examples=128", "--config.batch_size=32"),
    *("--config.data.label_noise=0.25", "--config.data.crop=1"),
    *("--config.ema_decay=0.9", "--config.log_every_steps=1", "--config.epochs=6"),
    *("--config.eval_every_epochs=3", "--config.checkpoint.every_epochs=3"),
)
LOST = "error: another process of this run ended (it says why) or cannot be reached"


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


class Processes:
    """Processes of one run, each with its share of the devices."""

    def __init__(self, number, folder, environment, *flags, own=None, port=None):
        self.folder = folder
        folder.mkdir()
        port = port or free_port()
        self.each = [
            self._start(
                process,
                environment,
                *(f"--coordinator=127.0.0.1:{port}", f"--num_processes={number}"),
                *(f"--process_id={process}", *flags, *(own or {}).get(process, ())),
            )
            for process in range(number)
        ]

    def _start(self, process, environment, *flags):
        """Of flags that are given several times, the last one counts."""
        last = {flag.partition("=")[0]: flag for flag in flags}
        home = self.folder / str(process)
        home.mkdir()
        with (home / "out").open("w") as out, (home / "err").open("w") as err:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sam_jax.main",
                    f"--config={runs.DIGITS}",
                    *last.values(),
                ],
                cwd=home,
                env=environment,
                stdout=out,
                stderr=err,
            )

    def out(self, process):
        """What a process has shown, but for the chatter of CPU collectives.

        That comes from several threads at once, also in the middle of each other.
        """
        lines = (self.folder / str(process) / "out").read_text().splitlines()
        return [
            line
            for line in lines
            if line and "[Gloo]" not in line and "peer ranks" not in line
        ]

    def err(self, process):
        return (self.folder / str(process) / "err").read_text().splitlines()

    def wait_for(self, text):
        """Until process 0 shows the text."""
        end = time.monotonic() + 300
        while not any(line.startswith(text) for line in self.out(0)):
            assert self.each[0].poll() is None, self.err(0)
            assert time.monotonic() < end, self.out(0)
            time.sleep(0.05)

    def codes(self, seconds=300):
        """The exit codes, once all have ended."""
        end = time.monotonic() + seconds
        return [each.wait(max(0, end - time.monotonic())) for each in self.each]

    def kill(self):
        for each in self.each:
            each.kill()
            each.wait()


@contextlib.contextmanager
def starter(folder: pathlib.Path) -> Iterator:
    """``start(2, "--config...")``: processes of a run that share the devices."""
    started = []

    def start(number, *flags, devices=None, **settings):
        each, quick = devices or DEVICES // number, runs.ONE_DEVICE["XLA_FLAGS"]
        environment = {
            **os.environ,
            **runs.ONE_DEVICE,
            "PYTHONPATH": str(runs.ROOT),
            "XLA_FLAGS": f"{quick} --xla_force_host_platform_device_count={each}",
        }
        home = folder / f"processes_{len(started)}"
        started.append(Processes(number, home, environment, *flags, **settings))
        return started[-1]

    yield start
    for processes in started:
        processes.kill()


def rows(folder):
    """Rows of metrics without what a clock measures."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return runs.comparable([json.loads(line) for line in lines])
