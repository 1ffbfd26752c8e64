"""Many scenes to folders of maps: finished maps are skipped, and failures do not stop the other scenes."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..files.outputs import check_distinct, check_place
from ..files.working_folders import side_files
from ..progress import progress_bar
from ..raster.finished_map import FinishedMap
from ..raster.imagery import OwnOutput, is_own_output
from ..raster.raw_bands import EmptyScene
from ..raster.scene import files_behind
from .area_tables import AreaRows, AreaTables
from .job_identity import is_of_another_job
from .kept_parts import unfinished_parts
from .map_report import MapReport
from .mapper import SceneMapper
from .one_scene import SUFFIXES, MapOutputs, asked_for
from .scene_list import ListedScene
from .stac_item import check_item, item_path
from .workers import WorkersLost

_MOST_THREADS = 64
_ALL_BUT_FINISHED = 0.999  # share of a scene once its windows are finished, before its files are


@dataclass(frozen=True)
class MapFolders:
    """Folders for the maps and, on request, for their other files; the files of a scene have its name.

    Attributes:
        paths: Folders by the content of their files, as in `MapOutputs`.
    """

    paths: dict[str, Path]

    @property
    def folders(self) -> list[Path]:
        """All folders."""
        return list(self.paths.values())

    @classmethod
    def checked(
        cls, maps: str | os.PathLike[str], **extras: str | os.PathLike[str] | None
    ) -> "MapFolders":
        """Checks the folders and makes those that are missing.

        Args:
            maps: For the maps.
            extras: For `confidence`, `probabilities`, `polygons` and `preview`.

        Raises:
            InputError: A folder cannot be made or written to, a file is in its place, or two kinds of GeoTIFF have the
                same folder.
        """
        named = asked_for(maps, extras)
        rasters = [
            os.path.realpath(folder) for name, folder in named.items() if ".tif" in SUFFIXES[name]
        ]
        if len(set(rasters)) < len(rasters):
            raise InputError(
                f"all GeoTIFFs of a scene have the same name, so {rasters[-1]} cannot hold two kinds; name a folder "
                "for each"
            )
        return cls({name: _made(folder) for name, folder in named.items()})

    def check_inputs(self, scenes: Sequence[ListedScene]) -> None:
        """Raises `InputError` if a result is one of the scenes, or a file that is read for one of them.

        Scenes are opened only if some result exists already, because nothing can be lost otherwise.
        """
        results = [
            Path(os.path.realpath(file)) for scene in scenes for file in self._files(scene).files
        ]
        sources = [scene.source for scene in scenes if scene.problem is None]
        check_distinct(sources, results)
        if any(
            os.path.lexists(place) for result in results for place in (result, *side_files(result))
        ):
            check_distinct([file for source in sources for file in files_behind(source)], results)

    def unfinished(self, scenes: Sequence[ListedScene], job: str) -> list[ListedScene]:
        """The scenes with missing files or with parts of an unfinished map.

        Args:
            scenes: All scenes of the job.
            job: What decides its maps, as `SceneMapper.job` has it.

        Raises:
            InputError: A finished map is of another job.
        """
        unfinished, others = [], []
        for scene in scenes:
            files = self._files(scene)
            if not _is_finished(files):
                unfinished.append(scene)
            elif is_of_another_job(_job_of(files), job):
                others.append(files.map)
        if others:
            more = {1: " was", 2: " and another map were"}.get(
                len(others), f" and {len(others) - 1} other maps were"
            )
            raise InputError(
                f"{others[0]}{more} made with another model, area or setting than this job has; add --overwrite, or "
                "choose another folder"
            )
        return unfinished

    def outputs_of(self, scene: ListedScene, *, overwrite: bool) -> MapOutputs:
        """The checked files of a scene; makes their sub-folders.

        Raises:
            InputError: A file cannot be written or already exists, as in `MapOutputs.checked`.
        """
        files = self._files(scene)
        for path in files.files:
            check_place(path, overwrite=True, parents=True)
        extras = {name: path for name, path in files.paths.items() if name != "labels"}
        return MapOutputs.checked(scene.source, files.map, overwrite=overwrite, **extras)

    def _files(self, scene: ListedScene) -> MapOutputs:
        """The files of a scene, unchecked."""
        files = {
            name: folder / f"{scene.name}{SUFFIXES[name][0]}" for name, folder in self.paths.items()
        }
        return MapOutputs(files)

    def items(self, scenes: Sequence[ListedScene]) -> list[Path]:
        """Where the STAC items of the maps lie."""
        return [item_path(self._files(scene).map) for scene in scenes]

    def finished(self, scene: ListedScene, job: str) -> MapOutputs | None:
        """The files of a scene; None if they are not finished or of another job."""
        files = self._files(scene)
        if _is_finished(files) and not is_of_another_job(_job_of(files), job):
            return files
        return None


def _job_of(files: MapOutputs) -> str | None:
    """What decided the values of a finished map; None in maps of earlier releases."""
    with FinishedMap(files.map) as finished:
        return finished.job


def _is_finished(files: MapOutputs) -> bool:
    all_exist = all(map(os.path.exists, files.files))
    return all_exist and is_own_output(str(files.map)) and not unfinished_parts(files.map).exists()


def _made(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if it is missing; `InputError` if something else is in its place."""
    place = Path(os.path.realpath(folder))
    if place.is_file():
        raise InputError(f"{folder} is a file; several scenes need a folder for their results")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be made: {error.strerror}; choose another one"
        ) from error
    return check_place(place / "map.tif", overwrite=True).parent  # raises if it is read-only


