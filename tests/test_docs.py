"""The Python in README, the pages and the docstrings runs."""

import doctest
import functools
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import boltzflow

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs/usage.md", "docs/architecture.md")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
FEW = boltzflow.Config(num_steps=20, width=16, num_networks=2, num_eval_samples=2048, route="flow")
EXAMPLES = {"boltzflow", "boltzflow.testing"}  # modules whose docstrings have examples


def python_of(page):
    """The Python blocks of a page, in order."""
    return BLOCK.findall((ROOT / page).read_text("utf-8"))


@pytest.fixture
def few_steps(monkeypatch, tmp_path):
    """`boltzflow.fit` with few steps, in an empty folder."""
    fit = boltzflow.fit

    @functools.wraps(fit)
    def small(target, **given):
        return fit(target, **{"config": FEW, **given})

    monkeypatch.setattr(boltzflow, "fit", small)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page == "README.md" else pytest.mark.slow) for page in PAGES if python_of(page)],
)
def test_python_of_the_page_runs(page, few_steps):
    names = {"__name__": "page"}
    for block in python_of(page):
        exec(compile(block, page, "exec"), names)
    for name, value in list(names.items()):
        if name.startswith("test_"):
            value()


def test_readme_has_python():
    assert python_of("README.md")


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_docstring_examples_run(few_steps):
    names = [found.name for found in pkgutil.walk_packages(boltzflow.__path__, "boltzflow.")]
    modules = [boltzflow, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]
    finder, runner, found = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), set()
    for module in modules:
        for test in finder.find(module, module.__name__):
            if test.examples:
                found.add(test.name)
                runner.run(test)
    assert runner.summarize().failed == 0
    assert found >= EXAMPLES
