"""Converts the PyTorch weights of Jackson et al., "Style Augmentation" (2019), where a user has them.

    python scripts/convert_jackson_styles.py CHECKPOINTS OUT.safetensors --imagery FOLDER[:GLOB]

CHECKPOINTS is the folder with checkpoint_transformer.pth, checkpoint_stylepredictor.pth and checkpoint_embeddings.pth
of github.com/philipjackson/style-augmentation (MIT). Their styles are those of paintings; with --imagery the bank is
that of the user's rasters instead. `EarthStyle.from_file(OUT)` reads the result.
"""

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossearth_hf.errors import InputError
from crossearth_hf.files.outputs import check_output
from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.model.style_bank import StyleBank
from crossearth_hf.model.style_networks import InceptionStylePredictor
from crossearth_hf.styles.bank import embed_rasters, find_rasters

PROVENANCE = {
    "license": "MIT",
    "origin": "github.com/philipjackson/style-augmentation (Jackson et al. 2019)",
}

_FIVES = ("1x1", "5x5_1", "5x5_2", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3", "_pool")
_REDUCTION = ("3x3", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
_SEVENS = (
    "1x1",
    *(f"7x7_{i}" for i in (1, 2, 3)),
    *(f"7x7dbl_{i}" for i in (1, 2, 3, 4, 5)),
    "_pool",
)
_MIXED = {"5b": _FIVES, "5c": _FIVES, "5d": _FIVES, "6a": _REDUCTION} | dict.fromkeys(
    ("6b", "6c", "6d", "6e"), _SEVENS
)
# The convolutions of Inception-v3 in the order of its layers and branches, which is ours too.
CONVOLUTIONS = [f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")]
CONVOLUTIONS += [
    f"Mixed_{block}.branch{branch}" for block, branches in _MIXED.items() for branch in branches
]

# Pixels in [0, 1] become scale * pixel + offset; blue is divided by 0.255 and multiplied by 0.225, as the weights want.
_SCALE = torch.tensor([2.0, 2.0, 0.225 / (0.255 * 0.5)], dtype=torch.float64)
_OFFSET = torch.tensor(
    [-1.0, -1.0, (0.406 - 0.5) / 0.5 - 0.406 * 0.225 / (0.255 * 0.5)], dtype=torch.float64
)


def predictor_state(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `InceptionStylePredictor`: batch norms and the scaling of pixels folded into the convolutions."""
    modules = InceptionStylePredictor().named_modules()
    ours = [name for name, module in modules if isinstance(module, nn.Conv2d | nn.Linear)]
    state: dict[str, Tensor] = {}
    for name, source in zip(ours[:-1], CONVOLUTIONS, strict=True):
        norm = {
            part: theirs[f"{source}.bn.{part}"].double()
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        gain = norm["weight"] / (norm["running_var"] + 1e-3).sqrt()  # (C,)
        weight = theirs[f"{source}.conv.weight"].double() * gain[:, None, None, None]
        bias = norm["bias"] - norm["running_mean"] * gain
        # it pads nothing, so an offset of the pixels is one of its bias
        if source == CONVOLUTIONS[0]:
            bias = bias + (weight * _OFFSET[:, None, None]).sum(dim=(1, 2, 3))
            weight = weight * _SCALE[:, None, None]
        state |= {f"{name}.weight": weight.float(), f"{name}.bias": bias.float()}
    return state | {f"{ours[-1]}.{part}": theirs[f"fc.{part}"] for part in ("weight", "bias")}


def transfer_state(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `StyleTransfer`; biases that an instance norm takes away again are left out."""
    state = {
        f"contract.{3 * i}.{part}": theirs[f"layers.{i}.conv.{part}"]
        for i in range(3)
        for part in ("weight", "bias")
    }
    layers = {
        f"residual.{i}.conv{j}": (f"layers.{3 + i}", str(j)) for i in range(5) for j in (1, 2)
    }
    layers |= {f"expand.{i}": (f"layers.{8 + i}", "") for i in range(3)}
    for ours, (source, number) in layers.items():
        state[f"{ours}.conv.weight"] = theirs[f"{source}.conv{number}.weight"]
        for part, letter in (("scale", "gamma"), ("shift", "beta")):
            for kind in ("weight", "bias"):
                state[f"{ours}.norm.{part}.{kind}"] = theirs[f"{source}.fc_{letter}{number}.{kind}"]
    return state


def convert(folder: Path) -> EarthStyle:
    """Networks and painting styles of a folder of checkpoints; `InputError` where something is missing or else."""
    names = {"stylepredictor": "state_dict_stylepredictor", "transformer": "state_dict_ghiasi"}
    embeddings = _read(folder / "checkpoint_embeddings.pth")
    try:
        states = {
            part: _read(folder / f"checkpoint_{part}.pth")[key] for part, key in names.items()
        }
        mean, covariance = embeddings["pbn_embedding_mean"], embeddings["pbn_embedding_covariance"]
        bank = StyleBank(
            mean.flatten().float(),
            covariance.float(),
            sources=("Painter by Numbers",),
            architecture="original",
        )
        style = EarthStyle(bank, PROVENANCE, "original")
        style.predictor.load_state_dict(predictor_state(states["stylepredictor"]))
        style.transfer.load_state_dict(transfer_state(states["transformer"]))
    except KeyError as error:
        raise InputError(
            f"{folder} lacks {error}; give the checkpoints of philipjackson/style-augmentation"
        ) from error
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{folder} holds weights of another network ({error})") from error
    return style


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; give the folder with the three checkpoints"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} is not a checkpoint of plain tensors ({error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts, computes the bank and writes; 2 is the exit code of a user's mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", metavar="CHECKPOINTS", type=Path)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument(
        "--imagery", metavar="FOLDER[:GLOB]", help="rasters whose styles replace those of paintings"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    options = parser.parse_args(arguments)
    try:
        target = check_output(options.out, (".safetensors",), overwrite=options.overwrite)
        style = convert(options.checkpoints)
        if options.imagery:
            bank = StyleBank.from_embeddings(
                embed_rasters(find_rasters(options.imagery), style.predictor)
            )
            style.replace_bank(
                bank.mean, bank.covariance, count=bank.count, sources=[options.imagery]
            )
        style.save(target)
    except ValueError as error:  # an InputError, or too few tiles for a bank
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {target}: styles of {', '.join(style.bank.sources)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
