"""What the command `crossearth` starts: a module outside of the package, whose import takes seconds.

So Ctrl-C during these seconds, too, ends in a sentence.
"""

import sys


def main() -> int:
    """Runs `crossearth_hf.cli.main`; returns the exit code."""
    try:
        from crossearth_hf.cli import main as run  # noqa: PLC0415

        return run()
    except KeyboardInterrupt:
        print("crossearth: interrupted; no unfinished file is left behind", file=sys.stderr)
        return 130
