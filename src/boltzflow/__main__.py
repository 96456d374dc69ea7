"""`python -m boltzflow` is the command `boltzflow`."""

import sys

from boltzflow.cli import main

sys.exit(main())
