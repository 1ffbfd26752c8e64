"""The one error that a user's input can cause; the command line turns it into one sentence and exit code 2."""


class InputError(ValueError):
    """Something a person typed or supplied is wrong: the message gives the value, the rule and the remedy."""


def on_one_line(text: str) -> str:
    """`text` without control characters: names in files and archives may hold any, also those that rule a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
