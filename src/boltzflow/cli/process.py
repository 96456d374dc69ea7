"""The process of the command line: its interruptions and its two streams. Nothing slow is imported here.

`boltzflow/__init__.py` imports this file first. Where the process is the command `boltzflow`, Ctrl-C then is one line
and exit status 130 also during the imports, which take seconds. Elsewhere, as in a notebook, nothing is changed.
"""

import _thread
import os
import signal
import sys

INTERRUPTED = 130  # 128 and the number of the signal, as in a shell
CLOSED = 141


def _is_command(argv: list[str], typed: list[str]) -> bool:
    """Whether `boltzflow` or `python -m boltzflow` was typed, and not a program that imports the package."""
    if argv[:1] == ["-m"]:  # while Python looks for the module, which imports the package
        return "-mboltzflow" in typed or "-m boltzflow" in " ".join(typed)
    name = os.path.splitext(os.path.basename(argv[0]))[0] if argv else ""
    return name == "boltzflow" and argv[0] in typed


def _end_at_once(_signal: int, _frame: object) -> None:
    os.write(2, b"boltzflow: interrupted\n")
    os._exit(INTERRUPTED)


# Not where it is ignored, as under nohup.
if _is_command(sys.argv, sys.orig_argv) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_at_once)


import contextlib  # noqa: E402  not before an interruption is one line
from collections.abc import Iterator  # noqa: E402


def raise_interruptions() -> None:
    """From now on Ctrl-C raises `KeyboardInterrupt`, which a command may answer; none is lost or printed."""
    sys.unraisablehook = _raise_again
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Python prints and drops an interruption that it raises in a destructor: raise it again, a little later."""
    import threading

    if issubclass(dropped.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(dropped)


@contextlib.contextmanager
def replacing() -> Iterator[None]:
    """Let a character that the encoding of an output lacks be a question mark there."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    before = [stream.errors for stream in streams]
    try:
        for stream in streams:
            stream.reconfigure(errors="replace")
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with contextlib.suppress(OSError):  # it flushes
                stream.reconfigure(errors=errors)


def complain(what: object) -> None:
    """Write one line on standard error, if it can be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("boltzflow: " + " ".join(str(what).split()), file=sys.stderr, flush=True)


def end(status: int) -> int:
    """Flush both streams, and return the exit status; from now on Ctrl-C ends the process with it."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            status = status or CLOSED
            _discard(stream.fileno())
        except OSError as error:
            if status == 0:  # nothing was said yet
                status = 1
                complain(f"the output cannot be written: {error.strerror}")
            _discard(stream.fileno())
    if status == INTERRUPTED:  # Python may end with another status where it was interrupted inside `exec`
        os._exit(status)
    return status


def _discard(descriptor: int) -> None:
    """Let what is left in the buffer of a stream go nowhere: Python would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
