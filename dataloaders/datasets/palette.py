"""Masks of several objects in one picture: every pixel has the number of its object, 0 is background.

Index PNGs, with a palette or grey, are taken as they are. Pictures in colour are converted where it is plain which
number a colour stands for.
"""
import numpy as np

from dataloaders.images import bad_image, read_mask
from dataloaders.mask_values import refuse_soft

VOID = 255                   # of PASCAL VOC and DAVIS: nobody says whose pixel it is
MOST = 254                   # numbers that are left for objects
INDEX_PNG = ("Save it as a PNG with a palette or in grey whose values are the numbers of the objects, 0 background: "
             "Image.fromarray(numbers.astype(np.uint8)).save(path) with Pillow.")


def read_labels(path, size=None):
    """A PNG  ->  numbers of objects (H, W) uint8, 0 is background

    size: (rows, columns) that it has to have
    """
    labels = read_numbers(path)
    if size is not None and labels.shape != tuple(size):
        raise bad_image(path, f"has {labels.shape[0]} x {labels.shape[1]} pixels, its frame {size[0]} x {size[1]}",
                        "Save the mask at the size of the frame.")
    refuse_soft(labels, path)
    return from_numbers(labels, path)


def read_numbers(path):
    """A PNG  ->  (H, W) numbers as they stand there"""
    found = read_mask(path)
    return from_colours(found, path) if found.ndim == 3 else found


def from_numbers(labels, path):
    """Numbers (H, W)  ->  uint8; 255 alone is one object, as in DAVIS 2016, and beside others nobody's"""
    values = np.unique(labels)
    values = values[values > 0]
    if len(values) and values[-1] > VOID:
        raise bad_image(path, f"has the number {values[-1]}; a palette has room for the objects 1 to {MOST}", INDEX_PNG)
    if len(values) and values[-1] == VOID:
        return np.where(labels == VOID, np.uint8(len(values) == 1), labels.astype(np.uint8))
    return labels.astype(np.uint8)


def from_colours(image, path):
    """(H, W, 3 or 4) uint8  ->  numbers (H, W)

    Colours of the DAVIS palette are their numbers; black and one other colour are one object.
    """
    from utils.pictures.overlay import palette  # only now, since it imports PyTorch

    if image.shape[2] == 4 and (image[..., 3] != 255).any():
        raise bad_image(path, "is a picture with transparency where numbers of objects are expected", INDEX_PNG)
    code = (image[..., :3].astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    colours, position = np.unique(code, return_inverse=True)
    known = (palette().astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=1).tolist()
    if set(colours.tolist()) <= set(known):
        return np.array([known.index(colour) for colour in colours.tolist()])[position].reshape(code.shape)
    if len(colours) == 2 and colours[0] == 0:
        return position.reshape(code.shape)
    raise bad_image(path, f"is a picture of {len(colours)} colours where numbers of objects are expected, and its "
                          "colours are not those of the DAVIS palette", INDEX_PNG)
