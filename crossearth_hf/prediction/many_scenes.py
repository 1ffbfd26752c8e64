"""Many scenes to folders of maps: what is finished is skipped, what fails does not stop the others."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..files.outputs import check_distinct, check_place
from ..files.working_folders import side_files
from ..progress import progress_bar
from ..raster.imagery import OwnOutput, is_own_output
from ..raster.raw_bands import EmptyScene
from ..raster.scene import files_behind
from .kept_parts import has_parts, parts_folder
from .map_report import MapReport
from .mapper import SceneMapper
from .one_scene import MapOutputs
from .scene_list import ListedScene
from .workers import WorkersLost

_MOST_THREADS = 64
_ALL_BUT_FINISHED = 0.999  # share of a scene whose windows are done and whose files are not


@dataclass(frozen=True)
class MapFolders:
    """Folders for the maps and, on request, for what goes with them; the files of a scene bear its name."""

    maps: Path
    confidence: Path | None = None
    probabilities: Path | None = None
    preview: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """The folders asked for."""
        return [folder for folder in (self.maps, self.confidence, self.probabilities, self.preview) if folder]

    @classmethod
    def checked(
        cls,
        maps: str | os.PathLike[str],
        *,
        confidence: str | os.PathLike[str] | None = None,
        probabilities: str | os.PathLike[str] | None = None,
        preview: str | os.PathLike[str] | None = None,
    ) -> "MapFolders":
        """Checks the folders and makes those that are missing.

        Raises:
            InputError: for a folder that cannot be made or written to, a file in its place, one folder for two kinds
                of GeoTIFF.
        """
        rasters = [os.path.realpath(folder) for folder in (maps, confidence, probabilities) if folder is not None]
        if len(set(rasters)) < len(rasters):
            raise InputError(
                f"the GeoTIFFs of a scene have one name: {rasters[-1]} cannot hold two kinds; name a folder for each"
            )
        return cls(
            _made(maps),
            confidence=None if confidence is None else _made(confidence),
            probabilities=None if probabilities is None else _made(probabilities),
            preview=None if preview is None else _made(preview),
        )

    def check_inputs(self, scenes: Sequence[ListedScene]) -> None:
        """Raises `InputError` where a file of results is one of the scenes, or a file that is read for any of them.

        Scenes are opened only where some result is there already: nothing else can be lost.
        """
        results = [Path(os.path.realpath(file)) for scene in scenes for file in self._files(scene).files]
        sources = [scene.source for scene in scenes if scene.problem is None]
        check_distinct(sources, results)
        if any(os.path.lexists(place) for result in results for place in (result, *side_files(result))):
            check_distinct([file for source in sources for file in files_behind(source)], results)

    def unfinished(self, scenes: Sequence[ListedScene]) -> list[ListedScene]:
        """The scenes of which not all files stand, or of which parts are left."""
        return [scene for scene in scenes if not _is_finished(self._files(scene))]

    def outputs_of(self, scene: ListedScene, *, overwrite: bool) -> MapOutputs:
        """The files of a scene, checked, in sub-folders made for them.

        Raises:
            InputError: for files that cannot be written, or that already exist, as `MapOutputs.checked` says.
        """
        files = self._files(scene)
        for path in files.files:
            check_place(path, overwrite=True, parents=True)
        return MapOutputs.checked(
            scene.source,
            files.map,
            confidence=files.confidence,
            probabilities=files.probabilities,
            preview=files.preview,
            overwrite=overwrite,
        )

    def _files(self, scene: ListedScene) -> MapOutputs:
        """The files of a scene, unchecked."""

        def file(folder: Path | None, ending: str) -> Path | None:
            if folder is None:
                return None
            return folder / f"{scene.name}{ending}"

        extras = file(self.confidence, ".tif"), file(self.probabilities, ".tif"), file(self.preview, ".png")
        confidence, probabilities, preview = extras
        return MapOutputs(
            self.maps / f"{scene.name}.tif", confidence=confidence, probabilities=probabilities, preview=preview
        )


def _is_finished(files: MapOutputs) -> bool:
    all_exist = all(map(os.path.exists, files.files))
    return all_exist and is_own_output(str(files.map)) and not has_parts(parts_folder(files.map))


def _made(folder: str | os.PathLike[str]) -> Path:
    """The folder, made where it is missing; raises `InputError` where something else stands there."""
    place = Path(os.path.realpath(folder))
    if place.is_file():
        raise InputError(f"{folder} is a file; several scenes need a folder for their results")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made: {error.strerror}; choose another one") from error
    return check_place(place / "map.tif", overwrite=True).parent  # says if it is read-only


@dataclass(frozen=True)
class SceneResult:
    """What became of a scene.

    Attributes:
        scene: Which.
        report: Its map; None if it failed.
        problem: Why it failed, in one sentence; else None.
        advice: What would give a better map, or None.
        notices: What is odd about the scene.
        skipped: Why there is nothing to map: a result of this package, no pixel with data; else None.
        summary: How the scene was read, in one line; None where it was not.
    """

    scene: ListedScene
    report: MapReport | None = None
    problem: str | None = None
    advice: str | None = None
    notices: tuple[str, ...] = ()
    skipped: str | None = None
    summary: str | None = None


def map_scenes(
    scenes: Sequence[ListedScene],
    folders: MapFolders,
    mapper: SceneMapper,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> Iterator[SceneResult]:
    """Maps scenes, several at a time where there are workers; yields what became of each as soon as it is known.

    Where the caller stops, by Ctrl-C too, no half file is left; finished parts are, and are used again.

    Args:
        scenes: As `MapFolders.unfinished` gives them.
        folders: Where the results go.
        mapper: Model, settings and workers.
        overwrite: Whether files that exist may be replaced.
        progress: Whether to show a progress bar over all scenes.

    Raises:
        WorkersLost: where nobody is left to compute any scene.
    """
    with _Bar(len(scenes), disable=not progress) as bar:
        map_one = partial(_map_one, folders=folders, mapper=mapper, overwrite=overwrite, bar=bar)
        if mapper.workers is None:
            yield from map(map_one, scenes)
            return
        # Threads open scenes and write maps while workers compute: some more than workers, so that none is idle.
        threads = ThreadPoolExecutor(min(mapper.workers.slots + 2, _MOST_THREADS))
        try:
            for future in as_completed([threads.submit(map_one, scene) for scene in scenes]):
                yield future.result()
        except BaseException:
            mapper.workers.stop()
            raise
        finally:
            threads.shutdown(cancel_futures=True)


def _map_one(scene: ListedScene, folders: MapFolders, mapper: SceneMapper, overwrite: bool, bar: "_Bar") -> SceneResult:
    """Maps a scene unless it is finished, and turns what goes wrong into a sentence."""
    try:
        if scene.problem is not None:
            return SceneResult(scene, problem=scene.problem)
        outputs = folders.outputs_of(scene, overwrite=overwrite)
        with mapper.open(scene.source) as opened:
            opened.check_has_data()
            notices = tuple(map(str, opened.notices()))
            report = mapper.map(opened, outputs, progress=False, on_windows=partial(bar.move, scene.name))
            return SceneResult(scene, report, advice=mapper.advice(opened), notices=notices, summary=opened.summary())
    except WorkersLost:
        raise
    except (OwnOutput, EmptyScene) as error:
        finding = str(error).removeprefix(f"{scene.source} ")
        return SceneResult(scene, skipped=f"skipped, {finding}")
    except InputError as error:
        if scene.source in str(error):
            sentence = str(error)
        else:
            sentence = f"{scene.source}: {error}"
        return SceneResult(scene, problem=sentence)
    except Exception as error:  # a fault of ours with one scene must not cost the others
        return SceneResult(scene, problem=f"{scene.source}: {type(error).__name__}: {error}")
    finally:
        bar.finish(scene.name)


class _Bar:
    """A progress bar over scenes that moves with their windows, from several threads.

    Args:
        scenes: How many.
        disable: Whether to show nothing.
    """

    def __init__(self, scenes: int, *, disable: bool) -> None:
        form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
        self._bar = progress_bar(
            total=scenes, desc=f"0 of {scenes} scenes", unit="", shown=not disable, bar_format=form
        )
        self._shares: dict[str, float] = {}
        self._finished = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def move(self, name: str, done: int, total: int) -> None:
        """Of the scene called `name` so many windows are done."""
        with self._lock:
            self._set(name, _ALL_BUT_FINISHED * done / total)

    def finish(self, name: str) -> None:
        """The scene called `name` is done with, one way or the other."""
        with self._lock:
            self._finished += 1
            self._bar.set_description_str(f"{self._finished} of {self._bar.total} scenes")
            self._set(name, 1.0)

    def _set(self, name: str, share: float) -> None:
        self._bar.update(share - self._shares.get(name, 0.0))
        self._shares[name] = share
