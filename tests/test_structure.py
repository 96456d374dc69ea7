"""The order of rooms: who may import whom, read from the import statements of every file, those for typing included."""

import ast
import sys
import tomllib
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import boltzflow
from boltzflow.sampling.coverage import uncovered_share

ROOT = Path(boltzflow.__file__).parent

# From the bottom to the top: a room imports from itself and from the rooms before it. A new room takes its place here.
ROOMS = (
    "errors",
    "numerics",
    "config",
    "statistics",
    "priors",
    "densities",
    "model",
    "storage",
    "sampling",
    "training",
    "report",
    "run",
    "interop",
    "testing",
    "studies",
    "cli",
    "__main__",
)
# Imports inside a function that run against the order, each for a reason.
EXCEPTIONS = {
    ("densities/from_file.py", "boltzflow.interop.numpyro"): "a file may hold a model of NumPyro",
}
ONLY_IMPORTER = {
    "diffrax": {"model/integrate.py"},
    "matplotlib": {"report/picture.py", "report/plots.py", "studies/paper/draw.py"},
}
CORE = {"jax", "equinox", "diffrax", "optax", "jaxtyping", "numpy", "scipy", "rich", "matplotlib"}
MAX_TOP_NAMES = 19


def imports_of(path: Path) -> list[tuple[str, int, bool]]:
    """(absolute name, line, whether it is at the top of the module) of all that a file imports."""
    package = ["boltzflow", *path.relative_to(ROOT).parts[:-1]]
    found: list[tuple[str, int, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) + 1 - child.level] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                found.extend((f"{module}.{alias.name}", child.lineno, top) for alias in child.names)
            visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
EDGES = [(str(path.relative_to(ROOT)), name, line, top) for path in FILES for name, line, top in imports_of(path)]
OWN = [edge for edge in EDGES if edge[1].startswith("boltzflow.")]


def room_of(name: str) -> str:
    """The room of a file ("model/flow.py") or of a dotted name ("boltzflow.model.flow.Flow")."""
    return name.removeprefix("boltzflow.").replace("/", ".").removesuffix(".py").split(".")[0]


def file_of(name: str) -> str | None:
    """The file that a dotted name is imported from, None where there is no such file."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        for candidate in (Path(*parts[:length]).with_suffix(".py"), Path(*parts[:length]) / "__init__.py"):
            if (ROOT / candidate).exists():
                return str(candidate)
    return None


def circles(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left when everything that needs nothing more has been taken away again and again."""
    while leaves := {name for names in needs.values() for name in names} - set(needs):
        needs = {name: rest for name, names in needs.items() if (rest := names - leaves)}
    return needs


def test_there_is_something_to_check():
    assert len(FILES) > 60 and len(OWN) > 200
    assert ("training/loop.py", "pilot") in {(file, name.split(".")[2]) for file, name, *_ in OWN if "pilot" in name}


def test_every_room_has_its_place():
    assert {room_of(str(path.relative_to(ROOT))) for path in FILES} == set(ROOMS)
    names = {path.name for path in ROOT.iterdir()} - {"__pycache__"}
    assert len(names) <= MAX_TOP_NAMES, sorted(names)


def test_imports_follow_the_order_of_rooms():
    place = {room: number for number, room in enumerate(ROOMS)}
    breaches = [
        f"{file}:{line} imports {name}"
        for file, name, line, top in OWN
        if place[room_of(name)] > place[room_of(file)]
        and (top or not any(file == by and name.startswith(what) for by, what in EXCEPTIONS))
    ]
    assert not breaches, breaches


def test_no_files_import_each_other_in_a_circle():
    needs: dict[str, set[str]] = {}
    for file, name, _, _ in OWN:
        imported = file_of(name)
        if imported and imported != file:
            needs.setdefault(file, set()).add(imported)
    assert not circles(needs)


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}).keys() == {"a", "b", "c", "d"}
    assert not circles({"a": {"b", "c"}, "b": {"c"}})


@pytest.mark.parametrize("package", ONLY_IMPORTER)
def test_one_file_alone_knows_the_package(package):
    importers = {file for file, name, *_ in EDGES if name.split(".")[0] == package}
    assert importers <= ONLY_IMPORTER[package]
    assert importers, f"nothing imports {package}: is the test blind?"


def test_only_core_dependencies_are_imported_at_the_top():
    known = CORE | {"boltzflow"} | sys.stdlib_module_names
    breaches = [(file, name) for file, name, _, top in EDGES if top and name.split(".")[0] not in known]
    assert not breaches, breaches


def test_the_core_dependencies_are_those_that_are_declared():
    project = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {line.split(">")[0] for line in project["dependencies"]}
    assert declared == CORE


def test_the_package_itself_only_gives_names():
    body = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8")).body
    kinds = [type(node) for node in body[1:]]
    assert set(kinds) == {ast.ImportFrom, ast.Assign, ast.FunctionDef}
    assert kinds.count(ast.Assign) == 2  # __version__, __all__
    assert dir(boltzflow) == sorted(boltzflow.__all__)
    assert sorted(boltzflow.__all__) == list(boltzflow.__all__)
    assert all(hasattr(boltzflow, name) for name in boltzflow.__all__)


def test_the_walk_sees_imports_inside_functions_and_for_typing(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "wrong.py"
    path.write_text("from ..run import Run\nif TYPE_CHECKING:\n    from . import flow\ndef f():\n    import diffrax\n")
    assert imports_of(path) == [
        ("boltzflow.run.Run", 1, True),
        ("boltzflow.model.flow", 3, True),
        ("diffrax", 5, False),
    ]


def test_annotations_are_checked_at_run_time():
    with pytest.raises(jaxtyping.TypeCheckError):
        uncovered_share(np.zeros((2, 2)))  # one axis is annotated