@dataclass(frozen=True)
class SceneResult:
    """The result of a scene.

    Attributes:
        scene: The scene.
        report: The report on its map; None if it failed.
        problem: Why it failed, in one sentence, or None.
        advice: What would give a better map, or None.
        notices: Oddities of the scene.
        skipped: Why there is nothing to map (a result of this package, no pixel with data), or None.
        summary: How the scene was read, in one line; None if it was not.
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
    """Maps scenes, several at a time with workers; yields each result as soon as it is known.

    If the caller stops, also by Ctrl-C, no partial file is left; finished parts stay and are used again.

    Args:
        scenes: Scenes as `MapFolders.unfinished` returns them.
        folders: Folders for the results.
        mapper: Model, settings and workers.
        overwrite: Whether existing files may be replaced.
        progress: Whether to show a progress bar over all scenes.

    Raises:
        WorkersLost: No workers are left.
    """
    with _Bar(len(scenes), disable=not progress) as bar:
        map_one = partial(_map_one, folders=folders, mapper=mapper, overwrite=overwrite, bar=bar)
        if mapper.workers is None:
            yield from map(map_one, scenes)
            return
        # Threads open scenes and write maps while workers compute. There are a few more threads than workers, so that
        # no worker is idle.
        threads = ThreadPoolExecutor(min(mapper.workers.slots + 2, _MOST_THREADS))
        try:
            for future in as_completed([threads.submit(map_one, scene) for scene in scenes]):
                yield future.result()
        except BaseException:
            mapper.workers.stop()
            raise
        finally:
            threads.shutdown(cancel_futures=True)


def write_tables(
    tables: AreaTables,
    scenes: Sequence[ListedScene],
    folders: MapFolders,
    reports: Mapping[str, MapReport],
    job: str,
) -> list[str]:
    """Writes the tables of areas of all finished maps, also of those that an earlier run has finished.

    Args:
        tables: The tables.
        scenes: All scenes of the job.
        folders: Folders of the results.
        reports: On the maps of this run, by the names of the scenes.
        job: What decides the maps, as `SceneMapper.job` has it.

    Returns:
        A sentence for each map that has no place in the tables.

    Raises:
        InputError: The tables cannot be written.
    """
    rows, problems = AreaRows(tables), []
    for scene in scenes:
        files = folders.finished(scene, job)
        if files is None:
            continue
        try:
            rows.add(scene.name, files.map, reports.get(scene.name))
        except InputError as error:
            problems.append(f"{scene.source} is missing in the tables: {error}")
    rows.write()
    return problems


def write_missing_items(
    scenes: Sequence[ListedScene], folders: MapFolders, mapper: SceneMapper
) -> list[str]:
    """Writes the STAC items of the maps that an earlier run has finished without them.

    Returns:
        A sentence for each map that gets none.
    """
    problems = []
    for scene in scenes:
        files = folders.finished(scene, mapper.job)
        if files is None:
            continue
        try:
            check_item(files.map)
            if item_path(files.map).exists():
                continue
            if _job_of(files) != mapper.job:
                raise InputError(
                    f"{files.map} does not say which model made it, so it gets no STAC item; add --overwrite"
                )
            with mapper.open(scene.source) as opened:
                mapper.write_item(opened, files)
        except InputError as error:
            problems.append(str(error))
    return problems


def _map_one(
    scene: ListedScene, folders: MapFolders, mapper: SceneMapper, overwrite: bool, bar: "_Bar"
) -> SceneResult:
    """Maps a scene, and turns errors into a sentence."""
    try:
        if scene.problem is not None:
            return SceneResult(scene, problem=scene.problem)
        outputs = folders.outputs_of(scene, overwrite=overwrite)
        with mapper.open(scene.source) as opened:
            opened.check_has_data()
            notices = tuple(map(str, opened.notices()))
            report = mapper.map(
                opened, outputs, progress=False, on_windows=partial(bar.move, scene.name)
            )
            notices += report.doubts
            return SceneResult(
                scene,
                report,
                advice=mapper.advice(opened),
                notices=notices,
                summary=opened.summary(),
            )
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
    except Exception as error:  # a bug with one scene must not stop the others
        return SceneResult(scene, problem=f"{scene.source}: {type(error).__name__}: {error}")
    finally:
        bar.finish(scene.name)


class _Bar:
    """A progress bar over scenes that moves with their windows, from several threads.

    Args:
        scenes: Number of scenes.
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
        """Sets the number of finished windows of the scene `name`."""
        with self._lock:
            self._set(name, _ALL_BUT_FINISHED * done / total)

    def finish(self, name: str) -> None:
        """Counts the scene `name` as done, whether it succeeded or not."""
        with self._lock:
            self._finished += 1
            self._bar.set_description_str(f"{self._finished} of {self._bar.total} scenes")
            self._set(name, 1.0)

    def _set(self, name: str, share: float) -> None:
        self._bar.update(share - self._shares.get(name, 0.0))
        self._shares[name] = share
