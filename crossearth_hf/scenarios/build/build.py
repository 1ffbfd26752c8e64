"""`build_dataset`: the raw archives of a public data set -> what `datasets.load_dataset` reads."""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.outputs import check_outside, check_place, replace_folder
from ...files.working_folders import alone_in, is_own_folder, is_unmarked, mark, marked, remove_marked
from ..scenarios import VERSION, Domain, domains_of
from ..source_datasets import get_dataset
from .archives import RawFolder
from .built import BUILD_FILE, read_build
from .dataset_card import check_card, write_card
from .pairs import DomainSource, Reader
from .plan import Plan, check_found, plan_domain, read_headers
from .readers import READERS
from .shards import ShardRecord, build_shards, features

_SOFTWARE = ("crossearth-hf", "datasets", "pyarrow", "pillow", "numpy", "rasterio")
_LOCK_SECONDS = 2  # the workers of a killed build end, and let go of it, within one


@dataclass(frozen=True)
class BuildReport:
    """What a build has written.

    Attributes:
        dataset: Key in `DATASETS`.
        out_dir: Its folder.
        builds: The content of build.json per domain.
        kept: Domains that were there already, built from the same files.
    """

    dataset: str
    out_dir: Path
    builds: Mapping[str, Mapping[str, Any]]
    kept: tuple[str, ...]

    def table(self) -> str:
        """A line per domain and split, for a terminal."""
        lines = []
        for name, build in self.builds.items():
            splits = ", ".join(f"{split} {facts['images']}" for split, facts in build["splits"].items())
            remarks = [text for text, holds in self._remarks(name, build) if holds]
            lines.append(f"{name}: {splits} images" + (f" ({', '.join(remarks)})" if remarks else ""))
        return "\n".join([*lines, f"Wrote {self.out_dir}"])

    def _remarks(self, name: str, build: Mapping[str, Any]) -> Iterable[tuple[str, bool]]:
        yield "there already", name in self.kept
        yield "INCOMPLETE", build["incomplete"]
        yield "layout assumed", build["layout"] == "assumed"


def build_dataset(
    name: str,
    raw_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    domains: Sequence[str] | None = None,
    paths: Mapping[str, str | os.PathLike[str]] | None = None,
    allow_incomplete: bool = False,
    workers: int = 2,
    overwrite: bool = False,
) -> BuildReport:
    """Builds the domains of a public data set as Parquet shards with a card.

    Args:
        name: Key in `source_datasets.DATASETS`.
        raw_dir: Folder with the archives as published, zips or unpacked; it is only read.
        out_dir: Folder to write; afterwards `load_dataset(out_dir, domain, split=...)` reads it, also as a stream.
        domains: Which domains to build; all of the data set by default.
        paths: Folders or zips of a layout that could not be confirmed, by the reader's keys.
        allow_incomplete: Build a partial download too; card and build.json say so.
        workers: Processes.
        overwrite: Replace domains that were built from other files.

    Returns:
        What was written. An interrupted build is resumed by the same call: finished shards are kept.

    Raises:
        InputError: see `RawFolder.open` and `plan_domain`; unknown names; raw files that cannot be used; a domain that
            exists and differs; a folder that holds another data set, or that another build writes; a folder or disk
            that refuses. Existing domains stay as they are.
    """
    features(is_plain=True)
    chosen = _chosen_domains(name, domains)
    target = _check_target(
        name, Path(out_dir), Path(raw_dir), (paths or {}).values(), overwrite=overwrite, workers=workers
    )
    raw, reader = RawFolder.open(raw_dir), READERS[name]
    overrides = {key: RawFolder.open(path) for key, path in _check_paths(name, paths or {}).items()}
    sources = [_found(domain, reader, raw, overrides) for domain in chosen]
    headers = read_headers(sources, workers)
    plans = [
        plan_domain(domain, source, headers, allow_incomplete=allow_incomplete)
        for domain, source in zip(chosen, sources, strict=True)
    ]
    try:
        target.mkdir(exist_ok=True)
        refusal = f"another build is writing {target}; wait for it or name another folder"
        with alone_in(target, refusal, seconds=_LOCK_SECONDS):
            kept = tuple(plan.domain.name for plan in plans if _is_kept(target / plan.domain.name, plan, overwrite))
            for plan in plans:
                if plan.domain.name not in kept:
                    _build_domain(plan, target, raw, workers)
                remove_marked(_own_stage(plan, target))
            write_card(target)
            builds = {domain.name: read_build(target / domain.name) for domain in chosen}
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror or error}; what is finished is kept: free space and run the "
            "command again"
        ) from error
    return BuildReport(name, target, builds, kept)


def _found(domain: Domain, reader: Reader, raw: RawFolder, overrides: Mapping[str, RawFolder]) -> DomainSource:
    """What the reader finds of a domain; `InputError` if that is nothing."""
    try:
        source = reader.read(raw, domain, overrides)
        check_found(domain, source)
    except InputError as error:
        others = raw.other_archives()
        if others:
            hint = f"; {others[0]} lies there too: unpack it first"
        else:
            hint = ""
        raise InputError(f"{error}{hint}") from error
    return source


def _chosen_domains(name: str, domains: Sequence[str] | None) -> list[Domain]:
    known = {domain.name: domain for domain in domains_of(get_dataset(name).name)}
    wrong = [domain for domain in domains or () if domain not in known]
    if wrong or (domains is not None and not domains):
        raise InputError(f"'{''.join(wrong[:1])}' is not a domain of {name}; choose from {', '.join(known)}")
    return [known[domain] for domain in dict.fromkeys(domains or known)]


