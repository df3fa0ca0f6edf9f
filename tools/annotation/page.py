"""The page of tools/annotate.py: where to click, what happens then. Gradio draws it; the rest is called from here.

One `Session` per open page: a Sketch for each frame looked at, so that nothing is lost by looking at another one.
"""
import html
import inspect
import time
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from pathlib import Path

import gradio as gr
import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tools.annotation.frames import ImageFolder
from tools.annotation.masks import (
    STROKE_OPACITY,
    Sketch,
    editor_value,
    load_mask,
    picture,
    remove_support,
    save_support,
    saved_names,
    shrink,
)
from tools.annotation.run import Run, film_of, film_pictures, next_folder, shown_command
from utils.pictures.overlay import MASK_COLOUR, overlay

POLYGON, BRUSH = "Polygon", "Brush"
VIEW_HEIGHT = 720          # pixels of the page
LOOK_EVERY = 0.5             # seconds between two looks at a running segment.py
SAME_PICTURE = 0.5           # mean difference of two pictures' values; the browser hands back what it got
HOSTS = ["127.0.0.1", "localhost"]
# The browser itself refuses whatever lies outside this page's own server, fonts and scripts included.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
          "font-src 'self' data:; connect-src 'self' data: blob:; frame-ancestors 'none'")
# scale-down: Gradio takes small pictures for unscaled when it says where a click was.
STYLE = """footer {display: none !important}
#picture img {cursor: crosshair; width: 100%; height: 100%; object-fit: scale-down}
#saved .grid-wrap, #pictures .grid-wrap {min-height: 0; height: auto; max-height: none}
#saved .grid-container {grid-template-columns: repeat(6, 1fr)}
#pictures .grid-container {grid-template-columns: repeat(3, 1fr)}
#saved .thumbnail-lg, #pictures .thumbnail-lg {aspect-ratio: 4 / 3}"""
HELP = """Choose a frame, mark **every** object of the category, save; a few different frames are enough.
**Polygon**: click its corners, then *Fill* or *Cut out*.
**Brush**: paint; the eraser is beside it, the wheel zooms, the hand moves."""


class Session:
    """What one open page works on: number of the frame, tool, {number: Sketch}."""

    def __init__(self):
        self.number, self.tool, self.sketches = 0, POLYGON, {}


