"""Your own videos with a mask per frame -> the layout of YouTube-VIS, for tools/prepare_data.py.

In: folders of frames and PNG masks, in one of the layouts of `find_davis` and `find_frames`, and the category of each
object. Out: JPEGImages/ and train.json. Only frames that have a mask are taken; an object that the mask does not show
is absent from that frame.
"""
import os
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as rle

from dataloaders.images import TURNS, bad_image, image_size, natural, orientation, read_bytes, read_mask
from dataloaders.json_values import is_file_name, shown
from dataloaders.mask_values import MaskValues
from dataloaders.own.folder import OTHER_PICTURES, plain_stem
from tools.dataset_preparation.categories import category_of

IMAGES, MASKS = (".jpg", ".jpeg", ".png"), ".png"
IMAGE_FOLDERS = ("images", "frames", "JPEGImages", "origin", "rgb")
MASK_FOLDERS = ("masks", "mask", "Annotations", "annotations", "labels")
MASK_MARK = "_mask"             # frame.jpg and frame_mask.png in one folder, for frames that are PNGs themselves
BLUE = 1 << 24                  # beside the number of a pure blue, which would be a grey value otherwise


@dataclass
class OwnVideo:
    """name: of its folder; frames, masks: {stem: path}; category: of all its objects, by its folder, or None

    size (rows, columns), stems, tracks {object number: {position: RLE}}, note (what was made of its masks): by `scan`
    """
    name: str
    frames: dict
    masks: dict
    category: str | None = None
    size: tuple | None = None
    stems: list = field(default_factory=list)
    tracks: dict = field(default_factory=dict)
    note: str = ""


def find_davis(root, annotations="Annotations", resolution=None):
    """ROOT/JPEGImages[/480p]/<video>/, ROOT/Annotations[/480p]/<video>/  ->  [OwnVideo], [folders without masks]"""
    for part in ("JPEGImages", annotations):
        if not (root / part).is_dir():
            raise FileNotFoundError(f"DAVIS layout: no folder {root / part}.\n  Name the folder that holds JPEGImages/ "
                                    f"and Annotations/ (--annotations NAME for another name).")
    level = resolution or ("480p" if (root / "JPEGImages" / "480p").is_dir() else "")
    images, masks = root / "JPEGImages" / level, root / annotations / level
    if not (images.is_dir() and masks.is_dir()):
        raise FileNotFoundError(f"DAVIS layout: {images} and {masks} have to be folders.\n  Choose a --resolution that "
                                f"both have.")
    both = [folder for folder in folders(images) if (masks / folder.name).is_dir()]
    return [OwnVideo(folder.name, by_stem(folder, IMAGES), by_stem(masks / folder.name, MASKS)) for folder in both], [
        folder for folder in folders(images) if folder not in both]


def find_frames(root):
    """ROOT/<video>/ or ROOT/<category>/<video>/, frames and masks side by side or in two folders  ->  as find_davis"""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder.\n  Name the folder that holds a folder per video.")
    videos, others = [], []
    for folder in folders(root):
        if pair := frames_and_masks(folder):
            videos.append(OwnVideo(folder.name, *pair))
            continue
        inside = {sub: frames_and_masks(sub) for sub in folders(folder)}
        videos += [OwnVideo(sub.name, *pair, category=folder.name) for sub, pair in inside.items() if pair]
        others += [sub for sub, pair in inside.items() if not pair] or ([] if inside else [folder])
    count = Counter(video.name for video in videos)
    for video in videos:
        if count[video.name] > 1 and video.category:      # two categories may have videos of one name
            video.name = f"{video.category}_{video.name}"
    if len({video.name for video in videos}) < len(videos):
        raise ValueError("two videos have the same name, with and without a category folder.\n  Rename one of them.")
    return videos, others


def frames_and_masks(folder):
    """A folder of one video  ->  ({stem: frame}, {stem: mask}), None if it has no masks"""
    images, masks = ([folder / name for name in names if (folder / name).is_dir()]
                     for names in (IMAGE_FOLDERS, MASK_FOLDERS))
    if masks:
        pair = by_stem(images[0] if images else folder, IMAGES), by_stem(masks[0], MASKS)
    else:
        files = [path for path in in_order(folder) if path.is_file() and not path.name.startswith(".")]
        marked = {plain_stem(p).removesuffix(MASK_MARK): p for p in files if p.suffix.lower() == MASKS
                  and p.stem.endswith(MASK_MARK)}
        masks = marked or {plain_stem(p): p for p in files if p.suffix.lower() == MASKS}
        frames = {plain_stem(p): p for p in files if p.suffix.lower() in IMAGES and p not in masks.values()}
        pair = frames, {name: path for name, path in masks.items() if name in frames}
    return pair if pair[0] and pair[1] else None


