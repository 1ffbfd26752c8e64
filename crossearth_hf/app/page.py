"""The page: what stands where, and what happens when something is pressed."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from html import escape
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: this page asks nothing of the network

import gradio as gr
from gradio.utils import get_space, get_upload_folder
from starlette.middleware import Middleware

from ..errors import InputError
from ..labels import label_set_for
from ..model.earth_style import EarthStyle
from . import inputs, pages
from .examples import Example, make_examples
from .gates import NoFetching, OwnPage, PlainRequests, host_name, is_loopback
from .jobs import Cancelled, Job, Jobs
from .pictures import save_version
from .settings import Model, WorkFolder, cannot_open
from .shift import BAND_ORDERS, compare_versions, infrared_scene
from .uploads import SUFFIXES, Limits, admitted, notices

STYLE_SHEET = os.path.join(os.path.dirname(__file__), "style.css")
_SYSTEM_FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
LARGEST_SEED = 999
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
        self.uploads = Path(get_upload_folder())

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

        def work(job: Job) -> tuple[Any, ...]:
            progress(0, desc="Reading the scene")
            result = self.predict(
                inputs.uploaded_file(scene, self.uploads),
                self.models[inputs.one_of(model, list(self.models), "model")],
                job.folder,
                limits=self.limits,
                bands=inputs.band_numbers(bands),
                nodata=inputs.nodata_values(nodata),
                at_model_resolution=inputs.flag(at_model_resolution, "Model's resolution"),
                on_windows=job.counting(lambda share, text: progress(share, desc=text)),
            )
            report = result.report
            files = [str(path) for path in (*report.files, result.polygons)]
            place = pages.place(result.place, result.summary, result.advice, report.seconds)
            return pages.viewer(result.layers, report), pages.legend(report, result.notices), place, *files

        with _told():
            return await self.jobs.run(request.session_hash, work)

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

        def work(job: Job) -> str:
            progress(0, desc="Styling the scene")
            network, processor = self.models[inputs.one_of(model, list(self.models), "model")]
            settings: dict[str, Any] = {
                "alpha": inputs.number(alpha, "Alpha", 0, 1),
                "mask_ratio": inputs.number(mask_ratio, "Mask ratio", 0, 1),
                "seed": inputs.whole_number(seed, "Seed", 0, LARGEST_SEED),
            }
            is_infrared = inputs.one_of(band_order, BAND_ORDERS, "band order") == "IRRG"
            count = job.counting(lambda share, text: progress(share, desc=text.replace("windows", "versions")))
            with (
                admitted(inputs.uploaded_file(scene, self.uploads), job.folder, self.limits) as opened,
                infrared_scene(opened) if is_infrared else nullcontext() as infrared,
            ):
                odd = notices(opened)
                versions = compare_versions(
                    opened, network, processor, self.style, **settings, infrared=infrared, on_step=count
                )
            label_set = label_set_for(network.config.id2label)
            files = [
                save_version(version.raster, version.labels, versions[0].labels, label_set, job.folder, index)
                for index, version in enumerate(versions)
            ]
            return pages.version_cards(versions, files, label_set, odd)

        with _told():
            return await self.jobs.run(request.session_hash, work)

    def choose(self, index: Any, examples: list[Example]) -> str:
        """Path of an example by its place in the gallery."""
        with _told():
            return str(examples[inputs.whole_number(index, "Example", 0, len(examples) - 1)].scene)

    def cancel(self, request: gr.Request) -> str:
        """Stops what this page runs; what waits is taken out of the queue by gradio."""
        self.jobs.cancel(request.session_hash)
        return pages.CANCELLED

    def leave(self, request: gr.Request) -> None:
        """The page was closed, or lost: nobody waits for its job. Its files stay a while, it may come back."""
        self.jobs.cancel(request.session_hash)


class Page(gr.Blocks):
    """Blocks that answer with a sentence to what no field of the page takes, where gradio would print a traceback."""

    async def preprocess_data(self, block_fn: Any, *arguments: Any, **options: Any) -> list[Any]:
        """As in Blocks; raises `gr.Error` alone, which says nothing of the server's files."""
        try:
            if block_fn.fn is None:
                raise ValueError("a function for the browser alone")
            return await super().preprocess_data(block_fn, *arguments, **options)
        except Exception as error:
            sentence = "The request does not fit the fields of this page; see Use via API at its foot."
            raise gr.Error(sentence, duration=None, title="This did not work", print_exception=False) from error


