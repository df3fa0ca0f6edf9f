"""The page of tools/annotate.py: where to click, what happens then. Gradio draws it; the rest is called from here."""
import html
import inspect
import time
from functools import lru_cache, wraps
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from dataloaders.images import read_image
from dataloaders.own.supports import read_sentence
from tools.annotation.run import Run, film_of, next_folder, shown_command
from tools.annotation.supports import (
    OPACITY,
    editor_value,
    load_mask,
    painted,
    remove_support,
    save_sentence,
    save_support,
    saved_names,
    shrink,
)
from utils.pictures.overlay import MASK_COLOUR, overlay

LOOK_EVERY = 0.5             # seconds between two looks at a running segment.py
SAME_PICTURE = 0.5           # mean difference of two pictures' values; the browser hands back what it got
HOSTS = ["127.0.0.1", "localhost"]
LARGEST_UPLOAD, MOST_UPLOADS, MOST_BYTES = 16 * 2 ** 20, 1000, 2 ** 30     # bytes of one; of all that are kept
FORGET = 600                 # seconds after which uploaded pictures are removed
# The browser itself refuses whatever lies outside this page's own server, fonts and scripts included.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
          "font-src 'self' data:; connect-src 'self' data: blob:; frame-ancestors 'none'")
HELP = """Choose a frame, brush over **every** object of the category, save; a few different frames are enough.
The eraser and undo are beside the brush; the wheel zooms, the hand moves."""


class Session:
    """What one open page works on: the number of its frame, and {number: mask} of what is not saved yet."""

    def __init__(self):
        self.number, self.masks = 0, {}


class Page:
    """Frames, the output folder and the job, and one method per thing that the page's user does."""

    def __init__(self, source, folder, job):
        self.source, self.job, self.run = source, job, None
        self.read = lru_cache(maxsize=2)(source.read)            # each click shows the same frame again
        self.support, self.result = Path(folder) / "support", Path(folder) / "result"

    def frame(self, session):
        """The frame that the session shows  ->  (H, W, 3) uint8, its mask (H, W) bool"""
        image = self.read(session.number)
        if session.number not in session.masks:
            session.masks[session.number] = self.kept(session.number)
        return image, session.masks[session.number]

    def kept(self, number):
        """The mask (H, W) bool that is saved of a frame, or an empty one"""
        return load_mask(self.support, self.source.name(number), self.read(number).shape[:2])

    def show(self, session, note=""):
        """session  ->  updates of [session, editor, status, gallery]"""
        image, mask = self.frame(session)
        text = f"**{html.escape(self.source.name(session.number))}**: {mask.shape[1]} x {mask.shape[0]} pixels"
        return session, editor_value(image, mask), f"{text}, {mask.mean():.1%} marked. {note}", self.saved()

    def take(self, session, editor):
        """What was brushed belongs to the frame that is still shown; an event may carry the strokes of one before."""
        if not editor or editor["background"] is None:
            return
        image, mask = self.frame(session)
        shown, below = shrink(image), editor["background"][..., :3]
        if below.shape == shown.shape and np.abs(below.astype(np.int16) - shown).mean() <= SAME_PICTURE:
            session.masks[session.number] = painted(mask, editor["layers"])

    def go(self, session, editor, number):
        """Show another frame; where it cannot be read, the one before stays."""
        self.take(session, editor)
        before = session.number
        if before in session.masks and np.array_equal(session.masks[before], self.kept(before)):
            del session.masks[before]                        # else a walk through a film would keep every mask
        session.number = before if number is None else min(max(int(number), 0), self.source.last)
        try:
            return self.show(session)
        except (ValueError, OSError):
            session.number = before
            raise

    def save(self, session, editor):
        self.take(session, editor)
        name, (image, mask) = self.source.name(session.number), self.frame(session)
        save_support(self.support, name, image, mask)
        return self.show(session, "Saved.")

    def remove(self, session, editor):
        """Clear the frame, and take its support away if it was saved."""
        name = self.source.name(session.number)
        if name in saved_names(self.support):
            remove_support(self.support, name)
        session.masks.pop(session.number, None)
        return self.show(session, "Nothing of it is saved.")

    def saved(self):
        """-> [(picture with its mask, name)] of the support folder"""
        images = {name: read_image(self.support / f"{name}.jpg") for name in saved_names(self.support)}
        return [(shrink(overlay(image, load_mask(self.support, name, image.shape[:2]))), name)
                for name, image in images.items()]

    def segment(self, about="", text=""):
        """Run segment.py on the saved supports and yield updates of [log, film] as it goes.

        about, text: sentences on the supports and on what to segment, where the method reads them
        """
        if self.run and self.run.running:
            raise ValueError("a run is on its way; wait for it, or stop it")
        if not saved_names(self.support):
            raise ValueError("no support is saved yet; mark a frame and save it first")
        output = next_folder(self.result)
        command = self.job.command(self.support, output, text)
        if self.job.sentences:
            save_sentence(self.support, about)
        self.run = run = Run(command, output)
        while run.running:
            yield f"$ {shown_command(command)}\n{run.last_lines()}\n{run.frames()} frames", None
            time.sleep(LOOK_EVERY)
        film = film_of(output) if run.succeeded else None
        end = (f"{run.frames()} frames; everything is in {output}" if run.succeeded else
               f"segment.py ended with status {run.process.returncode}.")
        yield f"$ {shown_command(command)}\n{run.last_lines()}\n{end}", film and str(film)

    def stop(self):
        if self.run:
            self.run.stop()