def by_stem(folder, suffixes):
    """{stem: path} of the files with such an ending, in order of their names; hidden ones are left out"""
    found = {}
    for path in in_order(folder):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file():
            if found.setdefault(plain_stem(path), path) != path:
                raise ValueError(f"{path}: {found[plain_stem(path)].name} has the same name.\n  Rename one of them, or "
                                 "take it away.")
    return found


def other_kinds(folder):
    """Files below a folder of a video that are pictures or arrays, but none that is read  ->  '' or their endings"""
    kinds = {path.suffix.lower() for path in folder.rglob("*")} & {*OTHER_PICTURES, ".npy"}
    jpegs = any(path.parent.name in MASK_FOLDERS for path in folder.rglob("*.jp*g"))
    return ", ".join(sorted(kinds) + ["masks as JPEG"] * jpegs)


def in_order(folder):
    """The entries of a folder by name, numbers by value: frame 10 comes after frame 9."""
    return sorted(folder.iterdir(), key=natural)


def folders(root):
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_objects(path):
    """A mask file  ->  (H, W) int64, 0 for the background

    Grey or with a palette: the numbers as stored. In colours: R * 65536 + G * 256 + B, or the grey value where the
    three are equal; what is more than half transparent is background.
    """
    found = read_mask(path)
    if found.ndim == 2:
        return found.astype(np.int64)
    red, green, blue = np.moveaxis(found[..., :3].astype(np.int64), 2, 0)
    numbers = np.where((red == green) & (green == blue), red, red * 65536 + green * 256 + blue)
    numbers += BLUE * ((red == 0) & (green == 0) & (blue > 0))
    return np.where(found[..., 3] < 128, 0, numbers) if found.shape[2] == 4 else numbers


def scan(video):
    """Read the masks of a video, one at a time: fills size, stems, tracks and note."""
    video.stems = [name for name in video.frames if name in video.masks]
    if not video.stems:
        raise ValueError(f"video {video.name}: no frame has a mask of its name.\n  Name masks like frames: "
                         f"00000.jpg and 00000.png.")
    tracks, values = defaultdict(dict), MaskValues(f"video {video.name}")
    for position, stem in enumerate(video.stems):
        numbers = read_objects(video.masks[stem])
        check_size(video, stem, numbers.shape)
        for number in values.add(numbers, video.masks[stem]):
            tracks[number][position] = rle.encode(np.asfortranarray(numbers == number, np.uint8))
    groups, video.note = values.objects()
    video.tracks = {}
    for number, members in groups.items():
        positions = sorted({position for value in members for position in tracks[value]})
        video.tracks[number] = {position: rle.merge([tracks[value][position] for value in members
                                                     if position in tracks[value]]) for position in positions}


def check_size(video, stem, size):
    """Frame and mask, and all frames of a video, have one size, and nothing asks for a turn."""
    path = video.frames[stem]
    found = image_size(path)
    if orientation(read_bytes(path)) in TURNS:
        raise bad_image(path, "asks to be turned (EXIF), and masks would not be", "Save it as it is to be seen.")
    video.size = video.size or found
    for what, other in ((path, found), (video.masks[stem], size)):
        if tuple(other) != tuple(video.size):
            raise ValueError(f"{what}: {other[0]} x {other[1]} pixels, but the first frame of video {video.name} has "
                             f"{video.size[0]} x {video.size[1]}.\n  Frames and masks of a video need one size.")


def copy_frames(video, output):
    """Frames byte by byte to output/JPEGImages/<video>/  ->  their names; those that are there whole are kept"""
    names = [f"{video.name}/{video.frames[stem].name}" for stem in video.stems]
    for stem, name in zip(video.stems, names, strict=True):
        if not is_file_name(name, 1) or "\\" in name:            # which annotations take for a folder of Windows
            raise ValueError(f"{video.frames[stem]}: {shown(name)} is no file name for annotations.\n  Rename it.")
        target, source = output / "JPEGImages" / name, video.frames[stem]
        if target.exists() and target.stat().st_size == source.stat().st_size:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        shutil.copyfile(source, part)
        os.replace(part, target)
    return names


def add_video(document, video, names, categories, ids):
    """Append a scanned video and its objects to the document, as YouTube-VIS has them."""
    about = {"height": int(video.size[0]), "width": int(video.size[1]), "length": len(names)}
    number = len(document["videos"]) + 1
    document["videos"].append({"id": number, "file_names": names, **about})
    for object_number, track in video.tracks.items():
        category = category_of(categories, video, object_number)
        if category is None:
            continue
        coded = [track.get(position) for position in range(len(names))]
        document["annotations"].append({
            "id": len(document["annotations"]) + 1, "video_id": number, "category_id": ids[category], "iscrowd": 0,
            "segmentations": [m and {"size": list(m["size"]), "counts": m["counts"].decode("ascii")} for m in coded],
            "areas": [m and int(rle.area(m)) for m in coded],
            "bboxes": [m and rle.toBbox(m).tolist() for m in coded], **about})
