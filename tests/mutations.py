"""Does a test notice if one line of the code is wrong?

Each mutant changes a sign, a factor, an index or an edge in a copy of the tree, and
runs the tests that should see it, fast tier::

    python -m tests.mutations            # all of them
    python -m tests.mutations methods    # those with this word in their file

It prints which mutants were caught and ends with 1 if one survived, with 2 if a mutant
no longer fits the code or its tests fail without it.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
CONTRACT = "tests/methods/contract"


class Mutant(NamedTuple):
    """One wrong line.

    Attributes:
        file: below the root of the tree.
        old: text that occurs exactly once in the file.
        new: what stands there instead.
        tests: arguments of pytest that select the tests meant to see it.
    """

    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    # ── Methods
    Mutant(
        "sam_jax/methods/core.py",
        "(count // every + 1) * every",
        "(count // every) * every",
        "tests/methods/test_looksam.py tests/methods/test_eigen_sam.py",
    ),
    Mutant(
        "sam_jax/methods/core.py",
        "lambda w, e: (w + e).astype(w.dtype)",
        "lambda w, e: (w - e).astype(w.dtype)",
        "tests/methods/test_sam.py",
    ),
    Mutant(
        "sam_jax/methods/ascent.py",
        "1 - lam + lam * inverse",
        "1 + lam + lam * inverse",
        "tests/methods/test_ascent.py",
    ),
    Mutant(
        "sam_jax/methods/numerics.py",
        "return _root(total) / factor",
        "return _root(total) * factor",
        "tests/methods/test_numerics.py",
    ),
    Mutant(
        "sam_jax/methods/ae_sam.py",
        "(1 - old) * jnp.square(square - mean)",
        "old * jnp.square(square - mean)",
        "tests/methods/test_ae_sam.py",
    ),
    Mutant(
        "sam_jax/methods/averages.py",
        "devices.agree(average)",
        "average",
        "tests/methods/test_averages.py",
    ),
    Mutant(
        "sam_jax/methods/averages.py",
        "(weight, updates), (1 - weight, state.average)",
        "(weight, updates), (weight, state.average)",
        "tests/methods/test_averages.py",
    ),
    Mutant(
        "sam_jax/methods/cadence.py",
        "return core.next_count(node) if is_count else node",
        "return node",
        "tests/methods/test_cadence.py",
    ),
    Mutant(
        "sam_jax/methods/momentum_sam.py",
        "lambda w, e: (w - e).astype(w.dtype)",
        "lambda w, e: (w + e).astype(w.dtype)",
        "tests/methods/test_momentum_sam.py",
    ),
    Mutant(
        "sam_jax/methods/gsam.py",
        "numerics.orthogonal(grads, perturbed_grads)",
        "numerics.orthogonal(perturbed_grads, grads)",
        "tests/methods/test_transcriptions.py --method=gsam",
    ),
    Mutant(
        "sam_jax/methods/looksam.py",
        "core.value_at(alpha, state.count)",
        "core.value_at(alpha, state.count + 1)",
        f"{CONTRACT}/test_contract.py --method=looksam",
    ),
    Mutant(
        "sam_jax/methods/wsam.py",
        "return share / (1 - share)",
        "return share / (1 + share)",
        "tests/methods/test_transcriptions.py --method=wsam",
    ),
    Mutant(
        "sam_jax/methods/cr_sam.py",
        "(-2 * second, grads)",
        "(-second, grads)",
        "tests/methods/test_transcriptions.py --method=cr_sam",
    ),
    Mutant(
        "sam_jax/methods/lookbehind.py",
        "length=k - 1",
        "length=k",
        "tests/methods/test_lookbehind.py",
    ),
    Mutant(
        "sam_jax/methods/bsam.py",
        "jnp.sqrt(jnp.asarray(examples, s.dtype) * s)",
        "jnp.sqrt(jnp.asarray(examples, s.dtype)) * s",
        "tests/methods/test_bsam.py",
    ),
    Mutant(
        "sam_jax/methods/sam_sps.py",
        "jnp.maximum(devices.agree(excess), 0)",
        "devices.agree(excess)",
        "tests/methods/test_sam_sps.py",
    ),
    Mutant(
        "sam_jax/schedules.py",
        "return jnp.asarray(count) // transition_steps + 1",
        "return jnp.asarray(count) // transition_steps",
        "tests/test_schedules.py",
    ),
    # ── Training
    Mutant(
        "sam_jax/train/schedule.py",
        "jnp.less(count, warmup_steps)",
        "jnp.less(count, warmup_steps + 2)",
        "tests/train/test_schedule.py",
    ),
    Mutant(
        "sam_jax/train/loop.py",
        "            clock = now\n",
        "",
        "tests/train/test_loop.py",
    ),
    Mutant(
        "sam_jax/train/layout.py",
        'batch_norm == "batch" and count > 1',
        'batch_norm == "batch" and count > 2',
        "tests/train/test_groups.py",
    ),
    Mutant(
        "sam_jax/train/evaluation.py",
        "-(-run.config.eval_batch_size // devices) * devices",
        "run.config.eval_batch_size // devices * devices",
        "tests/train/test_evaluation.py",
    ),
    Mutant(
        "sam_jax/train/passes.py",
        "scale * taken.weights, 0",
        "taken.weights, 0",
        "tests/train/test_passes.py sam_jax/train/passes.py",
    ),
    Mutant(
        "sam_jax/train/step.py",
        "(1 + state.step) / (10 + state.step)",
        "(1 + state.step) / (11 + state.step)",
        "tests/train/test_step.py",
    ),
    Mutant(
        "sam_jax/train/window.py",
        "self._reported + first + 1, values",
        "self._reported + first, values",
        "tests/train/test_window.py",
    ),
    # ── Data
    Mutant(
        "sam_jax/data/importance.py",
        "uniform / len(scores)",
        "uniform",
        "tests/data/test_importance.py sam_jax/data/importance.py",
    ),
    Mutant(
        "sam_jax/data/batches.py",
        "epoch, step = epoch + 1, 0\n",
        "epoch, step = epoch, 0\n",
        "tests/data/test_batches.py",
    ),
    Mutant(
        "sam_jax/data/augment.py",
        "0, length) - size // 2",
        "0, length) - size",
        "tests/data/test_augment.py",
    ),
    Mutant(
        "sam_jax/data/augment.py",
        "random_flip(flip_key, images)",
        "random_flip(crop_key, images)",
        "tests/data/test_augment.py",
    ),
]


def copy_of(root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copies what git knows of a tree, with changes that are not committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    return folder


def passes(tree: pathlib.Path, tests: str) -> bool:
    """Whether the tests pass; a tree that cannot be imported fails them."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    return not subprocess.run(
        [*command, *tests.split()], cwd=tree, capture_output=True, check=False
    ).returncode


