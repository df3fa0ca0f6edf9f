"""MiniVSPWIndex: what is on disk. Which classes, in which videos, in which frames; images and masks on request.

In: VSPW_480p (data/<video>/origin/*.jpg and mask/*.png) and the lists of MiniVSPW, one per fold and side, which name
its frames; tools/make_minivspw_lists.py makes them. Out: an index. The lists do not say what a frame shows: the masks
are read once (vspw_masks.py), and only those of the side that is asked for.
"""
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.datasets.folds import FOLDS, MINIVSPW_CLASSES, check_fold, minivspw_classes
from dataloaders.datasets.index import read_below, real_below
from dataloaders.datasets.vspw_masks import count_labels, read_labels
from dataloaders.images import check_file, read_image, real_path
from dataloaders.json_values import shown

SIDES = ("train", "test")
MIN_PIXELS = 100             # more of a class puts a frame on the list, and makes it good for training and supports
FIRST_TEST_ID = 1_000_000    # ids of test videos start here, so that an id tells its side
LINE = re.compile(r"(?P<video>\S+) (?P=video)/mask/(?P<frame>\d{8})\.png", re.ASCII)


class MiniVSPWIndex:
    """MiniVSPW, seen by one fold: base classes in the videos of its training list, novel ones in its test list's.

    root: the folder of VSPW_480p; annotations: the folder with train_0.txt to test_3.txt, relative to root;
    cache_dir: keeps what the masks show, None = no cache. Without a fold it only offers `of_fold`.

    Every class is told from all other labels, void (255) included. A test video belongs to a class if any of its listed
    frames has a single pixel of it. Training and supports need more than MIN_PIXELS: a support must show something.
    """

    def __init__(self, root, annotations="minivspw_lists", cache_dir=None, fold=None):
        self.root = Path(root)
        self.path = self.root / annotations
        for path, key in ((self.root / "data", "data.root"), (self.path, "data.annotations")):
            if not path.is_dir():
                raise FileNotFoundError(
                    f"MiniVSPW: no folder {path} ({key}).\n  Set data.root to the folder of VSPW_480p with data/, "
                    f"and data.annotations to its lists: {_command(self.root, self.path)}")
        self.cache_dir, self.fold, self._data = cache_dir, fold, real_path(self.root / "data")
        self._folds, self._lists = {}, {}

    def of_fold(self, fold):
        """The index as the fold sees it; the same one for the same fold."""
        check_fold(fold)
        if self.fold == fold:
            return self
        if fold not in self._folds:
            self._folds[fold] = MiniVSPWIndex(self.root, self.path.absolute(), self.cache_dir, fold)
        return self._folds[fold]

    def side(self, fold, side):
        """The 70 000 masks of the other side are left alone; ValueError if the list shows no class of this one."""
        index = self.of_fold(fold)
        listed = index._list(side)
        shown = [class_id for class_id in listed.large if index.videos(class_id)]
        if not shown:
            raise ValueError(f"{listed.path}: its {len(listed.names)} videos show no {side} class of fold {fold}."
                             f"\n  Take another fold, or make the lists again: {_command(self.root, self.path)}")
        return index, shown

    @property
    def class_ids(self):
        return sorted(c for side in SIDES for c in self._list(side).large if self.videos(c))

    def class_name(self, class_id):
        return MINIVSPW_CLASSES[class_id]

    def videos(self, class_id):
        if class_id in minivspw_classes(self._known_fold(), "test"):
            return [FIRST_TEST_ID + row for row in self._list("test").shown[class_id]]
        return self.support_videos(class_id)

    def support_videos(self, class_id):
        sides = [side for side in SIDES if class_id in minivspw_classes(self._known_fold(), side)]
        return [row + (FIRST_TEST_ID if side == "test" else 0)
                for side in sides for row in self._list(side).large[class_id]]

    def frames(self, video_id, class_id):
        """Positions of the listed frames that show enough of the class, (frames,) int64, ascending.

        In a test video without such frames, all that show the class at all.
        """
        side, row = self._row(video_id)
        large, shown = (table.get(class_id, {}) for table in (self._list(side).large, self._list(side).shown))
        return large.get(row, shown.get(row, np.zeros(0, np.int64)))

    def scored_frames(self, video_id, class_id):
        """Positions of the frames that a test segments and scores: all listed ones, also those without the class."""
        return np.arange(self.length(video_id))

    def length(self, video_id):
        side, row = self._row(video_id)
        return len(self._list(side).numbers[row])

    def file_name(self, video_id, frame):
        """Image of the frame, below data/."""
        return self._file(video_id, frame, "origin", "jpg")

    def video_name(self, video_id):
        """Folder of the video."""
        side, row = self._row(video_id)
        return self._list(side).names[row]

    def annotation_files(self):
        """The lists of all folds."""
        lists = [self.path / f"{side}_{fold}.txt" for side in SIDES for fold in range(FOLDS)]
        return [file for file in lists if file.is_file()]

    def sampled_files(self):
        lines = dict.fromkeys(line for file in self.annotation_files() for line in text_lines(file))
        masks = [match[0].partition(" ")[2] for line in lines if (match := LINE.fullmatch(line))]
        images = [name.replace("/mask/", "/origin/").replace(".png", ".jpg") for name in masks]
        return [(self._data, masks), (self._data, images)]

    def size(self, video_id):
        side, row = self._row(video_id)
        return tuple(self._list(side).sizes[row].tolist())

    def read_image(self, video_id, frame):
        return self._read(self.file_name(video_id, frame), video_id, read_image)

    def read_mask(self, video_id, frame, class_id):
        return self._read(self._file(video_id, frame, "mask", "png"), video_id, read_labels) == class_id

    def _read(self, name, video_id, read):
        return read_below(self._data, name, self.size(video_id), f"{self.path}: the first mask of the video", read)

    def _file(self, video_id, frame, folder, suffix):
        side, row = self._row(video_id)
        numbers, name = self._list(side).numbers[row], self._list(side).names[row]
        if not 0 <= frame < len(numbers):
            raise IndexError(f"video {name} has {len(numbers)} listed frames, none at {frame}")
        return f"{name}/{folder}/{numbers[frame]:08d}.{suffix}"

    def _list(self, side):
        """The FoldList of train or test, read when it is first asked for."""
        if side not in self._lists:
            path = self.path / f"{side}_{self._known_fold() - 1}.txt"             # files count from 0
            if not path.is_file():
                raise FileNotFoundError(f"MiniVSPW: no list {path} (data.annotations).\n"
                                        f"  Make it by the published rule: {_command(self.root, self.path)}")
            self._lists[side] = load_list(path, self._data, minivspw_classes(self.fold, side), self.cache_dir)
        return self._lists[side]

    def _known_fold(self):
        if self.fold is None:
            raise ValueError(f"{self.path}: MiniVSPW has other lists in every fold.\n"
                             f"  Ask the index of one: index.of_fold(1), up to {FOLDS}.")
        return self.fold

    @staticmethod
    def _row(video_id):
        """Video id  ->  side, row in its list"""
        return ("test", video_id - FIRST_TEST_ID) if video_id >= FIRST_TEST_ID else ("train", video_id)


