"""The command line: what is typed becomes a call of a command, and its outcome an exit status.

0 done and trusted; 3 done, but the report distrusts the result; 2 bad input; 1 failure; 130 interrupted. What goes
wrong is one line on standard error; a traceback is a defect of boltzflow.
"""

import sys
from collections.abc import Sequence

import jax

from boltzflow.cli.finish import of_program
from boltzflow.cli.parser import parse
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.compiling import use_compilation_cache


def main(argv: Sequence[str] | None = None) -> int:
    """Does what `argv` (by default the command line) says and returns the exit status."""
    try:
        action = parse(sys.argv[1:] if argv is None else argv)
        use_compilation_cache()
        return action()
    except InputError as error:
        return _say(error, 2)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if said := of_program(error):
            return _say(said, 1)
        raise
    except (TrainingError, OSError) as error:
        return _say(error, 1)
    except KeyboardInterrupt as interruption:
        return _say(str(interruption) or "interrupted", 130)
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else 1


def _say(what: object, status: int) -> int:
    """One line on standard error."""
    print("boltzflow: " + " ".join(str(what).split()), file=sys.stderr)
    return status
