"""The page of tools/annotate.py: where to click, what happens then. Gradio draws it; the rest is in work.py."""
import html
import inspect
import time
from functools import partial, wraps
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from dataloaders.own.supports import read_sentence
from tools.annotation.supports import OPACITY, as_shown, shrink
from tools.annotation.work import FILM, SUPPORT, Session
from utils.pictures.overlay import MASK_COLOUR, overlay

HOSTS = ["127.0.0.1", "localhost"]
LARGEST_UPLOAD, MOST_UPLOADS, MOST_BYTES = 16 * 2 ** 20, 1000, 2 ** 30     # bytes of one; of all that are kept
FORGET = 600                 # seconds after which uploaded pictures are removed
WORST = 6                    # frames that are shown, of those that look worst
MODES = {"Brush": (True, False, False), "Polygon": ("hidden", True, True)}     # editor, picture to be clicked, buttons
THUMB = 320                  # pixels of their longer side
BRUSH = 25                   # the shorter side of the picture through the first brush
# The browser itself refuses whatever lies outside this page's own server, fonts and scripts included.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
          "font-src 'self' data:; connect-src 'self' data: blob:; frame-ancestors 'none'")
# Both boxes are as high as the picture needs at their width; Gradio's editor leaves 30 pixels around it, for its tools.
CSS = """#canvas {container-type: inline-size}
#editor, #polygon {height: calc((100cqw - 62px) * RATIO + 62px) !important; min-height: 180px; max-height: 80vh}
#editor .toolbar-wrap {left: 0}
#polygon .image-container, #polygon .image-frame, #polygon img {width: 100%; height: 100%; object-fit: contain}
#polygon button {height: 100%; padding: 0} #polygon {padding: 30px; cursor: crosshair}
#saved .empty, #worst .empty {min-height: 60px}
.gallery-container, .grid-wrap.fixed-height {height: auto !important; min-height: 0 !important; max-height: none}
#saved .grid-container, #worst .grid-container {grid-template-columns: repeat(3, 1fr) !important}
.gallery-item, .thumbnail-item {aspect-ratio: auto !important; height: auto !important; padding-bottom: 26px}
.gallery-item .caption-label {font-size: 11px; padding: 2px 4px; max-width: 100%}
.gallery-item img, .thumbnail-item img {height: auto !important}
#film video, #before video, #film .video-container, #before .video-container {max-height: 480px}"""
STEPS = """**1** Mark five pictures &nbsp;→&nbsp; **2** Segment the film &nbsp;→&nbsp; **3** Correct, and go on"""
MARK = """Mark **every** object of the category in a picture, save; then choose another one with the slider.
*Brush*: the wheel zooms, the hand moves, the eraser is beside the picture. *Polygon*: click corner after corner, then
*Mark inside*."""
CORRECT = """Frames that look worst come first. Choose one, mend its mask, keep it; then go on: frames before it stay,
it has your mask, later ones are segmented again. Or save it as a further support (step 1) and segment anew."""


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


def build(work):
    """Work  ->  gr.Blocks; events happen one at a time (concurrency_id), in the order of the clicks"""
    with gr.Blocks(title="Mark supports", analytics_enabled=False, delete_cache=(60, FORGET), fill_width=True) as page:
        gr.Markdown(f"### {html.escape(work.source.path.name)}\n{STEPS}")
        with gr.Row():
            with gr.Column(scale=5, min_width=320, elem_id="canvas"):
                at = canvas(work)
            with gr.Column(scale=3, min_width=320), gr.Tabs() as tabs:
                with gr.Tab("1 Mark", id=1):
                    at |= mark_step(work)
                with gr.Tab("2 Segment", id=2):
                    at |= segment_step(work)
                with gr.Tab("3 Correct", id=3):
                    at |= correct_step()
        with gr.Row(visible=False) as films:
            (was, before), (_, now) = film("#### The film before", "before"), film("#### The film now", "film")
        with gr.Column(visible=False) as changed:
            gr.Markdown("#### Frames that changed most: before, now")
            pairs = gr.Gallery(show_label=False, columns=2, height="auto", elem_id="pairs", format="jpeg", buttons=[],
                               object_fit="contain")
        connect(work, page, at, [films, now, was, before, changed, pairs, at["frames"], at["worst"], tabs])
    return page


