"""Independent streams of random numbers from one seed."""

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What a stream is for; the numbers are part of the seeding and must not change."""

    SPLIT = 0
    NOISE = 1
    BATCHES = 2
    TEST = 3
    MIRRORED = 4
    CROPS = 5
    TAIL = 6


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """Generator that depends on nothing but its arguments.

    Args:
        seed: of the run, not negative.
        stream: what the numbers are for.
        index: which of the generators of the stream, such as the epoch.

    Returns:
        A fresh generator. Two differing arguments give independent streams.
    """
    # A spawn key, not a longer seed: seeds (s,) and (s, 0) would give one stream.
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, index))
    return np.random.default_rng(sequence)
