"""Objects of a segmented video as JSON that other tools read, in the formats of YouTube-VIS and of COCO.

In: frames with the numbers of their objects, as they come. Out: tracks.json and tracks_coco.json, at the end.
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
            self.seen.setdefault(number, {})[t] = region, certainty

    def write(self, output, categories):
        """categories: names of 1, 2, ...  ->  {number: name of its category}"""
        rows, cols = self.size or (0, 0)
        size = {"width": cols, "height": rows}
        named = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
        video = {"id": 1, **size, "length": len(self.names), "file_names": self.names}
        images = [{"id": t + 1, **size, "file_name": name} for t, name in enumerate(self.names)]
        found = [as_annotation(region, certainty, id=k, image_id=t + 1, track_id=number,
                               category_id=self.category[number])
                 for k, (number, t, region, certainty) in enumerate(
                     ((n, t, *one) for n, own in self.seen.items() for t, one in own.items()), start=1)]
        tracks = [self.as_track(number) | size for number in self.seen]
        for name, content in ((TRACKS, {"videos": [video], "categories": named, "annotations": tracks}),
                              (COCO, {"images": images, "categories": named, "annotations": found})):
            with atomic_file(Path(output, name), "w") as file:
                json.dump(content, file)
        return {number: categories[self.category[number] - 1] for number in self.seen}

    def as_track(self, number):
        """Number of an object  ->  its annotation of YouTube-VIS, null where absent, with a score, as results have"""
        own = self.seen[number]
        each = [as_annotation(*own[t]) if t in own else {} for t in range(len(self.names))]
        columns = {name: [one.get(key) for one in each] for name, key in (
            ("segmentations", "segmentation"), ("bboxes", "bbox"), ("areas", "area"))}
        score = round(fmean(certainty for _, certainty in own.values()), 4)
        return {"id": number, "video_id": 1, "category_id": self.category[number], "iscrowd": 0, "score": score,
                "length": len(self.names)} | columns


def as_annotation(region, certainty, **more):
    """Run lengths of pycocotools, mean probability within them  ->  what COCO says of them"""
    return {**more, "segmentation": region | {"counts": region["counts"].decode("ascii")}, "iscrowd": 0,
            "area": int(mask_utils.area(region)), "bbox": mask_utils.toBbox(region).tolist(),
            "score": round(float(certainty), 4)}
