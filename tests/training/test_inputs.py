"""From crops to arguments: seeds, and styles that touch nothing but the images they are for."""

from pathlib import Path

import pytest
import torch
from training_runs import settings

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.model.earth_style import EarthStyle, StyleSettings, image_seed
from crossearth_hf.training.fourier_style import mix_amplitudes
from crossearth_hf.training.inputs import STYLE, InputMaker


@pytest.fixture
def crops():
    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (PROCESSOR.image_mean, PROCESSOR.image_std)
    )
    labels = torch.arange(6)[:, None, None].expand(6, 32, 32) % 5
    batch = {
        "pixel_values": (pixels - mean) / std,
        "labels": labels,
        "index": torch.arange(100, 106),
    }
    return batch | {"valid": torch.ones(6, 32, 32, dtype=torch.bool)}, pixels


PROCESSOR = CrossEarthImageProcessor()


def maker(**changes):
    values = {"style_block_size": 16, "style_alpha": 1.0} | changes
    return InputMaker(settings(Path("w"), Path("o"), **values), PROCESSOR, 32, torch.device("cpu"))


def test_every_objective_gets_its_own_arguments(crops):
    batch, _ = crops
    expected = {
        "segmentation": {"pixel_values", "labels", "seeds"},
        "multitask": {"pixel_values", "labels", "seeds"},
        "features": {"pixel_values", "seeds"},
        "reconstruct": {"pixel_values", "seeds"},
    }
    for objective, names in expected.items():
        assert maker(objective=objective)(batch).keys() == names
    styled = maker(objective="multitask", style_probability=0.5)(batch)
    assert styled.keys() == {"pixel_values", "labels", "seeds", "clean_pixel_values", "styled"}


def test_only_images_that_were_styled_change_and_labels_never(crops):
    batch, pixels = crops
    inputs = maker(objective="multitask", style_probability=0.5)(batch)
    styled = inputs["styled"]
    assert 0 < styled.sum() < 6
    assert torch.equal(inputs["clean_pixel_values"], batch["pixel_values"])
    assert torch.equal(inputs["labels"], batch["labels"])
    assert torch.equal(inputs["pixel_values"][~styled], batch["pixel_values"][~styled])
    # What the style module makes of the pixels in [0, 1], normalized.
    seeds = [image_seed(3, index, STYLE) >> 1 for index in range(100, 106)]
    mixed, fired = EarthStyle.from_file().inject(pixels, StyleSettings(0.5, 1.0, 0.7, 16), seeds)
    assert torch.equal(fired, styled)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (PROCESSOR.image_mean, PROCESSOR.image_std)
    )
    torch.testing.assert_close(
        inputs["pixel_values"][styled], ((mixed - mean) / std)[styled], rtol=1e-3, atol=1e-3
    )
    assert (inputs["pixel_values"] - batch["pixel_values"])[styled].abs().amax(
        dim=(1, 2, 3)
    ).min() > 0.1


def test_a_crop_is_treated_the_same_in_every_batch(crops):
    batch, _ = crops
    make = maker(objective="multitask", style_probability=0.5)
    whole, last = make(batch), make({name: values[4:] for name, values in batch.items()})
    for name in ("seeds", "styled"):
        assert torch.equal(whole[name][4:], last[name])
    torch.testing.assert_close(whole["pixel_values"][4:], last["pixel_values"])
    assert len(set(whole["seeds"].tolist())) == 6
    assert not torch.equal(maker(seed=4)(batch)["seeds"], whole["seeds"])


def test_the_fourier_mix_is_a_style_too(crops):
    batch, pixels = crops
    inputs = maker(objective="multitask", fourier_probability=0.5)(batch)
    styled = inputs["styled"]
    assert 0 < styled.sum() < 6
    assert torch.equal(inputs["pixel_values"][~styled], batch["pixel_values"][~styled])
    seeds = [image_seed(3, index, STYLE) >> 1 for index in range(100, 106)]
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (PROCESSOR.image_mean, PROCESSOR.image_std)
    )
    mixed = (mix_amplitudes(pixels, 0.5, seeds) - mean) / std
    torch.testing.assert_close(inputs["pixel_values"][styled], mixed[styled], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "style", [{"style_probability": 1.0, "style_mask_ratio": 1.0}, {"fourier_probability": 1.0}]
)
def test_pixels_without_data_stay_the_mean_color(crops, style):
    batch, _ = crops
    batch["valid"][:4, :, 20:] = False
    batch["valid"][4] = False
    batch["pixel_values"] = batch["pixel_values"] * batch["valid"][:, None]
    inputs = maker(objective="multitask", **style)(batch)
    assert inputs["styled"].tolist() == [True] * 4 + [False, True]
    assert (inputs["pixel_values"][~batch["valid"][:, None].expand(-1, 3, -1, -1)] == 0).all()
    changed = (inputs["pixel_values"] != batch["pixel_values"]).any(dim=1)
    assert (changed.flatten(1).float().mean(1) > 0.5).tolist() == inputs["styled"].tolist()
