"""From folders, lists of paths and STAC items to scenes and their names.

A STAC item (https://stacspec.org, item specification 1.0) describes a scene and links to its files, the assets. Only
local files are used, because a downloaded document must not cause requests into the network.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..data.image_files import IMAGE_SUFFIXES
from ..errors import InputError
from ..files.documents import read_json
from ..raster.imagery import is_own_output
from ..raster.remote import is_remote, is_url, url_path
from ..raster.source_files import check_regular
from .stac_search import found_items, is_search

LIST_SUFFIX = ".txt"
STAC_SUFFIXES = (".json", ".geojson")

_TIFF = (".tif", ".tiff")
_NO_IMAGERY = {"thumbnail", "overview", "metadata"}  # roles of assets that are not scenes
_LONGEST_NAME = 200  # bytes; file systems allow 255 with the ending


@dataclass(frozen=True)
class ListedScene:
    """A scene and its name.

    Attributes:
        source: The raster, as GDAL opens it.
        name: Path of its results below their folder, without ending: "north/tile_7".
        problem: Why it cannot be mapped, if that is known already.
    """

    source: str
    name: str
    problem: str | None = None


def names_many(named: Sequence[str], target: str) -> bool:
    """Whether a person asks for a folder of maps: several scenes, or a folder, list or STAC file and no .tif to write.

    A search of a STAC API always gives a folder.

    An input for one .tif is one scene, because GDAL also opens some folders and text files.
    """
    if len(named) > 1:
        return True
    kind = Path(named[0]).suffix.lower()
    if is_search(named[0]):
        return True
    is_group = os.path.isdir(named[0]) or kind in (LIST_SUFFIX, *STAC_SUFFIXES)
    return is_group and Path(target).suffix.lower() not in _TIFF


def list_scenes(
    named: Sequence[str], outputs: Sequence[Path], *, asset: str | None = None, remote: bool = False
) -> list[ListedScene]:
    """The scenes that a person named, in that order; scenes of a folder by name.

    - A folder gives every file in it and in its sub-folders that ends in .jpg, .jpeg, .png, .tif, .tiff, .vrt, .jp2 or
      .img, hidden ones excepted; names keep the sub-folders.
    - NAME.txt gives one scene per line, relative to the file; blank lines and lines that start with # are skipped.
    - NAME.json or NAME.geojson is a STAC item or a FeatureCollection of items, each named by its id.
    - `stac:URL?collections=...` is a search of a STAC API, see `stac_search`.
    - Anything else is a raster.

    Args:
        named: Rasters, folders, lists and STAC files.
        outputs: Folders of results, which are skipped if they lie in a folder of scenes.
        asset: Key of the asset to use of each STAC item. By default the asset with the role or key "visual"; else the
            only asset with the role "data"; else the only image.
        remote: Whether scenes may be URLs, assets of STAC items may be, and STAC APIs may be searched.

    Raises:
        InputError: A folder or list has no scenes, a list cannot be read, two scenes have the same name, an output
            folder is a folder of scenes, or `asset` is given without STAC items. The error of one STAC item becomes its
            `problem`.
    """
    if asset is not None and not any(map(_has_assets, named)):
        raise InputError(
            f"the asset '{asset}' is for STAC items only, and {named[0]} is not one; leave --asset out"
        )
    places = [Path(os.path.realpath(folder)) for folder in outputs]
    scenes = [scene for source in named for scene in _expand(source, places, asset, remote)]
    scenes = _apart(scenes)
    seen: dict[str, str] = {}
    for scene in scenes:
        if scene.name in seen:
            first = seen[scene.name]
            if os.path.dirname(first) == os.path.dirname(scene.source):
                remedy = "move one of them away, or list the scenes to map in a .txt file"
            else:
                remedy = "name the folder that holds both, or map them into two folders"
            raise InputError(
                f"{first} and {scene.source} would both be written as {scene.name}; {remedy}"
            )
        seen[scene.name] = scene.source
    return scenes


def list_tiles(named: Sequence[str], *, asset: str | None = None) -> list[str]:
    """The rasters that a person named, as `list_scenes` has them, without our own results; they need no names.

    Raises:
        InputError: A folder or list has no rasters, or a STAC item has no raster on this machine.
    """
    scenes = [scene for source in named for scene in _expand(source, [], asset, False)]
    problems = [scene.problem for scene in scenes if scene.problem is not None]
    if problems:
        raise InputError(problems[0])
    tiles = [scene.source for scene in scenes if not is_own_output(scene.source)]
    if not tiles:
        raise InputError(
            f"{named[0]} holds only our own maps, not tiles; name the folder of the imagery"
        )
    return tiles


def _apart(scenes: list[ListedScene]) -> list[ListedScene]:
    """The scenes, with unique names for our own results that share a scene's name; they will be skipped."""
    counts = Counter(scene.name for scene in scenes)
    return [
        replace(scene, name=f"{scene.name}{Path(scene.source).suffix}")
        if counts[scene.name] > 1 and not is_remote(scene.source) and is_own_output(scene.source)
        else scene
        for scene in scenes
    ]


