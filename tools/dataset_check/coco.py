"""COCO, and whatever has its format, for tools/check_dataset.py: the stills that IoUNet learns from.

In: the folder with instances_*.json and its images. Out: findings, counts beside the published ones, and what is left
once the classes of the video data are taken out. All rules are those of dataloaders/datasets/coco_json.py, coco20i.py.
"""
from dataloaders.datasets.coco20i import MIN_AREA, REMOVED, image_folder
from dataloaders.datasets.coco_json import read_tables
from dataloaders.datasets.tables import TableIndex
from tools.dataset_check.findings import check_class_sizes, compare_published
from tools.dataset_check.ytvis import check_images

PUBLISHED = {"instances_train2017": (118287, 80), "instances_val2017": (5000, 80)}      # COCO 2017: images, categories
REFERENCES = {"images": "image_id", "categories": "category_id"}


def check_coco(args, findings):
    """Command line, Findings  ->  tables for the report"""
    path = args.root / args.annotations
    tables = read_tables(path, MIN_AREA, findings.add)
    folder = image_folder(args.root, path)
    index = TableIndex(path, folder, tables)
    here, published = [len(tables["video_id"]), len(tables["category_id"])], PUBLISHED.get(path.stem, (None, None))
    found = {"counts": compare_published(list(zip(("images", "categories"), here, published, strict=True)), findings)}
    found["classes"] = [
        {"id": number, "class": index.class_name(number), "usable images": len(index.videos(number)),
         "removed for": ", ".join(data for data, names in REMOVED.items() if index.class_name(number) in names)}
        for number in tables["category_id"].tolist()]
    kept = [row for row in found["classes"] if row["usable images"] and "ytvis" not in row["removed for"]]
    if not kept:
        findings.add("no_class", str(path), f"all are among those of the video data, or below {MIN_AREA} pixels")
    check_class_sizes([{**row, "videos": row["usable images"]} for row in kept], args.shots, args.few_videos, findings,
                      unit="images")
    found["left for IoUNet"] = overlap_rows(index)
    check_images(args, index, tables, findings, folder, "images")
    return found


def overlap_rows(index):
    """What Coco20iIndex keeps for each choice of video data."""
    rows = []
    for data, removed in REMOVED.items():
        left = [number for number in index.class_ids if index.class_name(number) not in removed]
        images = [image for number in left for image in index.videos(number)]
        rows.append({"video data": data, "images": len(set(images)), "classes": len(left), "masks": len(images)})
    return rows
