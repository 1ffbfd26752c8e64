"""Parts that all programs of the project share: arguments whose mistakes end in one sentence and exit code 2."""

import argparse
import difflib
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from .errors import on_one_line

WRONG_INPUT = 2
"""Exit code."""

_RENAMED = {"--label-set": "--classes"}
"""Flags of earlier versions, of commands that have the new one."""
_NEGATIVE_NUMBERS = re.compile(r"-(\.?\d[\d.,eE+-]*|inf)$")
_SECONDS_BEFORE_OTHERS = (
    15.0  # a launcher ends the other processes within this once the first has failed
)


class Parser(argparse.ArgumentParser):
    """The arguments of a command; a mistake ends with the command's short usage, one sentence and exit code 2.

    Flags are never abbreviated. Sub-commands are parsers of this class too.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._negative_number_matcher = (
            _NEGATIVE_NUMBERS  # argparse's own takes -3.4e38 and -9999,0 for options
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but unknown arguments end the program, before missing arguments do."""
        texts = list(sys.argv[1:] if args is None else args)
        own = list(self._own(texts))
        for text, following in zip(own, [*own, "-"][1:], strict=True):
            if self._is_unknown(text):
                self.refuse([text] if following.startswith("-") else [text, following])
        namespace, unknown = super().parse_known_args(texts, namespace)
        if unknown:
            self.refuse(unknown)
        return namespace, []

    def error(self, message: str) -> NoReturn:
        """Prints the command's usage in one line and the error, and exits."""
        complain(self.prog, message, before=self._short_usage())
        raise SystemExit(WRONG_INPUT)

    def _own(self, texts: Sequence[str]) -> Iterable[str]:
        """The arguments before any `--` that do not belong to a sub-command."""
        with_commands = any(action.nargs == argparse.PARSER for action in self._actions)
        for text in texts:
            if text == "--" or (with_commands and not text.startswith("-")):
                return
            yield text

    def _is_unknown(self, text: str) -> bool:
        is_flag = (
            "-" in self.prefix_chars and text.startswith("--") and " " not in text.partition("=")[0]
        )
        return is_flag and text.partition("=")[0] not in self._option_string_actions

    def refuse(self, texts: Sequence[str]) -> NoReturn:
        """Ends the program for unknown arguments, and suggests the nearest known one."""
        nearest = [self._meant(text.partition("=")[0]) for text in texts]
        hints = [f"did you mean {name}?" for name in nearest if name is not None]
        self.error(
            f"unrecognized arguments: {' '.join(texts)}; {hints[0] if hints else f'see {self.prog} --help'}"
        )

    def _meant(self, flag: str) -> str | None:
        """The flag that a person may have wanted to type."""
        renamed = _RENAMED.get(flag)
        if renamed in self._option_string_actions:
            return renamed
        return _nearest(flag, self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        nearest = _nearest(str(value), choices)
        if nearest:
            hint = f"did you mean {nearest}?"
        else:
            hint = f"choose one of {', '.join(choices)}"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint}")

    def _short_usage(self) -> str:
        """The required arguments of the command, in one line."""
        groups = [group for group in self._mutually_exclusive_groups if group.required]
        grouped = [action for group in groups for action in group._group_actions]
        needed = [a for a in self._actions if a.required or not a.option_strings or a in grouped]
        formatter = argparse.HelpFormatter(self.prog, width=10_000)
        formatter.add_usage(None, needed, groups)
        return f"{' '.join(formatter.format_help().split())} [options]"


def is_main_process() -> bool:
    """Whether this process is the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def complain(program: str, sentence: str, *, before: str | None = None) -> None:
    """Prints an error as one line on stderr.

    If a launcher started several processes, most errors occur in all of them. The others then wait, so that only the
    first one prints its error before the launcher ends them.

    Args:
        program: Name of the program; "" for none.
        sentence: The error and the remedy.
        before: A line to print before it.
    """
    if not is_main_process():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_SECONDS_BEFORE_OTHERS)
    if before is None:
        lines = []
    else:
        lines = [before]
    print(
        *lines,
        f"{program}{': ' * bool(program)}error: {on_one_line(sentence)}",
        sep="\n",
        file=sys.stderr,
        flush=True,
    )


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)
