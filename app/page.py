"""The page: what stands where, and what happens when something is pressed."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from html import escape
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: this page asks nothing of the network

import gradio as gr
import pages
from examples import Example, make_examples
from gates import NoFetching
from jobs import Cancelled, Job, Jobs
from pictures import save_version
from settings import Model, WorkFolder
from shift import BAND_ORDERS, compare_versions, infrared_scene
from starlette.middleware import Middleware
from uploads import SUFFIXES, Limits, admitted

from crossearth_hf.earth_style import EarthStyle
from crossearth_hf.errors import InputError
from crossearth_hf.labels import label_set_for

STYLE_SHEET = os.path.join(os.path.dirname(__file__), "style.css")
_SYSTEM_FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_TITLE = "CrossEarth: drop in a scene, get a map"


class Handlers:
    """What the buttons and the API call.

    Args:
        predict: `app.predict`.
        models: Those that visitors may choose.
        jobs: Where results go.
        limits: What an upload may be.
    """

    def __init__(self, predict: Callable[..., Any], models: dict[str, Model], jobs: Jobs, limits: Limits) -> None:
        self.predict, self.models, self.jobs, self.limits = predict, models, jobs, limits
        self.style = EarthStyle.from_file()

    async def map_scene(
        self,
        scene: str | None,
        model: str,
        bands: str,
        at_model_resolution: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio's way
    ) -> tuple[Any, ...]:
        """HTML of the viewer, the legend and the place; files: map, confidence, picture, polygons."""

        def work(job: Job) -> tuple[Any, ...]:
            progress(0, desc="Reading the scene")
            result = self.predict(
                scene,
                self.models[model],
                job.folder,
                limits=self.limits,
                bands=_bands(bands),
                at_model_resolution=at_model_resolution,
                on_windows=job.counting(lambda share, text: progress(share, desc=text)),
            )
            report = result.report
            files = [str(path) for path in (*report.files, result.polygons)]
            place = pages.place(result.place, result.summary, result.advice, report.seconds)
            return pages.viewer(result.layers, report), pages.legend(report), place, *files

        with _told():
            return await self.jobs.run(request.session_hash, work)

    async def compare(
        self,
        scene: str | None,
        model: str,
        alpha: float,
        mask_ratio: float,
        seed: int,
        band_order: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        """HTML of the versions of a scene and their maps."""
        label_set = label_set_for(self.models[model][0].config.id2label)

        def work(job: Job) -> str:
            progress(0, desc="Styling the scene")
            count = job.counting(lambda share, text: progress(share, desc=text.replace("windows", "versions")))
            with (
                admitted(scene, job.folder, self.limits) as opened,
                infrared_scene(opened) if band_order == "IRRG" else nullcontext() as infrared,
            ):
                versions = compare_versions(
                    opened,
                    *self.models[model],
                    self.style,
                    alpha=alpha,
                    mask_ratio=mask_ratio,
                    seed=int(seed),
                    infrared=infrared,
                    on_step=count,
                )
            files = [
                save_version(version.raster, version.labels, versions[0].labels, label_set, job.folder, index)
                for index, version in enumerate(versions)
            ]
            return pages.version_cards(versions, files, label_set)

        with _told():
            return await self.jobs.run(request.session_hash, work)

    def cancel(self, request: gr.Request) -> str:
        """Stops what this page runs; what waits is taken out of the queue by gradio."""
        self.jobs.cancel(request.session_hash)
        return pages.CANCELLED

    def leave(self, request: gr.Request) -> None:
        """The page was closed, or lost: nobody waits for its job. Its files stay a while, it may come back."""
        self.jobs.cancel(request.session_hash)


def build(handlers: Handlers, examples: list[Example]) -> gr.Blocks:
    """The whole page."""
    with gr.Blocks(
        title=_TITLE, analytics_enabled=False, delete_cache=(60, int(handlers.jobs.keep)), fill_width=True
    ) as page:
        gr.HTML(_heading(handlers), elem_classes="ce-head")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                scene, model = _input_column(handlers, examples)
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                with gr.Tab("Map"):
                    _map_tab(handlers, scene, model)
                with gr.Tab("Domain shift"):
                    _shift_tab(handlers, scene, model)
        page.unload(handlers.leave)
    return page


def start(handlers: Handlers, folders: WorkFolder, arguments: argparse.Namespace) -> gr.Blocks:
    """Serves the page in the background; raises `InputError` where its port is taken."""
    print("Drawing the example scenes ...", flush=True)
    page = build(handlers, make_examples(folders.examples)).queue(max_size=arguments.max_queue)
    try:
        page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            prevent_thread_lock=True,
            theme=gr.themes.Soft(primary_hue="teal", font=_SYSTEM_FONTS, font_mono=["ui-monospace", "monospace"]),
            css_paths=STYLE_SHEET,
            max_file_size=int(arguments.max_megabytes * 1e6),
            allowed_paths=[str(folders.examples)],
            app_kwargs={"middleware": [Middleware(NoFetching)]},
            footer_links=["api", "settings"],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            share=False,
            pwa=False,
        )
    except OSError as error:  # gradio's words tell of its own flags
        port = arguments.port or 7860
        raise InputError(f"port {port} cannot be opened here; choose another one with --port") from error
    return page


def _heading(handlers: Handlers) -> str:
    limits, minutes = handlers.limits, handlers.jobs.keep / 60
    return (
        "<h1>CrossEarth</h1><p>Maps of what is on the ground, from satellite and aerial pictures of up to "
        f"{limits.megapixels:g} million pixels and {limits.megabytes:g} MB. They are processed on this server alone "
        f"and deleted after {minutes:g} minutes.</p>"
    )


def _input_column(handlers: Handlers, examples: list[Example]) -> tuple[gr.File, gr.Dropdown]:
    scene = gr.File(label="Scene: GeoTIFF, JPEG or PNG", file_types=list(SUFFIXES), type="filepath", height=150)
    gallery = gr.Dataset(
        label="Or choose an example, drawn by SynthEarth",
        components=["html"],
        samples=[[pages.example_card(example.title, example.thumbnail)] for example in examples],
        type="index",
        layout="gallery",
        elem_classes="ce-examples",
    )
    names = list(handlers.models)
    model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
    gallery.click(lambda index: str(examples[index].scene), gallery, scene, api_visibility="private")
    return scene, model


def _map_tab(handlers: Handlers, scene: gr.File, model: gr.Dropdown) -> None:
    buttons = _buttons("Make the map")
    view = gr.HTML(pages.WELCOME, elem_classes="ce-work")
    with gr.Row(visible=False) as results:
        with gr.Column(scale=3, min_width=300):
            legend = gr.HTML()
        with gr.Column(scale=2, min_width=260):
            gr.HTML("<h2>Download</h2>")
            names = ("Map (GeoTIFF)", "Confidence (GeoTIFF)", "Picture (PNG)", "Polygons (GeoPackage)")
            files = [gr.DownloadButton(name, size="sm") for name in names]
            place = gr.HTML()
    with gr.Accordion("For scenes of many bands or another resolution", open=False):
        bands = gr.Textbox(
            "", label="Bands", placeholder="1,2,3", info="Numbers of the bands that the model sees: red, green, blue."
        )
        own = gr.Checkbox(
            label="Read the scene at the model's resolution",
            info="For pixels much larger or smaller than the model has seen. Needs a georeference; may take longer.",
        )
    inputs, outputs = [scene, model, bands, own], [view, legend, place, *files]
    run = _runs(buttons, handlers, handlers.map_scene, inputs=inputs, outputs=outputs, api_name="predict")
    run.success(lambda: gr.Row(visible=True), None, results, **_QUIET)
    scene.change(lambda: (pages.WELCOME, gr.Row(visible=False)), None, [view, results], queue=False, **_QUIET)


def _shift_tab(handlers: Handlers, scene: gr.File, model: gr.Dropdown) -> None:
    with gr.Row():
        alpha = gr.Slider(0, 1, value=0.5, step=0.05, label="Alpha", info="How much of the new style: 0 none, 1 all.")
        ratio = gr.Slider(0, 1, value=0.7, step=0.05, label="Mask ratio", info="Share of the blocks re-styled.")
        seed = gr.Slider(0, 999, value=0, step=1, label="Seed", info="Which styles are drawn.")
        order = gr.Radio(BAND_ORDERS, value="RGB", label="Band order", info="IRRG: near infrared (band 4), red, green.")
    buttons = _buttons("Compare versions")
    view = gr.HTML(pages.SHIFT_WELCOME, elem_classes="ce-work")
    inputs = [scene, model, alpha, ratio, seed, order]
    _runs(buttons, handlers, handlers.compare, inputs=inputs, outputs=[view], api_name="compare")
    scene.change(lambda: pages.SHIFT_WELCOME, None, view, queue=False, **_QUIET)


def _runs(
    buttons: tuple[gr.Button, gr.Button, gr.HTML],
    handlers: Handlers,
    handler: Callable[..., Any],
    *,
    inputs: list[Any],
    outputs: list[Any],
    api_name: str,
) -> Any:
    """The job of a start and a cancel button: one at a time on the whole server, progress over the first output."""
    start, stop, note = buttons
    # Ahead of the run: the browser handles the listeners of a click in turn, each when the one before has ended.
    start.click(None, None, note, js="() => ''")
    run = start.click(
        handler,
        inputs,
        outputs,
        api_name=api_name,
        concurrency_limit=1,
        concurrency_id="model",
        show_progress_on=outputs[0],
    )
    stop.click(handlers.cancel, None, note, cancels=[run], queue=False, **_QUIET)
    return run


def _buttons(text: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """Start and cancel, and a line below for what there is to say about them."""
    with gr.Row():
        start = gr.Button(text, variant="primary")
        stop = gr.Button("Cancel", variant="stop", scale=0, min_width=120)
    return start, stop, gr.HTML("")


@contextmanager
def _told() -> Iterator[None]:
    """Turns what a visitor can cause into a message on the page."""
    try:
        yield
    except InputError as error:
        raise gr.Error(escape(str(error)), duration=None, title="This did not work", print_exception=False) from error
    except Cancelled as error:
        raise gr.Error("Cancelled; nothing was kept.", title="Cancelled", print_exception=False) from error


def _bands(text: str | None) -> list[int] | None:
    """Band numbers as a visitor typed them; raises `InputError`."""
    typed = (text or "").strip()
    try:
        return [int(number) for number in typed.split(",")] if typed else None
    except ValueError as error:
        raise InputError(f"'{typed[:40]}' is no list of bands; give numbers such as 4,3,2.") from error
