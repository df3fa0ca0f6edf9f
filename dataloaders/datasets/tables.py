"""TableIndex: an index over the arrays of an annotation file, as ytvis_json.py and coco_json.py make them.

Arrays, unlike lists of objects, are shared between loader processes without being copied.
"""
from collections import defaultdict

import numpy as np

from dataloaders.datasets.index import read_below
from dataloaders.datasets.rle import fills, rle_counts
from dataloaders.images import real_path


class TableIndex:
    """A class is shown by a frame if any of its instances has a mask there that is not empty; all instances of the
    class are one mask, and every other object is background.

    path: of the annotations; images: folder of the images; tables: dict of ytvis_json.TABLES; kept: (annotations,)
    bool, which annotations are used, None: all
    """

    def __init__(self, path, images, tables, kept=None):
        self.path, self._images, self._tables = path, real_path(images), tables
        self._row = {video: row for row, video in enumerate(tables["video_id"].tolist())}
        self._names = dict(zip(tables["category_id"].tolist(), tables["category_name"].tolist(), strict=True))
        self._annotations = self._group(np.diff(tables["mask_start"]) > 0 if kept is None else kept)

    def _group(self, kept):
        """class id -> {video id -> rows of its annotations}; videos in file order."""
        t, groups = self._tables, defaultdict(lambda: defaultdict(list))
        rows = np.flatnonzero(kept)
        for row in rows[np.argsort(t["annotation_video"][rows], kind="stable")].tolist():
            video = int(t["video_id"][t["annotation_video"][row]])
            groups[int(t["annotation_category"][row])][video].append(row)
        return {class_id: dict(videos) for class_id, videos in groups.items()}

    @property
    def class_ids(self):
        return sorted(self._annotations)

    def class_name(self, class_id):
        return self._names[class_id]

    def videos(self, class_id):
        return list(self._annotations.get(class_id, ()))

    def support_videos(self, class_id):
        """All of them: a frame of each shows the class."""
        return self.videos(class_id)

    def frames(self, video_id, class_id):
        rows = self._annotations.get(class_id, {}).get(video_id, ())
        start, frame = self._tables["mask_start"], self._tables["mask_frame"]
        shown = [frame[start[row]:start[row + 1]] for row in rows]
        return np.unique(np.concatenate(shown)).astype(np.int64) if shown else np.zeros(0, np.int64)

    def scored_frames(self, video_id, class_id):
        """Those that show the class."""
        return self.frames(video_id, class_id)

    def length(self, video_id):
        start = self._tables["file_start"]
        return int(start[self._row[video_id] + 1] - start[self._row[video_id]])

    def file_name(self, video_id, frame):
        if not 0 <= frame < self.length(video_id):
            raise IndexError(f"video {video_id} has {self.length(video_id)} frames, none at {frame}")
        return self._tables["file_name"][self._tables["file_start"][self._row[video_id]] + frame].decode("utf-8")

    def annotation_files(self):
        return [self.path]

    def sampled_files(self):
        return [(self._images, [name.decode("utf-8") for name in self._tables["file_name"].tolist()])]

    def size(self, video_id):
        row = self._row[video_id]
        return int(self._tables["video_rows"][row]), int(self._tables["video_cols"][row])

    def read_image(self, video_id, frame):
        return read_below(self._images, self.file_name(video_id, frame), self.size(video_id),
                          f"video {video_id}, frame {frame} of {self.path}")

    def read_mask(self, video_id, frame, class_id):
        t, size = self._tables, self.size(video_id)
        union = np.zeros(size, bool)
        for row in self._annotations.get(class_id, {}).get(video_id, ()):
            first, last = t["mask_start"][row], t["mask_start"][row + 1]
            mask = first + np.searchsorted(t["mask_frame"][first:last], frame)
            if mask < last and t["mask_frame"][mask] == frame:
                union |= self._decode(row, mask, size, f"video {video_id}, frame {frame}")
        return union

    def _decode(self, row, mask, size, where):
        """One stored mask, (H, W) bool. Its runs must fill the image: a cache may be damaged."""
        start = self._tables["rle_start"]
        counts = rle_counts(self._tables["rle"][start[mask]:start[mask + 1]])
        if not fills(counts, size[0] * size[1]):
            raise ValueError(f"{self.path}: annotation {self._tables['annotation_id'][row]}, {where}: the runs of the "
                             f"RLE do not sum up to {size[0]} x {size[1]}.\n  Remove the cache of these annotations.")
        foreground = np.arange(len(counts)) % 2 == 1
        return np.repeat(foreground, counts).reshape(size[1], size[0]).T            # runs go down the columns
