"""The page: its layout, and what belongs to its buttons."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = (
    "False"  # before the import: this page asks nothing of the network
)

import gradio as gr
from gradio.utils import get_space
from starlette.middleware import Middleware

from . import pages
from .about import about
from .examples import Example, make_examples
from .gates import NoFetching, OwnPage, PlainRequests, host_name, is_loopback
from .handlers import LARGEST_SEED, Handlers
from .settings import WorkFolder, cannot_open
from .shift import BAND_ORDERS
from .uploads import SUFFIXES

__all__ = ["Handlers", "build", "start"]

STATIC = Path(__file__).parent / "static"
"""Style sheets, and OpenLayers and our viewer, which the page loads from here."""

_SYSTEM_FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_TITLE = "CrossEarth: drop in a scene, get a map"


class Page(gr.Blocks):
    """Blocks that answer with a sentence, not with a traceback, to values that no field of the page takes."""

    async def preprocess_data(self, block_fn: Any, *arguments: Any, **options: Any) -> list[Any]:
        """As in Blocks, but raises only `gr.Error`, which does not mention the server's files."""
        try:
            if block_fn.fn is None:
                raise ValueError("a function for the browser alone")
            return await super().preprocess_data(block_fn, *arguments, **options)
        except Exception as error:
            sentence = "The request does not fit the fields of this page; see Use via API below."
            raise gr.Error(
                sentence, duration=None, title="This did not work", print_exception=False
            ) from error


def build(handlers: Handlers, examples: list[Example]) -> gr.Blocks:
    """The whole page."""
    with Page(title=_TITLE, analytics_enabled=False, fill_width=True) as page:
        names = list(handlers.models)
        introduction = gr.HTML(_introduction(handlers, names[0]), elem_classes="ce-head")
        with gr.Row():
            with gr.Column(scale=1, min_width=300, elem_classes="ce-inputs"):
                scene, model = _scene_fields(handlers, examples)
                bands, nodata = _reading_fields()
            with gr.Column(scale=4, min_width=320), gr.Tabs():
                with gr.Tab("Map"):
                    _map_tab(handlers, scene, model, bands, nodata)
                with gr.Tab("Another sensor"):
                    _shift_tab(handlers, scene, model)
        model.change(
            lambda name: _introduction(handlers, name), model, introduction, queue=False, **_QUIET
        )
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
            theme=_theme(),
            css_paths=[STATIC / "ol.css", STATIC / "style.css"],
            head=_scripts(),
            max_file_size=int(arguments.max_megabytes * 1e6),
            allowed_paths=[str(folders.examples), str(STATIC)],
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


def _theme() -> gr.themes.Base:
    """Gradio's default theme with system fonts, and colors that everybody can read: 4.5 to 1 and more."""
    theme = gr.themes.Default(
        primary_hue="teal", font=_SYSTEM_FONTS, font_mono=["ui-monospace", "monospace"]
    )
    readable = {
        "button_primary_background_fill": "*primary_700",
        "button_primary_background_fill_hover": "*primary_800",
        "button_primary_text_color": "white",
        "body_text_color_subdued": "*neutral_600",
        "block_info_text_color": "*neutral_600",
        "block_label_text_color": "*neutral_700",
        "block_title_text_color": "*neutral_700",
        "input_placeholder_color": "*neutral_500",
        "link_text_color": "*primary_700",
    }
    dark = {
        "body_text_color_subdued": "*neutral_300",
        "block_info_text_color": "*neutral_300",
        "block_label_text_color": "*neutral_200",
        "block_title_text_color": "*neutral_200",
        "input_placeholder_color": "*neutral_400",
        "link_text_color": "*primary_300",
    }
    dark = {f"{name}_dark": value for name, value in (readable | dark).items()}
    return theme.set(**readable, **dark)


def _scripts() -> str:
    """What loads OpenLayers and the viewer."""
    return (
        f'<script defer src="{pages.file_url(STATIC / "ol.js")}"></script>'
        f'<script type="module" src="{pages.file_url(STATIC / "viewer.js")}"></script>'
    )


def _own_page(host: str | None) -> list[Middleware]:
    """The gate for foreign pages. A Space has none: other pages may show it, and it only holds what is sent."""
    if get_space() is not None:
        return []
    listens_on = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"  # in gradio's order
    behind_proxy = os.environ.get("GRADIO_ROOT_PATH", "")
    return [Middleware(OwnPage, local=is_loopback(listens_on), names=[host_name(behind_proxy)])]


def _introduction(handlers: Handlers, name: Any) -> str:
    """The model, and the limits of the server."""
    if name not in handlers.models:
        return ""
    limits, minutes = handlers.limits, handlers.jobs.keep / 60
    sizes = f"up to {limits.megapixels:g} million pixels and {limits.megabytes:g} MB"
    fate = f"They stay on this server and are deleted after {minutes:g} minutes"
    heading = f"<h1>CrossEarth</h1>{about(name, handlers.models[name])}"
    return f"{heading}<p class='ce-help'>Pictures may have {sizes}. {fate}.</p>"


def _scene_fields(handlers: Handlers, examples: list[Example]) -> tuple[gr.File, gr.Dropdown]:
    scene = gr.File(
        label="Scene: GeoTIFF, JPEG or PNG",
        file_types=list(SUFFIXES),
        type="filepath",
        height=116,
        elem_classes="ce-drop",
    )
    gallery = gr.Dataset(
        label="Or an example: scenes drawn by SynthEarth, and a photograph",
        components=["html"],
        samples=[[pages.example_card(example.title, example.thumbnail)] for example in examples],
        type="index",
        layout="gallery",
        elem_classes="ce-examples",
    )
    names = list(handlers.models)
    model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
    gallery.click(
        lambda index: handlers.choose(index, examples), gallery, scene, api_visibility="private"
    )
    return scene, model


