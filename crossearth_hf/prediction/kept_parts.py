"""Finished parts of a map in a hidden folder beside it: computed anywhere, kept when a job is killed, used again."""

import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from affine import Affine

import crossearth_hf

from ..errors import InputError
from ..files.working_folders import NOTE, alone_in, is_own_folder, is_private, is_unmarked, mark, marked
from ..labels import label_set_for
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..raster.cog import BlockFile, Layer, Piece, map_layers
from ..raster.grid import Grid
from ..raster.scene import Scene
from ..raster.writing import Block
from .blending import confidences, probabilities
from .parts import Part, SceneParts, count_windows, whole
from .sweep import predict_part

_IDENTITY, _BLOCKS = "job.json", "blocks.json"
_PART = re.compile(r"\d+(-\w+)*")  # a finished part; one in progress; one that is discarded
_PART_FILES = {_BLOCKS, "labels.tif", "confidence.tif", "probabilities.tif"}
_INCIDENTAL = {"_name_or_path", "architectures", "auto_map", "dtype", "transformers_version"}  # change no answer


@dataclass(frozen=True)
class PartSettings:
    """How parts are computed.

    Attributes:
        window, stride, batch_size, tta: As in `predict_part`.
        layers: Names of the layers to write.
        model: `model_digest` of the model.
        device_type: Where it runs.
    """

    window: int
    stride: int
    batch_size: int
    tta: bool
    layers: tuple[str, ...]
    model: str
    device_type: str


@dataclass(frozen=True)
class PartJob:
    """A part to compute: all that a worker must know besides the scene and the model.

    Attributes:
        part: Where it lies on the scene's grid.
        folder: Stands, whole, once the part is finished.
        windows: Windows that touch it.
        settings: How it is computed.
    """

    part: Part
    folder: Path
    windows: int
    settings: PartSettings

    @property
    def is_finished(self) -> bool:
        """Whether the part stands."""
        return self.folder.is_dir()

    def piece(self, layer: str) -> Piece:
        """The finished part of a layer; raises `InputError` where it cannot be read."""
        try:
            blocks = json.loads((self.folder / _BLOCKS).read_text())[layer]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"the part {self.folder} is missing or damaged; delete that folder and run again"
            ) from error
        part = self.part
        size = (part.bottom - part.top, part.right - part.left)
        return Piece(_file(self.folder, layer), part.top, part.left, *size, tuple(Block(*block) for block in blocks))


@dataclass(frozen=True)
class PartJobs(Sequence[PartJob]):
    """Jobs of a map, made one by one, in the order of `scene_parts`; finished parts go into `folder`.

    Attributes:
        grid: `Scene.grid`.
        parts: `scene_parts` of it.
        numbers: Which of them.
    """

    grid: Grid
    folder: Path
    parts: SceneParts
    settings: PartSettings
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        number, settings = self.numbers[index], self.settings
        if not isinstance(number, int):  # of a slice
            return replace(self, numbers=number)
        part = self.parts[number]
        windows = count_windows(self.grid, part, settings.window, settings.stride)
        return PartJob(part, self.folder / _name(number), windows, settings)

    def unfinished(self) -> "PartJobs":
        """Those whose parts do not stand yet."""
        standing = {path.name for path in self.folder.iterdir() if _is_part(path)}
        return replace(self, numbers=array("q", (n for n in self.numbers if _name(n) not in standing)))


def compute_part(
    job: PartJob,
    scene: Scene,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
) -> None:
    """Computes a part unless it is finished; two processes that compute the same one do no harm.

    Args:
        job: One of `PartJobs`.
        scene: The same file, opened in the same way.
        model: In eval mode. Parts fit together to the last bit where all workers run the same weights in one precision
            on one type of device with one number of threads.
        processor: Gives the normalization.

    Raises:
        InputError: as `predict_part`; where the part cannot be written.
    """
    if not job.is_finished:
        compute_run([job], scene, model, processor)


