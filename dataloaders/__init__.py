"""dataloaders: files on disk in, batches and videos out: what is there (index), which frames (task), transforms.

In: the config and a split. Out, of the method's task: a loader of batches (training), a stream of videos (test).
"""
import hashlib
import importlib
from pathlib import Path

TASKS = {"fewshot": "dataloaders.fewshot", "vos": "dataloaders.vos", "referring": "dataloaders.referring"}
INDEXES = {
    "ytvis": ("ytvis", "YouTubeVISIndex", {}), "minivspw": ("minivspw", "MiniVSPWIndex", {}),
    "coco": ("coco20i", "Coco20iIndex", {"video_data": "none"}), "coco20i": ("coco20i", "Coco20iIndex", {}),
    "coco20i_minivspw": ("coco20i", "Coco20iIndex", {"video_data": "minivspw"})}     # file, class, settings


def get_task(name):
    """A method's TASK  ->  the package with its data, imported when it is used"""
    return importlib.import_module(TASKS[name])


def check_split(task, split):
    """ValueError for a split that the task has not, such as fold 5 or none"""
    if not task.SPLITS and split is not None:
        raise ValueError(f"--fold {split}: this method's task has no folds; leave it out")
    if task.SPLITS and split not in task.SPLITS:
        raise ValueError(f"--fold {split}: expected one of {', '.join(map(str, task.SPLITS))}" if split is not None else
                         f"--fold is missing: one of {', '.join(map(str, task.SPLITS))}")


def build_index(cfg, cache_dir=None, task=None):
    """config, folder for parsed annotations or None  ->  the index of cfg.data.dataset at cfg.data.root

    task: the method's; one with data sets of its own has its own build_index
    """
    if hasattr(task, "build_index"):
        return task.build_index(cfg, cache_dir)
    if cfg.data.dataset not in INDEXES:
        raise ValueError(f"data.dataset: unknown value {cfg.data.dataset!r}.\n  Choose one of: {', '.join(INDEXES)}")
    file, name, settings = INDEXES[cfg.data.dataset]
    kind = getattr(importlib.import_module(f"dataloaders.datasets.{file}"), name)
    return kind(cfg.data.root, cfg.data.annotations, cache_dir, **settings)


def data_fingerprint(cfg, index=None):
    """What says which annotations a run has read: their place, files and SHA-256 over all; images are not looked at.

    index: where no cfg.data.annotations names them, it has found them: `files`
    """
    digest = hashlib.sha256()
    if "annotations" not in cfg.data:
        place, files = index.path, index.files
    else:
        place = Path(cfg.data.root, cfg.data.annotations)
        place = place if place.exists() else Path(cfg.data.annotations)
        files = sorted(place.glob("*.txt")) if place.is_dir() else [place]
    for file in files:
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return {"dataset": cfg.data.dataset, "annotations": str(place), "files": len(files), "sha256": digest.hexdigest()}
