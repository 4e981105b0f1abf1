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


def mutant(file: str, old: str, new: str, tests: str = "") -> Mutant:
    """Of a file below ``sam_jax``; its own tests are those of its name."""
    folder, _, name = f"tests/{file}".rpartition("/")
    return Mutant(f"sam_jax/{file}", old, new, tests or f"{folder}/test_{name}")


MUTANTS = [
    mutant(
        "methods/core.py",
        "(count // every + 1) * every",
        "(count // every) * every",
        "tests/methods/test_looksam.py tests/methods/test_eigen_sam.py",
    ),
    mutant(
        "methods/numerics.py",
        "return (w + e).astype(w.dtype)",
        "return (w - e).astype(w.dtype)",
        "tests/methods/test_sam.py",
    ),
    mutant("methods/ascent.py", "(1 - lam) / part", "(1 + lam) / part"),
    mutant(
        "methods/numerics.py",
        "return _root(total) / factor",
        "return _root(total) * factor",
    ),
    mutant(
        "methods/ae_sam.py",
        "(1 - old) * jnp.square(square - mean)",
        "old * jnp.square(square - mean)",
    ),
    mutant("methods/averages.py", "devices.agree(average)", "average"),
    mutant(
        "methods/averages.py",
        "(weight, wide), (1 - weight, state.average)",
        "(weight, wide), (weight, state.average)",
    ),
    mutant(
        "methods/cadence.py",
        "return core.next_count(node) if core.is_count(path, node) else node",
        "return node",
    ),
    mutant(
        "methods/momentum_sam.py",
        "lambda w, e: (w - e).astype(w.dtype)",
        "lambda w, e: (w + e).astype(w.dtype)",
    ),
    mutant(
        "methods/gsam.py",
        "numerics.orthogonal(grads, perturbed_grads)",
        "numerics.orthogonal(perturbed_grads, grads)",
        "tests/methods/test_transcriptions.py --method=gsam",
    ),
    mutant(
        "methods/looksam.py",
        "core.value_at(alpha, state.count)",
        "core.value_at(alpha, state.count + 1)",
        f"{CONTRACT}/test_contract.py --method=looksam",
    ),
    mutant(
        "methods/wsam.py",
        "return share / (1 - share)",
        "return share / (1 + share)",
        "tests/methods/test_transcriptions.py --method=wsam",
    ),
    mutant(
        "methods/cr_sam.py",
        "(-2 * second, grads)",
        "(-second, grads)",
        "tests/methods/test_transcriptions.py --method=cr_sam",
    ),
    mutant("methods/lookbehind.py", "jnp.arange(k - 1)", "jnp.arange(k)"),
    mutant(
        "methods/bsam.py",
        "jnp.sqrt(jnp.asarray(examples, s.dtype) * s)",
        "jnp.sqrt(jnp.asarray(examples, s.dtype)) * s",
        "tests/methods/test_transcriptions.py --method=bsam",
    ),
    mutant(
        "methods/sam_sps.py",
        "jnp.maximum(devices.agree(excess), 0)",
        "devices.agree(excess)",
    ),
    mutant(
        "schedules.py",
        "return jnp.asarray(count) // transition_steps + 1",
        "return jnp.asarray(count) // transition_steps",
    ),
    mutant(
        "train/schedule.py",
        "jnp.less(count, warmup_steps)",
        "jnp.less(count, warmup_steps + 2)",
    ),
    mutant("train/loop.py", "            clock = now\n", ""),
    mutant(
        "train/layout.py",
        'batch_norm == "batch" and count > 1',
        'batch_norm == "batch" and count > 2',
    ),
    mutant(
        "train/evaluation.py",
        "-(-min(run.config.eval_batch_size, most) // devices) * devices",
        "min(run.config.eval_batch_size, most) // devices * devices",
    ),
    mutant(
        "train/passes.py",
        "scale * taken.weights, 0",
        "taken.weights, 0",
        "tests/train/test_passes.py sam_jax/train/passes.py",
    ),
    mutant(
        "train/averaging.py",
        "decay, (1 + step) / (10 + step)",
        "decay, (1 + step) / (11 + step)",
        "tests/train/test_step.py",
    ),
    mutant(
        "train/window.py",
        "self._reported += 1",
        "self._reported += 2",
    ),
    mutant(
        "data/importance.py",
        "uniform / len(scores)",
        "uniform",
        "tests/data/test_importance.py sam_jax/data/importance.py",
    ),
    mutant(
        "data/batches.py",
        "_order(seed, epoch, self.num_examples)[first",
        "_order(seed, 0, self.num_examples)[first",
    ),
    mutant("data/augment.py", "0, length) - size // 2", "0, length) - size"),
    mutant(
        "data/augment.py",
        "random_flip(flip_key, images)",
        "random_flip(crop_key, images)",
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
