"""`build_dataset`: the raw archives of a public data set -> what `datasets.load_dataset` reads."""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.outputs import check_outside, check_place, replace_folder
from ...files.unfinished import UnfinishedWork
from ...files.working_folders import alone_in
from ..domains import Domain, domains_of
from ..scenarios import VERSION
from ..source_datasets import get_dataset
from .archives import RawFolder
from .built import BUILD_FILE, read_build, software
from .dataset_card import check_card, write_card
from .pairs import DomainSource, Reader
from .plan import BuildPlan, check_found, plan_domain, read_headers
from .processed import folder_keys, named_folders
from .readers import READERS
from .shards import ShardRecord, build_shards, features

_STAGE_FOLDERS = ("data", "records", "replaced")
_LOCK_SECONDS = 2  # the workers of a killed build end, and let go of it, within one


@dataclass(frozen=True)
class BuildReport:
    """The result of a build.

    Attributes:
        dataset: Key in `DATASETS`.
        out_dir: Its folder.
        builds: The content of build.json per domain.
        kept: Domains that had already been built from the same files.
    """

    dataset: str
    out_dir: Path
    builds: Mapping[str, Mapping[str, Any]]
    kept: tuple[str, ...]

    def table(self) -> str:
        """A line per domain and split, for a terminal."""
        lines = []
        for name, build in self.builds.items():
            splits = ", ".join(
                f"{split} {facts['images']}" for split, facts in build["splits"].items()
            )
            remarks = [text for text, holds in self._remarks(name, build) if holds]
            line = f"{name}: {splits} images"
            if remarks:
                line += f" ({', '.join(remarks)})"
            lines.append(line)
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
        InputError: A name is unknown, raw files cannot be used (see `RawFolder.open` and `plan_domain`), an existing
            domain differs, or the folder cannot be written or belongs to another data set or another running build.
            Existing domains do not change.
    """
    features(is_plain=True)
    chosen = _chosen_domains(name, domains)
    target = _check_target(
        name,
        Path(out_dir),
        Path(raw_dir),
        (paths or {}).values(),
        overwrite=overwrite,
        workers=workers,
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
            kept = tuple(
                plan.domain.name
                for plan in plans
                if _is_kept(target / plan.domain.name, plan, overwrite)
            )
            for plan in plans:
                if plan.domain.name not in kept:
                    _build_domain(plan, target, raw, workers)
                _unfinished(plan, target).remove()
            write_card(target)
            builds = {domain.name: read_build(target / domain.name) for domain in chosen}
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror or error}; finished parts are kept: free space and run the "
            "command again"
        ) from error
    return BuildReport(name, target, builds, kept)


def _found(
    domain: Domain, reader: Reader, raw: RawFolder, overrides: Mapping[str, RawFolder]
) -> DomainSource:
    """The files of a domain that the reader finds; raises `InputError` if there are none."""
    try:
        source = named_folders(domain, overrides) or reader.read(raw, domain, overrides)
        check_found(domain, source)
    except InputError as error:
        others = raw.other_archives()
        if others:
            hint = f"; {others[0]} is in the same folder: unpack it first"
        else:
            hint = ""
        raise InputError(f"{error}{hint}") from error
    return source


def _chosen_domains(name: str, domains: Sequence[str] | None) -> list[Domain]:
    known = {domain.name: domain for domain in domains_of(get_dataset(name).name)}
    wrong = [domain for domain in domains or () if domain not in known]
    if wrong or (domains is not None and not domains):
        raise InputError(
            f"'{''.join(wrong[:1])}' is not a domain of {name}; choose from {', '.join(known)}"
        )
    return [known[domain] for domain in dict.fromkeys(domains or known)]


def _check_paths(
    name: str, paths: Mapping[str, str | os.PathLike[str]]
) -> Mapping[str, str | os.PathLike[str]]:
    known = dict(READERS[name].PATHS)
    folders = {
        key: meaning for domain in domains_of(name) for key, meaning in folder_keys(domain).items()
    }
    for key in paths:
        if key not in known and key not in folders:
            keys = [f"{key} ({meaning})" for key, meaning in known.items()]
            choices = "; ".join([*keys, ", ".join(folders)])
            raise InputError(f"'{key}' is not a path of {name}; its keys are {choices}")
    return paths


def _check_target(
    name: str,
    out_dir: Path,
    raw_dir: Path,
    paths: Iterable[str | os.PathLike[str]],
    *,
    overwrite: bool,
    workers: int,
) -> Path:
    if workers < 1:
        raise InputError(f"the number of workers, {workers}, must be at least 1")
    if os.path.realpath(out_dir) == os.path.realpath(raw_dir):
        raise InputError(f"{out_dir} is the raw folder itself; name another folder to write")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is a file; name a folder to write")
    for domain in domains_of(get_dataset(name).name):
        check_outside([raw_dir / "any", *paths], Path(out_dir) / domain.name)
    target = check_place(out_dir, overwrite=True, parents=True)
    check_card(target, name, overwrite=overwrite)
    return target


def _is_kept(folder: Path, plan: BuildPlan, overwrite: bool) -> bool:
    """Whether a domain has already been built from the same plan; raises `InputError` if it was built from another."""
    if not folder.exists():
        return False
    strangers = {
        path.name
        for path in folder.iterdir()
        if path.name != BUILD_FILE and path.suffix != ".parquet"
    }
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


def _build_domain(plan: BuildPlan, target: Path, raw: RawFolder, workers: int) -> None:
    """Builds a domain in a hidden folder, which survives an interruption, and then moves it into place."""
    unfinished = _unfinished(plan, target)
    unfinished.check()
    stage = unfinished.folder
    stage.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    unfinished.take_up(plan.identity)
    records = build_shards(plan, stage, workers)
    content = json.dumps(_build_facts(plan, records, raw), indent=1) + "\n"
    (stage / "data" / BUILD_FILE).write_text(content, encoding="utf-8")
    replace_folder(stage / "data", target / plan.domain.name, stage / "replaced")


def _unfinished(plan: BuildPlan, target: Path) -> UnfinishedWork:
    """The folder in which a domain is built, also after an interruption."""
    purpose = "an unfinished build is kept under that name; move it away"
    return UnfinishedWork(target / f".{plan.domain.name}-unfinished", _is_of_build, purpose)


def _is_of_build(path: Path) -> bool:
    return path.name in _STAGE_FOLDERS and path.is_dir() and not path.is_symlink()


def _build_facts(plan: BuildPlan, records: Sequence[ShardRecord], raw: RawFolder) -> dict[str, Any]:
    """The content of build.json."""
    domain, source = plan.domain, plan.source
    hashes = "".join(record.sha256 for record in records)
    layout = "confirmed"
    if "assumed" in (source.layout, get_dataset(domain.dataset).layout):
        layout = "assumed"
    return {
        "domain": domain.name,
        "dataset": domain.dataset,
        "benchmark_version": VERSION,
        "splits": {split: _split_facts(domain, split, records) for split in plan.counts},
        "incomplete": plan.incomplete,
        "unpaired": list(source.unpaired),
        "layout": layout,
        "notes": list(source.notes),
        "plain_images": plan.is_plain,
        "sources": _sources(plan, raw),
        "shards": [vars(record) for record in records],
        "identity": plan.identity,
        "fingerprint": hashlib.sha256(hashes.encode()).hexdigest(),
        "software": software(),
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


def _sources(plan: BuildPlan, raw: RawFolder) -> list[dict[str, Any]]:
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
