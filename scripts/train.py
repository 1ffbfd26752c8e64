"""Trains CrossEarth: the same as `crossearth train`, as a file for launchers that start one."""

import sys
from collections.abc import Sequence

from crossearth_hf import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; exit codes: 2 for a user's mistake, 1 for a run that diverged, 130 for an interrupted one."""
    if arguments is None:
        arguments = sys.argv[1:]
    return cli.main(["train", *arguments])


if __name__ == "__main__":
    sys.exit(main())
