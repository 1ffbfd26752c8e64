"""Files of models on the Hub: the newest if it answers in time, else those in the cache."""

import threading
from functools import cache
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id

from ..errors import LONGEST_FOREIGN_TEXT, InputError, on_one_line, reason_of
from .documents import read_json

ANSWER_SECONDS = 4.0
"""Seconds without any answer after which the Hub counts as out of reach; our choice."""

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_EXTRAS = (PROCESSOR, "processor_config.json", "earth_style.safetensors", "train.yaml")


def check_repository(repo_id: str) -> None:
    """Raises `InputError` for anything but a name of a repository on the Hub."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(
            f"'{on_one_line(repo_id, 200)}' is not a name of a repository; write ORGANIZATION/NAME"
        ) from error


def hub_file(repo_id: str, name: str, *, revision: str | None = None) -> Path:
    """A file of a model repository, in the Hub's cache on this machine.

    Raises:
        InputError: The repository is invalid or unknown, the file is missing in it, or the Hub does not answer within
            `ANSWER_SECONDS` for a file that is not in the cache.
    """
    path = _fetched(repo_id, name, revision)
    if path is None:
        raise InputError(
            f"'{repo_id}' on the Hub has no file {on_one_line(name, LONGEST_FOREIGN_TEXT)}; check the name"
        )
    return path


def hub_dataset_file(repo_id: str, name: str) -> Path | None:
    """A file of a repository of data, see `hub_file`; None if it has none of that name."""
    return _fetched(repo_id, name, None, repo_type="dataset")


def hub_model(repo_id: str) -> Path:
    """The folder with configuration, processor and weights of a model repository; `InputError` as in `hub_file`."""
    config = hub_file(repo_id, CONFIG)
    revision = config.parent.name  # all files of one commit
    for name in _EXTRAS:
        _fetched(repo_id, name, revision)
    if _fetched(repo_id, WEIGHTS, revision) is None:
        index = hub_file(repo_id, INDEX, revision=revision)
        for name in weight_parts(index):
            hub_file(repo_id, name, revision=revision)
    return config.parent


def weight_parts(index: Path) -> list[str]:
    """Names of the weight files that a model.safetensors.index.json lists."""
    remedy = "save the model again"
    names = read_json(index, remedy).get("weight_map")
    if isinstance(names, dict) and all(isinstance(n, str) for n in names.values()):
        files = set(names.values())
    else:
        files = set()
    if not files or any(Path(name).name != name for name in files):
        raise InputError(f"{index} does not list weight files beside it (weight_map); {remedy}")
    return sorted(files)


def is_online() -> bool:
    """Whether the Hub answers; checked once per process."""
    return not constants.is_offline_mode() and _answers()


def require_online(what: str) -> None:
    """Raises `InputError` if the Hub does not answer; `what` says what cannot be done."""
    if not is_online():
        raise InputError(
            f"{what}: the Hub ({constants.ENDPOINT}) does not answer; check the network"
        )


@cache
def _answers() -> bool:
    """Whether anything answers at the Hub's address. In a thread, because looking up a name has no time limit."""
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
        except Exception:  # whatever the network does
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return answered.is_set()


def _fetched(
    repo_id: str, name: str, revision: str | None, repo_type: str | None = None
) -> Path | None:
    """A file of a repository; None if the repository does not have it."""
    check_repository(repo_id)
    online = is_online()
    try:
        path = hf_hub_download(
            repo_id,
            name,
            repo_type=repo_type,
            revision=revision,
            local_files_only=not online,
            etag_timeout=ANSWER_SECONDS,
        )
        return Path(path)
    except LocalEntryNotFoundError as error:
        # of a repository that was loaded before, perhaps without this file
        if revision is not None and not online:
            return None
        raise InputError(
            f"'{repo_id}' is not a path on this machine and cannot be downloaded from the Hub ({constants.ENDPOINT} "
            "does not answer); check the spelling, or the network"
        ) from error
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise InputError(
            f"'{repo_id}' on the Hub is open to accepted users only; ask for access and log in"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"'{repo_id}' is neither a path on this machine nor a public repository of the Hub; check the spelling, or "
            "log in"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"{name} of '{repo_id}' cannot be downloaded from the Hub ({reason_of(error)}); try later"
        ) from error
