"""Episodes and clips: the one contract between the data and the methods.

`dataloaders/` makes them, `models/` consumes them; neither knows more of the other than this file.
"""
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch


@dataclass(kw_only=True)
class Episode:
    """Which object in which video: the support set, and the names of all that is shown.

    support_images (K, 3, H, W) float32, normalised; support_masks (K, H, W) bool
    """
    support_images: torch.Tensor
    support_masks: torch.Tensor
    class_id: int
    class_name: str
    video: str
    frames: list                     # file names of the query frames, below JPEGImages/
    support_frames: list             # file names of the K support frames
    original_size: tuple             # rows, columns of the query video before the letterbox
    run: int = 0
    supports_share_video: bool = False

    @property
    def id(self):
        """What names this episode in logs and errors."""
        return f"{self.class_name}/{self.video} (run {self.run})"


@dataclass(kw_only=True)
class TrainEpisode(Episode):
    """A training sample: the clips of the query video that it uses, laid end to end.

    query_images (clips * clip_length, 3, H, W) float32, normalised; query_masks (clips * clip_length, H, W) bool
    memory_index: one tuple per clip after the first: the positions in the query frames that clip may remember.
        Drawn by the sampler, so that no other random stream touches it.
    """
    query_images: torch.Tensor
    query_masks: torch.Tensor
    clip_length: int
    memory_index: tuple = ()


@dataclass
class Clip:
    """Consecutive class frames of a test video, read and decoded.

    images (T, 3, H, W) float32, normalised; masks (T, H, W) bool
    original_masks (T, H0, W0) bool, only with test.resolution: original
    features: whatever a method computed of the images that further runs over the same clip can use
    """
    images: torch.Tensor
    masks: torch.Tensor
    original_masks: torch.Tensor | None = None
    features: object = None

    def pin_memory(self):
        """Called by the loader where copies to the GPU shall be asynchronous; masks stay on the CPU."""
        return replace(self, images=self.images.pin_memory())


@dataclass(kw_only=True)
class TestEpisode(Episode):
    """A whole query video: every frame that shows the class, `clips` of clip_length frames one after the other.

    The clips can be iterated over once: they are read on the way, and no more than a few exist at a time. The last
    one may be short. other_runs: the same video with the supports of further runs, to be segmented along with this one.
    """
    __test__ = False       # not a pytest class

    clips: Iterable[Clip] = ()
    other_runs: list = field(default_factory=list)

    @property
    def runs(self):
        """This episode and those that share its clips."""
        return [self, *self.other_runs]

    def pin_memory(self):
        """As `Clip.pin_memory`, for the supports."""
        return replace(self, support_images=self.support_images.pin_memory(),
                       other_runs=[run.pin_memory() for run in self.other_runs])


@dataclass
class EpisodeBatch:
    """B training episodes of distinct classes, stacked.

    support_images (B, K, 3, H, W), support_masks (B, K, H, W)
    query_images (B, clips * T, 3, H, W), query_masks (B, clips * T, H, W)
    memory_index: one (B, M) long tensor per clip after the first
    """
    support_images: torch.Tensor
    support_masks: torch.Tensor
    query_images: torch.Tensor
    query_masks: torch.Tensor
    memory_index: list
    clip_length: int
    class_ids: list
    ids: list = field(default_factory=list)

    def to(self, device, non_blocking=True):
        """The same batch with its tensors on `device`."""
        def move(x):
            return x.to(device, non_blocking=non_blocking)
        return EpisodeBatch(
            move(self.support_images), move(self.support_masks), move(self.query_images), move(self.query_masks),
            [move(index) for index in self.memory_index], self.clip_length, self.class_ids, self.ids)

    def pin_memory(self):
        """Called by the loader where batches are pinned; keeps copies to the GPU asynchronous."""
        def pin(x):
            return x.pin_memory()
        return EpisodeBatch(
            pin(self.support_images), pin(self.support_masks), pin(self.query_images), pin(self.query_masks),
            [pin(index) for index in self.memory_index], self.clip_length, self.class_ids, self.ids)


def collate(episodes):
    """list of B TrainEpisodes  ->  EpisodeBatch"""
    stack = {name: torch.stack([getattr(e, name) for e in episodes])
             for name in ("support_images", "support_masks", "query_images", "query_masks")}
    later_clips = zip(*(e.memory_index for e in episodes), strict=True)
    return EpisodeBatch(
        **stack, memory_index=[torch.tensor(clip) for clip in later_clips], clip_length=episodes[0].clip_length,
        class_ids=[e.class_id for e in episodes], ids=[e.id for e in episodes])
