"""`python -m crossearth_hf.cli`, as `accelerate launch --module` calls it."""

import sys

from . import main

sys.exit(main())
