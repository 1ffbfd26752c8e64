"""Trains CrossEarth: `crossearth launch scripts/train.py --config run.yaml`, or flags of the same names."""

import sys
from collections.abc import Sequence

from crossearth_hf.command_line import WRONG_INPUT, complain
from crossearth_hf.errors import InputError
from crossearth_hf.training import parse_train_config
from crossearth_hf.training.trainer import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; exit codes: 2 for a user's mistake, 1 for a run that diverged, 130 for an interrupted one."""
    try:
        folder = train(parse_train_config(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        complain("", str(error))
        return WRONG_INPUT
    except FloatingPointError as error:
        complain("", str(error))
        return 1
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(f"wrote the model, its log and its last checkpoint to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
