"""DavisIndex: DAVIS 2016 and 2017, a folder with JPEGImages/480p, Annotations/480p and ImageSets."""
from dataloaders.datasets.vos import VosIndex, read_list


class DavisIndex(VosIndex):
    """annotations: the list, ImageSets/2017/val.txt or ImageSets/2016/val.txt; merge: as DAVIS 2016 scores"""
    IMAGES, MASKS = "JPEGImages/480p", "Annotations/480p"

    def listed(self):
        return read_list(self.path)
