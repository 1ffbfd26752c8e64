"""The architecture, checked: imports point down, and the modules that the Hub ships obey the loader's rules."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "crossearth_hf"

# A module imports only from lower layers, or from modules before it in its own.
LAYERS = [
    [  # 0: shipped with every saved model, flat
        "configuration_crossearth",
        "cpu_kernels",
        "style_networks",
        "earth_style",
        "image_inputs",
        "image_processing_crossearth",
        "loss_crossearth",
        "modeling_efficientnet_lite",
        "modeling_head",
        "modeling_crossearth",
        "modeling_multitask",
    ],
    [  # 1: files, class ids, counts, scenes
        "errors",
        "documents",
        "model_fields",
        "command_line",
        "hub",
        "progress",
        "digests",
        "memory",
        "labels",
        "legend",
        "normalization",
        "working_folders",
        "outputs",
        "source_files",
        "gdal",
        "grid",
        "band_names",
        "scene_files",
        "bands",
        "fill",
        "geotiff_writing",
        "imagery",
        "raw_bands",
        "resampling",
        "scene_notices",
        "geotiff",
        "metrics",
        "synthetic",
        "segmentation_scores",
        "benchmark_datasets",
        "benchmarks",
        "scenario_table",
    ],
    [  # 2: data and checkpoints in, scores out
        "data",
        "style_bank",
        "inference",
        "conversion",
        "imagenet_stem",
        "baselines",
        "builders",
    ],
    [  # 3: whole jobs
        "style_preview",
        "mapping",
        "vectors",
        "evaluation",
        "training",
        "experiments",
        "reporting",
        "ablation_report",
        "benchmarking",
    ],
    [  # 4: cards and the Hub
        "card_sections",
        "model_card",
        "publishing",
    ],
    ["cli"],  # 5
]
ORDER = {name: position for position, name in enumerate(name for layer in LAYERS for name in layer)}
HUB_MODULES = LAYERS[0]
HUB_DEPENDENCIES = {"torch", "transformers", "safetensors", "numpy", "PIL", "scipy"}
STANDARD = {"collections", "copy", "dataclasses", "difflib", "functools", "math", "pathlib", "typing"}


def siblings(path):
    """Rooms of the package that the module at `path` imports from, at any depth of its code."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crossearth_hf"):
            yield [*node.module.split("."), "__init__"][1]


def modules(name):
    """Files of a room: a module, or all modules of a sub-package."""
    return [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").exists() else [*(PACKAGE / name).glob("*.py")]


def test_every_module_has_a_room():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert rooms - {"__init__", "__main__"} == ORDER.keys()


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_down(name):
    for path in modules(name):
        for sibling in siblings(path):
            assert ORDER[sibling] < ORDER[name], f"{path.name} imports {sibling}, which lies above it"


@pytest.mark.parametrize("name", HUB_MODULES)
def test_hub_modules_can_be_copied(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
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
    in_text = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    lines = [line.strip() for text in in_text for line in text.splitlines()]
    assert not [line for line in lines if line.startswith(("import ", "from ."))], "the loader reads docstrings too"


def test_few_modules_use_rasterio():
    imports = re.compile(r"^\s*(?:import|from) rasterio", re.MULTILINE)
    users = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if imports.search(path.read_text())}
    # The first for scenes and maps; builders keep archives to the bit; polygons are cut from, burnt into rasters.
    of_scenes = {"bands.py", "gdal.py", "geotiff.py", "geotiff_writing.py", "grid.py", "imagery.py", "mapping/cog.py"}
    of_scenes |= {"raw_bands.py", "resampling.py", "scene_files.py", "scene_notices.py"}
    assert users <= of_scenes | {"vectors.py", "builders/rasters.py", "builders/vectors.py"}
