"""The card of a built data set: what the Hub and `load_dataset` read (YAML), what people read, and a picture."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import DatasetCardData

from ...data.image_files import read_image, read_mask
from ...errors import InputError
from ...files.outputs import staged
from ...labels import IGNORE_INDEX, LabelSet
from ..domains import DOMAINS, Domain
from ..scenarios import SCENARIOS
from ..source_datasets import SourceDataset, get_dataset
from .built import BUILD_FILE, read_build
from .mosaic import COLUMNS, DomainPicture, draw_mosaic

CARD_FILE, PICTURE_FILE = "README.md", "preview.png"
MARK = "<!-- written by crossearth build-dataset -->"
_HUB_LICENSES = {
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CDLA-Permissive-1.0": "cdla-permissive-1.0",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))


def check_card(folder: Path, dataset: str, *, overwrite: bool) -> None:
    """Raises `InputError` if a folder cannot get the card of a data set.

    It holds a domain of another one, for a card states one license; or a README.md that was written by hand, unless it
    may be replaced.
    """
    for name, domain in DOMAINS.items():
        if domain.dataset != dataset and (folder / name / BUILD_FILE).is_file():
            raise InputError(
                f"{folder} holds {name} of the data set {domain.dataset}, and a card states the license of one; name a "
                f"folder per data set, such as {folder / dataset}"
            )
    card, picture = folder / CARD_FILE, folder / PICTURE_FILE
    if picture.exists() and not card.exists() and not overwrite:
        raise InputError(
            f"{picture} would be replaced by that of the card; add --overwrite or name another folder"
        )
    if (
        card.exists()
        and not overwrite
        and MARK not in card.read_text(encoding="utf-8", errors="replace")
    ):
        raise InputError(
            f"{card} was not written by a build; add --overwrite to replace it or name another folder"
        )


def write_card(folder: Path) -> None:
    """Writes README.md and preview.png for all domains built in a folder; raises `InputError` if the disk refuses."""
    builds = {
        path.parent.name: read_build(path.parent)
        for name in DOMAINS
        if (path := folder / name / BUILD_FILE).is_file()
    }
    dataset = get_dataset(next(iter(builds.values()))["dataset"])
    with staged([folder / CARD_FILE, folder / PICTURE_FILE]) as (card, picture):
        card.write_text(card_text(dataset, builds), encoding="utf-8")
        draw_mosaic([_block(folder / name, build) for name, build in builds.items()]).save(picture)


def card_text(dataset: SourceDataset, builds: Mapping[str, Mapping[str, Any]]) -> str:
    """The card: YAML for machines, then text.

    Args:
        dataset: Where the images come from.
        builds: build.json of each domain.
    """
    parts = [
        f"---\n{_card_data(dataset, builds).to_yaml()}\n---",
        f"{MARK}\n# {dataset.title}, as the CrossEarth benchmark uses it",
        f"![Tiles of every domain with their labels]({PICTURE_FILE})",
        _usage(dataset, builds),
        *(_domain_section(DOMAINS[name], dataset, build) for name, build in builds.items()),
        _license_section(dataset),
    ]
    if dataset.citation:
        parts.append(f"## Citation\n\n```bibtex\n{dataset.citation}\n```")
    parts.append(_software_section(builds))
    return "\n\n".join(part for part in parts if part) + "\n"


def _card_data(dataset: SourceDataset, builds: Mapping[str, Mapping[str, Any]]) -> DatasetCardData:
    total = sum(facts["images"] for build in builds.values() for facts in build["splits"].values())
    license_of_card: dict[str, Any] = {"license": _HUB_LICENSES.get(dataset.license)}
    if license_of_card["license"] is None:
        license_of_card = {
            "license": "other",
            "license_name": "see-card",
            "license_link": dataset.homepage,
        }
    return DatasetCardData(
        **license_of_card,
        pretty_name=f"{dataset.title} (CrossEarth benchmark)",
        task_categories=["image-segmentation"],
        task_ids=["semantic-segmentation"],
        tags=["remote-sensing", "earth-observation", "domain-generalization", "crossearth"],
        size_categories=[size_category(total)],
        configs=[_config(name, build) for name, build in builds.items()],
        dataset_info=[_info(name, build) for name, build in builds.items()],
    )


def size_category(images: int) -> str:
    """The Hub's name for data sets of this size."""
    return next((text for limit, text in _SIZES if images < limit), "100K<n<1M")