def _has_assets(source: str) -> bool:
    """Whether an argument names STAC items."""
    return is_search(source) or Path(source).suffix.lower() in STAC_SUFFIXES


def _expand(source: str, outputs: list[Path], asset: str | None, remote: bool) -> list[ListedScene]:
    """The scenes of one argument."""
    if is_search(source):
        return [
            _stac_scene(item, None, asset, remote) for item in found_items(source, allowed=remote)
        ]
    if is_url(source):
        return [ListedScene(source, Path(url_path(source)).stem)]
    kind = Path(source).suffix.lower()
    if os.path.isdir(source):
        found = [
            ListedScene(str(path), name) for path, name in _folder_rasters(Path(source), outputs)
        ]
        missing = f"the folder {source} has no raster ({', '.join(IMAGE_SUFFIXES)})"
    elif kind == LIST_SUFFIX:
        found = [_listed(line, Path(source).parent) for line in _lines(Path(source))]
        missing = f"{source} lists no scene; write one path per line"
    elif kind in STAC_SUFFIXES:
        found = [
            _stac_scene(item, Path(source).parent, asset, remote)
            for item in _stac_items(Path(source))
        ]
        missing = f"{source} has no STAC item; give a FeatureCollection with at least one"
    else:
        return [ListedScene(source, Path(source).stem)]
    if not found:
        raise InputError(missing)
    return found


def _folder_rasters(root: Path, outputs: list[Path]) -> Iterator[tuple[Path, str]]:
    """(path, name) of the rasters below `root`, by name, without results.

    Raises:
        InputError: `root` is a folder of results, or a folder of results below it has other rasters.
    """
    if Path(os.path.realpath(root)) in outputs:
        raise InputError(
            f"{root} is the folder of the scenes; choose another folder for the results"
        )
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        visible = sorted(name for name in folders if name[0] != ".")
        folders[:] = [
            name for name in visible if Path(os.path.realpath(place / name)) not in outputs
        ]
        for name in set(visible) - set(folders):
            _check_results(place / name)
        for file in sorted(files):
            path = place / file
            if file[0] != "." and path.suffix.lower() in IMAGE_SUFFIXES:
                yield path, path.relative_to(root).with_name(path.stem).as_posix()


def _check_results(folder: Path) -> None:
    """Raises `InputError` if a folder of results below a folder of scenes has other rasters, which would be lost."""
    for place, _, files in os.walk(folder):
        for file in sorted(files):
            path = Path(place, file)
            is_raster = file[0] != "." and path.suffix.lower() in IMAGE_SUFFIXES
            if is_raster and not is_own_output(str(path)):
                raise InputError(
                    f"{path} is in the folder of the results but is not a result; move it, or choose another "
                    "folder for the results"
                )