def misfits(tree: pathlib.Path, mutants: list[Mutant]) -> list[str]:
    """What makes the outcome of some mutants worthless."""
    told = []
    for mutant in mutants:
        found = (tree / mutant.file).read_text().count(mutant.old)
        if found != 1:
            told.append(f"{mutant.file}: {mutant.old!r} occurs {found} times, not once")
    for tests in dict.fromkeys(mutant.tests for mutant in mutants):
        if not told and not passes(tree, tests):
            told.append(f"without a mutant, this fails: pytest {tests}")
    return told


def is_caught(tree: pathlib.Path, mutant: Mutant) -> bool:
    """Whether a test fails with the mutant in the tree, which is put back."""
    path = tree / mutant.file
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        return not passes(tree, mutant.tests)
    finally:
        path.write_text(text)


def main(words: list[str], root: pathlib.Path = ROOT) -> int:
    """Prints a table of the mutants whose file has one of the words; all without."""
    mutants = [
        mutant
        for mutant in MUTANTS
        if not words or any(word in mutant.file for word in words)
    ]
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of(root, pathlib.Path(folder))
        if told := misfits(tree, mutants):
            print(*told, sep="\n")
            return 2
        survivors = 0
        for mutant in mutants:
            caught = is_caught(tree, mutant)
            survivors += not caught
            change = f"{mutant.old.strip()} -> {mutant.new.strip() or 'nothing'}"
            outcome = "caught  " if caught else "SURVIVED"
            print(f"{outcome} {mutant.file}: {change}", flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
