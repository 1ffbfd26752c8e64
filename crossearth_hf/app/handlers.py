"""What the page's buttons and the API do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from ..errors import InputError
from ..labels import label_set_of
from ..model.earth_style import EarthStyle
from ..prediction.mapper import reading_of
from . import inputs, pages
from .app import Prediction
from .downloads import name_of
from .examples import Example
from .growth import Growth
from .jobs import Cancelled, Job, Jobs
from .looks import look
from .pictures import save_version
from .settings import Model
from .shift import BAND_ORDERS, compare_versions, infrared_scene
from .uploads import Limits, admitted, notices

LARGEST_SEED = 999
_TICK = 1.0  # seconds from one line about a running job to the next
_TITLE = "This did not work"

Show = Callable[[float, str], None]
"""Shows the finished share of a job, and a sentence."""


class Live:
    """What is known of a running job."""

    def __init__(self, text: str) -> None:
        self.share, self.text = 0.0, text
        self.growth: Growth | None = None

    def show(self, share: float, text: str) -> None:
        """Keeps the finished share, and a sentence."""
        self.share, self.text = share, text

    def html(self) -> str:
        """A bar and a sentence, with the map so far."""
        labels = None
        if self.growth is not None:
            labels = self.growth.address()
        return pages.progress(self.share, self.text, labels)


class Handlers:
    """Functions behind the buttons and the API.

    Args:
        predict: `app.predict`.
        models: The models that visitors may choose.
        jobs: Run the work and hold its results.
        limits: Largest sizes of an upload.
    """

    def __init__(
        self, predict: Callable[..., Any], models: dict[str, Model], jobs: Jobs, limits: Limits
    ) -> None:
        self.predict, self.models, self.jobs, self.limits = predict, models, jobs, limits
        self.style = EarthStyle.from_file()
        self.uploads = Path(get_upload_folder())
        self._cancelled: set[str | None] = set()  # pages whose last job was cancelled

    async def map_scene(
        self,
        scene: Any,
        model: Any,
        bands: Any,
        nodata: Any,
        at_model_resolution: Any,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio's way
    ) -> tuple[Any, ...]:
        """HTML of the viewer, the legend and the place; files: map, confidence, picture, polygons."""
        values = (scene, model, bands, nodata, at_model_resolution)

        def work(job: Job) -> Prediction:
            progress(0, desc="Reading the scene")
            return self._map(job, values, lambda share, text: progress(share, desc=text))

        with _told():
            found = await self.jobs.run(request.session_hash, work)
        files = [str(path) for path in (*found.report.files, found.polygons)]
        return (
            pages.viewer(found.layers, found.report),
            pages.legend(found.report, found.notices),
            _place(found),
            *files,
        )

    async def map_on_page(
        self,
        scene: Any,
        model: Any,
        bands: Any,
        nodata: Any,
        at_model_resolution: Any,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """A line about the job and what the page shows below it, again and again until the map is there."""
        values = (scene, model, bands, nodata, at_model_resolution)
        live = Live("Reading the scene")

        def work(job: Job) -> str:
            def grow(growth: Growth) -> None:
                live.growth = growth

            found = self._map(job, values, live.show, grow)
            files = [found.archive, *found.report.files, found.polygons]
            return pages.result(found.layers, found.report, found.notices, files, _place(found))

        async for line, view in self._followed(request.session_hash, work, live):
            yield line, view

    def _map(
        self,
        job: Job,
        values: tuple[Any, ...],
        show: Show,
        on_growth: Callable[[Growth], None] | None = None,
    ) -> Prediction:
        """The map of a scene from the values of the page's fields."""
        scene, model, bands, nodata, at_model_resolution = values
        upload = inputs.uploaded_file(scene, self.uploads)
        found: Prediction = self.predict(
            upload,
            self.models[inputs.one_of(model, list(self.models), "model")],
            job.folder,
            limits=self.limits,
            bands=inputs.band_numbers(bands),
            nodata=inputs.nodata_values(nodata),
            at_model_resolution=inputs.flag(at_model_resolution, "Model's resolution"),
            name=None if upload is None else name_of(upload),
            on_windows=job.counting(show),
            on_growth=on_growth,
        )
        return found

    async def look(
        self, scene: Any, model: Any, bands: Any, nodata: Any, request: gr.Request
    ) -> tuple[str, str, gr.Checkbox]:
        """A line about the scene, what the page shows below it, and the checkbox of the model's resolution."""
        if scene is None:
            return "", pages.WELCOME, gr.Checkbox(visible=False, value=False)

        def work(job: Job) -> tuple[str, str, gr.Checkbox]:
            upload = inputs.uploaded_file(scene, self.uploads)
            config = self.models[inputs.one_of(model, list(self.models), "model")][0].config
            reading = reading_of(
                bands=inputs.band_numbers(bands), nodata=inputs.nodata_values(nodata)
            )
            reading = replace(reading, num_channels=config.num_channels)
            found = look(upload, job.folder, self.limits, reading, config.ground_sampling_distance)
            offered = found.can_be_rescaled and found.advice is not None
            html = pages.look(found, name_of(upload or ""), label_set_of(config))
            return "", html, gr.Checkbox(visible=offered, value=False)

        try:
            return await self.jobs.run(request.session_hash, work, quick=True)
        except InputError as error:
            return pages.error(str(error)), pages.WELCOME, gr.Checkbox(visible=False, value=False)
        except Cancelled:
            return "", pages.WELCOME, gr.Checkbox(visible=False, value=False)

    async def compare(
        self,
        scene: Any,
        model: Any,
        alpha: Any,
        mask_ratio: Any,
        seed: Any,
        band_order: Any,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        """HTML of the versions of a scene and their maps."""
        values = (scene, model, alpha, mask_ratio, seed, band_order)

        def work(job: Job) -> str:
            progress(0, desc="Drawing the scene in other colors")
            return self._compare(job, values, lambda share, text: progress(share, desc=text))

        with _told():
            return await self.jobs.run(request.session_hash, work)

    async def compare_on_page(
        self,
        scene: Any,
        model: Any,
        alpha: Any,
        mask_ratio: Any,
        seed: Any,
        band_order: Any,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """A line about the job and what the page shows below it, again and again until the versions are there."""
        values = (scene, model, alpha, mask_ratio, seed, band_order)
        live = Live("Drawing the scene in other colors")
        async for line, view in self._followed(
            request.session_hash, lambda job: self._compare(job, values, live.show), live
        ):
            yield line, view

    def _compare(self, job: Job, values: tuple[Any, ...], show: Show) -> str:
        scene, model, alpha, mask_ratio, seed, band_order = values
        network, processor = self.models[inputs.one_of(model, list(self.models), "model")]
        settings: dict[str, Any] = {
            "alpha": inputs.number(alpha, "Strength", 0, 1),
            "mask_ratio": inputs.number(mask_ratio, "Share", 0, 1),
            "seed": inputs.whole_number(seed, "Number", 0, LARGEST_SEED),
        }
        is_infrared = inputs.one_of(band_order, BAND_ORDERS, "bands") == "IRRG"
        count = job.counting(lambda share, text: show(share, text.replace("windows", "versions")))
        with (
            admitted(inputs.uploaded_file(scene, self.uploads), job.folder, self.limits) as opened,
            infrared_scene(opened) if is_infrared else nullcontext() as infrared,
        ):
            odd = notices(opened)
            versions = compare_versions(
                opened, network, processor, self.style, **settings, infrared=infrared, on_step=count
            )
        label_set = label_set_of(network.config)
        files = [
            save_version(
                version.raster, version.labels, versions[0].labels, label_set, job.folder, index
            )
            for index, version in enumerate(versions)
        ]
        return pages.version_cards(versions, files, label_set, odd)

    async def _followed(
        self, session: str | None, work: Callable[[Job], str], live: Live
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Lines about a job while it runs; at its end its outcome, or a sentence instead."""
        self._cancelled.discard(session)
        task = asyncio.create_task(self.jobs.run(session, work))
        try:
            while not task.done():
                yield live.html(), gr.skip()
                await asyncio.wait({task}, timeout=_TICK)
            yield "", task.result()
        except InputError as error:
            yield pages.error(str(error)), gr.skip()
        except Cancelled:
            yield pages.CANCELLED, gr.skip()
        finally:
            task.cancel()

    def choose(self, index: Any, examples: list[Example]) -> str:
        """Path of an example by its place in the gallery."""
        with _told():
            return str(examples[inputs.whole_number(index, "Example", 0, len(examples) - 1)].scene)

    def cancel(self, request: gr.Request) -> str:
        """Stops the job that this page runs; gradio takes waiting jobs out of the queue."""
        self._cancelled.add(request.session_hash)
        self.jobs.cancel(request.session_hash)
        return pages.CANCELLED

    def failed(self, request: gr.Request) -> str:
        """Why a run of this page has no outcome."""
        if request.session_hash in self._cancelled:
            return pages.CANCELLED
        return pages.error("The server is too busy, or failed. Try again in a minute.")

    def leave(self, request: gr.Request) -> None:
        """Stops the job of a page that was closed or lost; its files stay a while, because it may come back."""
        self._cancelled.discard(request.session_hash)
        self.jobs.cancel(request.session_hash)


def _place(found: Prediction) -> str:
    return pages.place(found.place, found.summary, found.advice, found.report.seconds)


@contextmanager
def _told() -> Iterator[None]:
    """Turns errors that a caller can cause into an answer of the API."""
    try:
        yield
    except InputError as error:
        message = escape(str(error), quote=False)
        raise gr.Error(message, duration=None, title=_TITLE, print_exception=False) from error
    except Cancelled as error:
        raise gr.Error(
            "Cancelled. No files were kept.", title="Cancelled", print_exception=False
        ) from error
