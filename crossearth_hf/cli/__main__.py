"""`python -m crossearth_hf.cli`, as `accelerate launch --module` calls it."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
