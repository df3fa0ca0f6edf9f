"""A support folder: a few images and where the object is in each of them, as people make them.

In: a folder. Out: images and masks. Beside every image lies its mask, as one of

    dog.jpg + dog.png            PNG with a palette, grey (0 and 255, or object numbers), or with transparency
    dog.jpg + dog_mask.png       the same; also where the image is a PNG itself
    dog.jpg + dog.json           LabelMe
    anything.json                COCO: one file for all images, which it names

For methods that read sentences sentence.txt may say, in one, what the masks show.
"""
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.datasets.palette import from_colours
from dataloaders.images import (
    TURNS,
    as_picture,
    natural,
    numbers,
    orientation,
    pixels,
    read_bytes,
    read_image,
    real_path,
)
from dataloaders.mask_values import as_mask, half_of, is_object
from dataloaders.own.folder import pictures_in, plain_stem
from dataloaders.own.support_file import read_support_file
from dataloaders.own.supports_json import chosen_label, is_coco, labelme_mask, read_coco, read_labelme

log = logging.getLogger(__name__)

SENTENCE, LONGEST = "sentence.txt", 10_000       # its name, and bytes at most
MOST_SUPPORTS = 100          # pictures that are held in memory together
MOST_COLOURS = 256           # of a mask; a photograph has more
QUARTER_TURNS = (5, 6, 7, 8)  # of the orientations of EXIF
PALETTE = 3                  # colour type of PNG
LAYOUT = """Put images and masks of the same name into it: dog.jpg with dog.png or dog_mask.png (0 is background), or
  with dog.json of LabelMe; or one COCO file for all images."""


@dataclass
class Supports:
    """K images (H, W, 3) uint8 RGB and their masks (H, W) bool, sizes may differ; names of the images, for messages.

    text: the sentence about them, or ''. From a file: agreement, how well each is found by the others (IoU, or None);
    encoded: {name: array}, what the model `made_by` has computed of them
    """
    images: list
    masks: list
    names: list
    agreement: list | None = None
    encoded: dict | None = None
    made_by: str | None = None
    text: str = ""

    def __iter__(self):
        """So that segmenter.set_support(*read_supports(folder)) works"""
        return iter((self.images, self.masks, self.names))


