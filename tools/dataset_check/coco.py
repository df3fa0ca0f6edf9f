"""COCO, and whatever has its format, for tools/check_dataset.py: the stills that IoUNet learns from.

In: the folder with instances_*.json and its images. Out: findings, counts beside the published ones, and what is left
once the classes of the video data are taken out. Rules as in dataloaders/datasets/coco_json.py and coco20i.py.
"""
from collections import defaultdict

from pycocotools import mask as mask_utils

from dataloaders.datasets.coco20i import MIN_AREA, REMOVED
from dataloaders.datasets.coco_json import _rle, _shrink
from dataloaders.datasets.ytvis_json import Rle
from tools.dataset_check.files import FileTask, check_files
from tools.dataset_check.findings import check_class_sizes, compare_published, shown
from tools.dataset_check.json_records import is_file_name, is_size, read_categories, read_document, records, safely

PUBLISHED = {                    # COCO 2017: images, annotations, categories
    "instances_train2017": (118287, 860001, 80), "instances_val2017": (5000, 36781, 80)}
LISTS = ("images", "categories", "annotations")
REFERENCES = {"images": "image_id", "categories": "category_id"}


def check_coco(args, findings):
    """Command line, Findings  ->  tables for the report"""
    path = args.root / args.annotations
    document = read_document(path, LISTS, safely(_shrink))
    categories = read_categories(document, findings)
    images = read_images(document, findings)
    regions = read_regions(document, images, categories, findings)
    here = [len(document[name]) for name in ("images", "annotations", "categories")]
    published = PUBLISHED.get(path.stem, (None, None, None))
    names = ("images", "annotations", "categories")
    tables = {"counts": compare_published(list(zip(names, here, published, strict=True)), findings)}
    usable = {(image, category) for (image, category), rles in regions.items() if rles is not None
              and mask_utils.area(mask_utils.merge(rles)) >= MIN_AREA}
    tables["classes"] = class_rows(categories, regions, usable)
    kept = [row for row in tables["classes"] if row["usable images"] and "ytvis" not in row["removed for"]]
    if not kept:
        findings.add("no_class", str(path), f"all are among those of the video data, or below {MIN_AREA} pixels")
    sizes = [{**row, "videos": row["usable images"]} for row in kept]
    check_class_sizes(sizes, args.shots, args.few_videos, findings, unit="images")
    tables["left for IoUNet"] = overlap_rows(categories, usable)
    check_images(args, path, images, findings)
    return tables


def read_images(document, findings):
    """{image id: (position, label, file name or None, size or None)}"""
    images, names = {}, {}
    for position, record, label in records(document, "images", ("file_name", "height", "width"), findings):
        drop = {"repair": ("leave-out", label), "drop": ("images", position)}
        size, file = (record["height"], record["width"]), record["file_name"]
        if not is_size(size):
            findings.add("bad_size", label, f"height and width {shown(size)}", **drop)
            size = None
        if not is_file_name(file, folders=0):
            findings.add("bad_file_name", label, f"{shown(file)} is no name below the image folder", **drop)
            file = None
        elif file in names:
            findings.add("duplicate_file_name", label, f"{shown(file)} is the file of {names[file]}, too", **drop)
        if file is not None:
            names.setdefault(file, label)
        images[record["id"]] = (position, label, file, size)
    return images


def read_regions(document, images, categories, findings):
    """{(image id, category id): RLEs of its instances, None where one is a crowd}, without unusable annotations"""
    regions, known = defaultdict(list), {"image": images, "category": categories}
    needed = ("image_id", "category_id", "segmentation")
    for position, record, label in records(document, "annotations", needed, findings):
        drop = {"repair": ("leave-out", label), "drop": ("annotations", position)}
        key = record["image_id"], record["category_id"]
        strange = [kind for value, kind in zip(key, known, strict=True)
                   if not (type(value) is int and value in known[kind])]
        for kind in strange:
            findings.add(f"unknown_{kind}", label, f"{kind}_id {shown(record[f'{kind}_id'])}", **drop)
        size = None if strange else images[key[0]][3]
        if size is None:
            continue
        kind, what, rle = read_mask(record["segmentation"], size, label)
        if kind is not None:
            findings.add(kind, f"{label}, image {key[0]}", what, **drop)
        elif not mask_utils.area(rle):
            findings.add("empty_mask", f"{label}, image {key[0]}")
        if record.get("iscrowd"):
            regions[key] = None
        elif rle is not None and regions[key] is not None:
            regions[key].append(rle)
    return {key: rles for key, rles in regions.items() if rles is None or rles}


def read_mask(segmentation, size, label):
    """Polygons or an RLE, (rows, columns)  ->  (kind of problem or None, words, compressed RLE or None)"""
    if isinstance(segmentation, list) and not segmentation:
        return "empty_segmentation", "", None
    if isinstance(segmentation, Rle) and segmentation.problem is None and tuple(segmentation.size) != size:
        return "mask_size", f"{shown(segmentation.size)}, the image has {shown(size)}", None
    try:
        return None, "", _rle(segmentation, {"height": size[0], "width": size[1]}, label, "")
    except (ValueError, OverflowError) as error:
        words = str(error).partition("\n")[0].removeprefix(f": {label}: ").removesuffix(".")
        return "bad_segmentation", words, None


def class_rows(categories, regions, usable):
    """One dict per category: images that show it, and those with enough of it; for which video data it is removed."""
    shows, uses = defaultdict(int), defaultdict(int)
    for _, category in regions:
        shows[category] += 1
    for _, category in usable:
        uses[category] += 1
    return [{"id": number, "class": name, "images": shows[number], "usable images": uses[number],
             "removed for": ", ".join(data for data, names in REMOVED.items() if name in names)}
            for number, name in sorted(categories.items())]


def overlap_rows(categories, usable):
    """What Coco20iIndex keeps for each choice of video data."""
    rows = []
    for data, removed in REMOVED.items():
        left = [(image, category) for image, category in usable if categories[category] not in removed]
        rows.append({"video data": data, "images": len({image for image, _ in left}),
                     "classes": len({category for _, category in left}), "masks": len(left)})
    return rows


def check_images(args, path, images, findings):
    """Every image file. COCO's masks do not follow a camera's orientation tag, so that images are not turned."""
    split = args.root / path.stem.removeprefix("instances_")
    folder = split if split.is_dir() else args.root / "images"
    if not folder.is_dir():
        findings.add("missing_folder", str(folder), f"nor {split}")
    entries = [entry for entry in images.values() if entry[2] is not None]
    tasks = [FileTask(f"{folder}/{file}", str(folder), still=True) for _, _, file, _ in entries]
    results = check_files(tasks, args.deep, args.workers, folder.name)
    for (position, label, file, size), found in zip(entries, results, strict=True):
        repair = {"repair": ("download", f"{folder.name}/{file}"), "drop": ("images", position)}
        if found.kind is not None:
            findings.add(found.kind, f"{label}, {folder.name}/{file}", found.what, **repair)
        if found.size is not None and size is not None and found.size != size:
            findings.add("image_size", f"{label}, {folder.name}/{file}", f"{found.size[0]} x {found.size[1]}, "
                         f"the annotations say {size[0]} x {size[1]}", **repair)