def _check_paths(name: str, paths: Mapping[str, str | os.PathLike[str]]) -> Mapping[str, str | os.PathLike[str]]:
    known = READERS[name].PATHS
    for key in paths:
        if key not in known:
            keys = "; ".join(f"{key} ({meaning})" for key, meaning in known.items())
            if keys:
                rule = f"its keys are {keys}"
            else:
                rule = "its layout is known, so it takes none"
            raise InputError(f"'{key}' is not a path of {name}; {rule}")
    return paths


def _check_target(
    name: str, out_dir: Path, raw_dir: Path, paths: Iterable[str | os.PathLike[str]], *, overwrite: bool, workers: int
) -> Path:
    if workers < 1:
        raise InputError(f"{workers} workers must be at least 1")
    if os.path.realpath(out_dir) == os.path.realpath(raw_dir):
        raise InputError(f"{out_dir} is the raw folder itself; name another folder to write")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is a file; name a folder to write")
    for domain in domains_of(get_dataset(name).name):
        check_outside([raw_dir / "any", *paths], Path(out_dir) / domain.name)
    target = check_place(out_dir, overwrite=True, parents=True)
    check_card(target, name, overwrite=overwrite)
    return target


def _is_kept(folder: Path, plan: Plan, overwrite: bool) -> bool:
    """Whether a domain is there already, from the same plan; raises `InputError` if it is there from another."""
    if not folder.exists():
        return False
    strangers = {path.name for path in folder.iterdir() if path.name != BUILD_FILE and path.suffix != ".parquet"}
    if strangers or not (folder / BUILD_FILE).is_file():
        raise InputError(
            f"{folder} was not written by a build alone ({min(strangers, default=f'no {BUILD_FILE}')}), and would be "
            "replaced as a whole; move it away or choose another folder"
        )
    is_same = read_build(folder).get("identity") == plan.identity
    if not is_same and not overwrite:
        raise InputError(
            f"{folder} exists already, built from other files or settings; add --overwrite to replace it or choose "
            "another folder"
        )
    return is_same


def _build_domain(plan: Plan, target: Path, raw: RawFolder, workers: int) -> None:
    """Builds a domain in a hidden folder beside its place, which outlives an interruption, and moves it there."""
    stage = _own_stage(plan, target)
    plan_file = stage / "plan.txt"
    if not plan_file.is_file() or plan_file.read_text(encoding="utf-8") != plan.identity:
        remove_marked(stage)
        stage.mkdir(exist_ok=True)
        mark(stage)
        plan_file.write_text(plan.identity, encoding="utf-8")
    records = build_shards(plan, stage, workers)
    content = json.dumps(_build_facts(plan, records, raw), indent=1) + "\n"
    (stage / "data" / BUILD_FILE).write_text(content, encoding="utf-8")
    replace_folder(stage / "data", target / plan.domain.name, stage / "replaced")


def _own_stage(plan: Plan, target: Path) -> Path:
    """Where a domain is built, also by the call that goes on after an interruption; `InputError` for a foreign one."""
    stage = target / f".{plan.domain.name}-unfinished"
    if os.path.lexists(stage) and marked(stage) is None and not (is_own_folder(stage) and is_unmarked(stage)):
        raise InputError(f"{stage} is in the way and was not made by crossearth; move it away")
    return stage


def _build_facts(plan: Plan, records: Sequence[ShardRecord], raw: RawFolder) -> dict[str, Any]:
    """The content of build.json."""
    domain, source = plan.domain, plan.source
    hashes = "".join(record.sha256 for record in records)
    return {
        "domain": domain.name,
        "dataset": domain.dataset,
        "benchmark_version": VERSION,
        "splits": {split: _split_facts(domain, split, records) for split in plan.counts},
        "incomplete": plan.incomplete,
        "unpaired": list(source.unpaired),
        "layout": "assumed" if "assumed" in (source.layout, get_dataset(domain.dataset).layout) else "confirmed",
        "notes": list(source.notes),
        "plain_images": plan.is_plain,
        "sources": _sources(plan, raw),
        "shards": [vars(record) for record in records],
        "identity": plan.identity,
        "fingerprint": hashlib.sha256(hashes.encode()).hexdigest(),
        "software": {name: importlib.metadata.version(name) for name in _SOFTWARE}
        | {"python": platform.python_version()},
    }


def _split_facts(domain: Domain, split: str, records: Sequence[ShardRecord]) -> dict[str, Any]:
    own = [record for record in records if record.split == split]
    pixels = [sum(counts) for counts in zip(*(record.class_pixels for record in own), strict=True)]
    return {
        "images": sum(record.images for record in own),
        "expected": domain.counts.get(split),
        "bytes": sum(record.content_bytes for record in own),
        "class_pixels": dict(zip((*domain.labels.classes, "ignored"), pixels, strict=True)),
    }


def _sources(plan: Plan, raw: RawFolder) -> list[dict[str, Any]]:
    """Archives and folders that were read, with the number and size of the files taken from each."""
    counts, sizes = Counter[str](), Counter[str]()
    for pair in plan.source.pairs:
        for file in (pair.image, pair.label):
            if file.member is None:
                place = file.path.parent
            else:
                place = file.path
            if place.is_relative_to(raw.root):
                name = place.relative_to(raw.root).as_posix()
            else:
                name = place.name
            counts[name] += 1
            sizes[name] += file.size
    return [{"file": name, "files": counts[name], "bytes": sizes[name]} for name in counts]
