"""Trains CrossEarth: `accelerate launch scripts/train.py --config run.yaml`, or flags of the same names."""

import sys

from crossearth_hf.errors import InputError
from crossearth_hf.train_config import parse_train_config
from crossearth_hf.training import train


def main() -> int:
    """Reads the command line and trains; 2 is the exit code of a user's mistake, 1 of a run that diverged."""
    try:
        folder = train(parse_train_config(sys.argv[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote the model, its log and its last checkpoint to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
