"""What the page of tools/annotate.py works on: the picture shown, its mask, the supports, the results. No Gradio here.

In: what the browser sends, layers of an image editor and corners of a polygon. Out: pictures, masks and sentences.
"""
import html
import time
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from dataloaders.images import read_image
from tools.annotation.results import Result
from tools.annotation.run import Run, next_folder, shown_command
from tools.annotation.supports import (
    as_shown,
    editor_value,
    load_mask,
    outlined,
    painted,
    polygon,
    remove_support,
    save_sentence,
    save_support,
    saved_names,
    shrink,
)
from utils.pictures.overlay import overlay

LOOK_EVERY = 0.5             # seconds between two looks at a running segment.py
SAME_PICTURE = 0.5           # mean difference of two pictures' values; the browser hands back what it got
USUAL = 5                    # supports that the networks are trained with
SUPPORT, FILM = "support", "film"        # what a picture is: to be marked, or a frame of the result to be corrected


class Session:
    """What one open page works on: which picture it shows, {picture: mask} of what is not saved, corners (x, y)."""

    def __init__(self):
        self.shown, self.masks, self.corners = (SUPPORT, 0), {}, []


class Work:
    """Pictures, the output folder and the job, and one method per thing that the page's user does.

    Methods that change what is shown return (session, editor's value, picture with its polygon, status, progress,
    [(picture, name)] of the supports).
    """

    def __init__(self, source, folder, job):
        self.source, self.job, self.run, self.result, self.before = source, job, None, None, None
        self.read = lru_cache(maxsize=2)(self.picture)           # each click shows the same picture again
        self.support, self.base = Path(folder) / "support", Path(folder) / "result"

    def picture(self, shown):
        kind, number = shown
        return self.source.read(number) if kind == SUPPORT else self.job.read(number, self.result)

    def name(self, shown):
        return self.source.name(shown[1]) if shown[0] == SUPPORT else self.job.name(shown[1])

    def frame(self, session):
        """The picture that the session shows  ->  (H, W, 3) uint8, its mask (H, W) bool"""
        key = self.key(session.shown)
        if key not in session.masks:
            session.masks[key] = self.kept(session.shown)
        return self.read(session.shown), session.masks[key]

    def key(self, shown):
        """Of a picture's mask: that of a frame of the film is another one in another result"""
        return (*shown, self.result.folder) if shown[0] == FILM else shown

    def kept(self, shown):
        """The mask (H, W) bool that is saved of a picture, or found in a frame of the film, or an empty one"""
        if shown[0] == FILM:
            return self.result.mask(shown[1])
        return load_mask(self.support, self.source.name(shown[1]), self.read(shown).shape[:2])

    def show(self, session, note=""):
        return (session, editor_value(*self.frame(session)), self.drawn(session), self.status(session, note),
                self.progress(), self.saved())

    def drawn(self, session):
        """The picture with its mask and the corners of the polygon so far, as large as the page shows it"""
        return outlined(as_shown(overlay(*self.frame(session))), session.corners)

    def status(self, session, note=""):
        _, mask = self.frame(session)
        number = f" (frame {session.shown[1]} of the film, to be corrected)" if session.shown[0] == FILM else ""
        return (f"**{html.escape(self.name(session.shown))}**{number}: {mask.shape[1]} x {mask.shape[0]} pixels, "
                f"**{mask.mean():.1%} marked**. {note}")

    def progress(self):
        count = len(saved_names(self.support))
        return f"**{count} of {USUAL}** supports saved" + (
            "." if count < USUAL else "; that is what the network was trained with. Go on to step 2.")

    def take(self, session, editor):
        """What was brushed belongs to the picture that is still shown; an event may carry the strokes of one before."""
        if not editor or editor["background"] is None:
            return
        image, mask = self.frame(session)
        shown, below = as_shown(image), editor["background"][..., :3]
        if below.shape == shown.shape and np.abs(below.astype(np.int16) - shown).mean() <= SAME_PICTURE:
            session.masks[self.key(session.shown)] = painted(mask, editor["layers"])

    def live(self, session, editor):
        """After every stroke  ->  (session, status)"""
        self.take(session, editor)
        return session, self.status(session)

    def go(self, session, editor, number, kind=SUPPORT):
        """Show another picture; where it cannot be read, the one before stays."""
        self.take(session, editor)
        before, last = session.shown, self.source.last if kind == SUPPORT else np.inf
        if np.array_equal(self.frame(session)[1], self.kept(before)):
            del session.masks[self.key(before)]              # else a walk through a film would keep every mask
        session.shown = before if number is None else (kind, int(min(max(int(number), 0), last)))
        session.corners = []
        try:
            return self.show(session)
        except (ValueError, OSError):
            session.shown = before
            raise

    def corner(self, session, x, y):
        """A click into the picture, in its pixels as shown; None takes the last one back  ->  (session, picture)"""
        session.corners = session.corners[:-1] if x is None else [*session.corners, (x, y)]
        return session, self.drawn(session)

    def close(self, session, marks=True):
        """The polygon is closed: what is within gets marked, or not marked"""
        image, mask = self.frame(session)
        inside = polygon(session.corners, mask.shape)
        session.masks[self.key(session.shown)] = mask | inside if marks else mask & ~inside
        session.corners = []
        return self.show(session)

    def save(self, session, editor):
        self.take(session, editor)
        save_support(self.support, self.name(session.shown), *self.frame(session))
        return self.show(session, "Saved.")

    def remove(self, session, editor):
        """Clear the picture, and take its support away if it was saved."""
        name = self.name(session.shown)
        if name in saved_names(self.support):
            remove_support(self.support, name)
        session.masks[self.key(session.shown)] = np.zeros_like(self.frame(session)[1])
        return self.show(session, "Nothing of it is saved.")

    def saved(self):
        """-> [(picture with its mask, name)] of the support folder"""
        images = {name: read_image(self.support / f"{name}.jpg") for name in saved_names(self.support)}
        return [(shrink(overlay(image, load_mask(self.support, name, image.shape[:2]))), name)
                for name, image in images.items()]

    def correct(self, session, editor):
        """The frame's mask is as it should be: kept beside the result, for the next `segment` to go on from"""
        self.take(session, editor)
        if session.shown[0] != FILM:
            raise ValueError("this is no frame of the result; choose one in step 3 first")
        self.result.correct(session.shown[1], self.frame(session)[1])
        return self.show(session, "Kept: go on from here, or mend another frame first.")

    def segment(self, about="", text="", go_on=False):
        """Run segment.py on the saved supports and yield its log as it goes, True at the end if it succeeded.

        about, text: sentences on the supports and on what to segment, where the method reads them
        go_on: with the masks that were corrected in the last result, from the first new one on
        """
        if self.run and self.run.running:
            raise ValueError("a run is on its way; wait for it, or stop it")
        if not saved_names(self.support):
            raise ValueError("no support is saved yet; mark a picture and save it first (step 1)")
        if go_on and not (self.result and self.result.corrected):
            raise ValueError("nothing is corrected yet; mend a frame and keep its mask first")
        output = next_folder(self.base)
        command = self.job.command(self.support, output, text, self.result.folder if go_on else None)
        if self.job.sentences:
            save_sentence(self.support, about)
        self.run = run = Run(command, output)
        while run.running:
            yield f"$ {shown_command(command)}\n{run.last_lines()}\n{run.frames()} frames", False
            time.sleep(LOOK_EVERY)
        if run.succeeded:
            self.before, self.result = self.result if go_on else None, Result(output)
        end = (f"{run.frames()} frames; everything is in {output}" if run.succeeded else
               f"segment.py ended with status {run.process.returncode}.")
        yield f"$ {shown_command(command)}\n{run.last_lines()}\n{end}", run.succeeded

    def pair(self, number):
        """A frame before and after the correction, side by side  ->  (h, 2 w, 3) uint8"""
        image = self.job.read(number, self.result)
        masks = [one.found(number) for one in (self.before, self.result) if one]
        gap = np.full((image.shape[0], max(2, image.shape[1] // 100), 3), 255, np.uint8)
        sides = [overlay(image, mask) for mask in masks]
        return shrink(cv2.hconcat([sides[0], gap, sides[1]]) if len(sides) > 1 else sides[0])

    def stop(self):
        if self.run:
            self.run.stop()
