"""Videos with sentences: Mini-Ref-YouTube-VOS and Mini-Ref-SAIL-VOS, and what has the layout of one of them.

Sentences say which object of a video is meant, annotations are PNGs in which every object has its number. Building an
index opens no image.
"""
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from dataloaders.datasets.folds import REFYTVOS_CLASSES, SAILVOS_CLASSES, split_classes
from dataloaders.datasets.index import real_below
from dataloaders.datasets.palette import MOST, read_labels
from dataloaders.images import bad_image, read_bmp, read_image, real_path
from dataloaders.json_values import Text, is_file_name, read_typed, shown

NUMBERS = frozenset(map(str, range(1, MOST + 1)))                # that a pixel can have
CHECK = "python -m tools.check_dataset referring ROOT finds all mistakes"
Names = Annotated[list[Text], msgspec.Meta(min_length=1)]


class Expression(msgspec.Struct):
    exp: str
    obj_id: str


class Described(msgspec.Struct):
    frames: list[Text] = []
    expressions: dict[str, Expression] = {}


class Sentences(msgspec.Struct):
    videos: Annotated[dict[str, Described], msgspec.Meta(min_length=1)]


class Thing(msgspec.Struct):
    category: str


class Shown(msgspec.Struct):
    objects: dict[str, Thing]


class Meta(msgspec.Struct):
    videos: dict[str, Shown]


@dataclass(frozen=True)
class Sentence:
    """number: among those of its video; object: value of its pixels; text: in small letters, with single spaces"""
    number: int
    object: int
    class_id: int
    text: str


