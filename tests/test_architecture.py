"""Imports point one way, and the project speaks of itself alone."""

import ast
from pathlib import Path

import metaleader

ROOT = Path(metaleader.__file__).parent

# From the ground up: a module imports only from floors below its own, or its own folder.
FLOORS = [
    {"errors", "files", "source", "statistics"},
    {"batch", "data", "devices"},
    {"objective", "rendering"},
    {"streams"},
    {"update", "models"},
    {"meta", "buffer"},
    {"memory"},
    {"learners", "record"},
    {"protocol", "metrics", "claims", "formats"},
    {"figures", "advantage"},
    {"tuning_figure"},
    {"illustrations", "overtaking", "verdicts"},
    {"words"},
    {"experiments"},
    {"run", "provenance", "options", "workers"},
    {"report"},
    {"spaces", "tuning_page"},
    {"studies"},
    {"found", "trials", "tuning"},
    {"sweep", "tune", "theory"},
    {"progress", "reproduce"},
    {"verdict_page"},
    {"cli"},
    {"__main__"},
]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports(path: Path) -> set[str]:
    """The rooms that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "metaleader":
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "metaleader" else []
            found |= {room(name) for name in names or [str(node.module)]}
    return found


def test_imports_point_one_way() -> None:
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in floor, f"{own} has no floor: add it to FLOORS"
        for other in imports(path) - {own}:
            assert floor[other] < floor[own], f"{path.name} imports {other}, which is not below it"


def test_learners_know_nothing_of_the_protocol_and_streams_nothing_of_learners() -> None:
    for path in (ROOT / "learners").glob("*.py"):
        assert not imports(path) & {"protocol", "streams", "record"}
    for path in (ROOT / "streams").glob("*.py"):
        assert imports(path) <= {"batch", "data", "errors", "rendering", "streams"}


def test_every_public_name_is_documented() -> None:
    for name in metaleader.__all__:
        value = getattr(metaleader, name)
        assert name == "EXPERIMENTS" or value.__doc__, name