class Page:
    """Frames, the output folder and the job, and one method per thing that the page's user does."""

    def __init__(self, source, folder, job):
        self.source, self.job, self.run = source, job, None
        self.read = lru_cache(maxsize=2)(source.read)            # each click shows the same frame again
        self.support, self.result = Path(folder) / "support", Path(folder) / "result"

    # -- frames and marks -------------------------------------------------------------------------------------------

    def frame(self, session):
        """The frame that the session shows  ->  (H, W, 3) uint8, its Sketch"""
        image = self.read(session.number)
        if session.number not in session.sketches:
            mask = load_mask(self.support, self.source.name(session.number), image.shape[:2])
            session.sketches[session.number] = Sketch(mask)
        return image, session.sketches[session.number]

    def show(self, session, note=""):
        """session  ->  updates of [session, picture, editor, status]; only the tool in use gets a new picture"""
        image, sketch = self.frame(session)
        rows, cols = sketch.size
        text = (f"**{self.source.name(session.number)}**: {cols} x {rows} pixels, {sketch.mask.mean():.1%} marked"
                + (f", {len(sketch.points)} corners of an open polygon" if sketch.points else ""))
        brush = session.tool == BRUSH
        return (session, gr.update(value=None if brush else picture(image, sketch), visible=not brush),
                gr.update(value=editor_value(image, sketch) if brush else None, visible=brush),
                f"{text}. {note}")

    def take_strokes(self, session, editor):
        """Before anything else happens: what was brushed belongs to the frame that is still shown.

        An event may carry the strokes of the frame before, if the new picture had not reached the browser yet: strokes
        count only above the frame that they belong to.
        """
        if session.tool != BRUSH or not editor or editor["background"] is None:
            return
        image, sketch = self.frame(session)
        shown, below = shrink(image), editor["background"][..., :3]
        if below.shape == shown.shape and np.abs(below.astype(np.int16) - shown).mean() <= SAME_PICTURE:
            sketch.brush(editor["layers"])

    def go(self, session, editor, number):
        """Show another frame; where it cannot be read, the one before stays."""
        self.take_strokes(session, editor)
        before = session.number
        session.number = before if number is None else min(max(int(number), 0), len(self.source) - 1)
        try:
            shown = self.show(session)
        except (ValueError, OSError):
            session.number = before
            raise
        left = session.sketches.get(before)
        if left and before != session.number and not left.touched:
            del session.sketches[before]                 # else a walk through a film would keep every mask
        return shown

    def change_tool(self, session, editor, tool):
        self.take_strokes(session, editor)
        session.tool = tool
        return self.show(session)

    def click(self, session, event: gr.SelectData):
        self.frame(session)[1].click(*event.index)
        return self.show(session)

    def changing(self, what):
        """A function of Sketch  ->  what a button does: call it with the frame's Sketch, show that"""
        def change(session, editor):
            self.take_strokes(session, editor)
            what(self.frame(session)[1])
            return self.show(session)
        return change

    # -- supports ---------------------------------------------------------------------------------------------------

    def save(self, session, editor):
        """-> updates of [session, picture, editor, status, gallery, choice]"""
        self.take_strokes(session, editor)
        image, sketch = self.frame(session)
        if len(sketch.points) >= 3:                      # somebody who saves means the polygon, too
            sketch.fill()
        name = self.source.name(session.number)
        save_support(self.support, name, image, sketch.mask, self.source.jpeg(session.number))
        return (*self.show(session, f"Saved as {name}.jpg and {name}.png."), *self.saved())

    def remove(self, session, editor, name):
        self.take_strokes(session, editor)
        if not name:
            raise ValueError("choose which support to remove")
        remove_support(self.support, name)
        return (*self.show(session, f"Removed {name} from the folder."), *self.saved())

    def saved(self):
        """-> updates of [gallery, choice]: what the support folder holds"""
        return gr.update(value=self.thumbnails()), gr.update(choices=saved_names(self.support), value=None)

    def thumbnails(self):
        names = saved_names(self.support)
        if not names:
            return []
        folder = ImageFolder(self.support)
        images = {f.stem: i for i, f in enumerate(folder.files)}
        out = []
        for name in names:
            image = folder.read(images[name])
            out.append((shrink(overlay(image, load_mask(self.support, name, image.shape[:2]))), name))
        return out

    # -- segment.py -------------------------------------------------------------------------------------------------

    def segment(self):
        """Run segment.py on the saved supports and yield updates of [log, film, gif, pictures] as it goes."""
        if self.run and self.run.running:
            raise ValueError("a run is on its way; wait for it, or stop it")
        if not saved_names(self.support):
            raise ValueError("no support is saved yet; mark a frame and save it first")
        output = next_folder(self.result)
        command = self.job.command(self.support, output)
        self.run = run = Run(command, output)
        while run.running:
            yield f"$ {shown_command(command)}\n{run.last_lines()}\n{run.frames()} frames", None, None, None
            time.sleep(LOOK_EVERY)
        yield self.outcome(run, f"$ {shown_command(command)}\n{run.last_lines()}")

    def outcome(self, run, log):
        """A finished Run  ->  the same updates; a run that failed shows what it said"""
        if not run.succeeded:
            return f"{log}\nsegment.py ended with status {run.process.returncode}.", None, None, None
        film = film_of(run.output)
        if film is None:
            return f"{log}\nThere is no film in {run.output}.", None, None, None
        pictures = [(shrink(image), f"frame {number} of the film") for number, image in film_pictures(film)]
        gif = film.suffix == ".gif"
        return (f"{log}\n{run.frames()} frames; everything is in {run.output}",
                gr.update(value=None if gif else str(film), visible=not gif),
                gr.update(value=str(film) if gif else None, visible=gif), pictures)

    def stop(self):
        if self.run:
            self.run.stop()


# -- the page itself --------------------------------------------------------------------------------------------------

def told(function):
    """The same function; mistakes of the user become a notice in the page: Gradio shows the text of gr.Error only."""
    @wraps(function)
    def call(*args, **values):
        try:
            return function(*args, **values)
        except (ValueError, OSError) as error:
            raise gr.Error(html.escape(str(error)), duration=None, title="Not done") from error

    @wraps(function)
    def generate(*args, **values):
        try:
            yield from function(*args, **values)
        except (ValueError, OSError) as error:
            raise gr.Error(html.escape(str(error)), duration=None, title="Not done") from error
    return generate if inspect.isgeneratorfunction(function) else call


def build(page):
    """Page  ->  gr.Blocks"""
    with gr.Blocks(title="Mark supports", analytics_enabled=False) as blocks:
        session = gr.State(Session())
        gr.Markdown(f"### {html.escape(page.source.path.name)}: mark supports\n{HELP}")
        with gr.Row():
            with gr.Column(scale=4):
                view = _view(page)
            with gr.Column(scale=1, min_width=260):
                buttons = _buttons()
                status = gr.Markdown(elem_id="status")
                choice = gr.Dropdown(label="Saved supports", choices=[], elem_id="choice")
                buttons["remove"] = gr.Button("Remove this support", elem_id="remove")
        gallery = gr.Gallery(label=f"Support folder: {page.support}", columns=6, height="auto", elem_id="saved",
                             format="jpeg", object_fit="contain", buttons=[])
        shown = [session, view.picture, view.editor, status]
        _connect(page, blocks, view, buttons, shown, [gallery, choice])
        _result(page)
    return blocks


@dataclass(frozen=True)
class View:
    """The components that show a frame."""
    slider: gr.Slider
    tool: gr.Radio
    picture: gr.Image
    editor: gr.ImageEditor


