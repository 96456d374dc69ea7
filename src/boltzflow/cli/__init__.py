"""The command line: what is typed becomes a call of a command, and its outcome an exit status.

0 done and trusted; 3 done, but the report distrusts the result; 2 bad input; 1 failure; 130 interrupted. What goes
wrong is one line on standard error; a traceback is a defect of boltzflow.
"""

import sys
from collections.abc import Sequence

import jax

from boltzflow.cli.arguments import parse
from boltzflow.compilation_cache import use_compilation_cache
from boltzflow.errors import InputError, TrainingError


def main(argv: Sequence[str] | None = None) -> int:
    """Does what `argv` (by default the command line) says and returns the exit status."""
    try:
        action = parse(sys.argv[1:] if argv is None else argv)
        use_compilation_cache()
        return action()
    except InputError as error:
        return _say(error, 2)
    except jax.errors.JaxRuntimeError as error:
        return _say(_of_runtime(error), 1)
    except (TrainingError, OSError) as error:
        return _say(error, 1)
    except KeyboardInterrupt as interruption:
        return _say(str(interruption) or "interrupted", 130)
    except SystemExit as end:  # --help
        return end.code if isinstance(end.code, int) else 1


def _of_runtime(error: Exception) -> str:
    """What lies beneath an error of the compiled program: an energy's own, or too little memory."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = next((line.split("InputError: ", 1)[1] for line in reversed(lines) if "InputError: " in line), "")
    if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
        return "out of memory: lower --batch-size, --points-per-step or --num-eval-samples"
    return own or (lines[0] if lines else "the compiled program failed")


def _say(what: object, status: int) -> int:
    """One line on standard error."""
    print("boltzflow: " + " ".join(str(what).split()), file=sys.stderr)
    return status
