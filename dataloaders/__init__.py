"""dataloaders: files on disk in, batches and videos out: what is there (index), which frames (task), transforms.

In: the config and a split. Out, of the method's task: a loader of batches (training), a stream of videos (test).
"""
import importlib

from dataloaders.identity import data_identity

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


def data_fingerprint(cfg, index, task=None):
    """config, index  ->  what says which data a run reads (identity.py)

    task: of a training; one with data of its own for that has training_indexes(cfg, index)
    """
    more = task.training_indexes(cfg, index) if hasattr(task, "training_indexes") else []
    return data_identity(cfg.data.dataset, [index, *more])
