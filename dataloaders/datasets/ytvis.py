"""YouTubeVISIndex: what is on disk. Which classes, in which videos, in which frames; images and masks on request.

In: a folder with train.json and JPEGImages/. Out: ids and frame positions, and single images and masks when asked.
Building the index opens no image. Which frames are used is decided in sampling.py, what the network sees in
transforms.py.
"""
from collections import defaultdict
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from dataloaders.datasets.ytvis_json import bad_file, fills, load_tables, rle_counts
from dataloaders.images import bad_image, decode, read_bytes, real_path


class YouTubeVISIndex:
    """YouTube-VIS 2019 and whatever has its format.

    root: the folder with the annotation file and JPEGImages/; cache_dir: keeps the parsed annotations, None = no cache.

    A class is `shown` by a frame if any of its instances has a mask there that is not empty; all instances of the
    class are one mask, and every other object is background.
    """

    def __init__(self, root, annotations="train.json", cache_dir=None):
        self.root = Path(root)
        self.path = self.root / annotations
        if not self.path.is_file():
            raise FileNotFoundError(
                f"YouTube-VIS annotations: no {annotations} in {self.root} (data.root, data.annotations).\n"
                f"  Set data.root to the folder with {annotations} and JPEGImages/.")
        self._images = real_path(self.root / "JPEGImages")
        self._tables = load_tables(self.path, cache_dir)
        self._row = {video: row for row, video in enumerate(self._tables["video_id"].tolist())}
        categories = (self._tables[name].tolist() for name in ("category_id", "category_name"))
        self._names = dict(zip(*categories, strict=True))
        self._annotations = self._group_annotations()

    def _group_annotations(self):
        """class id -> {video id -> rows of its annotations}; videos in file order, only where the class is shown."""
        t, groups = self._tables, defaultdict(lambda: defaultdict(list))
        visible = np.flatnonzero(np.diff(t["mask_start"]))
        for row in visible[np.argsort(t["annotation_video"][visible], kind="stable")].tolist():
            video = int(t["video_id"][t["annotation_video"][row]])
            groups[int(t["annotation_category"][row])][video].append(row)
        return {class_id: dict(videos) for class_id, videos in groups.items()}

    @property
    def class_ids(self):
        """Sorted ids of the classes that at least one video shows."""
        return sorted(self._annotations)

    def class_name(self, class_id):
        """person, giant_panda, ..."""
        return self._names[class_id]

    def videos(self, class_id):
        """Ids of the videos that show the class, in file order."""
        return list(self._annotations.get(class_id, ()))

    def frames(self, video_id, class_id):
        """Positions of the frames that show the class, (frames,) int64, ascending."""
        rows = self._annotations.get(class_id, {}).get(video_id, ())
        start, frame = self._tables["mask_start"], self._tables["mask_frame"]
        shown = [frame[start[row]:start[row + 1]] for row in rows]
        return np.unique(np.concatenate(shown)).astype(np.int64) if shown else np.zeros(0, np.int64)

    def length(self, video_id):
        """Number of annotated frames of the video."""
        start = self._tables["file_start"]
        return int(start[self._row[video_id] + 1] - start[self._row[video_id]])

    def file_name(self, video_id, frame):
        """File of the frame, below JPEGImages/."""
        if not 0 <= frame < self.length(video_id):
            raise IndexError(f"video {video_id} has {self.length(video_id)} frames, none at {frame}")
        return self._tables["file_name"][self._tables["file_start"][self._row[video_id]] + frame].decode("utf-8")

    def video_name(self, video_id):
        """Folder of the video: its name in results, and in the key of its random draws."""
        return str(PurePosixPath(self.file_name(video_id, 0)).parent)

    def size(self, video_id):
        """(rows, columns) of the video's frames."""
        row = self._row[video_id]
        return int(self._tables["video_rows"][row]), int(self._tables["video_cols"][row])

    def read_image(self, video_id, frame):
        """One frame: (H, W, 3) uint8, RGB."""
        path = real_path(self._images / self.file_name(video_id, frame))
        if not path.is_relative_to(self._images):
            raise bad_file(self.path, f"video {video_id}, frame {frame}: {path} lies outside {self._images}")
        if not path.is_file():
            raise FileNotFoundError(
                f"YouTube-VIS image: no {path} (video {video_id}, frame {frame} of {self.path}).\n"
                f"  Unpack the images to {self._images}.")
        image = _decode_image(path)
        if image.shape[:2] != self.size(video_id):
            raise bad_image(path, f"has {image.shape[0]} x {image.shape[1]} pixels, but video {video_id} of "
                                  f"{self.path.name} has {self.size(video_id)[0]} x {self.size(video_id)[1]}")
        return image

    def read_mask(self, video_id, frame, class_id):
        """All instances of the class in one frame: (H, W) bool."""
        t, size = self._tables, self.size(video_id)
        union = np.zeros(size, bool)
        for row in self._annotations.get(class_id, {}).get(video_id, ()):
            first, last = t["mask_start"][row], t["mask_start"][row + 1]
            mask = first + np.searchsorted(t["mask_frame"][first:last], frame)
            if mask < last and t["mask_frame"][mask] == frame:
                union |= self._decode(row, mask, size, f"video {video_id}, frame {frame}")
        return union

    def _decode(self, row, mask, size, where):
        """One stored mask, (H, W) bool. Its runs must fill the image: pycocotools' decoder does not insist on that."""
        start = self._tables["rle_start"]
        counts = rle_counts(self._tables["rle"][start[mask]:start[mask + 1]])
        if not fills(counts, size[0] * size[1]):
            raise bad_file(self.path, f"annotation {self._tables['annotation_id'][row]}, {where}: the runs of the RLE "
                                      f"do not sum up to {size[0]} x {size[1]}")
        foreground = np.arange(len(counts)) % 2 == 1
        return np.repeat(foreground, counts).reshape(size[1], size[0]).T            # runs go down the columns


def _decode_image(path):
    """File -> (H, W, 3) uint8, RGB. OpenCV fills a truncated JPEG with grey and says nothing: its end is looked at."""
    data = read_bytes(path)
    if path.suffix.lower() in (".jpg", ".jpeg") and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise bad_image(path, "is truncated (no JPEG end marker)")
    image = decode(data, path)
    if image is None:
        raise bad_image(path, "is no image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
