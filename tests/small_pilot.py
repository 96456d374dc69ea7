"""Pilots of few particles and descents, for tests of something else, here and in the processes that they start."""

import sys
from pathlib import Path

from boltzflow.sampling import locating, mode_search, pilot

COMMAND = [
    sys.executable,
    "-c",
    f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport small_pilot\nsmall_pilot.shrink()\n"
    "from boltzflow.cli import main\nsys.exit(main())",
]
"""`boltzflow` with such pilots; what follows are its arguments."""


def shrink(put=setattr):
    """Shrink the pilots of this process."""
    for module, stage in ((locating, "_SHORT"), (pilot, "_WIDE"), (pilot, "_PATH")):
        put(module, stage, getattr(module, stage)._replace(particles=512))
    put(locating, "_FEWEST_ANCESTORS", locating._FEWEST_ANCESTORS / 8)
    put(mode_search, "_DESCENT_STEPS", 20)
