"""The check of annotations at run time: every test runs under it (see `addopts` in pyproject.toml)."""

import beartype

# Where Python's type system takes an int for a float, so does this.
typechecker = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