def _config(name: str, build: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration; its description distinguishes builds with the same place, name and size.

    `load_dataset` names its cache of a folder only by this YAML, not by the shards or their times.
    """
    files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in build["splits"]]
    return {
        "config_name": name,
        "description": f"fingerprint {build['fingerprint']}",
        "data_files": files,
    }


def _info(name: str, build: Mapping[str, Any]) -> dict[str, Any]:
    columns = [
        {"name": "image", "dtype": image_dtype(build)},
        {"name": "label", "dtype": "image"},
        {"name": "name", "dtype": "string"},
    ]
    return {"config_name": name, "features": columns, **split_sizes(build)}


def image_dtype(build: Mapping[str, Any]) -> Any:
    """Type of the column of images, as `dataset_info` states it."""
    if build["plain_images"]:
        return "image"
    return {"image": {"decode": False}}


def split_sizes(build: Mapping[str, Any]) -> dict[str, Any]:
    """Rows and bytes of the splits, as `dataset_info` states them."""
    splits = [
        {"name": split, "num_bytes": facts["bytes"], "num_examples": facts["images"]}
        for split, facts in build["splits"].items()
    ]
    return {
        "splits": splits,
        "download_size": sum(shard["bytes"] for shard in build["shards"]),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _usage(dataset: SourceDataset, builds: Mapping[str, Mapping[str, Any]]) -> str:
    name, build = next(iter(builds.items()))
    code = f'load_dataset("PATH_OR_REPOSITORY", "{name}", split="{next(iter(build["splits"]))}")'
    return (
        "Images with label maps for semantic segmentation; one configuration per domain.\n\n"
        f"```python\nfrom datasets import load_dataset\n\ndataset = {code}  # streaming=True works too\n```\n\n"
        "`image`: the raster, to the bit as published. `label`: 8-bit PNG of class ids from 0, 255 is ignored. `name`: "
        "the published file; for tiles with the corners `_x0_y0_x1_y1` in pixels.\n\n"
        f"Built from the published archives ({', '.join(dataset.archives)}) of {dataset.homepage}. The authors of "
        "CrossEarth defined the benchmark; the conversion is by the package crossearth_hf."
    )


def _domain_section(domain: Domain, dataset: SourceDataset, build: Mapping[str, Any]) -> str:
    ours = {
        code
        for code, scenario in SCENARIOS.items()
        if domain.name in (scenario.source, scenario.target)
    }
    tiles, distance = "images as published", "not stated"
    if domain.tile:
        tiles = f"{domain.tile} x {domain.tile} pixels"
    if domain.ground_sampling_distance:
        distance = f"{domain.ground_sampling_distance} m"
    facts = [
        f"- Images: {_image_counts(build)}",
        f"- Bands: {domain.bands}",
        f"- Tiles: {tiles}",
        f"- Ground sampling distance: {distance}",
        f"- Layout of the archives: {build['layout']} ({dataset.layout_source})",
        f"- Scenarios: {', '.join(sorted(ours)) or 'none'}",
        *(f"- Note: {note}" for note in (domain.note, *build["notes"]) if note),
    ]
    if build["incomplete"]:
        facts.append(
            f"- **Incomplete**: {_missing(build)}. Scores on it are not those of the benchmark."
        )
    if not build["plain_images"]:
        facts.append(
            "- The images have more bits or bands than Pillow decodes: `image` comes as bytes for rasterio."
        )
    return f"## {domain.name}\n\n" + "\n".join(facts) + "\n\n" + class_table(domain.labels, build)


def _image_counts(build: Mapping[str, Any]) -> str:
    """'train 3456, test 450 (the benchmark counts 449)'."""
    counts = []
    for split, facts in build["splits"].items():
        count = f"{split} {facts['images']}"
        if facts["expected"] not in (None, facts["images"]):
            count += f" (the benchmark counts {facts['expected']})"
        counts.append(count)
    return ", ".join(counts)


def _missing(build: Mapping[str, Any]) -> str:
    unpaired = build["unpaired"]
    counts = _image_counts(build)
    if unpaired:
        return f"{counts}; {len(unpaired)} images or labels are missing, the first: {unpaired[0]}"
    return counts


def class_table(label_set: LabelSet, build: Mapping[str, Any]) -> str:
    """Classes with color and share of the pixels of each split."""
    splits = build["splits"]
    lines = [
        ["id", "class", "color", *(f"pixels of {split}" for split in splits)],
        ["-", "-", "-", *("-:" for _ in splits)],
    ]
    rows = [
        (index, name, "`#{:02x}{:02x}{:02x}`".format(*color))
        for index, (name, color) in enumerate(zip(label_set.classes, label_set.colors, strict=True))
    ]
    for index, name, color in (*rows, (IGNORE_INDEX, "ignored", "")):
        pixels = [facts["class_pixels"] for facts in splits.values()]
        shares = [f"{counts[name] / max(1, sum(counts.values())):.2%}" for counts in pixels]
        lines.append([str(index), name, color, *shares])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _license_section(dataset: SourceDataset) -> str:
    source = ""
    if dataset.license_source:
        source = f" (read in: {dataset.license_source})"
    sharing = {
        True: "It allows passing the images on under its terms.",
        False: "It does not allow passing the images on: keep repositories with them private.",
        None: "Whether the images may be passed on is not stated: ask the authors before publishing them.",
    }[dataset.may_be_shared]
    return f"## License\n\n{dataset.license}{source}. {sharing}"


def _software_section(builds: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"- {name}: benchmark version {build['benchmark_version']}, fingerprint `{build['fingerprint'][:16]}`, "
        + ", ".join(f"{package} {version}" for package, version in build["software"].items())
        for name, build in builds.items()
    ]
    return "## How it was built\n\n" + "\n".join(
        [*lines, "", "More in the file build.json of each domain."]
    )


def _block(folder: Path, build: Mapping[str, Any]) -> DomainPicture:
    """Tiles spread evenly over the domain's last split, which is the one that scores are made on."""
    domain = DOMAINS[build["domain"]]
    split = list(build["splits"])[-1]
    shards = [shard for shard in build["shards"] if shard["split"] == split]
    return DomainPicture(
        f"{domain.name}  ({domain.bands}), {split}", domain.labels, spread_tiles(folder, shards)
    )


def spread_tiles(
    folder: Path, shards: Sequence[Mapping[str, Any]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images in RGB and label maps at even distances over shards."""
    return [
        (
            read_image(record["image"]["bytes"], record["name"])[0],
            read_mask(record["label"]["bytes"], record["name"]),
        )
        for record in _spread_records(folder, shards)
    ]


def _spread_records(folder: Path, shards: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Up to `COLUMNS` records at even distances over shards."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    total = sum(shard["images"] for shard in shards)
    wanted = np.unique(np.linspace(0, total - 1, COLUMNS + 2).round().astype(int)[1:-1])
    first = 0
    for shard in shards:
        with pq.ParquetFile(folder / shard["file"]) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                for index in wanted[(wanted >= first) & (wanted < first + rows)]:
                    yield file.read_row_group(group).slice(index - first, 1).to_pylist()[0]
                first += rows
