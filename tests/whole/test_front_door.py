"""What `import crossearth_hf` offers: the promised names, at the price of the model's classes alone."""

import subprocess
import sys
import types

import pytest

import crossearth_hf
from crossearth_hf import InputError
from crossearth_hf.arguments import as_keywords


def test_the_promised_names_and_no_others_are_listed():
    assert dir(crossearth_hf) == sorted(crossearth_hf.__all__)
    assert all(
        callable(getattr(crossearth_hf, name))
        for name in crossearth_hf.__all__
        if name != "__version__"
    )


def test_nothing_of_transformers_passes_for_ours():
    foreign = [
        name
        for name, value in vars(crossearth_hf).items()
        if not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", "").startswith("transformers")
    ]
    assert foreign == []
    with pytest.raises(AttributeError, match="has no attribute 'AutoModel'"):
        _ = crossearth_hf.AutoModel


def test_heavy_parts_wait_until_they_are_used():
    """In a process of its own: this one has imported them all."""
    heavy = ("rasterio", "datasets", "pandas", "matplotlib", "peft", "distributed", "tqdm.notebook")
    ours = (
        "crossearth_hf.prediction",
        "crossearth_hf.training",
        "crossearth_hf.evaluation",
        "crossearth_hf.inference",
    )
    code = f"""
import sys, transformers.models.auto
before = set(sys.modules)
import crossearth_hf
new = set(sys.modules) - before
print(sorted(new & {{*{heavy}, *{ours}}}))
crossearth_hf.predict
print("rasterio" in sys.modules, "crossearth_hf.training" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False"]


def test_sentences_name_keyword_arguments(tmp_path):
    assert (
        as_keywords("add --overwrite, or --palette-as-image")
        == "add overwrite=True, or palette_as_image=True"
    )
    assert (
        as_keywords("--nodata=0 leaves it out; --dtype float32")
        == "nodata=0 leaves it out; dtype float32"
    )
    assert crossearth_hf.predict is crossearth_hf.predict
    (tmp_path / "scene.tif").touch()
    (tmp_path / "map.tif").touch()
    with pytest.raises(InputError, match="add overwrite=True to replace it"):
        crossearth_hf.predict(tmp_path / "scene.tif", tmp_path / "map.tif")


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: crossearth_hf.train(5),
        lambda: crossearth_hf.load_model(5),
        lambda: crossearth_hf.load_model(device=5),
        lambda: crossearth_hf.read_report(5),
        lambda: crossearth_hf.folder(5),
        lambda: crossearth_hf.folder("x", scale="2"),
        lambda: crossearth_hf.folder("x", bands=3),
        lambda: crossearth_hf.folder("x", classes=3),
        lambda: crossearth_hf.folder("x", class_map=["a"]),
        lambda: crossearth_hf.scenario(5, "data"),
    ],
)
def test_arguments_of_other_types_end_in_a_sentence(mistake):
    with pytest.raises(TypeError, match=r"^\w+ is .*; give "):
        mistake()


@pytest.mark.parametrize(("name", "extra"), [("train", "train"), ("evaluate", "benchmark")])
def test_a_missing_extra_is_named(monkeypatch, name, extra):
    def without(module, package):
        raise ModuleNotFoundError("No module named 'accelerate'", name="accelerate")

    monkeypatch.setattr(crossearth_hf, "import_module", without)
    with pytest.raises(
        ImportError,
        match=rf"needs 'accelerate'; install it with pip install 'crossearth-hf\[{extra}\]'",
    ):
        getattr(crossearth_hf, name)
