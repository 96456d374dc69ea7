"""The command line. It turns words into the call of a command, and the outcome into an exit status.

0 done and trusted; 3 done, but the report distrusts the result; 2 bad input; 1 failure; 130 interrupted; 141 standard
output was closed. Every failure is one line on standard error; a traceback is a defect of boltzflow.
"""

import sys
from collections.abc import Sequence

from boltzflow.cli import process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` and return the exit status; without `argv`, be the process of that command."""
    if argv is not None:
        return _dispatch(argv)
    try:
        process.raise_interruptions()
        status = _dispatch(sys.argv[1:])
    except KeyboardInterrupt:  # before the command began, or a second one while the first was reported
        process.complain("interrupted")
        status = process.INTERRUPTED
    return process.end(status)


def _dispatch(argv: Sequence[str]) -> int:
    from boltzflow.cli.dispatch import dispatch  # slow to import; `process` must come before

    with process.replacing():
        return dispatch(argv)