def _lines(path: Path) -> list[str]:
    """Lines of a list without blank lines and comments."""
    lines = [line.strip() for line in _text(path).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _listed(line: str, folder: Path) -> ListedScene:
    """The scene of one line, which is relative to `folder` if such a file exists there."""
    beside = folder / line
    return ListedScene(str(beside) if os.path.exists(beside) else line, Path(line).stem)


def _text(path: Path) -> str:
    """A text file's content; raises `InputError` if it is not text."""
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it in that encoding") from error
    if "\0" in text:
        raise InputError(f"{path} is not text, because it has zero bytes; write one path per line")
    return text


def _stac_items(path: Path) -> list[Any]:
    """The unchecked features of a STAC file."""
    document = read_json(path, "export the STAC item or FeatureCollection again")
    kind = document.get("type")
    if kind == "Feature":
        return [document]
    if kind == "FeatureCollection":
        features = document.get("features")
    else:
        features = None
    if not isinstance(features, list):
        raise InputError(
            f"{path} is neither a STAC item nor a FeatureCollection of items; export the items as GeoJSON"
        )
    return features


def _stac_scene(item: Any, folder: Path | None, asset: str | None, remote: bool) -> ListedScene:
    """The scene of a STAC item, or its problem; `folder` is that of its file, if it has one."""
    if isinstance(item, dict):
        fields = item
    else:
        fields = {}
    identity, assets = fields.get("id"), fields.get("assets")
    if not isinstance(identity, str) or not isinstance(assets, dict):
        raise InputError(
            f"the feature with the id {identity!r} is not a STAC item, because it lacks an id or assets; remove it"
        )
    name = (
        re.sub(r"[^\w.-]|^\.", "_", identity).encode()[:_LONGEST_NAME].decode(errors="ignore")
        or "_"
    )
    try:
        return ListedScene(
            _place(_asset_href(identity, assets, asset), identity, folder, remote), name
        )
    except InputError as error:
        return ListedScene(f"STAC item {identity}", name, problem=str(error))


def _asset_href(identity: str, assets: dict[str, Any], wanted: str | None) -> str:
    """The link of the asset to map, as `list_scenes` describes."""
    links = {
        key: value for key, value in assets.items() if isinstance(value, dict) and value.get("href")
    }
    if wanted is not None:
        if wanted in links:
            candidates = [wanted]
        else:
            candidates = []
    else:
        images = [key for key in links if _is_image(links[key])]
        visual = [key for key in images if "visual" in _roles(links[key])] or [
            key for key in images if key == "visual"
        ]
        candidates = visual or [key for key in images if "data" in _roles(links[key])] or images
    if len(candidates) != 1:
        if wanted is not None:
            count = f"no asset '{wanted}'"
        else:
            count = f"{len(candidates)} assets that could be the scene"
        raise InputError(
            f"STAC item {identity} has {count}; choose one with --asset: {', '.join(links) or 'there is none'}"
        )
    return str(links[candidates[0]]["href"])


def _roles(asset: dict[str, Any]) -> set[str]:
    roles = asset.get("roles")
    if isinstance(roles, list):
        return {role for role in roles if isinstance(role, str)}
    return set()


def _is_image(asset: dict[str, Any]) -> bool:
    """Whether an asset is imagery, by its roles and its media type or else its ending."""
    kind, ending = asset.get("type"), Path(str(asset["href"]).partition("?")[0]).suffix.lower()
    if isinstance(kind, str):
        is_raster = kind.startswith("image/")
    else:
        is_raster = ending in IMAGE_SUFFIXES
    return is_raster and not _roles(asset) & _NO_IMAGERY


def _place(href: str, identity: str, folder: Path | None, remote: bool) -> str:
    """The local file behind a link, relative to `folder`, or its URL if that is allowed; else `InputError`."""
    if remote and is_url(href):
        return href
    if folder is None:
        raise InputError(
            f"STAC item {identity} links to {href}, which is not a URL that can be read; choose an asset"
        )
    if "://" in href:
        scheme = href.partition("://")[0].lower()
    else:
        scheme = None
    if scheme not in (None, "file"):
        raise InputError(
            f"STAC item {identity} links to {href}, which is not on this machine; download it and link to the file, "
            "or add --remote"
        )
    path = folder / (
        href if scheme is None else unquote(href.partition("://")[2]).removeprefix("localhost")
    )
    if not os.path.isfile(path):
        raise InputError(
            f"STAC item {identity} links to {href}, which is not a file on this machine; check the link"
        )
    return str(path)
