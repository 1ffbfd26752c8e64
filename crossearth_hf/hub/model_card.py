"""Model cards for the Hub: generated parts between marks, from a model's folder and its reports; the rest is by hand.

A card's scores come from the reports on this model's weights, with the spread over runs with other seeds.
"""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ..errors import InputError, on_one_line, reason_of
from ..evaluation.report_file import METRICS, Entry, Report, class_key, read_report
from ..files.digests import file_sha256
from ..files.hub_cards import HUB_CARDS
from ..files.outputs import check_distinct, check_output, staged
from ..inference.loading import load_config
from ..model.configuration_crossearth import CrossEarthConfig
from ..reporting.comparison import Comparison, compare
from ..scenarios.source_datasets import DATASETS
from ..training.recipe import with_new_names
from ..training.run_folder import HARMLESS_ON_RESUME
from .card_sections import CardFacts, card_sections, dataset_of
from .licenses import LICENSES
from .model_item import check_model_item, model_item, write_model_item

TEMPLATE = HUB_CARDS / "model_card_template.md"
"""Template of new cards."""

_WEIGHTS = "model.safetensors"
_OPENING = re.compile(r"^<!-- generated: (\w+) -->$", flags=re.MULTILINE)
_GENERATED = re.compile(
    r"^<!-- generated: (\w+) -->\n.*?^<!-- end: \1 -->$", flags=re.MULTILINE | re.DOTALL
)


def write_model_card(
    model: str | os.PathLike[str],
    reports: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    template: str | os.PathLike[str] | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model's card, or rewrites the generated parts of an existing card; a STAC item (`ITEM`) comes beside it.

    Args:
        model: Folder with config.json and model.safetensors.
        reports: Report folders of `crossearth evaluate`: one on this model, others on runs with other seeds.
        out: Card to write; by default README.md in the model's folder.
        template: Markdown with marks, for a new card; by default `TEMPLATE`.
        license: The Hub's identifier of the weights' license, such as "cc-by-4.0"; by default that of the card.
        overwrite: Whether a card without marks, written by hand, may be replaced.

    Returns:
        The card's path.

    Raises:
        InputError: The folder has no model or no image processor, there is no report on it, a report is on another
            model or other scenarios, the license is unknown, the marks of the card are damaged, or a foreign file is in
            the place of the item.
    """
    folder = Path(model)
    config = _read_config(folder)
    place = out or folder / "README.md"
    check_distinct([template or TEMPLATE], [Path(os.path.realpath(place))])
    target = check_output(place, (".md",), overwrite=True)
    check_model_item(target)
    card = _existing_card(target, overwrite) or _new_card(folder.resolve().name, template)
    data = cast(ModelCardData, card.data)
    name = data.model_name = data.model_name or folder.resolve().name
    if license is not None:
        _check_license(license)
    if license and license != data.license:
        data.license, data.license_name, data.license_link = (
            license,
            None,
            None,
        )  # name and link belonged to the former license
    report, seeds = gather(folder, reports, name)
    facts = CardFacts(
        name=name,
        config=config,
        weight_bytes=(folder / _WEIGHTS).stat().st_size,
        training=report.training,
        report=report,
        seeds=seeds,
        license=data.license_name or data.license,
    )
    item = model_item(folder, facts, target)
    data.eval_results = eval_results(facts)
    card.text = fill(card.text, card_sections(facts))
    with staged([target]) as [path]:
        path.write_text(f"{str(card).rstrip()}\n", encoding="utf-8")
    write_model_item(item, target)
    return target


def gather(
    folder: Path, reports: Sequence[str | os.PathLike[str]], name: str
) -> tuple[Report, Comparison]:
    """The report on the model in `folder`, and all reports as the seeds of one model called `name`.

    Raises:
        InputError: There is no report or more than one on this model, or a report on a model that differs in more than
            its seed, or that was scored with other data or windows.
    """
    digest = file_sha256(folder / _WEIGHTS)
    found = [read_report(report) for report in reports]
    own = [report for report in found if report.sha256 == digest]
    others = [report for report in found if report.sha256 != digest]
    if len(own) != 1:
        names = ", ".join(map(str, reports)) or "no report"
        raise InputError(
            f"{names}: {len(own)} of these are on the weights in {folder}; give exactly one, or evaluate the model "
            "first"
        )
    for report in others:
        _check_seed_run(report, own[0], folder)
    seeds = compare((), {name: [os.fspath(report.place) for report in (*own, *others)]})
    for entry in own[0].entries:
        if {"data", "windows"} & set(seeds.notes[entry]):
            raise InputError(
                f"the runs were scored on {entry} with other images, labels, windows or scales, so a spread makes no "
                "sense; evaluate all of them alike, or leave the others out"
            )
    return own[0], seeds


def _check_seed_run(report: Report, own: Report, folder: Path) -> None:
    """Raises `InputError` unless `report` is on a run with the same configuration and recipe as `own`."""
    recipe, expected = _recipe(report.training), _recipe(own.training)
    if not expected or recipe != expected or report.config_sha256 != own.config_sha256:
        raise InputError(
            f"{report.place} is on another model than {folder}; besides its own report, a card takes reports on "
            "runs that differ only in their seed, according to their recipes"
        )


def _recipe(training: Mapping[str, Any] | None) -> dict[str, Any]:
    """A run's settings without its seed and without those that affect no step."""
    return {
        key: value
        for key, value in with_new_names(training or {}).items()
        if key not in HARMLESS_ON_RESUME | {"seed"}
    }


def eval_results(facts: CardFacts) -> list[EvalResult]:
    """The Hub's model-index: one result per target, with mean IoU, foreground IoU, accuracy and the IoU of each class.

    Two scenarios with one target give one result, because model and images are the same.
    """
    results: dict[tuple[Any, ...], list[EvalResult]] = {}
    for entry in facts.entries:
        metrics = _metrics(entry, facts.oracle)
        if metrics:
            results.setdefault(metrics[0].unique_identifier, metrics)
    return [result for metrics in results.values() for result in metrics]


def _metrics(entry: Entry, oracle: bool) -> list[EvalResult]:
    images = "1 image" if entry.images == 1 else f"{entry.images} images"
    dataset: dict[str, Any] = {
        "dataset_type": entry.slug.lower(),
        "dataset_name": f"{entry.name}, {images}",
    }
    key = dataset_of(entry)
    if key is not None:
        name = f"{DATASETS[key].title}: {entry.target} ({entry.scenario}, {images})"
        dataset = {
            "dataset_type": key,
            "dataset_config": entry.target,
            "dataset_split": "test",
            "dataset_name": name,
        }
    values = [
        *(
            (metric.hub_type, metric.title, entry.scores[key])
            for key, metric in METRICS.items()
            if metric.hub_type
        ),
        *(("iou", f"IoU {name}", entry.scores[class_key(name)]) for name in entry.scored_classes),
    ]
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="Semantic segmentation",
            metric_type=kind,
            metric_name=name + ", checkpoint chosen on the target (oracle)" * oracle,
            metric_value=round(value, 4),
            dataset_args={"window": entry.window, "stride": entry.stride, "scale": entry.scale},
            **dataset,
        )
        for kind, name, value in values
        if value is not None
    ]


