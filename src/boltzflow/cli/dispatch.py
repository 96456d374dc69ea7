"""From the words of a command line to an exit status and, for a failure, one line on standard error."""

from collections.abc import Sequence

import jax

from boltzflow.cli.finish import ClosedOutput, program_failure
from boltzflow.cli.parser import parse
from boltzflow.cli.process import CLOSED, INTERRUPTED, complain
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.compiling import use_compilation_cache


def dispatch(argv: Sequence[str]) -> int:
    """Run the command in `argv`; return the exit status."""
    try:
        return _dispatch(argv)
    except KeyboardInterrupt as interruption:
        return _fail(str(interruption) or "interrupted", INTERRUPTED)


def _dispatch(argv: Sequence[str]) -> int:
    try:
        action = parse(argv)
        use_compilation_cache()
        return action()
    except InputError as error:
        return _fail(error, 2)
    except (jax.errors.JaxRuntimeError, ValueError, MemoryError) as error:
        if failure := program_failure(error):
            return _fail(failure, 1)
        raise
    except BrokenPipeError:  # as in `boltzflow targets | head -1`
        return CLOSED
    except ClosedOutput as error:
        return _fail(error, CLOSED)
    except (TrainingError, OSError) as error:
        return _fail(error, 1)
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else 1


def _fail(what: object, status: int) -> int:
    complain(what)
    return status