def _view(page):
    last = len(page.source) - 1
    with gr.Row():
        slider = gr.Slider(0, max(last, 1), value=0, step=1, label=f"Frame, 0 to {last}", visible=last > 0, scale=3,
                           elem_id="frame", buttons=[])
        tool = gr.Radio([POLYGON, BRUSH], value=POLYGON, label="Tool", scale=1, elem_id="tool")
    check = slider.preprocess      # the number is empty while somebody types another one
    slider.preprocess = lambda number: None if number is None else check(number)
    picture = gr.Image(interactive=False, format="jpeg", label="Click the corners of the object", elem_id="picture",
                       height=VIEW_HEIGHT, buttons=["fullscreen"])
    red = "#{:02x}{:02x}{:02x}".format(*MASK_COLOUR)
    brush = gr.Brush(colors=[(red, STROKE_OPACITY)], default_color=(red, STROKE_OPACITY), color_mode="fixed")
    editor = gr.ImageEditor(
        visible=False, interactive=True, format="png", image_mode="RGBA", sources=(), transforms=(), layers=False,
        brush=brush, height=VIEW_HEIGHT, label="Paint the object", buttons=[], elem_id="editor")
    return View(slider, tool, picture, editor)


def _buttons():
    with gr.Row():
        fill = gr.Button("Fill", elem_id="fill", min_width=110)
        cut = gr.Button("Cut out", elem_id="cut", min_width=110)
    with gr.Row():
        undo = gr.Button("Undo", elem_id="undo", min_width=110)
        clear = gr.Button("Clear", elem_id="clear", min_width=110)
    return {"fill": fill, "cut": cut, "undo": undo, "clear": clear,
            "save": gr.Button("Save as support", variant="primary", elem_id="save")}


def _connect(page, blocks, view, buttons, shown, saved):
    """What happens on which event: one at a time (concurrency_id), in the order of the clicks."""
    session, editor = shown[0], view.editor
    marks = {"concurrency_id": "marks", "concurrency_limit": 1, "show_progress": "hidden", "api_visibility": "private"}
    blocks.load(told(page.show), session, shown, **marks).then(told(page.saved), None, saved, **marks)
    view.slider.change(told(page.go), [session, editor, view.slider], shown, trigger_mode="always_last", **marks)
    view.tool.change(told(page.change_tool), [session, editor, view.tool], shown, **marks)
    view.picture.select(told(page.click), session, shown, trigger_mode="multiple", **marks)
    for name, what in (("fill", Sketch.fill), ("cut", partial(Sketch.fill, add=False)), ("undo", Sketch.undo),
                       ("clear", Sketch.clear)):
        buttons[name].click(told(page.changing(what)), [session, editor], shown, trigger_mode="multiple", **marks)
    buttons["save"].click(told(page.save), [session, editor], [*shown, *saved], **marks)
    buttons["remove"].click(told(page.remove), [session, editor, saved[1]], [*shown, *saved], **marks)


def _result(page):
    gr.Markdown("### Segment the video\n" + page.job.described())
    with gr.Row():
        start = gr.Button("Segment", variant="primary", elem_id="segment")
        stop = gr.Button("Stop", elem_id="stop")
    log = gr.Textbox(label="segment.py", lines=4, max_lines=14, interactive=False, elem_id="log")
    film = gr.Video(label="Film", interactive=False, elem_id="film", autoplay=True, loop=True, height=480,
                    buttons=[])
    gif = gr.Image(label="Film", interactive=False, type="filepath", visible=False, elem_id="gif", buttons=[])
    pictures = gr.Gallery(label="Frames of the film", columns=3, elem_id="pictures", format="jpeg",
                          object_fit="contain", buttons=[])
    start.click(told(page.segment), None, [log, film, gif, pictures], show_progress="hidden",
                api_visibility="private")
    stop.click(page.stop, None, None, queue=False, api_visibility="private")


def serve(page, port=None):
    """Open the page on this machine's own address only, and wait for Ctrl-C. port None: the first free one."""
    blocks = build(page)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = blocks.launch(
            server_name="127.0.0.1", server_port=port, share=False, ssr_mode=False, pwa=False, mcp_server=False,
            enable_monitoring=False, run_history=False, footer_links=[], quiet=True, prevent_thread_lock=True,
            theme=theme, css=STYLE, max_file_size="200mb", root_path="", allowed_paths=[str(page.support.parent)],
            app_kwargs={"docs_url": None, "redoc_url": None, "middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(OwnServerOnly)]})
        print(f"Open {address} in a browser; Ctrl-C here ends it. Supports go to {page.support}", flush=True)
        while True:
            time.sleep(3600)
    finally:
        page.stop()
        blocks.close(verbose=False)


class OwnServerOnly:
    """Around the application: every answer tells the browser to load nothing from anywhere else (POLICY)."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
            await send(message)
        await self.app(scope, receive, send_with_policy)
