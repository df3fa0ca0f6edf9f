"""CocoInstances: every object of COCO by itself, with its picture; for methods that learn from pictures that they move.

Annotations are kept as they stand in the file and decoded when they are drawn: polygons of a million objects would
fill the memory.
"""
from pathlib import Path

import msgspec
import numpy as np
from pycocotools import mask as mask_utils

from dataloaders.datasets.coco_json import Annotation, Document, Image, bad_file, region_of
from dataloaders.datasets.index import read_below
from dataloaders.datasets.ytvis_json import raising
from dataloaders.images import real_path
from dataloaders.json_values import Id, read_typed, records


class Place(msgspec.Struct):
    """What is asked of an annotation before it is drawn."""
    id: Id
    image_id: Id
    iscrowd: bool | int | None = None


class CocoInstances:
    """root; annotations and folder of the pictures below it. Crowds and objects of unknown images are left out."""

    def __init__(self, root, annotations, images):
        self.folder, self.path = real_path(Path(root, images)), Path(root, annotations)
        if not self.path.is_file():
            raise FileNotFoundError(f"sources.coco_list: no file {self.path}.\n  sources.coco is {root}; set it to the "
                                    "folder of COCO, or sources.coco_weight=0")
        document, fault = read_typed(self.path, Document, bad_file), raising(self.path, bad_file)
        self.images = {image.id: image for _, image in records(document.images, Image, "images", fault)}
        self.annotations = [document.annotations[position] for position, place in records(
            document.annotations, Place, "annotations", fault) if not place.iscrowd and place.image_id in self.images]

    def __len__(self):
        return len(self.annotations)

    def annotation_files(self):
        return [self.path]

    def sampled_files(self):
        return [(self.folder, [image.file_name for image in self.images.values()])]

    def name(self, i):
        place = msgspec.json.decode(self.annotations[i], type=Place)
        return f"{self.images[place.image_id].file_name} annotation {place.id}"

    def read(self, i):
        """i  ->  the picture (H, W, 3) uint8 RGB, the object's mask (H, W) uint8, which may be empty"""
        try:
            annotation = msgspec.json.decode(self.annotations[i], type=Annotation)
            image = self.images[annotation.image_id]
            region = region_of(annotation.segmentation, (image.height, image.width))
        except (ValueError, OverflowError) as error:             # msgspec's errors are ValueErrors
            raise bad_file(self.path, f"{self.name(i)}: {error}") from None
        size = (image.height, image.width)
        picture = read_below(self.folder, image.file_name, size, image.file_name)      # a size that is true, first
        mask = mask_utils.decode({"size": list(size), "counts": region})
        return picture, np.ascontiguousarray(mask)
