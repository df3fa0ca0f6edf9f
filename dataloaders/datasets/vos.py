"""VosIndex: videos with masks that number their objects. davis.py and ytvos.py say where the files lie.

Nothing but names and headers is read until somebody asks; `areas` counts the pixels of every object in every annotation
once and keeps the counts, since what a sample may show and where an object first appears follows from them.
"""
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np

from dataloaders.datasets.cache import read_cache, write_cache
from dataloaders.datasets.index import file_below
from dataloaders.datasets.palette import read_labels
from dataloaders.images import PICTURES, bad_image, check_file, image_size, read_image, real_path

READERS = 8                  # threads that count
NAMES = ("video", "frame", "object", "area")


class VosIndex:
    """root: the folder of the data set; annotations: the file that lists its videos, below root or anywhere.

    images, masks: folders with one folder per video; truth: a folder with the masks of all frames, where `masks` has
    only those in which objects first appear; None: `masks`. merge: all objects of a video are one, as in DAVIS 2016.
    cache_dir: keeps what was counted, or None. at: the key of the config that says root. fault: a function that is
    told (kind, where, what) of videos that cannot be used, which are left out then; None: the first one is an error.
    """
    IMAGES, MASKS = "JPEGImages", "Annotations"

    def __init__(self, root, annotations, cache_dir=None, *, truth=None, merge=False, at="data.root",
                 fault=None):
        self.sources = None          # indexes of what is trained on, once a training has opened them
        self.root, self.cache_dir, self.merge, self.at = real_path(Path(root)), cache_dir, merge, at
        self.path = below_or_anywhere(self.root, annotations)
        self.images, self.masks = (self.folder(name) for name in (self.IMAGES, self.MASKS))
        self.truth = real_path(below_or_anywhere(self.root, truth)) if truth else self.masks
        if truth and not self.truth.is_dir():
            raise FileNotFoundError(f"data.truth: no folder {self.truth}.\n  Name one with a folder of PNGs per video")
        self.names = self.listed()
        if not self.names:
            raise ValueError(f"{self.path}: lists no video")
        self.names = [name for name in self.names if self._usable(name, fault)]

    def listed(self):
        """Names of the videos, in the order of the list"""
        raise NotImplementedError

    def category(self, name, number):
        """What object `number` of a video is, in a word"""
        return "object"

    def asked(self, name):
        """Names without endings of the frames whose masks a submission holds, None: all"""
        return None

    def folder(self, name):
        folder = real_path(self.root / name)
        if not folder.is_dir():
            raise FileNotFoundError(f"{type(self).__name__}: no folder {folder}.\n  {self.at} is {self.root}; set it "
                                    f"to the folder with {self.IMAGES} and {self.MASKS}")
        return folder

    def check_video(self, name):
        for folder in (self.images, self.masks):
            if "/" in name or "\\" in name or name in ("", ".", "..") or not (folder / name).is_dir():
                raise FileNotFoundError(f"{self.path}: lists {name!r}, but there is no folder {folder / name}.\n"
                                        "  Unpack the data set completely, or take the line out of the list")

    def _usable(self, name, fault):
        try:
            self.check_video(name)
            if fault:
                self._pictures(name)             # else they are read when somebody asks
        except (FileNotFoundError, ValueError) as error:
            if not fault:
                raise
            fault("missing_folder", f"video {name}", str(error).partition("\n")[0])
            return False
        return True

    # -- files ------------------------------------------------------------------------------------------------------

    @cached_property
    def frames_of(self):
        """{video: names of its frames, without endings, in order}"""
        return {name: [Path(file).stem for file in files] for name, files in self.files_of.items()}

    @cached_property
    def files_of(self):
        return {name: self._pictures(name) for name in self.names}

    def _pictures(self, name):
        found = sorted(file.name for file in (self.images / name).iterdir()
                       if file.suffix.lower() in PICTURES and not file.name.startswith("."))
        if not found:
            raise ValueError(f"{self.images / name} has no frame ({' '.join(PICTURES)})")
        return found

    def annotated(self, name, truth=False):
        """Positions of the frames with a file of masks; truth: with one that says all"""
        folder = self.truth if truth else self.masks
        stems = {file.stem for file in (folder / name).iterdir()
                 if file.suffix == ".png"} if (folder / name).is_dir() else set()
        alone = stems - set(self.frames_of[name])
        if alone:
            raise FileNotFoundError(f"{folder / name / min(alone)}.png: this frame does not exist, there is no picture "
                                    f"{min(alone)} in {self.images / name}.\n  Remove the mask, or unpack the frames "
                                    "completely")
        return [t for t, stem in enumerate(self.frames_of[name]) if stem in stems]

    def annotation_files(self):
        """The list, and the masks of the first annotated frame of each video"""
        first = {name: self.annotated(name)[:1] for name in self.names}
        return [self.path, *(file_below(self.masks, self._mask_name(name, t), name)
                             for name, its in first.items() for t in its)]

    def sampled_files(self):
        masks = [(folder, [str(self._mask_name(name, t)) for name in self.names for t in self.annotated(name, truth)])
                 for truth, folder in ((False, self.masks), (True, self.truth))]
        return [*masks[:1 + (self.truth != self.masks)],
                (self.images, [f"{name}/{file}" for name, files in self.files_of.items() for file in files])]

    def _mask_name(self, name, frame):
        return Path(name, f"{self.frames_of[name][frame]}.png")

    def size(self, name):
        """(rows, columns) of its first frame"""
        return image_size(self.images / name / self.files_of[name][0])

    def read_image(self, name, frame):
        """(H, W, 3) uint8 RGB; ValueError where it has another size than the first frame"""
        path = file_below(self.images, Path(name, self.files_of[name][frame]), f"{name}, frame {frame}")
        image = read_image(path)
        if frame and image.shape[:2] != (size := self.size(name)):
            raise bad_image(path, f"has {image.shape[0]} x {image.shape[1]} pixels, the first frame {size[0]} x "
                                  f"{size[1]}", "All frames of a video need one size.")
        return image

    def read_labels(self, name, frame, truth=False, checked=True):
        """Numbers of the objects, (H, W) uint8; checked: against the size of the video"""
        folder = self.truth if truth else self.masks
        path = file_below(folder, self._mask_name(name, frame), f"{name}, frame {frame}")
        labels = read_labels(path, self.size(name) if checked else None)
        return (labels > 0).astype(np.uint8) if self.merge else labels

    # -- objects ----------------------------------------------------------------------------------------------------

    @cached_property
    def areas(self):
        """{video: {object: {position of a frame: its pixels}}}, of `masks`; objects and frames ascend"""
        table = self._counted()
        found = {name: {} for name in self.names}
        for video, frame, number, area in zip(*(table[name].tolist() for name in NAMES), strict=True):
            found[self.names[video]].setdefault(number, {})[frame] = area
        return {name: dict(sorted(objects.items())) for name, objects in found.items()}

    def objects(self, name):
        """Numbers of the objects that an annotation shows, ascending"""
        return list(self.areas[name])

    def starts(self, name):
        """{object: position of the frame in which it first appears}"""
        return {number: min(frames) for number, frames in self.areas[name].items()}

    def truths(self, name):
        """Positions of the frames that can be scored: all for which the truth is there, [] where that is too few

        A data set that gives first masks alone has annotations that do not show all objects; those are no truth.
        """
        known, asked = self.annotated(name, truth=True), self.asked(name)
        wanted = [t for t, stem in enumerate(self.frames_of[name]) if asked is None or stem in asked]
        return known if self.truth != self.masks or set(wanted) <= set(known) else []

    def _counted(self):
        """Counts of all annotations, from the cache where they have not changed"""
        files = [(video, frame) for video, name in enumerate(self.names) for frame in self.annotated(name)]
        stamps = hashlib.sha256()
        for video, frame in files:
            name = self.names[video]
            about = (self.masks / self._mask_name(name, frame)).stat()
            stamps.update(f"{name}/{frame} {about.st_size} {about.st_mtime_ns}\n".encode())
        key = json.dumps(["vos", 1, str(self.masks), self.merge, stamps.hexdigest()])
        cache = self.cache_dir and Path(self.cache_dir) / f"areas_{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        table = read_cache(cache, key, NAMES) if cache else None
        if table is None:
            table = self._count(files)
            if cache:
                write_cache(cache, key, table)
        return table

    def _count(self, files):
        with ThreadPoolExecutor(READERS) as readers:
            counts = list(readers.map(self._count_one, files))
        rows = [(*file, number, area) for file, count in zip(files, counts, strict=True) for number, area in count]
        return dict(zip(NAMES, np.array(rows, np.int64).reshape(-1, len(NAMES)).T, strict=True))

    def _count_one(self, file):
        counts = np.bincount(self.read_labels(self.names[file[0]], file[1], checked=False).ravel())
        return [(number, int(counts[number])) for number in counts.nonzero()[0] if number]


def below_or_anywhere(root, name):
    """A file that the config names: below the root where it is there, else as the path says"""
    return Path(root, name) if Path(root, name).exists() else Path(name)


def read_list(path):
    """A text file with a name per line, or of DAVIS 2016 with a path to every frame  ->  names, each once"""
    if not path.is_file():
        raise FileNotFoundError(f"data.annotations: no file {path}.\n  Name the list of the videos, below data.root or "
                                "anywhere: one name per line")
    check_file(path)
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file; one name per line is expected") from None
    names = [parts[0].split("/")[-2] if parts[0].count("/") >= 2 else parts[0] for parts in lines if parts]
    return list(dict.fromkeys(names))
