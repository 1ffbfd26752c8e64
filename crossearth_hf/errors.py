"""The one error that a user's input can cause; the command line turns it into one sentence and exit code 2."""


class InputError(ValueError):
    """Something a person typed or supplied is wrong: the message gives the value, the rule and the remedy."""