def fill(text: str, sections: Mapping[str, str]) -> str:
    """`text` with `sections` between its marks; a part stays out if a person removed its marks.

    Raises:
        InputError: A mark is not closed or has an unknown name.
    """
    opened = _OPENING.findall(text)
    if opened != _GENERATED.findall(text):
        raise InputError(
            f"a generated part of the card ({', '.join(opened)}) lacks its '<!-- end: NAME -->'; restore it"
        )
    unknown = sorted(set(opened) - set(sections))
    if unknown:
        raise InputError(
            f"the card's generated part '{unknown[0]}' is unknown; the known parts are {', '.join(sections)}"
        )
    return _GENERATED.sub(
        lambda match: (
            f"<!-- generated: {match[1]} -->\n{sections[match[1]]}\n<!-- end: {match[1]} -->"
        ),
        text,
    )


def _existing_card(target: Path, overwrite: bool) -> ModelCard | None:
    """The existing card whose handwritten text is kept, or None."""
    if not target.exists():
        return None
    try:
        text = target.read_text(encoding="utf-8")
        if _OPENING.search(text):
            return ModelCard(_with_metadata(text))
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(
            f"the card {target} cannot be read ({reason_of(error)}); repair or remove it"
        ) from error
    if not overwrite:
        raise InputError(
            f"{target} has no generated parts; replace it with --overwrite or name another file with --out"
        )
    return None


def _new_card(name: str, template: str | os.PathLike[str] | None) -> ModelCard:
    path = Path(template or TEMPLATE)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the template {path} cannot be read; name another with --template"
        ) from error
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["crossearth", "remote-sensing", "semantic-segmentation"],
    )
    return ModelCard.from_template(data, template_str=_with_metadata(text, "{{ card_data }}"))


def _with_metadata(text: str, metadata: str = "{}") -> str:
    """A card's text, with `metadata` before it if it has none; the library would print a warning."""
    if REGEX_YAML_BLOCK.search(text):
        return text
    return f"---\n{metadata}\n---\n{text}"


def _check_license(license: str) -> None:
    if license not in LICENSES:
        near = get_close_matches(license, LICENSES, n=1)
        if near:
            hint = f"did you mean {near[0]}?"
        else:
            hint = "use 'other' for any other license."
        raise InputError(
            f"the Hub knows no license '{on_one_line(license, 80)}'; {hint} See "
            "https://huggingface.co/docs/hub/repositories-licenses"
        )


def _read_config(folder: Path) -> CrossEarthConfig:
    if not (folder / "config.json").is_file() or not (folder / _WEIGHTS).is_file():
        raise InputError(
            f"{folder} does not hold config.json and {_WEIGHTS}; name a folder that save_pretrained wrote"
        )
    return load_config(folder)