class RefYouTubeVosIndex:
    """root: the folder with train/ and meta_expressions/, or the one above it.

    members: which sentences a class has. last: a video belongs to the class of the object of its last sentence, with
    all its sentences, as released; each: every sentence belongs to the class of its own object.
    A file categories.json at the root, a list of names, replaces the 48 of the data set.
    fault(kind, where, what): is told of a video that is wrong, and it is left out; None: a ValueError
    """
    FOLDERS = ("Mini-Ref-YouTube-VOS", "mini-ref-youtube-vos")
    EXPRESSIONS = ("meta_expressions/train/meta_expressions.json", "meta_expressions/train/train.json",
                   "meta_expressions/meta_expressions.json", "meta_expressions.json")
    METAS = ("train/meta.json", "train/train.json", "meta.json")
    IMAGES, MASKS, ENDINGS = "train/JPEGImages", "train/Annotations", (".jpg", ".jpeg", ".png")
    CLASSES, MERGE = REFYTVOS_CLASSES, False

    def __init__(self, root, members="last", fault=None):
        self.root = real_path(next((p for name in self.FOLDERS if (p := Path(root, name)).is_dir()), Path(root)))
        self.path, meta = (self._file(names) for names in (self.EXPRESSIONS, self.METAS))
        self.files = [self.path, meta]
        self.images, self.masks = (self._folder(name) for name in (self.IMAGES, self.MASKS))
        self.classes = self._classes()
        described = read_typed(self.path, Sentences, self._bad).videos
        objects = {name: video.objects for name, video in read_typed(meta, Meta, self._bad).videos.items()}
        self.frames_of, self.sentences_of = {}, {}
        for name, video in described.items():
            try:
                self.sentences_of[name] = self._sentences(name, video, meta, objects.get(name))
                self.frames_of[name] = sorted(set(video.frames))
            except ValueError as error:
                if fault is None:
                    raise
                fault("bad_record", *str(error).removeprefix(f"{self.path}: ").partition(".\n")[0].split(": ", 1))
        self._members = defaultdict(lambda: defaultdict(list))           # class id -> video -> its sentences
        for name in sorted(self.sentences_of):
            sentences = self.sentences_of[name]
            for one in sentences:
                self._members[(sentences[-1] if members == "last" else one).class_id][name].append(one)

    # -- what is there ----------------------------------------------------------------------------------------------

    @property
    def class_ids(self):
        return sorted(self._members)

    def class_name(self, class_id):
        return self.classes[class_id]

    def side(self, fold, side):
        """fold, train | test  ->  ids of the side's classes"""
        return split_classes(self.class_ids, fold)[side == "test"]

    def videos(self, class_id):
        """Names of the class's videos, sorted"""
        return list(self._members[class_id])

    def sentences(self, video, class_id):
        """Those of a video that the class has, by their numbers"""
        return self._members[class_id][video]

    def frames(self, video):
        """Names of its annotated frames without endings, sorted"""
        return self.frames_of[video]

    def image_path(self, video, frame):
        places = [self._below(self.images, f"{video}/{frame}{ending}", video) for ending in self.ENDINGS]
        return next((path for path in places if path.is_file()), places[0])

    def mask_path(self, video, frame):
        return self._below(self.masks, f"{video}/{frame}.png", video)

    def read_image(self, video, frame):
        """(H, W, 3) uint8 RGB"""
        path = self._there(self.image_path(video, frame))
        return (read_bmp if path.suffix == ".bmp" else read_image)(path)

    def read_labels(self, video, frame):
        """Numbers of the objects, (H, W) uint8"""
        labels = read_labels(self._there(self.mask_path(video, frame)))
        return (labels > 0).astype(np.uint8) if self.MERGE else labels

    def read(self, video, frame):
        """Both of a frame: image (H, W, 3), numbers (H, W)"""
        image, labels = self.read_image(video, frame), self.read_labels(video, frame)
        if image.shape[:2] != labels.shape:
            raise bad_image(self.mask_path(video, frame), f"has {labels.shape[0]} x {labels.shape[1]} pixels, its "
                            f"frame {image.shape[0]} x {image.shape[1]}", "Save the mask at the size of the frame.")
        return image, labels

    def annotation_files(self):
        return self.files

    def sampled_files(self):
        frames = [f"{video}/{frame}" for video in self.sentences_of for frame in self.frames_of[video]]
        return [(self.masks, [f"{frame}.png" for frame in frames]),
                (self.images, [f"{frame}{self.ENDINGS[0]}" for frame in frames])]

    # -- the files ----------------------------------------------------------------------------------------------------

    def _file(self, names):
        found = next((path for name in names if (path := self.root / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{type(self).__name__}: no file {self.root / names[0]}, nor one of "
                                    f"{', '.join(names[1:])}.\n  data.root is {self.root}; set it to the folder with "
                                    f"{self.IMAGES}")
        return found

    def _folder(self, name):
        if not (self.root / name).is_dir():
            raise FileNotFoundError(f"{type(self).__name__}: no folder {self.root / name}.\n  data.root is "
                                    f"{self.root}; set it to the folder with {self.IMAGES} and {self.MASKS}")
        return real_path(self.root / name)

    def _classes(self):
        """{id: name}"""
        own = self.root / "categories.json"
        if not own.is_file():
            return self.CLASSES
        names = read_typed(own, Names, self._bad)
        self.files.append(own)
        return dict(enumerate(names, start=1))

    def _sentences(self, video, described, meta, objects):
        """A video of both files (`objects`: None where the second does not know it)  ->  its Sentences"""
        texts, where = described.expressions, f"video {shown(video)}"
        if not (texts and described.frames):
            raise self._bad(self.path, f"{where}: it has no {'frames' if texts else 'expressions'}")
        if not all(is_file_name(name, 0) and "/" not in name for name in (video, *described.frames)):
            raise self._bad(self.path, f"{where}: its name, or that of a frame, is none that a file can have")
        if objects is None:
            raise self._bad(self.path, f"{where}: {meta} does not know it")
        if set(texts) != {str(k) for k in range(len(texts))}:
            raise self._bad(self.path, f"{where}: its sentences have the ids {shown(list(texts))}, which are not 0 to "
                            f"{len(texts) - 1}")
        return [self._sentence(k, texts[str(k)], objects, meta, f"{where}, sentence {k}") for k in range(len(texts))]

    def _sentence(self, number, one, objects, meta, where):
        text, ids = normalised(one.exp), {name: k for k, name in self.classes.items()}
        if not text:
            raise self._bad(self.path, f"{where}: it is empty")
        if one.obj_id not in objects or one.obj_id not in NUMBERS:
            raise self._bad(self.path, f"{where}: it is about object {shown(one.obj_id)}, which {meta} does not have")
        category = objects[one.obj_id].category
        if category not in ids:
            raise self._bad(meta, f"{where}: object {one.obj_id} has the unknown category {shown(category)}")
        return Sentence(number, 1 if self.MERGE else int(one.obj_id), ids[category], text)

    @staticmethod
    def _bad(path, what):
        return ValueError(f"{path}: {what}.\n  Unpack the data set again, or correct the file: {CHECK}")

    def _below(self, folder, name, video):
        return real_below(folder, name, f"video {video}")

    def _there(self, path):
        if not path.is_file():
            raise FileNotFoundError(f"{self.path} lists a frame that has no file {path}.\n  Unpack the data set "
                                    "completely, or take the frame out of the list")
        return path


class RefSailVosIndex(RefYouTubeVosIndex):
    """The test data of the same kind: Images/*.bmp, and masks of one object a video. All classes, in every fold."""
    FOLDERS = ("Mini-Ref-SAIL-VOS", "mini-SAIL-VOS")
    EXPRESSIONS = ("meta_expressions.json", "meta_expressions/meta_expressions.json")
    METAS = ("meta.json", "train.json")
    IMAGES, MASKS, ENDINGS = "Images", "Annotations", (".bmp", ".jpg", ".png")
    CLASSES, MERGE = SAILVOS_CLASSES, True

    def side(self, fold, side):
        """As that of the other; nothing is trained on it"""
        if side == "train":
            raise ValueError("data.dataset=ref_sailvos: it is tested, and nothing is trained on it.\n"
                             "  Train on ref_ytvos, then test with data.dataset=ref_sailvos")
        return self.class_ids


def normalised(text):
    """A sentence in small letters, with single spaces"""
    return " ".join(text.lower().split())
