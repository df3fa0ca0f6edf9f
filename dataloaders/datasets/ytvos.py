"""YouTubeVosIndex: YouTube-VOS, one of its folders train, valid or test with JPEGImages, Annotations and meta.json."""
from functools import cached_property
from pathlib import Path

import msgspec

from dataloaders.datasets.vos import VosIndex, read_list

MAX_BYTES = 2 ** 28          # of meta.json; the training set's has 15 million


class Thing(msgspec.Struct):
    """An object of a video: the frames in which it is annotated or asked for."""
    category: str = "object"
    frames: list[str] = []


class Shown(msgspec.Struct):
    objects: dict[str, Thing]


class Meta(msgspec.Struct):
    videos: dict[str, Shown]


class YouTubeVosIndex(VosIndex):
    """annotations: meta.json for all its videos, or a list of some of them, such as jjvalid.txt

    images: another folder with their frames, relative to the root: ../valid_all_frames/JPEGImages has them at 30 fps
    """
    META = "meta.json"

    def __init__(self, root, annotations, cache_dir=None, *, images="JPEGImages", **settings):
        self.IMAGES = images
        super().__init__(root, annotations, cache_dir, **settings)

    @cached_property
    def meta(self):
        path = Path(self.root, self.META)
        if not path.is_file():
            raise FileNotFoundError(f"YouTube-VOS: no file {path}.\n  {self.at} is {self.root}; set it to the folder "
                                    "train or valid of the data set")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            return msgspec.json.decode(path.read_bytes(), type=Meta).videos
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not the meta.json of YouTube-VOS: {error}.\n  Unpack it again") from None

    def listed(self):
        if self.path == Path(self.root, self.META):
            return list(self.meta)
        names = read_list(self.path)
        for name in names:
            if name not in self.meta:
                raise ValueError(f"{self.path}: lists {name!r}, which {self.root / self.META} does not know.\n"
                                 "  Take the line out of the list, or set the root to the part that it belongs to")
        return names

    def annotation_files(self):
        return [self.root / self.META, *super().annotation_files()]

    def category(self, name, number):
        thing = self.meta[name].objects.get(str(number))
        return thing.category if thing else "object"

    def asked(self, name):
        """Every frame that meta.json lists for one of the objects"""
        return frozenset(frame for thing in self.meta[name].objects.values() for frame in thing.frames) or None