def film(title, name):
    """-> the column of a film, the film"""
    with gr.Column(visible=name == "film", min_width=320) as column:
        gr.Markdown(title)
        return column, gr.Video(show_label=False, interactive=False, elem_id=name, autoplay=True, loop=True, buttons=[])


def canvas(work):
    """The picture, to be brushed or clicked  ->  components by name"""
    rows, cols = as_shown(work.read((SUPPORT, 0))).shape[:2]
    red = "#{:02x}{:02x}{:02x}".format(*MASK_COLOUR)
    brush = gr.Brush(default_size=min(rows, cols) // BRUSH, colors=[(red, OPACITY / 255)],
                     default_color=(red, OPACITY / 255), color_mode="fixed")
    session = gr.State(Session())
    mode = gr.Radio(list(MODES), value="Brush", show_label=False, container=False, elem_id="mode")
    editor = gr.ImageEditor(interactive=True, format="png", image_mode="RGBA", sources=(), transforms=(), layers=False,
                            brush=brush, canvas_size=(cols, rows), show_label=False, buttons=[], elem_id="editor")
    picture = gr.Image(interactive=False, format="png", show_label=False, buttons=[], elem_id="polygon", visible=False)
    with gr.Row(visible=False) as corners:
        inside, outside, undo = (gr.Button(text, size="sm", elem_id=name, min_width=90) for text, name in (
            ("Mark inside", "inside"), ("Erase inside", "outside"), ("Undo corner", "undo")))
    status = gr.Markdown(elem_id="status")
    slider = gr.Slider(0, max(work.source.last, 1), value=0, step=1, label=f"Picture, 0 to {work.source.last}",
                       visible=work.source.last > 0, elem_id="frame", buttons=[])
    return {"session": session, "mode": mode, "editor": editor, "picture": picture, "corners": corners,
            "inside": inside, "outside": outside, "undo": undo, "status": status, "slider": slider}


def mark_step(work):
    gr.Markdown(MARK)
    progress = gr.Markdown(elem_id="progress")
    with gr.Row():
        save = gr.Button("Save as support", variant="primary", elem_id="save", min_width=140)
        remove = gr.Button("Clear and remove", elem_id="remove", min_width=140)
    gallery = gr.Gallery(show_label=False, columns=3, height="auto", elem_id="saved", format="jpeg", buttons=[],
                         object_fit="contain")
    gr.Markdown(f"They are kept in `{html.escape(str(work.support))}`.")
    return {"progress": progress, "save": save, "remove": remove, "gallery": gallery}


def segment_step(work):
    gr.Markdown(work.job.described())
    with gr.Column(visible=work.job.sentences):
        about = gr.Textbox(read_sentence(work.support), label="What the supports show, one sentence", elem_id="about")
        text = gr.Textbox(label="What to segment in the video, one sentence", elem_id="text")
    with gr.Row():
        start = gr.Button("Segment", variant="primary", elem_id="segment", min_width=140)
        stop = gr.Button("Stop", elem_id="stop", min_width=140)
    log = gr.Textbox(label="segment.py", lines=4, max_lines=14, interactive=False, elem_id="log")
    return {"about": about, "text": text, "start": start, "stop": stop, "log": log}


def correct_step():
    gr.Markdown(CORRECT)
    frames = gr.Dropdown([], label="Frames of the result, the worst first", elem_id="frames", interactive=True)
    worst = gr.Gallery(show_label=False, columns=3, height="auto", elem_id="worst", format="jpeg", buttons=[],
                       object_fit="contain", allow_preview=False)
    with gr.Row():
        keep = gr.Button("Keep this mask", elem_id="keep", min_width=140)
        go_on = gr.Button("Go on from here", variant="primary", elem_id="continue", min_width=140)
    log = gr.Textbox(show_label=False, lines=2, max_lines=8, interactive=False, elem_id="log2")
    return {"frames": frames, "worst": worst, "keep": keep, "continue": go_on, "log2": log}


