"""The Python in README, the pages and the docstrings runs."""

import ast
import doctest
import functools
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import boltzflow
import boltzflow.testing

ROOT = Path(__file__).parent.parent
GUIDES = tuple(f"docs/guides/{name}.md" for name in ("lattice", "bayes", "molecules", "research"))
PAGES = ("README.md", "CONTRIBUTING.md", "docs/usage.md", "docs/architecture.md", "docs/start.md", *GUIDES)
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "([^":]+):?([^"]*)"$', re.MULTILINE)  # of another file, where it is tested
FEW = boltzflow.Config(num_steps=20, width=16, num_networks=2, num_eval_samples=2048, route="flow")
EXAMPLES = {"boltzflow", "boltzflow.testing"}  # modules whose docstrings have examples


def python_of(page):
    """The Python blocks of a page, in order."""
    return BLOCK.findall((ROOT / page).read_text("utf-8"))


def names_of(source):
    """What is defined at the top of a file of Python."""
    found = set()
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        found.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
    return found


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
def test_python_of_the_page_runs(page, few_steps, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")  # the guides import from there
    names = {"__name__": "page"}
    for block in python_of(page):
        exec(compile(block, page, "exec"), names)
    for name, value in list(names.items()):
        if name.startswith("test_"):
            value()


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_page_compiles_and_names_what_there_is(page):
    """Every `boltzflow.name`, and every name that a guide imports from an example, without running anything."""
    for block in python_of(page):
        tree = ast.parse(block, page)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "boltzflow":
                assert hasattr(boltzflow, node.attr), f"{page}: boltzflow.{node.attr}"
            source = ROOT / "examples" / f"{getattr(node, 'module', None)}.py"
            if isinstance(node, ast.ImportFrom) and source.exists():
                missing = {alias.name for alias in node.names} - names_of(source)
                assert not missing, f"{page}: {source.name} has no {missing}"


def test_readme_has_python():
    assert python_of("README.md")


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_snippets_are_there():
    """A block that is quoted from an example is fenced with {.python}: ruff formats the text of others."""
    for page in (ROOT / "docs").rglob("*.md"):
        for file, section in SNIPPET.findall(page.read_text("utf-8")):
            text = (ROOT / file).read_text("utf-8")
            for end in ("start", "end") if section else ():
                assert text.count(f"--8<-- [{end}:{section}]") == 1, f"{page.name}: {file} has no one {section}"


def test_site_has_every_page():
    """The navigation of mkdocs.yml, and the pages of docs/ with those that the site takes from the root."""
    listed = re.findall(r"^ +- [\w ]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages | {"index.md", "contributing.md", "changelog.md"})


def test_reference_has_every_public_name():
    """Those of the package, of `priors` and `testing`, and what the modules of `interop` define."""
    public = {f"boltzflow.{name}" for name in boltzflow.__all__ if name != "priors"}
    for module in (boltzflow.priors, boltzflow.testing):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    for source in Path(boltzflow.interop.__file__).parent.glob("[a-z]*.py"):
        defined = [node.name for node in ast.parse(source.read_text("utf-8")).body if hasattr(node, "name")]
        public |= {f"boltzflow.interop.{source.stem}.{name}" for name in defined if not name.startswith("_")}
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs/reference.md").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert public <= set(listed), sorted(public - set(listed))


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
