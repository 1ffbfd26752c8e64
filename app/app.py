"""What a Space starts; the same as `crossearth app`."""

import sys

from crossearth_hf.app import main

if __name__ == "__main__":
    sys.exit(main())