def _reading_fields() -> tuple[gr.Textbox, gr.Textbox]:
    with gr.Accordion("Scenes with many bands or fill values", open=False):
        bands = gr.Textbox(
            "",
            label="Bands",
            placeholder="1,2,3",
            info="Numbers of the bands that the model reads as red, green and blue.",
        )
        nodata = gr.Textbox(
            "",
            label="No data",
            placeholder="0,-9999",
            info="More values that mean no data. Type none to use only those that the file declares.",
        )
    return bands, nodata


def _map_tab(
    handlers: Handlers, scene: gr.File, model: gr.Dropdown, bands: gr.Textbox, nodata: gr.Textbox
) -> None:
    with gr.Row(elem_classes="ce-actions"):
        buttons = _buttons("Make the map")
        own = gr.Checkbox(
            label="Read the scene at the model's resolution",
            info="Its pixels are much larger or smaller than those in training.",
            visible=False,
        )
    line = gr.HTML("", elem_classes="ce-line")
    view = gr.HTML(pages.WELCOME, elem_classes="ce-work")
    fields = [scene, model, bands, nodata, own]
    _runs(buttons, handlers, handlers.map_on_page, fields, line, view)
    gr.on(
        [scene.change, bands.blur, bands.submit, nodata.blur, nodata.submit, model.change],
        handlers.look,
        fields[:4],
        [line, view, own],
        preprocess=False,
        concurrency_limit=1,
        concurrency_id="looks",
        trigger_mode="always_last",
        **_QUIET,
    )
    with gr.Row(visible=False):
        files = [gr.File(label=name) for name in ("Map", "Confidence", "Picture", "Polygons")]
        _api(handlers.map_scene, fields, [gr.HTML(), gr.HTML(), gr.HTML(), *files], "predict")


def _shift_tab(handlers: Handlers, scene: gr.File, model: gr.Dropdown) -> None:
    with gr.Row(elem_classes="ce-actions"):
        buttons = _buttons("Show me")
    line = gr.HTML("", elem_classes="ce-line")
    view = gr.HTML(pages.SHIFT_WELCOME, elem_classes="ce-work")
    with gr.Accordion("Choose how it is drawn", open=False), gr.Row():
        alpha = gr.Slider(
            0,
            1,
            value=0.5,
            step=0.05,
            label="Strength",
            info="How much of the new colors: 0 none, 1 all.",
        )
        ratio = gr.Slider(
            0, 1, value=1, step=0.05, label="Share", info="Part of the picture that is redrawn."
        )
        seed = gr.Slider(
            0,
            LARGEST_SEED,
            value=0,
            step=1,
            label="Number",
            info="Every number draws other colors.",
        )
        order = gr.Radio(
            BAND_ORDERS,
            value="RGB",
            label="Bands",
            info="IRRG: near infrared (band 4), red, green.",
        )
    fields = [scene, model, alpha, ratio, seed, order]
    done = _runs(buttons, handlers, handlers.compare_on_page, fields, line, view)
    done.success(
        lambda number: (number + 1) % (LARGEST_SEED + 1), seed, seed, queue=False, **_QUIET
    )
    scene.change(lambda: ("", pages.SHIFT_WELCOME), None, [line, view], queue=False, **_QUIET)
    with gr.Row(visible=False):
        _api(handlers.compare, fields, [gr.HTML()], "compare")


def _runs(
    buttons: tuple[gr.Button, gr.Button],
    handlers: Handlers,
    handler: Callable[..., Any],
    fields: list[Any],
    line: gr.HTML,
    view: gr.HTML,
) -> Any:
    """The job behind a start and a cancel button: one at a time per server, with a line about it above the view."""
    start, stop = buttons
    begun = start.click(
        lambda: (
            gr.Button(interactive=False),
            gr.Button(visible=True),
            pages.progress(0, "Waiting for the server"),
        ),
        None,
        [start, stop, line],
        queue=False,
        **_QUIET,
    )
    run = begun.then(
        handler,
        fields,
        [line, view],
        api_visibility="private",
        preprocess=False,  # `inputs` says what is wrong with a value
        concurrency_limit=1,
        concurrency_id="model",
        show_progress="minimal",
        show_progress_on=line,
    )

    def idle() -> tuple[gr.Button, gr.Button]:
        return gr.Button(interactive=True), gr.Button(visible=False)

    # a cancelled run counts as failed
    run.failure(handlers.failed, None, line, queue=False, **_QUIET)
    run.then(idle, None, [start, stop], queue=False, **_QUIET)
    stopped = stop.click(handlers.cancel, None, line, cancels=[run], queue=False, **_QUIET)
    stopped.then(idle, None, [start, stop], queue=False, **_QUIET)
    return run


def _api(handler: Callable[..., Any], fields: list[Any], outputs: list[Any], name: str) -> None:
    """A function of the API, which the page itself does not call: an error is its answer, not a line on the page."""
    gr.Button(visible=False).click(
        handler,
        fields,
        outputs,
        api_name=name,
        preprocess=False,
        concurrency_limit=1,
        concurrency_id="model",
    )


def _buttons(text: str) -> tuple[gr.Button, gr.Button]:
    """Start, and cancel while a job runs."""
    start = gr.Button(text, variant="primary", scale=0, min_width=220)
    stop = gr.Button("Cancel", variant="secondary", scale=0, min_width=120, visible=False)
    return start, stop
