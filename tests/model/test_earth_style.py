"""Injection and banks against their definitions."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from crossearth_hf.model.earth_style import (
    EarthStyle,
    StyleDraw,
    StyleSettings,
    blurred,
    image_seed,
)
from crossearth_hf.model.style_bank import StyleBank
from crossearth_hf.synthetic import generate_scene

ALWAYS = StyleSettings(probability=1.0, alpha=0.5, block_size=16)


@pytest.fixture(scope="module")
def style():
    return EarthStyle.from_file()


@pytest.fixture(scope="module")
def images():
    """(4, 3, 48, 64) in [0, 1]: parts of a drawn scene."""
    scene = generate_scene("temperate-summer", 0, 96, 128).image
    pixels = torch.from_numpy(scene.copy()).permute(2, 0, 1).float() / 255
    return torch.stack([pixels[:, y : y + 48, x : x + 64] for y in (0, 48) for x in (0, 64)])


def test_images_of_a_batch_do_not_mix(style, images):
    noise = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    together = style.render(images, noise, 0.5)
    alone = torch.cat([style.render(images[i : i + 1], noise[i : i + 1], 0.5) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().mean() > 0.01


def test_the_style_is_the_mixture_of_the_paper(style, images):
    noise = torch.zeros(4, 100)
    torch.testing.assert_close(
        style.render(images, noise, 1.0), style.transfer(images, style.mean.expand(4, -1))
    )
    own = style.transfer(images, style.predictor(images))
    torch.testing.assert_close(style.render(images, noise + 1, 0.0), own)
    half = style.transfer(
        images, 0.5 * (style.mean + style.factor.sum(dim=1)) + 0.5 * style.predictor(images)
    )
    torch.testing.assert_close(style.render(images, noise + 1, 0.5), half, rtol=0, atol=1e-5)


def test_sampled_styles_have_the_moments_of_the_bank(style):
    torch.testing.assert_close(style.factor @ style.factor.T, style.covariance, rtol=0, atol=1e-5)
    noise = torch.stack([StyleDraw.from_seed(seed, ALWAYS, 16, 16).noise for seed in range(3000)])
    torch.testing.assert_close(noise.mean(dim=0), torch.zeros(100), rtol=0, atol=4.5 / 3000**0.5)
    torch.testing.assert_close(noise.T.cov(), torch.eye(100), rtol=0, atol=0.13)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rendering_is_differentiable(images, layout):
    """The slope in a random direction, against differences; PyTorch's instance norm fails this in channels-last."""
    style = EarthStyle.from_file().double()
    x = images[:1].double().contiguous(memory_format=layout).requires_grad_()
    noise = torch.zeros(1, 100, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    weight, step = (
        torch.randn(x.shape, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    (style.render(x, noise, 0.5) * weight).sum().backward()
    with torch.no_grad():
        ahead, behind = (
            (style.render(x + 1e-7 * s, noise, 0.5) * weight).sum() for s in (step, -step)
        )
    assert (x.grad * step).sum().item() == pytest.approx((ahead - behind).item() / 2e-7, rel=1e-3)
    assert noise.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in style.parameters())


def test_injection_is_composed_of_its_parts(style, images):
    settings = StyleSettings(probability=0.5, alpha=0.5, mask_ratio=0.7, block_size=16)
    seeds = [image_seed(3, i) for i in range(4)]
    draws = [StyleDraw.from_seed(seed, settings, 48, 64) for seed in seeds]
    assert {draw.fires for draw in draws} == {True, False}
    mixed, styled = style.inject(images, settings, seeds)
    assert styled.tolist() == [draw.fires for draw in draws]
    for image, result, draw in zip(images, mixed, draws, strict=True):
        rendered = style.render(image[None], draw.noise[None], 0.5)[0]
        expected = torch.where(draw.keep, image, rendered) if draw.fires else image
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
        assert torch.equal(result[:, draw.keep], image[:, draw.keep])
        assert draw.keep.any()
        assert not draw.keep.all()


def test_injection_depends_on_the_seed_alone(style, images):
    seeds = [image_seed(3, i) for i in range(4)]
    torch.manual_seed(0)
    mixed, _ = style.inject(images, ALWAYS, seeds)
    torch.manual_seed(1)
    shuffled, _ = style.inject(images[[2, 0]], ALWAYS, [seeds[2], seeds[0]])
    torch.testing.assert_close(shuffled, mixed[[2, 0]], rtol=0, atol=1e-5)
    other, _ = style.inject(images, ALWAYS, [image_seed(4, i) for i in range(4)])
    assert (other - mixed).abs().mean() > 0.01
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(style.inject(images, ALWAYS, seeds)[0], mixed, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_probability_and_mask_ratio_keep_their_word(style, images):
    draws = [
        StyleDraw.from_seed(seed, StyleSettings(probability=0.1, block_size=8), 32, 32)
        for seed in range(2000)
    ]
    assert np.mean([draw.fires for draw in draws]) == pytest.approx(0.1, abs=0.02)
    assert np.mean([draw.keep.float().mean() for draw in draws]) == pytest.approx(0.3, abs=0.01)
    mixed, styled = style.inject(
        images, StyleSettings(probability=0.0, block_size=16), [0, 1, 2, 3]
    )
    assert torch.equal(mixed, images)
    assert not styled.any()
    for ratio, kept in ((0.0, True), (1.0, False)):
        draw = StyleDraw.from_seed(0, StyleSettings(mask_ratio=ratio), 64, 64)
        assert bool(draw.keep.all()) == bool(draw.keep.any()) == kept


def test_masks_are_blocks_cut_off_at_the_border():
    keep = StyleDraw.from_seed(5, StyleSettings(block_size=16, mask_ratio=0.5), 40, 70).keep
    assert keep.shape == (40, 70)
    corners = keep[::16, ::16]
    for y, x in itertools.product(range(40), range(70)):
        assert keep[y, x] == corners[y // 16, x // 16]
    assert 0 < corners.float().mean() < 1


MISTAKES = {
    "probability": ({"probability": 1.5}, "probability 1.5 is not a number from 0 to 1"),
    "alpha": ({"alpha": -0.1}, "alpha -0.1 is not"),
    "mask ratio": ({"mask_ratio": float("nan")}, "mask_ratio nan is not"),
    "block of nothing": ({"block_size": 0}, "block_size 0 is not a whole number"),
    "block of a half": ({"block_size": 2.5}, "block_size 2.5 is not a whole number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_settings_out_of_range_are_refused(name):
    fields, sentence = MISTAKES[name]
    with pytest.raises(ValueError, match=sentence):
        StyleSettings(**fields)


def test_images_that_cannot_be_styled_are_refused(style, images):
    with pytest.raises(ValueError, match="block_size 64 is larger than an image of 48 x 64 pixels"):
        style.inject(images, StyleSettings(), [0, 1, 2, 3])
    with pytest.raises(ValueError, match="3 style seeds for 4 images"):
        style.inject(images, ALWAYS, [0, 1, 2])
    with pytest.raises(ValueError, match=r"images of shape \(4, 1, 48, 64\)"):
        style.inject(images[:, :1], ALWAYS, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="4 x 64 pixels is too small"):
        style.render(images[:, :, :4], torch.zeros(4, 100), 0.5)


def broken_bank(name):
    mean, covariance = torch.zeros(100), torch.eye(100)
    if name == "shape":
        mean = torch.zeros(64)
    elif name == "infinite":
        mean[3] = float("inf")
    elif name == "not a number":
        covariance[1, 1] = float("nan")
    elif name == "asymmetric":
        covariance[0, 1] = 0.5
    else:
        covariance[2, 2] = -0.1
    return mean, covariance


SENTENCES = {
    "shape": r"mean \(64,\) and covariance \(100, 100\) does not fit",
    "infinite": "not finite",
    "not a number": "not finite",
    "asymmetric": "not symmetric",
    "negative": "eigenvalue -0.1, so it is not positive semi-definite",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_banks_that_are_none_are_refused(name, tmp_path, style):
    mean, covariance = broken_bank(name)
    with pytest.raises(ValueError, match=SENTENCES[name]):
        style.replace_bank(mean, covariance)
    save_file({"bank.mean": mean, "bank.covariance": covariance}, tmp_path / "bank.safetensors")
    with pytest.raises(ValueError, match=SENTENCES[name]):
        EarthStyle.from_file(bank=tmp_path / "bank.safetensors")


def test_files_that_hold_something_else_are_refused(tmp_path):
    text, other = tmp_path / "text.safetensors", tmp_path / "other.safetensors"
    text.write_text("no tensors")
    save_file({"weight": torch.zeros(3)}, other)
    StyleBank(torch.zeros(100), torch.eye(100)).save(tmp_path / "bank.safetensors")
    for path, sentence in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not a file"),
        (text, "is not a safetensors file"),
        (other, "holds no style bank"),
        (tmp_path / "bank.safetensors", "holds other networks"),
    ):
        with pytest.raises(ValueError, match=sentence):
            EarthStyle.from_file(path)


def test_a_bank_belongs_to_its_networks(tmp_path):
    bank = StyleBank(torch.zeros(100), torch.eye(100), architecture="original")
    bank.save(tmp_path / "bank.safetensors")
    assert StyleBank.from_file(tmp_path / "bank.safetensors").architecture == "original"
    with pytest.raises(
        ValueError, match="bank of the original networks means nothing to the mobile ones"
    ):
        EarthStyle.from_file(bank=tmp_path / "bank.safetensors")


def test_loading_moves_no_random_state():
    state = torch.get_rng_state()
    EarthStyle.from_file()
    assert torch.equal(torch.get_rng_state(), state)


def test_moments_by_numpy(tmp_path):
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(2, 3, (150, 100)))
    StyleBank.from_embeddings(embeddings, ["here (150 images)"]).save(tmp_path / "bank.safetensors")
    bank = StyleBank.from_file(tmp_path / "bank.safetensors")
    np.testing.assert_allclose(bank.mean, embeddings.mean(dim=0), rtol=1e-6)
    np.testing.assert_allclose(
        bank.covariance, np.cov(embeddings.numpy(), rowvar=False), rtol=1e-5, atol=1e-5
    )
    assert (bank.count, bank.sources) == (150, ("here (150 images)",))
    weights = torch.arange(1.0, 151.0)
    weighted = StyleBank.from_embeddings(embeddings, weights=weights)
    np.testing.assert_allclose(
        weighted.mean, np.average(embeddings, axis=0, weights=weights), rtol=1e-6
    )
    with pytest.raises(ValueError, match="1 embeddings has no covariance"):
        StyleBank.from_embeddings(embeddings[:1])


@pytest.mark.parametrize("name", ["scene.tif", "bank", "bank.safetensors.old"])
def test_only_safetensors_files_are_written(style, tmp_path, name):
    (tmp_path / name).write_text("mine")
    for saved in (style, style.bank):
        with pytest.raises(ValueError, match=f"{name} must end in .safetensors"):
            saved.save(tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_saving_changes_no_number(style, images, tmp_path):
    path = tmp_path / "earth_style.safetensors"
    style.save(path)
    loaded = EarthStyle.from_file(path)
    assert path.stat().st_size < 3_000_000
    for name, tensor in style.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.provenance == style.provenance
    loaded.replace_bank(torch.ones(100), 2 * torch.eye(100), count=9, sources=["mine"])
    with torch.no_grad():
        loaded.transfer.contract[0].weight[0, 0, 0, 0] += 0.001  # no 8-bit number any more
    loaded.save(path)  # over the file that it came from
    again = EarthStyle.from_file(path)
    assert torch.equal(again.transfer.contract[0].weight, loaded.transfer.contract[0].weight)
    assert torch.equal(again.covariance, 2 * torch.eye(100))
    assert (again.bank.count, again.bank.sources) == (9, ("mine",))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    seeds = [0, 1, 2, 3]
    assert (
        again.inject(images, ALWAYS, seeds)[0] - style.inject(images, ALWAYS, seeds)[0]
    ).abs().mean() > 0.01


def test_what_the_package_ships(style):
    assert style.provenance["license"] == "Apache-2.0"
    assert "Ghiasi" in style.provenance["origin"]
    bank = style.bank
    assert bank.count > 10 * 100
    assert torch.linalg.matrix_rank(bank.covariance.double()) == 100
    names = " ".join(bank.sources).lower()
    assert "tile 6" in names
    for target in ("tile 7", "tile 8", "harvey", "indonesia", "epfl", "cil"):
        assert target not in names


def test_a_residual_adds_what_the_style_changes(images):
    style = EarthStyle.from_file()
    noise = torch.randn(len(images), 100, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        own = style.transfer(images, style.predictor(images))
        expected = (images + style.render(images, noise, 0.5) - own).clamp(0, 1)
        torch.testing.assert_close(style.render(images, noise, 0.5, residual=True), expected)
        torch.testing.assert_close(
            style.render(images, noise, 0.0, residual=True), images, atol=1e-5, rtol=0
        )
    mixed, _ = style.inject(
        images, dataclasses.replace(ALWAYS, residual=True), list(range(len(images)))
    )
    plain, _ = style.inject(images, ALWAYS, list(range(len(images))))
    assert not torch.equal(mixed, plain)


def test_blurring_is_scipys(images):
    for deviation in (0.7, 4.0):
        radius = math.ceil(3 * deviation)
        expected = gaussian_filter(
            images.double().numpy(),
            (0, 0, deviation, deviation),
            mode="nearest",
            radius=(0, 0, radius, radius),
        )
        found = blurred(images.double(), deviation)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_a_low_pass_changes_colors_and_keeps_detail(images):
    style = EarthStyle.from_file()
    noise = torch.randn(len(images), 100, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = style.render(images, noise, 0.5)
        kept = style.render(images, noise, 0.5, low_pass=4.0)
        expected = (images + blurred(whole - images, 4.0)).clamp(0, 1)
    torch.testing.assert_close(kept, expected)
    edges = [picture.diff(dim=-1).flatten() for picture in (images, whole, kept)]
    correlation = [torch.corrcoef(torch.stack([edges[0], edge]))[0, 1] for edge in edges[1:]]
    assert correlation[1] > 0.9 > correlation[0]
    mixed, _ = style.inject(
        images, dataclasses.replace(ALWAYS, low_pass=4.0), list(range(len(images)))
    )
    plain, _ = style.inject(images, ALWAYS, list(range(len(images))))
    assert not torch.equal(mixed, plain)


@pytest.mark.parametrize("low_pass", [-1.0, 65.0, float("nan")])
def test_a_senseless_low_pass_is_refused(low_pass):
    with pytest.raises(ValueError, match=r"style low_pass .* is not a number from 0 to 64 pixels"):
        StyleSettings(low_pass=low_pass)
