"""The command line. It turns words into the call of a command, and the outcome into an exit status.

0 done and trusted; 3 done, but the report distrusts the result; 2 bad input; 1 failure; 130 interrupted. Every failure
is one line on standard error; a traceback is a defect of boltzflow.
"""

import sys
from collections.abc import Sequence

import jax

from boltzflow.cli.finish import program_failure
from boltzflow.cli.parser import parse
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.compiling import use_compilation_cache


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the words of this process; return the exit status."""
    try:
        action = parse(sys.argv[1:] if argv is None else argv)
        use_compilation_cache()
        return action()
    except InputError as error:
        return _fail(error, 2)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if failure := program_failure(error):
            return _fail(failure, 1)
        raise
    except (TrainingError, OSError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt as interruption:
        return _fail(str(interruption) or "interrupted", 130)
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else 1


def _fail(what: object, status: int) -> int:
    print("boltzflow: " + " ".join(str(what).split()), file=sys.stderr)
    return status
