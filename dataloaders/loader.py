"""The loader of all tasks: a DataLoader every wait of which ends, with an item or with a sentence that says what to do.

In: a data set whose items worker processes read ahead. Out: the items, in order.
"""
import shutil
import signal
import threading
import time
from dataclasses import fields, is_dataclass
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader, default_convert, get_worker_info

SHARED = "/dev/shm"


class Loader(DataLoader):
    """As torch's, with batch_size=None unless a batch_sampler is given.

    workers: processes that read ahead, two items each; 0 reads on demand. patience: seconds that an item may take.
    keep_errors: an OSError or ValueError of the data comes as an item instead of being raised.

    Its generator is its own, though nobody needs its numbers: without one it would take a number from the global
    generator whenever it starts, and a resumed epoch, which starts twice, would see other dropout.

    Iterating raises OSError where workers die, stand still or find no shared memory, and what the data raises.
    """

    def __init__(self, dataset, *, workers, patience, keep_errors=False, collate=default_convert, **settings):
        if "batch_sampler" not in settings:
            settings["batch_size"] = None
        super().__init__(_ErrorsAsItems(dataset), num_workers=workers, collate_fn=_HandOver(collate),
                         worker_init_fn=use_one_thread, generator=torch.Generator(), **settings)
        self.patience, self.keep_errors = patience, keep_errors

    def __iter__(self):
        items, late = super().__iter__(), threading.Event()
        workers = getattr(items, "_workers", [])
        if self.num_workers and threading.current_thread() is threading.main_thread():
            # PyTorch's handler raises wherever the program is, in the middle of a step; a wait sees a dead worker, too.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

        def give_up():
            late.set()
            for worker in workers:          # whatever the main process waits for then fails
                worker.kill()

        while True:
            timer = threading.Timer(self.patience, give_up)
            timer.daemon = True
            timer.start()
            try:
                item = next(items)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError):               # of the queue: the data's own errors come as items
                time.sleep(0.1)                                     # it breaks a moment before its process is gone
                ends = [worker.exitcode for worker in workers]
                if not late.is_set() and not any(ends):
                    raise
                raise OSError(_silent(self.patience) if late.is_set() else
                              _full() if -signal.SIGBUS in ends else _dead(ends)) from None
            finally:
                timer.cancel()
            if isinstance(item, Exception) and not self.keep_errors:
                raise item
            yield item
            item = None                    # an error that its own traceback holds is freed late, and so are the workers


class _ErrorsAsItems:
    """The same data set. Raised by a worker, an error would go up with the worker's traceback as its message."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, key):
        try:
            return self.dataset[key]
        except (OSError, ValueError) as error:
            return error


class _HandOver:
    """Collates, and moves the tensors into shared memory while an error can still be told to the main process: the
    queue's thread, which would do it later, only prints its errors, and the main process waits for ever."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, items):
        errors = [one for one in (items if isinstance(items, list) else [items]) if isinstance(one, Exception)]
        if errors:
            return errors[0]
        item = self.collate(items)
        try:
            if get_worker_info() is not None:
                _share(item)
        except RuntimeError:
            return OSError(_full())
        return item


def _share(item):
    if isinstance(item, torch.Tensor):
        item.share_memory_()
    elif isinstance(item, (list, tuple)):
        for one in item:
            _share(one)
    elif is_dataclass(item):
        _share([getattr(item, field.name) for field in fields(item)])


def _full():
    free = f" ({shutil.disk_usage(SHARED).free / 2 ** 20:.0f} MiB are free)" if Path(SHARED).is_dir() else ""
    return (f"data.workers: shared memory, {SHARED}, is too small for what loader processes hand over{free}.\n"
            "  Give it more room (docker run --shm-size=8g, or --ipc=host), or set data.workers=0")


def _dead(ends):
    names = ", ".join(signal.Signals(-end).name if end < 0 else f"exit status {end}" for end in ends if end)
    return (f"data.workers: a loader process has died ({names}).\n  Most often memory ran out: set data.workers to "
            "less, continue with --resume; test.py continues by itself")


def _silent(patience):
    return (f"data.workers: nothing came from the loader processes for {patience} s (data.patience): one is stopped, "
            "or the disk hangs.\n  Continue with --resume; data.workers=0 shows where it hangs")


def use_one_thread(worker_id):
    """Loader processes are parallel already; threads within them only fight for the cores."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
