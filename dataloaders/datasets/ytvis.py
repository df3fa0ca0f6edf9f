"""YouTubeVISIndex: YouTube-VIS 2019 and whatever has its format, a folder with train.json and JPEGImages/."""
from pathlib import Path, PurePosixPath

from dataloaders.datasets.folds import split_classes
from dataloaders.datasets.tables import TableIndex
from dataloaders.datasets.ytvis_json import load_tables

IMAGES = "JPEGImages"


class YouTubeVISIndex(TableIndex):
    """root: the folder with the annotation file and JPEGImages/; cache_dir: keeps the parsed annotations, or None"""

    def __init__(self, root, annotations="train.json", cache_dir=None):
        path = Path(root, annotations)
        if not path.is_file():
            raise FileNotFoundError(
                f"YouTube-VIS annotations: no {annotations} in {root} (data.root, data.annotations).\n"
                f"  Set data.root to the folder with {annotations} and {IMAGES}/.")
        super().__init__(path, Path(root, IMAGES), load_tables(path, cache_dir))

    def side(self, fold, side):
        base, novel = split_classes(self.class_ids, fold)
        return self, base if side == "train" else novel

    def video_name(self, video_id):
        """Folder of the video."""
        return str(PurePosixPath(self.file_name(video_id, 0)).parent)
