"""Text of strangers in our sentences: short, on one line, without the power over a terminal, without bad advice."""

import pickle

import pytest

from crossearth_hf.errors import (
    LONGEST_FOREIGN_TEXT,
    LONGEST_SENTENCE,
    on_one_line,
    reason_of,
    shown,
)

HOSTILE = "a\x1b[31m\n\r\u202eb\u2028c\x00d\x9b"


def test_signs_that_rule_a_terminal_are_spelled_out():
    assert on_one_line(HOSTILE) == r"a\x1b[31m\n\r\u202eb\u2028c\x00d\x9b"
    assert on_one_line("Zürich 东京") == "Zürich 东京"
    assert on_one_line("x" * 10**7) == "x" * (LONGEST_SENTENCE - 3) + "..."
    assert len(on_one_line("\n" * 300, 200)) == 200


def test_reasons_of_other_libraries_are_short_and_printable():
    assert reason_of(ValueError("first\nsecond  line.")) == "first second line"
    assert reason_of(OSError()) == "OSError"
    assert len(reason_of(ValueError("x" * 10**8))) <= LONGEST_FOREIGN_TEXT
    assert reason_of(ValueError(HOSTILE)).isprintable()


@pytest.mark.parametrize(
    "advice",
    [
        "Re-running `torch.load` with `weights_only` set to `False` will likely succeed",
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run",
        "Object arrays cannot be loaded when allow_pickle=False",
        "See https://evil.example/fix for help",
    ],
)
def test_advice_is_not_passed_on(advice):
    assert reason_of(pickle.UnpicklingError(f"Weights only load failed. {advice}. The end.")) == (
        "Weights only load failed. The end"
    )
    assert reason_of(ValueError(advice)) == "ValueError"


def test_values_are_cut():
    assert len(shown("x" * 10**7)) <= LONGEST_FOREIGN_TEXT
    assert shown([1, None, "b"]) == "[1, None, 'b']"
    nested = [1]
    for _ in range(60):
        nested = [nested] * 9
    assert len(shown(nested)) < 10_000
