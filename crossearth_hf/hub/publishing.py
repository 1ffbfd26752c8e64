"""From a folder to a repository on the Hub: the files are listed and checked before anything is sent.

Weights are sent as safetensors only; pickles, files from outside the folder and a run's own files are left out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, RepoCard
from transformers.dynamic_module_utils import get_relative_import_files

from ..conversion.backbones import family_of
from ..errors import InputError, reason_of
from ..files.documents import read_json
from ..files.downloads import check_repository, require_online
from ..inference.loading import load_config, load_model
from ..scenarios.source_datasets import DATASETS

CARD = "README.md"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""Endings of files that may run code when they are loaded."""

_MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", CARD)
_RUN_FOLDERS = ("checkpoint", "tensorboard", "runs", "__pycache__")
_RUN_FILES = ("log.jsonl", "run.json", "trainer_state.json")
_RUN_ENDINGS = (".log", ".out", ".tmp", ".lock", ".pyc")


@dataclass(frozen=True)
class Upload:
    """Files for the Hub.

    Attributes:
        folder: The folder that is published.
        files: Paths in it, sorted.
        left_out: Reasons why paths are left out, by their names; names of folders end in "/".
        notes: Remarks for the person who publishes.
    """

    folder: Path
    files: tuple[Path, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """The files with their sizes, what is left out and the notes, for a terminal."""
        sizes = {file.as_posix(): (self.folder / file).stat().st_size for file in self.files}
        lines = [f"{_size(size):>10}  {name}" for name, size in sizes.items()]
        lines.append(f"{_size(sum(sizes.values())):>10}  in {len(sizes)} files")
        lines += [f"  left out  {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines + [f"      note  {note}" for note in self.notes])


def publish(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    dataset: bool = False,
    private: bool = False,
    really: bool = False,
    api: HfApi | None = None,
) -> Upload:
    """Lists and checks a folder and, if `really`, pushes it in one commit; other files of the repository stay.

    Args:
        folder: A model with its card and code, or, if `dataset`, a data set as `crossearth build-dataset` writes it.
        repo_id: "organization/name" on the Hub.
        dataset: Whether `folder` is a data set.
        private: Whether the repository is, or will be, private.
        really: Whether to push; otherwise nothing is sent and the network is not used.
        api: The Hub's client; by default that of `huggingface_hub` with the person's own login.

    Raises:
        InputError: The folder does not load or has no card, the license of a data set forbids publishing, the
            repository is public although `private` is set, or the Hub refuses.
    """
    check_repository(repo_id)
    upload = plan_upload(folder)
    if dataset:
        kind, notes = "dataset", _check_dataset(upload, private)
    else:
        kind, notes = "model", _check_model(upload)
    if really:
        if api is None:
            require_online(f"{repo_id} cannot be pushed")
        _push(upload, repo_id, kind, private, api or HfApi())
    return Upload(upload.folder, upload.files, upload.left_out, tuple(notes))


def plan_upload(folder: str | os.PathLike[str]) -> Upload:
    """Sorts the files of a folder into those for the Hub and those to leave out; `InputError` if none are left."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder of a model or of a data set")
    files, left_out = [], {}
    for path in _walk(root):
        if path.is_dir():
            reason = _folder_stays(path)
        else:
            reason = _file_stays(path, root)
        if reason is not None:
            left_out[path.relative_to(root).as_posix() + "/" * path.is_dir()] = reason
        elif not path.is_dir():
            files.append(path.relative_to(root))
    if not files:
        raise InputError(
            f"{folder} holds no file that may be published; name the folder of a model or of a data set"
        )
    return Upload(root, tuple(files), left_out)


def _walk(folder: Path) -> Iterator[Path]:
    """Files and folders below `folder`, sorted, without the content of folders that are left out."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and _folder_stays(path) is None:
            yield from _walk(path)


def _folder_stays(path: Path) -> str | None:
    """The reason why a folder is left out, or None."""
    if path.name.startswith("."):
        return "hidden"
    if path.is_symlink():
        return "a link to a folder"
    of_a_run = path.name in _RUN_FOLDERS or path.name.startswith("checkpoint-")
    if of_a_run:
        return "checkpoints, logs or caches of a run"
    return None


def _file_stays(path: Path, root: Path) -> str | None:
    """The reason why a file of the folder `root` is left out, or None."""
    name, ending = path.name.lower(), path.suffix.lower()
    reasons = {
        "hidden": name.startswith("."),
        "a link out of the folder": path.is_symlink()
        and root.resolve() not in path.resolve().parents,
        "not a regular file": not path.is_file(),
        "a pickle, which may run code when it is read; save safetensors": ending in PICKLES,
        "part of a run": name in _RUN_FILES or ending in _RUN_ENDINGS or "tfevents" in name,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _check_model(upload: Upload) -> list[str]:
    """Notes on a model's folder; raises `InputError` unless it is complete and loads."""
    names = {file.as_posix() for file in upload.files}
    for name in _MODEL_FILES:
        if name not in names:
            if name in upload.left_out:
                reason = f", because {name} is {upload.left_out[name]}"
            else:
                reason = ""
            if name == CARD:
                remedy = "`crossearth card` writes it"
            else:
                remedy = "save model and processor with save_pretrained"
            raise InputError(f"{upload.folder} has no {name} to publish{reason}; {remedy}")
    for name in ("config.json", "preprocessor_config.json"):
        _check_code(upload, name, names)
    metadata = _read_card(upload.folder / CARD)
    _check_backbone(upload)
    load_model(upload.folder, device="cpu")
    if metadata.get("license"):
        return []
    return [f"{CARD} states no license; add one with `crossearth card --license`"]


def _check_backbone(upload: Upload) -> None:
    """Raises `InputError` if the license of a model's ViT requires its text and a notice, and one is missing."""
    family = family_of(load_config(upload.folder))
    if family is None or family.notice is None:
        return
    licenses = [
        upload.folder / file for file in upload.files if file.name.upper().startswith("LICENSE")
    ]
    if not any(
        family.title in path.read_text(encoding="utf-8", errors="replace") for path in licenses
    ):
        raise InputError(
            f"{upload.folder} holds a derivative of {family.title} without the {family.title} License, which goes with "
            f"it; put a copy beside the weights as LICENSE.md, from {family.license_source}"
        )
    if family.notice not in (upload.folder / CARD).read_text(encoding="utf-8"):
        raise InputError(
            f"{upload.folder / CARD} does not say '{family.notice}', as the {family.title} License asks; add the "
            "sentence, or let `crossearth card` write the section on licenses"
        )


def _check_code(upload: Upload, name: str, names: set[str]) -> None:
    """Raises `InputError` unless the modules that a JSON file's auto_map names are published, with what they import."""
    auto_map = read_json(upload.folder / name, "save the model again").get("auto_map")
    modules = set()
    if isinstance(auto_map, dict):
        modules = {str(reference).partition(".")[0] for reference in auto_map.values()}
    if not modules:
        raise InputError(
            f"{upload.folder / name} names no code (auto_map), so the model could not be loaded without this package; "
            "save it with save_pretrained of crossearth_hf's classes"
        )
    for module in sorted(modules):
        path = upload.folder / f"{module}.py"
        try:
            needed = {path.name, *(Path(file).name for file in get_relative_import_files(path))}
        except FileNotFoundError as error:
            needed = {Path(error.filename).name}
        missing = sorted(needed - names)
        if missing:
            raise InputError(
                f"{upload.folder} lacks the module {missing[0]} that {name} needs; save the model again"
            )


def _check_dataset(upload: Upload, private: bool) -> list[str]:
    """Notes on a data set's folder; raises `InputError` unless every split of every configuration can be read."""
    if Path(CARD) not in upload.files:
        raise InputError(f"{upload.folder} has no {CARD}; `crossearth build-dataset` writes it")
    metadata = _read_card(upload.folder / CARD)
    if metadata.get("license"):
        notes = []
    else:
        notes = [f"{CARD} states no license"]
    for file in upload.files:
        if file.name == "build.json":
            notes += _check_build(upload.folder / file, private)
    _check_loads(upload.folder)
    return notes


def _check_build(path: Path, private: bool) -> list[str]:
    """Notes on a built domain; raises `InputError` if its license forbids publishing it."""
    build = read_json(path, "build the data set again")
    try:
        dataset, incomplete = DATASETS.get(build["dataset"]), build["incomplete"]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); build the data set again"
        ) from error
    if dataset is not None and dataset.may_be_shared is False and not private:
        raise InputError(
            f"the license of {dataset.title} does not let others publish it ({dataset.license_source}); add --private"
        )
    return [f"{path.parent.name} is incomplete"] * bool(incomplete)


def _check_loads(folder: Path) -> None:
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "checking a data set needs the package 'datasets'; run: pip install datasets"
        ) from error
    try:
        for config in datasets.get_dataset_config_names(str(folder)):
            for name, split in datasets.load_dataset(str(folder), config, streaming=True).items():
                if not list(split.decode(False).take(1)):
                    raise InputError(
                        f"the split {name}, configuration {config}, is empty; build {folder} again"
                    )
    except InputError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"{folder} does not load as a data set ({reason_of(error)}); build it again"
        ) from error