def compute_run(
    jobs: Sequence[PartJob],
    scene: Scene,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Computes consecutive parts of a column, swept as one; each is finished as soon as its last row stands."""
    settings = jobs[0].settings
    layers = map_layers(label_set_for(model.config.id2label))
    with _PartWriter(jobs, [layers[name] for name in settings.layers]) as writer:
        predict_part(
            scene,
            whole([job.part for job in jobs]),
            model,
            processor,
            writer.write,
            window=settings.window,
            stride=settings.stride,
            batch_size=settings.batch_size,
            tta=settings.tta,
            on_batch=on_batch,
        )


class _PartWriter:
    """Writes what is swept into the files of one part after the other.

    Args:
        jobs: From top to bottom.
        layers: What to write.
    """

    def __init__(self, jobs: Sequence[PartJob], layers: Sequence[Layer]) -> None:
        self._jobs, self._layers = iter(jobs), layers
        self._job: PartJob | None = None  # whose files are open, in the folder below
        self._folder = Path()
        self._files: list[BlockFile] = []

    def __enter__(self) -> "_PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._job is not None:
            for file in self._files:
                with suppress(InputError):  # the first error is raised already
                    file.__exit__(kind, error, trace)
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, row: int, col: int, labels: np.ndarray, scores: np.ndarray) -> None:
        """Writes a block into the part that it belongs to, as `predict_part` calls it."""
        job = self._job or self._open()
        values = {
            "labels": lambda: labels,
            "confidence": lambda: confidences(labels, scores),
            "probabilities": lambda: probabilities(labels, scores),
        }
        for layer, file in zip(self._layers, self._files, strict=True):
            file.write(row - job.part.top, col - job.part.left, values[layer.name]())
        if row + len(labels) == job.part.bottom:
            self._finish(job)

    def _open(self) -> PartJob:
        """Opens the files of the next part."""
        job = next(self._jobs)
        with _refusals(_output_of(job)):
            self._folder = Path(tempfile.mkdtemp(prefix=f"{job.folder.name}-", dir=job.folder.parent))
        self._job, self._files = job, []
        part = job.part
        grid = Grid(part.right - part.left, part.bottom - part.top, None, Affine.identity())
        for layer in self._layers:
            self._files.append(BlockFile(_file(self._folder, layer.name), grid, layer, _output_of(job)))
        return job

    def _finish(self, job: PartJob) -> None:
        """Closes the files of a part and puts them in its place."""
        for file in self._files:
            with file:
                pass
        blocks = {
            layer.name: [tuple(asdict(block).values()) for block in file.blocks]
            for layer, file in zip(self._layers, self._files, strict=True)
        }
        with _refusals(_output_of(job)):
            (self._folder / _BLOCKS).write_text(json.dumps(blocks))
            try:
                os.replace(self._folder, job.folder)
            except OSError:
                if not job.is_finished:  # by another process
                    raise
                shutil.rmtree(self._folder, ignore_errors=True)
        self._job = None


def parts_folder(output: Path) -> Path:
    """The hidden folder of finished parts beside an output; it stands while a job is unfinished."""
    return output.with_name(f".{output.name}.parts")


def _output_of(job: PartJob) -> Path:
    """The output beside which a part is kept."""
    folder = job.folder.parent
    return folder.with_name(folder.name.removeprefix(".").removesuffix(".parts"))


def check_parts(folder: Path) -> None:
    """Raises `InputError` for anything in the place of a folder of parts that no run has put there."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise InputError(_in_the_way(folder, "is not a folder" if not folder.is_symlink() else "is a link"))
    if not is_own_folder(folder):
        raise InputError(_in_the_way(folder, "belongs to another user"))
    try:
        strangers = [path for path in sorted(folder.iterdir()) if not _is_own(path)]
        is_foreign = marked(folder) is None and not is_unmarked(folder)
    except OSError as error:
        raise InputError(_in_the_way(folder, f"cannot be read ({error.strerror})")) from error
    if strangers or is_foreign:
        raise InputError(_in_the_way(strangers[0] if strangers else folder, "was not made by crossearth"))


def _in_the_way(path: Path, reason: str) -> str:
    return (
        f"{path} {reason}, and finished parts of the map are kept under that name; move it away or choose another name "
        "for the map"
    )


def has_parts(folder: Path) -> bool:
    """Whether a run that did not come to its end has left its folder of parts, also one that it was about to remove."""
    if marked(folder) is not None:
        return True
    return is_own_folder(folder) and is_private(folder) and is_unmarked(folder)


def is_of_killed_run(folder: Path, scene: str | os.PathLike[str], output: str | os.PathLike[str]) -> bool:
    """Whether an output is of the run on a scene that has left a folder of parts, and so may be replaced."""
    facts = marked(folder)
    if facts is None:  # the kill came after all outputs had moved into place
        return has_parts(folder)
    return facts.get("scene") == os.path.realpath(scene) and os.path.realpath(output) in facts.get("outputs", [])


@contextmanager
def kept_parts(outputs: Sequence[Path], identity: dict[str, Any]) -> Iterator[Path]:
    """The hidden folder of finished parts beside an output, for one process at a time.

    Holds the parts that an earlier run of the same job has finished, and nothing else at first. Goes at a regular end;
    after an exception it stays where it holds finished parts, which is said on stderr.

    Args:
        outputs: What the job writes, the map first.
        identity: What the parts depend on; those of another job are removed.

    Raises:
        InputError: where another process writes this output, the folder cannot be made, or something else is there.
    """
    output = outputs[0]
    folder = parts_folder(output)
    with ExitStack() as stack:
        check_parts(folder)
        with _refusals(output):
            folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
            refusal = f"another process is writing {output}; wait for it or choose another name"
            stack.enter_context(alone_in(folder, refusal))
        try:
            with _refusals(output):
                mark(folder, scene=identity["scene"][0], outputs=[os.path.realpath(path) for path in outputs])
                _clear(folder, json.dumps(identity, sort_keys=True, default=str))
            yield folder
        except BaseException:
            finished = sum(map(_is_part, folder.iterdir()))
            if finished:
                if finished == 1:
                    are = "part is"
                else:
                    are = "parts are"
                print(
                    f"{finished} finished {are} kept in {folder}; the same command goes on from there", file=sys.stderr
                )
            else:
                _remove(folder)
            raise
        _remove(folder)


def _is_own(path: Path) -> bool:
    """Whether something in a folder of parts is what a run puts there."""
    if path.is_symlink():
        return False
    if path.is_dir():
        return _PART.fullmatch(path.name) is not None and all(map(_is_of_part, path.iterdir()))
    return path.name in (_IDENTITY, NOTE, f"{NOTE}.new")


def _is_of_part(path: Path) -> bool:
    return path.name.removesuffix(".aux.xml") in _PART_FILES and not path.is_dir()


def _remove(folder: Path) -> None:
    """Removes what runs have put into a folder of parts, and the folder where nothing else is in it.

    The identity goes first, so that nobody goes on from the rest that a kill leaves; the note last, by which it is
    known.
    """
    (folder / _IDENTITY).unlink(missing_ok=True)
    with suppress(OSError):
        for path in filter(_is_own, list(folder.iterdir())):
            if path.is_dir():
                shutil.rmtree(path)
        (folder / f"{NOTE}.new").unlink(missing_ok=True)
        (folder / NOTE).unlink(missing_ok=True)
        folder.rmdir()


def discard(jobs: Iterable[PartJob]) -> None:
    """Removes finished parts that lead to no map."""
    for job in jobs:
        aside = job.folder.with_name(f"{job.folder.name}-discarded")  # no part's name: a kill leaves no half of one
        with suppress(OSError):
            os.replace(job.folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def job_identity(
    scene: Scene,
    model: CrossEarthForSemanticSegmentation,
    settings: PartSettings,
) -> dict[str, Any]:
    """What a map depends on: the files, how they are read, the model, how it runs."""
    return {
        "scene": [os.path.realpath(scene.path), list(scene.stamps.values()), scene.bands],
        "reading": [scene.nodata, scene.palette_as_image],
        "grid": [scene.grid.width, scene.grid.height, list(scene.grid.transform)],
        "dtype": str(model.dtype),
        **asdict(settings),
    }


def model_digest(model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor) -> str:
    """Tells models apart by what decides their answers: configuration, weights, normalization, version of the package.

    Weights enter fast and the same on every device: by the sum of the bits of each tensor.
    """
    config = json.loads(json.dumps(model.config.to_dict(), default=str), object_hook=_lasting)
    normalization = [processor.image_mean, processor.image_std, processor.rescale_factor]
    digest = hashlib.sha256(json.dumps([crossearth_hf.__version__, config, normalization], sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        bits = tensor.detach().contiguous().flatten().view(torch.uint8)
        wide = bits.numel() % 8 == 0 and bits.storage_offset() % 8 == 0
        total = (bits.view(torch.int64) if wide else bits).sum(dtype=torch.int64)  # wide integers are far faster
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {int(total)}\n".encode())
    return digest.hexdigest()


def _lasting(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _INCIDENTAL}


def _clear(folder: Path, identity: str) -> None:
    """Leaves the finished parts of the job with this identity in a folder, and notes it there."""
    note = folder / _IDENTITY
    same = note.exists() and note.read_text() == identity
    if not same:
        note.unlink(missing_ok=True)
    for path in filter(_is_own, list(folder.iterdir())):
        if path.is_dir() and not (same and _is_part(path)):
            shutil.rmtree(path)
    if not same:
        note.write_text(identity)


def _is_part(path: Path) -> bool:
    return path.is_dir() and path.name.isdecimal()


def _name(number: int) -> str:
    return f"{number:04d}"


def _file(folder: Path, layer: str) -> Path:
    return folder / f"{layer}.tif"


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be written: {reason}; free space or choose another folder") from error