def read_supports(folder, shots=None, object_number=None, category=None):
    """Support folder, or a file of --save-support  ->  Supports, in the order of their names

    shots: that many, the first ones; None: all. object_number: which number of a mask is the object, None: every
    number but 0. category: the label of LabelMe or COCO, needed where there are several; masks as PNG have none.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"support: the folder {folder} does not exist.\n  {LAYOUT}")
    if object_number is not None and not 1 <= object_number <= 65535:
        raise ValueError(f"--object {object_number}: expected the number of an object in the masks, 1 or more")
    if shots is not None and shots < 1:
        raise ValueError(f"--shots {shots}: expected 1 or more")
    if not folder.is_dir():
        if object_number is not None or category is not None:
            raise ValueError(f"{folder}: --object and --category choose within a folder; a file has its masks.\n"
                             "  Leave them out")
        return Supports(*read_support_file(folder, shots))
    found = find_supports(folder, object_number, category)
    if shots is not None and shots > len(found):
        raise ValueError(f"--shots {shots}: {folder} has {len(found)} images with a mask.\n  Add some, or ask "
                         "for fewer")
    if shots is None and len(found) > MOST_SUPPORTS:
        raise ValueError(f"{folder} has {len(found)} images with a mask.\n  Say how many to use, at most "
                         f"{MOST_SUPPORTS}: --shots 5")
    chosen = found[:shots]
    pairs = [upright(path, mask(), as_stored) for path, mask, as_stored in chosen]
    return Supports([image for image, _ in pairs], [mask for _, mask in pairs], [str(path) for path, *_ in chosen],
                    text=read_sentence(folder))


def as_seen(supports, transform):
    """Supports, a transform of the task  ->  images (K, 3, H, W), masks (K, H, W), as the network sees them

    ValueError: not one mask per image, or one of which nothing is left
    """
    images, masks, names = supports
    if len(images) != len(masks) or len(images) == 0:
        raise ValueError(f"set_support: {len(images)} images and {len(masks)} masks; give one mask for each image, "
                         "and one pair at least")
    pictures = [as_picture(image, name) for image, name in zip(images, names, strict=True)]
    images, masks = transform(pictures, [as_mask(*pair) for pair in zip(masks, pictures, names, strict=True)])
    for mask, name in zip(masks, names, strict=True):
        if not mask.any():
            rows, cols = images.shape[-2:]
            raise ValueError(f"{name}: its object is too small: nothing is left of it at {rows} x {cols} pixels, "
                             "which is what the model sees (data.size).\n  Cut the image to the object's "
                             "surroundings, or leave it out")
    return images, masks


def read_categories(places, *settings):
    """Support folders or files, or one folder of support folders  ->  {name: Supports}, settings as of read_supports"""
    places = [Path(place) for place in places]
    if len(places) == 1 and places[0].is_dir() and not any(p.is_file() for p in visible(places[0])):
        places = sorted((p for p in visible(places[0]) if p.is_dir()), key=natural) or places
    names = [real_path(place).stem for place in places]
    double = next((name for name in names if names.count(name) > 1), None)
    if double:
        raise ValueError(f"--support: two are called {double}.\n  Masks, table and film go by these names: rename one")
    return {name: read_supports(place, *settings) for name, place in zip(names, places, strict=True)}


def visible(folder):
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def read_sentence(folder):
    """The text of sentence.txt, '' where there is none; ValueError for what is no text"""
    path = Path(folder) / SENTENCE
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        data = file.read(LONGEST + 1)
    try:
        if len(data) > LONGEST:
            raise ValueError(f"more than {LONGEST} bytes")
        return " ".join(data.decode("utf-8-sig").split())
    except ValueError as error:
        raise ValueError(f"{path}: {error}.\n  Write one sentence about the marked object into it, as UTF-8") from None


def find_supports(folder, object_number, category):
    """[(path of the image, function that reads its mask, whether it is drawn on the pixels as stored)], by name"""
    tables = sorted((p for p in folder.iterdir() if p.suffix.lower() == ".json" and p.is_file()
                     and not p.name.startswith(".")), key=natural)
    coco = [p for p in tables if is_coco(p)]
    if coco:
        if len(tables) > 1:
            raise ValueError(f"{folder}: beside the COCO file {coco[0].name} lies {len(tables) - 1} more .json.\n"
                             "  Leave one COCO file in the folder, or LabelMe's files alone")
        return [(image, mask, True) for image, mask in read_coco(coco[0], category)]
    pairs = pair(folder, tables)
    labelme = {mask: read_labelme(mask) for _, mask in pairs if mask.suffix.lower() == ".json"}
    if labelme:
        labels = sorted(set().union(*(content.labels for content in labelme.values())))
        category = chosen_label(labels, category, folder)
    found = []
    for image, mask in pairs:
        if mask not in labelme:
            found.append((image, partial(read_mask, mask, object_number), False))
        elif category in labelme[mask].labels:
            found.append((image, partial(labelme_mask, labelme[mask], category, mask), False))
    return found


def pair(folder, tables):
    """Folder, its .json  ->  [(image, its mask or .json)]; ValueError where one lacks the other"""
    images, masks = pictures_in(folder)
    if not images:
        raise ValueError(f"{folder}: no image with a mask in this folder.\n  {LAYOUT}")
    others, pairs = masks + tables, []
    for image in images:
        own = [m for m in others if plain_stem(m) in (plain_stem(image), f"{plain_stem(image)}_mask")]
        if len(own) != 1:
            found = f"has {len(own)} masks ({', '.join(m.name for m in own)})" if own else "has no mask"
            raise ValueError(f"{image} {found}.\n  Expected one of {image.stem}_mask.png, {image.stem}.json"
                             + (f", {image.stem}.png" if image.suffix.lower() != ".png" else ""))
        pairs.append((image, own[0]))
    alone = set(others) - {mask for _, mask in pairs}
    if alone:
        raise ValueError(f"{min(alone)}: no image lies beside this file.\n  Add {min(alone).stem}.jpg, or remove it")
    return pairs


def read_mask(path, object_number=None):
    """PNG  ->  (H, W) bool

    With a palette or one channel, every number but 0 is object, or the given one, where 255 may be void and soft edges
    are cut at half (`is_object`); with transparency, what is opaque; in colour, the numbers of the DAVIS palette, else
    what is not black.
    """
    found = read_numbers(path)
    if found.ndim == 3 and (found[..., :3] == found[..., :1]).all() and (found[..., 3:] == 255).all():
        found = found[..., 0]                              # grey, written as colours
    if found.ndim == 2:
        return is_object(found, path) if object_number is None else numbered(found, path, object_number)
    if object_number is not None:
        raise ValueError(f"--object {object_number}: {path} is in colour or transparent and has no object numbers.\n"
                         "  Leave --object out, or save it with a palette")
    if found.shape[2] == 4 and (found[..., 3] < 255).any():
        return found[..., 3] > 127
    colours = len(np.unique(found[..., :3].reshape(-1, 3), axis=0))
    if colours > MOST_COLOURS:
        raise ValueError(f"{path} looks like a photograph, not like a mask: it has more than {MOST_COLOURS} colours.\n"
                         f"  {LAYOUT}")
    try:
        known = from_colours(found, path)
    except ValueError:                                     # colours of nobody's palette: what is not black
        brightness = found[..., :3].max(axis=2)
        return brightness > (half_of(brightness, np.unique(brightness[brightness > 0]), path) or 0)
    return is_object(known, path)


def read_numbers(path):
    """PNG  ->  its numbers, or colours, as images.read_mask; a palette of greys stands for these greys"""
    data = read_bytes(path)
    found = numbers(data, path)
    if found.ndim == 2 and data[25] == PALETTE:
        colours = pixels(data, path)
        if (colours == colours[..., :1]).all() and colours.any():
            return colours[..., 0]
    return found


def numbered(pixels, path, object_number):
    """(H, W) numbers  ->  (H, W) bool"""
    mask = pixels == object_number
    if not mask.any():
        there = [str(n) for n in np.unique(pixels).tolist() if n]
        raise ValueError(f"--object {object_number}: {path} has no such object; it has "
                         f"{', '.join(there[:20]) or 'none at all'}.\n  Name one of these, or leave --object out")
    return mask


def upright(path, mask, as_stored):
    """An image's path, its mask  ->  image (H, W, 3) and mask (H, W), both as people see the photograph

    A camera notes in the file how it was held. A mask is drawn on the picture as it is seen or as it is stored, which
    sizes tell after a quarter turn; where they do not, as_stored says what is usual: COCO's pixels are those stored.
    """
    image, held = read_image(path, upright=True), orientation(read_bytes(path))
    turn, stored = TURNS.get(held), image.shape[1::-1] if held in QUARTER_TURNS else image.shape[:2]
    if turn and mask.shape == stored and (as_stored or image.shape[:2] != stored):
        mask = turn(mask)
    if turn and image.shape[:2] == stored:
        log.warning("%s is turned by its EXIF data; its mask is taken as drawn on the picture %s. Where that is wrong, "
                    "save both upright", path, "as it is stored" if as_stored else "as it is seen")
    if mask.shape != image.shape[:2]:
        sizes = [f"{rows} x {cols}" for rows, cols in (image.shape[:2], mask.shape)]
        raise ValueError(f"{path}: the image has {sizes[0]} pixels, its mask {sizes[1]}.\n  " + (
            "One of them is turned: save both upright" if mask.shape == image.shape[1::-1] else
            "Save the mask at the size of the image"))
    if not mask.any():
        raise ValueError(f"{path}: its mask is empty.\n  Mark the object in it, or remove image and mask")
    return image, np.ascontiguousarray(mask)