@dataclass
class FoldList:
    """One list and what its masks show.

    names, numbers, sizes: of every video its folder, its frame numbers (frames,) int32, its rows and columns
    shown: class id -> {row of the video: positions of the frames that show the class (frames,) int64}
    large: the same of the frames with more than MIN_PIXELS of it
    """
    path: Path
    names: list
    numbers: list
    sizes: np.ndarray
    shown: dict
    large: dict


def load_list(path, data, classes, cache_dir=None):
    """path of a list, real folder of the videos, the side's classes, folder of the cache  ->  FoldList"""
    videos = read_list(path)
    names, numbers = list(videos), [np.array(frames, np.int32) for frames in videos.values()]
    start = np.cumsum([0, *map(len, numbers)])
    folders = [real_below(data, f"{name}/mask", path) for name in names]
    masks = [folder / f"{frame:08d}.png" for folder, frames in zip(folders, numbers, strict=True) for frame in frames]
    areas = count_labels(masks, cache_dir)
    sizes = np.stack([areas.rows, areas.cols], axis=1)[start[:-1]]
    shown, large = ({class_id: _by_video(areas.showing(class_id, more_than), start) for class_id in classes}
                    for more_than in (0, MIN_PIXELS))
    return FoldList(path, names, numbers, sizes, shown, large)


def _by_video(frames, start):
    """Frames as positions in the whole list, ascending; start (videos + 1,)  ->  {row: positions in the video}"""
    rows = np.searchsorted(start, frames, side="right") - 1
    return {int(row): frames[rows == row] - start[row] for row in np.unique(rows)}


def read_list(path, fault=None):
    """A list of MiniVSPW, `<video> <video>/mask/<8 digits>.png` per line  ->  {video: [frame numbers]}, as listed

    fault(kind, where, what): is told of every line that cannot be used, which is left out; None: the first one raises
    """
    fault, videos, last = fault or raising(path, "Download or make the list again."), {}, None
    for number, line in enumerate(text_lines(path), start=1):
        match, where = LINE.fullmatch(line), f"{path.name} line {number}"
        if match is None or not is_folder_name(match["video"]):
            fault("bad_line", where, f"expected <video> <video>/mask/<8 digits>.png, got {shown(line)}")
            continue
        video, frame = match["video"], int(match["frame"])
        if video in videos and (video != last or frame <= videos[video][-1]):
            fault("duplicate_line", where, "frames of a video follow one another, in ascending order and once, got "
                  + shown(line))
            continue
        videos.setdefault(video, []).append(frame)
        last = video
    return videos


def raising(path, how):
    def fault(kind, where, what):
        line = where.removeprefix(path.name).strip()
        raise ValueError(f"{path}: {line}: {what}.\n  {how}")
    return fault


def text_lines(path):
    """The lines of a text file, bad bytes in them replaced; ValueError where they are absurdly many."""
    check_file(path)
    return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()


def is_folder_name(name):
    """Whether a name from a file can only be a folder directly below data/."""
    return bool(re.fullmatch(r"[\w.-]+", name, re.ASCII)) and name not in (".", "..")


def write_list(path, videos):
    """{video: [frame numbers]}  ->  a list that `read_list` reads, with the bytes of the published ones."""
    lines = [f"{video} {video}/mask/{frame:08d}.png\n" for video, frames in videos.items() for frame in frames]
    path.write_text("".join(lines), encoding="utf-8")


def _command(root, lists):
    return f"python -m tools.make_minivspw_lists {root} --output {lists}"
