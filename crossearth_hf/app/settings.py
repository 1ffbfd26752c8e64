"""Settings of whoever starts the app: flags, models and the work folder."""

import argparse
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..command_line import Parser
from ..errors import InputError
from ..files.working_folders import alone_in
from ..inference.loading import BUNDLED_MODEL, load_model
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .uploads import Limits

Model = tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]


@dataclass(frozen=True)
class WorkFolder:
    """Folders of one server.

    Attributes:
        served: Uploads and results, which a browser may fetch; emptied at start and end.
        examples: Example scenes, drawn once and kept.
    """

    served: Path
    examples: Path


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of the app."""
    limits = Limits()
    parser = Parser(
        prog="crossearth app",
        description="Opens a page that maps scenes. Everything happens on this machine.",
    )
    parser.add_argument(
        "--model",
        metavar="DIR_OR_HUB_ID",
        action="append",
        help="model that visitors can choose; repeatable (default: bundled)",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument(
        "--host", metavar="ADDRESS", help="default: 127.0.0.1, this machine only; 0.0.0.0 for all"
    )
    parser.add_argument(
        "--port", metavar="N", type=int, help="default: the first free one from 7860"
    )
    parser.add_argument(
        "--max-megapixels",
        metavar="N",
        type=float,
        default=limits.megapixels,
        help="largest scene (default: 100)",
    )
    parser.add_argument(
        "--max-megabytes",
        metavar="N",
        type=float,
        default=limits.megabytes,
        help="largest upload (default: 200)",
    )
    parser.add_argument(
        "--max-queue", metavar="N", type=int, default=20, help="scenes that may wait (default: 20)"
    )
    parser.add_argument(
        "--keep-minutes",
        metavar="N",
        type=float,
        default=60,
        help="minutes until files are deleted (default: 60)",
    )
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="work folder that keeps the examples; for one server at a time",
    )
    arguments = parser.parse_args(argv)
    for name in ("max_megapixels", "max_megabytes", "max_queue", "keep_minutes"):
        value = getattr(arguments, name)
        if not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} {value:g} must be a finite number above 0")
    if arguments.port is not None and not 0 < arguments.port < 2**16:
        parser.error(
            f"--port {arguments.port} must be from 1 to 65535; leave it out for the first free one from 7860"
        )
    return arguments


def check_address(arguments: argparse.Namespace) -> None:
    """Raises `InputError` for an address that this machine cannot listen at: gradio would try forever."""
    host = arguments.host or "127.0.0.1"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, arguments.port or 0, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:  # the second: a name too long
        raise cannot_open(arguments) from error


def cannot_open(arguments: argparse.Namespace) -> InputError:
    """An error that names the address and the remedy."""
    address = f"{arguments.host or '127.0.0.1'}:{arguments.port or 7860}"
    remedy = "choose another port with --port, or an address of this machine with --host"
    return InputError(f"{address} cannot be opened here; {remedy}")


def load_models(names: Sequence[str] | None, device: str) -> dict[str, Model]:
    """Every model that visitors may choose, loaded once, under the name that the page shows."""
    if not names:
        return {BUNDLED_MODEL.name: load_model(None, device=device)}
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in names]
    labels = [
        name if short.count(label) > 1 else label for name, label in zip(names, short, strict=True)
    ]
    return {
        label: load_model(name, device=device) for name, label in zip(names, labels, strict=True)
    }


@contextmanager
def work_folder(parent: str | os.PathLike[str] | None) -> Iterator[WorkFolder]:
    """A place for uploads, results and examples, in `parent` or in a temporary folder that vanishes at the end."""
    if parent is None:
        root = Path(tempfile.mkdtemp(prefix="crossearth-app-"))
    else:
        root = Path(parent) / "crossearth-app"
    folders = WorkFolder(root.resolve() / "served", root.resolve() / "examples")
    with _reserved(root, folders.served):
        # gradio reads these: where uploads go, and what else it would serve.
        os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = str(folders.served)
        try:
            yield folders
        finally:
            shutil.rmtree(folders.served if parent else root, ignore_errors=True)


@contextmanager
def _reserved(root: Path, served: Path) -> Iterator[None]:
    """Empties `served` in `root` and keeps other servers out; raises `InputError` where it cannot."""
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            refusal = (
                f"another server uses {root}; stop it, or choose another folder with --work-dir"
            )
            stack.enter_context(alone_in(root, refusal))
            shutil.rmtree(served, ignore_errors=True)
            served.mkdir()
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"{root} cannot be used ({reason}); choose another folder with --work-dir"
            ) from error
        yield
