"""Settings of every test and doctest, made before JAX starts.

There are eight CPU devices. Compiled programs are kept below ``.pytest_cache``, for the
other workers, the programs that tests start and the next run. A process that has grown
forgets what it compiled; the end of a run tells how large each one was.
"""

import ctypes
import gc
import hashlib
import os
import pathlib
import resource
import shutil
import signal
import sys

import pytest

from sam_jax.train import environment

GIB = 2**30
DEVICES = "--xla_force_host_platform_device_count"
STORED = 2 * GIB  # more compiled programs than this on disk are thrown away


def instructions() -> str:
    """Names the CPU's instruction set, which JAX's keys of programs leave out."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "any"
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    return hashlib.sha256("".join(flags[:1]).encode()).hexdigest()[:8]


PROGRAMS = pathlib.Path(__file__).parent / ".pytest_cache" / f"jax-{instructions()}"


# JAX reads these when it is imported, which conftests of folders do before any hook.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ["SAM_JAX_CPU_FLAGS"] = "0"  # programs that tests start round as these
os.environ["MPLBACKEND"] = "Agg"
for flag in (f"{DEVICES}=8", *(environment.TINY if environment.is_tested() else ())):
    if flag.partition("=")[0] not in (flags := os.environ.get("XLA_FLAGS", "")):
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()

# A shell starts what is behind an & with Ctrl-C ignored, which the programs that tests
# start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Registers ``Memory``; throws compiled programs away where they are too many."""
    config.pluginmanager.register(Memory(config), "memory")
    is_worker = hasattr(config, "workerinput")
    if not is_worker and sum(p.stat().st_size for p in PROGRAMS.glob("*")) > STORED:
        shutil.rmtree(PROGRAMS)


def pytest_collection_finish():
    """Keeps what was imported out of garbage collections, and has fewer of these."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    """Programs are compiled in half of the time, and run a few times only."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def optimized():
    """Programs are compiled as a user's: what they hold in memory, how they round."""
    import jax

    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


class Memory:
    """Clears JAX's caches when the process has grown, and reports peaks.

    The peaks are those of the processes that ran tests, not of what these started.
    """

    BOUND = 1.2 * GIB
    GROWTH = 0.2 * GIB  # what must be new before the next time

    def __init__(self, config):
        self.config, self.bound, self.cleared = config, self.BOUND, 0
        self.peaks: dict[str, tuple[int, int]] = {}

    def pytest_runtest_logfinish(self):
        """After a test: makes the process small again."""
        if "jax" not in sys.modules or self.resident() < self.bound:
            return
        sys.modules["jax"].clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        self.cleared += 1
        self.bound = max(self.BOUND, self.resident() + self.GROWTH)

    @staticmethod
    def resident() -> int:
        """Bytes that this process holds now; 0 where the system does not say."""
        try:
            pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * resource.getpagesize()

    def pytest_sessionfinish(self):
        """At the end of a process: remembers, or sends, how large it was."""
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if hasattr(self.config, "workerinput"):
            self.config.workeroutput["memory"] = peak, self.cleared
        elif not self.peaks:
            self.peaks["main"] = peak, self.cleared

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """In the main process, when a worker has ended."""
        if "memory" in (output := getattr(node, "workeroutput", {})):
            self.peaks[node.gateway.id] = output["memory"]

    def pytest_terminal_summary(self, terminalreporter):
        """The largest sizes, by process."""
        terminalreporter.section("peak memory")
        for name, (peak, cleared) in sorted(self.peaks.items()):
            terminalreporter.line(
                f"{name}: {peak / GIB:.2f} GiB, caches cleared {cleared} times"
            )
