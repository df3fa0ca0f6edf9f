"""Stopping: SIGTERM and SIGINT ask a run to end at its next safe point, so that nothing that was computed is lost.

Slurm sends SIGTERM before it takes a machine away, Ctrl-C sends SIGINT. A second SIGINT ends the run at once.
"""
import signal

from utils.logger import get_logger

STOPPED = 75                 # exit status of a run that was stopped and can be continued (EX_TEMPFAIL of sysexits.h)


class Stopped(Exception):
    """The run ended because it was asked to; its state is saved."""


class StopRequest:
    """`with StopRequest() as stop:` ... `stop.requested` is True once a signal came."""

    def __init__(self):
        self.requested = False

    def __enter__(self):
        self.earlier = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self.earlier.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        # A cluster signals the loader's processes too. PyTorch would report their death in the middle of a step.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        get_logger().info("%s: stopping at the next safe point", signal.Signals(number).name)

    def check(self):
        """Stopped, if a signal came: for loops that may be left at any turn."""
        if self.requested:
            raise Stopped

    def guard(self, segmenter):
        """The same Segmenter, which a signal keeps from being called again: Stopped."""
        return _Guarded(self, segmenter)

    def iterate(self, items):
        """The same items. Stopped where waiting for the next one fails after a signal: its loader was stopped too."""
        items = iter(items)
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except OSError:
                self.check()
                raise
            yield item


class _Guarded:
    """A Segmenter whose clips are safe points."""

    def __init__(self, stop, segmenter):
        self.stop, self.segmenter, self.prepare = stop, segmenter, segmenter.prepare

    def __call__(self, prepared, clip):
        self.stop.check()
        return self.segmenter(prepared, clip)
