"""The architecture, checked: imports point down, and the modules that the Hub ships obey the loader's rules."""

import ast
import re

import pytest
from paths import ROOT

PACKAGE = ROOT / "crossearth_hf"

# A folder, or module beside the folders, imports from those before it alone.
LAYERS = [
    *("model", "errors", "arguments", "progress", "command_line", "labels", "legend", "files"),
    *("raster", "inference", "conversion", "synthetic", "export", "data", "styles", "prediction"),
    *("scenarios", "app", "evaluation", "training", "reporting", "hub", "cli"),
]
HUB_MODULES = sorted(
    path.stem for path in (PACKAGE / "model").glob("*.py") if path.stem != "__init__"
)
HUB_DEPENDENCIES = {"torch", "transformers", "safetensors", "numpy", "PIL", "scipy"}
STANDARD = {
    "collections",
    "copy",
    "dataclasses",
    "difflib",
    "functools",
    "math",
    "os",
    "pathlib",
    "typing",
}


def imported_layers(path):
    """Folders and modules at the top of the package that a module imports from, at any depth of its code."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from (
                [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crossearth_hf."):
            yield node.module.split(".")[1]


def modules(layer):
    """Files of a layer: a module, or all modules of a folder."""
    folder = PACKAGE / layer
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_every_module_belongs_to_a_layer():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert modules | folders == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer):
    below = LAYERS[: LAYERS.index(layer)]
    for path in modules(layer):
        for other in imported_layers(path):
            assert other in (*below, layer), (
                f"{path.relative_to(PACKAGE)} imports {other}, which lies above it"
            )


@pytest.mark.parametrize("name", HUB_MODULES)
def test_hub_modules_can_be_copied(name):
    tree = ast.parse((PACKAGE / "model" / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots = {node.module.split(".")[0]}
        elif isinstance(node, ast.ImportFrom):
            assert node.module in HUB_MODULES, "only `from .sibling import Name` is copied"
            continue
        else:
            continue
        assert node in tree.body, "the loader demands imports inside functions and conditions too"
        assert roots <= HUB_DEPENDENCIES | STANDARD
    in_text = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    lines = [line.strip() for text in in_text for line in text.splitlines()]
    assert not [line for line in lines if line.startswith(("import ", "from ."))], (
        "the loader reads docstrings too"
    )


def test_rasterio_belongs_to_raster():
    imports = re.compile(r"^\s*(?:import|from) rasterio", re.MULTILINE)
    users = {
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*.py")
        if imports.search(path.read_text())
    }
    others = {str(path) for path in users if path.parts[0] != "raster"}
    # Builders keep the pixels of archives to the bit, and burn polygons into them.
    assert others == {"scenarios/build/rasters.py", "scenarios/build/vectors.py"}
