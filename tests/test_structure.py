"""The house of DESIGN §3: who may import whom, read from the import statements. Imports point one way, downward."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

import boltzflow

ROOT = Path(boltzflow.__file__).parent
FAMILIES = ("targets", "bases", "interpolations", "vector_fields", "losses")

# From the bottom to the top: a module imports from its own layer or from below. A new module takes its place here.
LAYERS = [
    {
        "errors",
        "arguments",
        "densities",
        "linalg",
        "finite_differences",
        "version",
        "reliability",
        "estimators",
        "expectations",
    },
    {
        "gaussian_mixture",
        "networks",
        "lattice_bands",
        "lattice_networks",
        "symmetries",
        "integrate",
        "compilation",
        "batches",
    },
    {"targets", "bases", "interpolations", "vector_fields"},
    {"continuity", "flow"},
    {"losses", "correction", "presets", "testing", "check_target"},
    {
        "descent",
        "gaussian_fit",
        "proposal",
        "pilot",
        "assembly",
        "storage",
        "snapshots",
        "training_step",
        "cohort",
        "training",
        "checkpoint",
        "mode_probe",
        "resolution",
        "observables",
    },
    {"templates", "report", "plotting", "figures", "verdict", "resolution", "evaluation", "run", "seeds_report"},
    {"load_target", "run_folder", "progress", "compilation_cache", "stored", "interop", "peers"},
    {"paper"},
    {"cli", "__main__"},
]
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
ONLY_IMPORTER = {"diffrax": {"integrate"}, "matplotlib": {"plotting", "paper"}, "PIL": {"paper"}, "tyro": {"cli"}}
CORE = {"jax", "equinox", "diffrax", "optax", "jaxtyping", "numpy", "rich", "tyro", "matplotlib", "PIL"}


def _imports(path: Path) -> list[tuple[str, int, bool]]:
    """(absolute name, line, whether it is at the top of the module) of all that a file imports, besides for typing."""
    package = ["boltzflow", *path.relative_to(ROOT).parts[:-1]]
    found: list[tuple[str, int, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) + 1 - child.level] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                names = (f"{module}.{alias.name}" for alias in child.names)
                found.extend((name, child.lineno, top) for name in names)
            visit(child, top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
EDGES = [
    (path.relative_to(ROOT).with_suffix("").parts, name.split("."), f"{path.relative_to(ROOT)}:{line}", top)
    for path in FILES
    for name, line, top in _imports(path)
]
OWN = [(parts[0], name[1], where, top) for parts, name, where, top in EDGES if name[0] == "boltzflow" and len(name) > 1]


def test_there_is_something_to_check():
    assert len(FILES) > 40 and len(OWN) > 100
    assert ("training", "pilot") in {(importer, imported) for importer, imported, _, _ in OWN}


def test_every_module_has_its_layer():
    homeless = {path.relative_to(ROOT).with_suffix("").parts[0] for path in FILES} - set(LAYER_OF)
    assert not homeless, f"say in LAYERS where these belong: {sorted(homeless)}"


def test_imports_point_downward():
    breaches = [where for importer, imported, where, _ in OWN if LAYER_OF.get(imported, 0) > LAYER_OF.get(importer, 99)]
    assert not breaches, breaches


def test_families_do_not_import_each_other():
    breaches = [
        where
        for importer, imported, where, _ in OWN
        if importer in FAMILIES and imported in FAMILIES and importer != imported
    ]
    assert not breaches, breaches


def test_modules_do_not_import_each_other_in_a_circle():
    needs: dict[str, set[str]] = {}
    for importer, imported, _, top in OWN:
        if top and importer != imported:
            needs.setdefault(importer, set()).add(imported)
    while leaves := {name for names in needs.values() for name in names} - set(needs):
        needs = {name: rest for name, names in needs.items() if (rest := names - leaves)}
    assert not needs, f"a circle among {sorted(needs)}"


@pytest.mark.parametrize("package", ONLY_IMPORTER)
def test_one_module_alone_knows_the_package(package):
    importers = {parts[0] for parts, name, _, _ in EDGES if name[0] == package}
    assert importers <= ONLY_IMPORTER[package]
    assert importers, f"nothing imports {package}: is the test blind?"


def test_only_core_dependencies_are_imported_at_the_top():
    known = CORE | {"boltzflow"} | sys.stdlib_module_names
    breaches = [(name[0], where) for _, name, where, top in EDGES if top and name[0] not in known]
    assert not breaches, breaches


def test_the_core_dependencies_are_those_that_are_declared():
    project = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {line.split(">")[0] for line in project["dependencies"]}
    assert {"PIL" if name == "pillow" else name for name in declared} == CORE


def test_the_package_itself_only_gives_names():
    body = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8")).body
    kinds = [type(node) for node in body[1:]]
    assert set(kinds) <= {ast.ImportFrom, ast.Import, ast.Assign} and kinds.count(ast.Assign) == 1  # __all__
    assert sorted(boltzflow.__all__) == list(boltzflow.__all__)
    assert all(hasattr(boltzflow, name) for name in boltzflow.__all__)


def test_the_walk_sees_a_breach(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "bases").mkdir()
    path = tmp_path / "bases" / "wrong.py"
    path.write_text("from ..targets import double_well\nfrom . import gaussian\ndef f():\n    import diffrax\n")
    assert _imports(path) == [
        ("boltzflow.targets.double_well", 1, True),
        ("boltzflow.bases.gaussian", 2, True),
        ("diffrax", 4, False),
    ]
