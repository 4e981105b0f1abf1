"""Packs the mosaics of CIFAR-10 into parts that travel one by one.

    python -m experiments.gpu.pack SRC OUT

SRC holds images ``train_<class>_<n>`` and ``test_<class>``, each of many 32x32 pictures
side by side, as WebP or PNG. They go into OUT as they are, in as few archives
``part<n>of<all>.tar`` as stay below ``--megabytes`` and about alike.
"""

import pathlib
import sys
import tarfile
from collections.abc import Sequence

from experiments import commands


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Packs as the command line says."""
    parser = commands.parser(__doc__)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=commands.folder)
    parser.add_argument(
        "--megabytes", type=commands.positive, default=49.0, help="of 2**20 bytes"
    )
    args = parser.parse_args(argv)
    files = sorted(
        path
        for pattern in ("train_*", "test_*")
        for path in args.source.glob(pattern)
        if path.suffix in (".webp", ".png")
    )
    if not files:
        print(f"error: {args.source} has no train_* and test_* images", file=sys.stderr)
        return 2
    dealt = parts(files, int(args.megabytes * 2**20))
    for number, part in enumerate(dealt, 1):
        path = args.out / f"part{number}of{len(dealt)}.tar"
        with tarfile.open(path, "w") as archive:
            for file in part:
                archive.add(file, file.name)
        size = path.stat().st_size / 2**20
        print(f"{path}: {len(part)} mosaics, {size:.1f} MiB")
    return 0


def parts(files: Sequence[pathlib.Path], limit: int) -> list[list[pathlib.Path]]:
    """Deals files out, the largest first, each to the smallest part so far.

    Args:
        files: to deal out.
        limit: bytes of a part, with the archive's own.

    Returns:
        The fewest parts that stay below the limit; a larger file stands alone.
    """
    sizes = {file: file.stat().st_size + 1024 for file in files}  # with its header
    for count in range(1, len(files) + 1):
        dealt: list[list[pathlib.Path]] = [[] for _ in range(count)]
        filled = [10240] * count  # the end of an archive
        for file in sorted(files, key=lambda file: -sizes[file]):
            smallest = filled.index(min(filled))
            dealt[smallest].append(file)
            filled[smallest] += sizes[file]
        if max(filled) <= limit or count == len(files):
            return dealt
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
