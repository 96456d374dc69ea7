"""The errors that are the user's to mend: one sentence that says what was expected, what was got, and what to do."""


class TrainingError(RuntimeError):
    """Training cannot go on: the sentence says since when, and what to change. On the command line: exit status 1."""


class InputError(ValueError):
    """Something the user gave is not usable. On the command line: the sentence alone, and exit status 2."""
