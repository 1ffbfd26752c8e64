"""Reports of conversions in words, for a terminal and for the card of the converted model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model.configuration_crossearth import CrossEarthConfig
from .backbones import Family
from .published_files import PublishedFile

_CARD = """---
library_name: transformers
pipeline_tag: image-segmentation
tags: [crossearth, remote-sensing, semantic-segmentation]
{metadata}---
# {title}

[CrossEarth](https://arxiv.org/abs/2410.22629) (Gong et al., IEEE TPAMI 2026), {made}.
The weights keep the license of their source.

{items}

{remark}

```python
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

model = AutoModelForSemanticSegmentation.from_pretrained("{folder}", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("{folder}", trust_remote_code=True)
```
"""


@dataclass(frozen=True)
class ConversionReport:
    """The result of `convert`.

    Attributes:
        output_dir: The new folder.
        sources: Name and SHA-256 of each file read: the checkpoint, then the backbone.
        config: The model's configuration.
        parameters: How many numbers were written.
        unused: Tensors of the file that the network never reads.
        training_only: Tensors of modules that only training used; dropped.
        inert_objects: Foreign objects that the pickle names; none was used.
        resampling: What was resampled in the backbone, if anything.
        overrides: Fields of the `--config` file.
        known: What the table of published files says about the checkpoint's name.
        notes: Sentences on what the file says otherwise than that table, or than its own masks; or on a new model.
        family: That of the ViT which a new model was made on; None for a checkpoint with a head.
    """

    output_dir: Path
    sources: tuple[tuple[str, str], ...]
    config: CrossEarthConfig
    parameters: int
    unused: list[str]
    training_only: list[str]
    inert_objects: tuple[str, ...]
    resampling: str | None
    overrides: dict[str, Any]
    known: PublishedFile | None = None
    notes: tuple[str, ...] = ()
    family: Family | None = None


_AS_PUBLISHED = (
    "Trained with ignored pixels as background in the mask losses, as the original does it\n"
    "(`ignore_unlabelled_pixels=False`)."
)
_UNTRAINED = (
    "**This model is not trained**: it is what `crossearth train --model {folder}` starts from."
)


def describe(report: ConversionReport) -> str:
    """The report in words, for a terminal and for the card."""
    config, backbone = report.config, report.config.backbone_config
    rank, queries = "plain tokens", "of their own"
    if config.rein_rank is not None:
        rank = f"rank {config.rein_rank}"
    if config.link_queries:
        queries = "linked to them"
    lines = [f"Converted {name} (SHA-256 {digest})" for name, digest in report.sources]
    if report.known is not None:
        lines.append(report.known.describe())
    lines += report.notes
    lines += [
        f"ViT of width {backbone.hidden_size} with {backbone.num_hidden_layers} blocks and "
        f"{backbone.num_attention_heads} heads, crop {config.image_size} px, window stride {config.window_stride} px, "
        f"pyramid from blocks {', '.join(map(str, config.out_indices))}",
        f"Rein adapters: {config.rein_num_tokens} tokens a block, {rank}; queries {queries}",
        f"{config.num_labels} classes: {', '.join(config.id2label.values())}",
        f"{report.parameters / 1e6:.1f} M parameters in {config.dtype}",
    ]
    if report.resampling:
        lines.append(f"Resampled: {report.resampling}")
    if report.overrides:
        lines.append(
            "Given, not read from shapes: "
            + ", ".join(f"{k} {v}" for k, v in report.overrides.items())
        )
    lines.append(
        f"In the file and never read by the network: {', '.join(report.unused) or 'nothing'}"
    )
    lines.append(
        f"Dropped, of modules that only training used: {', '.join(report.training_only) or 'nothing'}"
    )
    if report.inert_objects:
        lines.append(
            f"Foreign objects in the pickle, none of them used: {', '.join(report.inert_objects)}"
        )
    return "\n".join(lines)


def card(report: ConversionReport) -> str:
    """The README.md of a converted model."""
    items = "\n".join(f"- {line}" for line in describe(report).splitlines())
    folder = report.output_dir.name
    made, remark, metadata = "converted for transformers", _AS_PUBLISHED, ""
    if report.family is not None:
        made, remark = "a new model on a pretrained ViT", _UNTRAINED.format(folder=folder)
        metadata = license_metadata(report.family)
    return _CARD.format(
        title=folder, items=items, folder=folder, made=made, remark=remark, metadata=metadata
    )


def license_metadata(family: Family) -> str:
    """The license of a family's weights in the YAML of a card: the Hub lists the other identifiers."""
    if family.notice is None:
        return f"license: {family.license}\n"
    return (
        f"license: other\nlicense_name: {family.license}\nlicense_link: {family.license_source}\n"
    )