def connect(work, page, at, results):
    """What happens on every click; results: components that a finished run fills"""
    one = {"concurrency_id": "marks", "concurrency_limit": 1, "show_progress": "hidden", "api_visibility": "private"}
    marks = one | {"outputs": [at[k] for k in ("session", "editor", "picture", "status", "progress", "gallery")]}
    session, editor, drawing = at["session"], at["editor"], [at["session"], at["editor"]]
    page.load(told(work.show), session, **marks)
    page.load(told(lambda: shown(work) if work.result else [gr.skip()] * 9), None, results, **one)
    editor.input(told(work.live), drawing, [session, at["status"]], trigger_mode="always_last", **one)
    # Of `change`, an empty box is an error. A click into the box is a release, too, and what is typed then counts.
    at["slider"].release(told(work.go), [*drawing, at["slider"]], trigger_mode="always_last", **marks)
    at["save"].click(told(work.save), drawing, **marks)
    at["remove"].click(told(work.remove), drawing, **marks)
    at["keep"].click(told(work.correct), drawing, **marks)
    at["frames"].input(told(partial(work.go, kind=FILM)), [*drawing, at["frames"]], **marks)

    def chosen(now, strokes, event: gr.SelectData):
        return work.go(now, strokes, work.result.worst()[event.index][1], FILM)

    def clicked(now, event: gr.SelectData):
        return work.corner(now, *event.index)
    at["worst"].select(told(chosen), drawing, **marks)
    at["picture"].select(told(clicked), session, [session, at["picture"]], **one)
    at["undo"].click(told(lambda now: work.corner(now, None, None)), session, [session, at["picture"]], **one)
    for name, marked in (("inside", True), ("outside", False)):
        at[name].click(told(partial(work.close, marks=marked)), session, **marks)
    at["mode"].change(told(lambda now, strokes: work.go(now, strokes, None)), drawing, **marks).then(
        told(lambda mode: [gr.update(visible=choice) for choice in MODES[mode]]), at["mode"],
        [editor, at["picture"], at["corners"]], **one)

    for button, log, again in ((at["start"], at["log"], False), (at["continue"], at["log2"], True)):
        button.click(told(running(work, again)), [at["about"], at["text"]], [log, *results], show_progress="hidden",
                     api_visibility="private").then(told(work.show), session, **marks)
    at["stop"].click(work.stop, None, None, queue=False, api_visibility="private")


def running(work, go_on):
    """-> the event that runs segment.py: its log as it goes, then all that the page shows of the result"""
    def run(about, text):
        for said, done in work.segment(about, text, go_on):
            yield said, *(shown(work) if done else [gr.skip()] * 9)
    return run


def shown(work):
    """-> updates of the films, the frames that changed, those to choose from, the tabs: `results` of connect"""
    result, before, listed = work.result, work.before, work.result.worst()
    worst = [(overlay(work.job.read(n, result), result.mask(n)), text) for text, n in listed[:WORST]]
    pairs = [(work.pair(n), f"frame {n}") for n in result.changed(before, WORST)] if before else []
    film, earlier = (one and one.film and str(one.film) for one in (result, before))
    return (gr.update(visible=bool(film)), film, gr.update(visible=bool(earlier)), earlier,
            gr.update(visible=bool(pairs)), pairs, gr.update(choices=listed, value=None),
            [(shrink(picture, THUMB), text.removeprefix("frame ")) for picture, text in worst], gr.update(selected=3))


def serve(work, uploads, port=None):
    """Open the page on this machine's own address only, and wait for Ctrl-C. port None: the first free one.

    uploads: the folder in which Gradio keeps what the browser sends
    """
    blocks, (rows, cols) = build(work), work.read((SUPPORT, 0)).shape[:2]
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = blocks.launch(
            server_name="127.0.0.1", server_port=port, share=False, ssr_mode=False, pwa=False, mcp_server=False,
            enable_monitoring=False, run_history=False, footer_links=[], quiet=True, prevent_thread_lock=True,
            theme=theme, css=CSS.replace("RATIO", f"{rows / cols:.4f}"), max_file_size=LARGEST_UPLOAD, root_path="",
            allowed_paths=[str(work.support.parent)],
            app_kwargs={"docs_url": None, "redoc_url": None, "middleware": [
                Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(OwnPageOnly, uploads=uploads)]})
        print(f"Open {address} in a browser; Ctrl-C here ends it. Supports go to {work.support}", flush=True)
        while True:
            time.sleep(3600)
    finally:
        work.stop()
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
