"""The loader: whatever happens to its workers, no wait lasts for ever, and the message says what to do."""
import os
import signal
import time

import pytest
import torch

from dataloaders.episode import Clip
from dataloaders.loader import Loader


class Numbers:
    """Items 0 to 5; `odd` says what happens at item 3."""

    def __init__(self, odd=None):
        self.odd = odd

    def __len__(self):
        return 6

    def __getitem__(self, i):
        if i == 3 and self.odd:
            self.odd()
        return Clip(torch.full((1, 3, 2, 2), float(i)))


def unreadable():
    raise ValueError("v001/00003.jpg is cut off")


def read(odd, workers=1, **settings):
    settings = {"patience": 60, **settings}
    return [int(clip.images.max()) for clip in Loader(Numbers(odd), workers=workers, **settings)]


@pytest.mark.parametrize("workers", [0, 2])
def test_items_come_in_order(workers):
    assert read(None, workers) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_told_without_the_workers_traceback(workers):
    with pytest.raises(ValueError) as caught:
        read(unreadable, workers)
    assert str(caught.value) == "v001/00003.jpg is cut off"


def test_errors_may_come_as_items():
    items = list(Loader(Numbers(unreadable), workers=1, patience=60, keep_errors=True))
    assert [isinstance(item, ValueError) for item in items] == [False, False, False, True, False, False]


@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "died .SIGKILL.*\n.*memory ran out.*--resume"),
                                               (signal.SIGBUS, "/dev/shm.*\n.*--shm-size.*data.workers=0")])
def test_a_killed_worker_ends_in_a_sentence_that_names_memory(monkeypatch, number, words):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 1)
    with pytest.raises(OSError, match=words):
        read(lambda: os.kill(os.getpid(), number))


def test_a_stopped_worker_ends_after_the_patience():
    with pytest.raises(OSError, match=r"for 2 s \(data.patience\)"):
        read(lambda: os.kill(os.getpid(), signal.SIGSTOP), patience=2)


def test_a_slow_item_within_the_patience_is_waited_for():
    assert read(lambda: time.sleep(1)) == [0, 1, 2, 3, 4, 5]


def test_shared_memory_without_room_is_named(monkeypatch):
    def no_room(self, *_):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", no_room)
    with pytest.raises(OSError, match="/dev/shm.*\n.*--shm-size.*data.workers=0"):
        read(None)