def _read_card(path: Path) -> dict[str, Any]:
    """The YAML of a card; raises `InputError` if it is missing or damaged."""
    try:
        metadata = RepoCard(path.read_text(encoding="utf-8")).data.to_dict()
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); repair its YAML") from error
    if not metadata:
        raise InputError(
            f"{path} has no YAML block, which the Hub needs; `crossearth card` writes one"
        )
    return metadata


def _push(upload: Upload, repo_id: str, kind: str, private: bool, api: HfApi) -> None:
    try:
        api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        exposed = private and not api.repo_info(repo_id, repo_type=kind).private
        if not exposed:
            files = [
                CommitOperationAdd(file.as_posix(), upload.folder / file) for file in upload.files
            ]
            api.create_commit(
                repo_id, files, commit_message=f"{upload.folder.resolve().name}", repo_type=kind
            )
    except Exception as error:  # the client, its HTTP library and the network fail in many ways
        raise InputError(
            f"the Hub refused {repo_id}: {reason_of(error)}; check its name, your login and the network"
        ) from error
    if exposed:
        raise InputError(
            f"{repo_id} exists and is public; make it private there first, or choose another name"
        )


def _size(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    if units[0] == "B":
        return f"{size:.0f} {units[0]}"
    return f"{size:.1f} {units[0]}"
