"""The errors that are the user's to mend: one sentence that says what was expected, what was got, and what to do."""


class InputError(ValueError):
    """Something the user gave is not usable. On the command line: the sentence alone, and exit status 2."""
