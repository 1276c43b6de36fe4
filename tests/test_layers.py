"""Who may import whom: a row imports only rows above it, never its own neighbours."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cxr_foundation"

LAYERS = {
    "_version": 0,
    "errors": 0,
    "registry": 0,
    "files": 0,
    "contract": 0,
    "page": 0,
    "catalog": 1,
    "images": 1,
    "convert": 2,
    "data": 2,
    "hub": 3,
    "models": 4,
    "evaluate": 5,
    "pretrain": 6,
    "transfer": 6,
    "recipes": 6,
    "weights": 6,
    "demo": 7,
    "cli": 7,
    "cli_data": 7,
    "cli_train": 7,
    "experiments": 7,
    "registration": 7,
    "__init__": 7,
}
# The standard library's rooms may lean on one another; so may the layer of users' front doors.
OPEN_LAYERS = {0, 7}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported_rooms(source: str) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "cxr_foundation":
                names = [f"cxr_foundation.{a.name}" for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "cxr_foundation" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


def breaches(importer: str, source: str) -> list[str]:
    own = LAYERS[importer]
    found = []
    for other in sorted(imported_rooms(source) - {importer}):
        if other.startswith("__") and other.endswith("__"):
            continue
        layer = LAYERS[other]
        if layer > own or (layer == own and own not in OPEN_LAYERS):
            found.append(f"{importer} (layer {own}) imports {other} (layer {layer})")
    return found


def test_every_room_has_a_layer():
    rooms = {room(f) for f in FILES}
    assert rooms == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path):
    if path.name == "__init__.py" and path.parent == PACKAGE:
        # The package's front door names everything, but loads it only when it is asked for.
        return
    assert breaches(room(path), path.read_text()) == []


def test_the_check_sees_a_breach():
    assert breaches("images", "from cxr_foundation.models import loading") == [
        "images (layer 1) imports models (layer 4)"
    ]
    assert breaches("pretrain", "import cxr_foundation.transfer.classify") == [
        "pretrain (layer 6) imports transfer (layer 6)"
    ]


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("transformers", {"models/auto.py", "pretrain", "registration.py"}),
        ("timm", {"convert", "models", "pretrain", "transfer", "demo", "registration.py"}),
        ("requests", set()),
        ("gdown", {"hub"}),
    ],
)
def test_a_library_is_imported_only_in_its_rooms(library, rooms):
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(n.split(".")[0] == library for n in names):
                assert any(name == r or name.startswith(f"{r}/") for r in rooms), name


def test_modules_stay_under_400_lines():
    assert {f.name: n for f in FILES if (n := len(f.read_text().splitlines())) > 400} == {}
