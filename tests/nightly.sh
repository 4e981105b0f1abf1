#!/usr/bin/env bash
# What takes too long for every change, part by part, or all of it without an argument:
#
#     bash tests/nightly.sh newest      both tiers, newest versions in pyproject's ranges
#     bash tests/nightly.sh lowest      contract, step, checkpoints, quick start, lowest
#     bash tests/nightly.sh mutations   changes that a test, a claim must notice
#     bash tests/nightly.sh tutorials   every tutorial, every recipe and every block of the README
#     bash tests/nightly.sh loops       the loops of Keras, kauldron and Tunix
#     bash tests/nightly.sh stream      50,000 JPEG files, readers that are killed
#     bash tests/nightly.sh fuzz        every setting of every card with many values
#     bash tests/nightly.sh gpu         every job for a GPU, at the smallest size
#
# `newest` takes the python of $NEWEST_PYTHON (python3.13), `lowest` that of
# $LOWEST_PYTHON (python3.11), the other parts the one that is active. Environments are
# made below $NIGHTLY (a temporary folder).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${NIGHTLY:-$(mktemp -d)}

# environment NAME PYTHON RESOLUTION REQUIREMENT...: enters a new environment that has
# all extras of pyproject, their highest or their lowest versions, and more.
environment() {
    "$2" -m venv --clear "$folder/$1"
    source "$folder/$1/bin/activate"
    pip install --quiet uv
    uv pip compile --quiet --all-extras --resolution "$3" pyproject.toml \
        --output-file "$folder/$1.txt"
    uv pip install --quiet -r "$folder/$1.txt" "${@:4}"
    grep -E "^(jax|flax|optax|orbax-checkpoint|numpy)==" "$folder/$1.txt"
}

newest() {
    environment newest "${NEWEST_PYTHON:-python3.13}" highest \
        dm-haiku equinox gcp-storage-emulator hypothesis pytest pytest-xdist
    python -m pytest -n auto
    python -m pytest -m slow -n auto
}

lowest() {
    environment lowest "${LOWEST_PYTHON:-python3.11}" lowest-direct \
        hypothesis pytest pytest-xdist
    python -m tests.bounds "$folder/lowest.txt"
    # What old versions of other packages deprecate says nothing about ours.
    python -m pytest -n auto -W "ignore::DeprecationWarning" \
        tests/methods/*contract* tests/train/test_{step,checkpoint}*.py
    bash .ci/quick_start
}

mutations() {
    python -m tests.mutations
    python -m experiments.theory mutate all --out "$folder/laboratory"
}

tutorials() {
    python -m docs.notebooks --out="$folder/tutorials"
    python -m pytest -n auto -m "slow or not slow" tests/test_{recipes,readme,docs}.py
}

loops() {
    environment loops "${LOWEST_PYTHON:-python3.11}" highest \
        equinox google-tunix hypothesis kauldron keras pytest pytest-xdist
    python -m pytest -m "slow or not slow" tests/test_recipes.py -k other_loops
}

stream() {
    SAM_JAX_TEST_JPEGS=50000 python -m pytest -m slow tests/data/test_stream_processes.py
}

fuzz() {
    JAX_PLATFORMS=cpu python -m tests.train.fuzz
}

gpu() {
    python -m experiments.gpu --tiny --seconds=7200 --out="$folder/gpu" | tee "$folder/jobs"
    grep -E "^([0-9]+) of \\1 jobs" "$folder/jobs"
}

for part in "${@:-newest lowest mutations tutorials loops stream fuzz gpu}"; do
    for name in $part; do
        [[ $(type -t "$name") == function ]] || { echo "no part $name"; exit 2; }
        echo "── $name"
        ("$name")
    done
done