def build(handlers: Handlers, examples: list[Example]) -> gr.Blocks:
    """The whole page."""
    with Page(title=_TITLE, analytics_enabled=False, fill_width=True) as page:
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
    middleware = [Middleware(PlainRequests), *_own_page(arguments.host), Middleware(NoFetching)]
    try:
        page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            prevent_thread_lock=True,
            theme=gr.themes.Soft(primary_hue="teal", font=_SYSTEM_FONTS, font_mono=["ui-monospace", "monospace"]),
            css_paths=STYLE_SHEET,
            max_file_size=int(arguments.max_megabytes * 1e6),
            allowed_paths=[str(folders.examples)],
            app_kwargs={"middleware": middleware},
            footer_links=["api", "settings"],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            share=False,
            pwa=False,
        )
    except OSError as error:  # gradio's words tell of its own flags
        raise cannot_open(arguments) from error
    return page


def _own_page(host: str | None) -> list[Middleware]:
    """The gate for foreign pages. A Space has none: other pages may show it, and it holds nothing but what is sent."""
    if get_space() is not None:
        return []
    listens_on = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"  # in gradio's order
    behind_proxy = os.environ.get("GRADIO_ROOT_PATH", "")
    return [Middleware(OwnPage, local=is_loopback(listens_on), names=[host_name(behind_proxy)])]


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
    gallery.click(lambda index: handlers.choose(index, examples), gallery, scene, api_visibility="private")
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
    with gr.Accordion("For scenes of many bands, with fill, or of another resolution", open=False):
        with gr.Row():
            bands = gr.Textbox(
                "",
                label="Bands",
                placeholder="1,2,3",
                info="Numbers of the bands that the model sees: red, green, blue.",
            )
            nodata = gr.Textbox(
                "",
                label="No data",
                placeholder="0,-9999",
                info="Values that mean no data, beside what the file declares, or none for no other.",
            )
        own = gr.Checkbox(
            label="Read the scene at the model's resolution",
            info="For pixels much larger or smaller than the model has seen. Needs a georeference; may take longer.",
        )
    fields, outputs = [scene, model, bands, nodata, own], [view, legend, place, *files]
    run = _runs(buttons, handlers, handlers.map_scene, inputs=fields, outputs=outputs, api_name="predict")
    run.success(lambda: gr.Row(visible=True), None, results, **_QUIET)
    scene.change(lambda: (pages.WELCOME, gr.Row(visible=False)), None, [view, results], queue=False, **_QUIET)


def _shift_tab(handlers: Handlers, scene: gr.File, model: gr.Dropdown) -> None:
    with gr.Row():
        alpha = gr.Slider(0, 1, value=0.5, step=0.05, label="Alpha", info="How much of the new style: 0 none, 1 all.")
        ratio = gr.Slider(0, 1, value=0.7, step=0.05, label="Mask ratio", info="Share of the blocks re-styled.")
        seed = gr.Slider(0, LARGEST_SEED, value=0, step=1, label="Seed", info="Which styles are drawn.")
        order = gr.Radio(BAND_ORDERS, value="RGB", label="Band order", info="IRRG: near infrared (band 4), red, green.")
    buttons = _buttons("Compare versions")
    view = gr.HTML(pages.SHIFT_WELCOME, elem_classes="ce-work")
    fields = [scene, model, alpha, ratio, seed, order]
    _runs(buttons, handlers, handlers.compare, inputs=fields, outputs=[view], api_name="compare")
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
        preprocess=False,  # `inputs` says what is wrong with a value
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
        raise gr.Error(
            escape(str(error), quote=False), duration=None, title="This did not work", print_exception=False
        ) from error
    except Cancelled as error:
        raise gr.Error("Cancelled; nothing was kept.", title="Cancelled", print_exception=False) from error
