"""The package's own version, for the records of runs."""

from importlib.metadata import PackageNotFoundError, version

UNINSTALLED = "uninstalled"


def own_version() -> str:
    """The version of the installed package, or "uninstalled" where it is used from a checkout by `PYTHONPATH`."""
    try:
        return version("boltzflow")
    except PackageNotFoundError:
        return UNINSTALLED
