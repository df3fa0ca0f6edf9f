"""Objects of a segmented video as JSON that other tools read, in the formats of YouTube-VIS and of COCO.

In: frames with the numbers of their objects, as they come. Out: tracks.json and tracks_coco.json, at the end; until
then run lengths are kept, some hundred bytes per object and frame.
"""
import json
from pathlib import Path
from statistics import fmean

import numpy as np
from pycocotools import mask as mask_utils

from utils.files import atomic_file

TRACKS, COCO = "tracks.json", "tracks_coco.json"


class Tracks:
    """video: that of open_video, whose frames' files have their own names where it is a folder"""

    def __init__(self, video):
        self.files, path = getattr(video, "files", None), Path(video.name).resolve()
        self.folder = (path.name if self.files else path.stem) or "video"
        self.names, self.size, self.seen, self.category = [], None, {}, {}

    def add(self, prediction):
        """FramePrediction with `objects`"""
        t, index, mask = len(self.names), prediction.index, prediction.mask
        self.names.append(f"{self.folder}/{self.files[index].name if self.files else f'{index:05d}.jpg'}")
        self.size = mask.shape
        numbers = list(prediction.objects)
        regions = mask_utils.encode(np.asfortranarray(mask[..., None] == np.array(numbers, np.uint8), np.uint8))
        for number, region in zip(numbers, regions, strict=True):
            self.category[number], certainty = prediction.objects[number]
            self.seen.setdefault(number, {})[t] = region["counts"], round(float(certainty), 4)

    def write(self, output, categories):
        """categories: names of 1, 2, ...  ->  {number: name of its category}"""
        size = dict(zip(("height", "width"), self.size or (0, 0), strict=True))
        named = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
        video = {"id": 1, **size, "length": len(self.names), "file_names": self.names}
        images = [{"id": t + 1, **size, "file_name": name} for t, name in enumerate(self.names)]
        frames = ((number, t) for number, own in self.seen.items() for t in own)
        write_json(Path(output, TRACKS), {"videos": [video], "categories": named}, map(self.as_track, self.seen))
        write_json(Path(output, COCO), {"images": images, "categories": named}, (
            self.as_annotation(*one) | {"id": k, "image_id": one[1] + 1, "track_id": one[0], "iscrowd": 0,
                                        "category_id": self.category[one[0]]} for k, one in enumerate(frames, start=1)))
        return {number: categories[self.category[number] - 1] for number in self.seen}

    def as_annotation(self, number, t):
        """An object, the position of a frame  ->  where it is there, {} where it is absent; score: mean probability"""
        if t not in self.seen[number]:
            return {}
        counts, certainty = self.seen[number][t]
        region = {"size": list(self.size), "counts": counts}
        return {"segmentation": region | {"counts": counts.decode("ascii")}, "score": certainty,
                "area": int(mask_utils.area(region)), "bbox": mask_utils.toBbox(region).tolist()}

    def as_track(self, number):
        """Number of an object  ->  its annotation of YouTube-VIS, null where absent, with a score, as results have"""
        each = [self.as_annotation(number, t) for t in range(len(self.names))]
        columns = {name: [one.get(key) for one in each] for name, key in (
            ("segmentations", "segmentation"), ("bboxes", "bbox"), ("areas", "area"))}
        return {"id": number, "video_id": 1, "category_id": self.category[number], "iscrowd": 0,
                "length": len(self.names), **dict(zip(("height", "width"), self.size, strict=True)),
                "score": round(fmean(one["score"] for one in each if one), 4)} | columns


def write_json(path, head, annotations):
    """A file with what `head` has, and annotations, of which one at a time is in memory"""
    with atomic_file(path, "w") as file:
        file.write(f'{json.dumps(head)[:-1]}, "annotations": [')
        for k, one in enumerate(annotations):
            file.write(", " * (k > 0) + json.dumps(one))
        file.write("]}")