def told(function):
    """The same function; mistakes of the user become a notice in the page: Gradio shows the text of gr.Error only."""
    @wraps(function)
    def generate(*args):
        try:
            if inspect.isgeneratorfunction(function):
                yield from function(*args)
            else:
                yield function(*args)
        except (ValueError, OSError) as error:
            raise gr.Error(html.escape(str(error)), duration=None, title="Not done") from error
    return generate


def build(page):
    """Page  ->  gr.Blocks; events happen one at a time (concurrency_id), in the order of the clicks"""
    red = "#{:02x}{:02x}{:02x}".format(*MASK_COLOUR)
    brush = gr.Brush(colors=[(red, OPACITY / 255)], default_color=(red, OPACITY / 255), color_mode="fixed")
    with gr.Blocks(title="Mark supports", analytics_enabled=False, delete_cache=(60, FORGET)) as blocks:
        session = gr.State(Session())
        gr.Markdown(f"### {html.escape(page.source.path.name)}: mark supports\n{HELP}")
        slider = gr.Slider(0, max(page.source.last, 1), value=0, step=1, label=f"Frame, 0 to {page.source.last}",
                           visible=page.source.last > 0, elem_id="frame", buttons=[])
        editor = gr.ImageEditor(interactive=True, format="png", image_mode="RGBA", sources=(), transforms=(),
                                layers=False, brush=brush, height=720, label="Brush over the object", buttons=[],
                                elem_id="editor")
        status = gr.Markdown(elem_id="status")
        with gr.Row():
            save = gr.Button("Save as support", variant="primary", elem_id="save")
            remove = gr.Button("Clear, and remove it from the supports", elem_id="remove")
        gallery = gr.Gallery(label=f"Support folder: {page.support}", columns=6, height="auto", elem_id="saved",
                             format="jpeg", object_fit="contain", buttons=[])
        gr.Markdown("### Segment the video\n" + page.job.described())
        with gr.Row(visible=page.job.sentences):
            about = gr.Textbox(read_sentence(page.support), label="What the supports show, one sentence",
                               elem_id="about")
            text = gr.Textbox(label="What to segment in the video, one sentence", elem_id="text")
        with gr.Row():
            start = gr.Button("Segment", variant="primary", elem_id="segment")
            stop = gr.Button("Stop", elem_id="stop")
        log = gr.Textbox(label="segment.py", lines=4, max_lines=14, interactive=False, elem_id="log")
        film = gr.Video(label="Film", interactive=False, elem_id="film", autoplay=True, loop=True, height=480,
                        buttons=[])
        marks = {"outputs": [session, editor, status, gallery], "concurrency_id": "marks", "concurrency_limit": 1,
                 "show_progress": "hidden", "api_visibility": "private"}
        blocks.load(told(page.show), session, **marks)
        slider.change(told(page.go), [session, editor, slider], trigger_mode="always_last", **marks)
        save.click(told(page.save), [session, editor], **marks)
        remove.click(told(page.remove), [session, editor], **marks)
        start.click(told(page.segment), [about, text], [log, film], show_progress="hidden", api_visibility="private")
        stop.click(page.stop, None, None, queue=False, api_visibility="private")
    return blocks


def serve(page, uploads, port=None):
    """Open the page on this machine's own address only, and wait for Ctrl-C. port None: the first free one.

    uploads: the folder in which Gradio keeps what the browser sends
    """
    blocks = build(page)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = blocks.launch(
            server_name="127.0.0.1", server_port=port, share=False, ssr_mode=False, pwa=False, mcp_server=False,
            enable_monitoring=False, run_history=False, footer_links=[], quiet=True, prevent_thread_lock=True,
            theme=theme, max_file_size=LARGEST_UPLOAD, root_path="", allowed_paths=[str(page.support.parent)],
            app_kwargs={"docs_url": None, "redoc_url": None, "middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(OwnPageOnly, uploads=uploads)]})
        print(f"Open {address} in a browser; Ctrl-C here ends it. Supports go to {page.support}", flush=True)
        while True:
            time.sleep(3600)
    finally:
        page.stop()
        blocks.close(verbose=False)


class OwnPageOnly:
    """Around the application: what pages of other origins send is refused, so are too many uploads, and every answer
    tells the browser to load nothing from anywhere else (POLICY)."""

    def __init__(self, app, uploads):
        self.app, self.uploads = app, Path(uploads)

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        names = (b"origin", b"host", b"sec-fetch-site")
        origin, host, site = (headers.get(name, b"").decode("latin-1") for name in names)
        if origin and urlsplit(origin).netloc != host or site in ("cross-site", "same-site"):
            return await PlainTextResponse("This page takes nothing from other pages.", 403)(scope, receive, send)
        if scope.get("path", "").endswith("/upload"):
            kept = [file.stat().st_size for file in self.uploads.rglob("*") if file.is_file()]
            length = headers.get(b"content-length", b"").decode("latin-1")                # of all files of a request
        else:
            kept, length = (), "0"
        if len(kept) > MOST_UPLOADS or not length.isdecimal() or sum(kept) + int(length) > MOST_BYTES:
            return await PlainTextResponse(f"Too many uploads; wait {FORGET} seconds.", 429)(scope, receive, send)

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
            await send(message)
        await self.app(scope, receive, send_with_policy)
