"""Which files of which download belong where: the data sets of tools/prepare_data.py.

A rule is a pattern over <archive>/<name in it> and the place below --output that it leads to. Archives differ in their
outermost folders, so that most patterns look at the end. No page is ever fetched: their owners ask for a
registration or an agreement, which is yours to give. docs/data.md has the trees.
"""
import re
from typing import NamedTuple

NAME = r"[\w-][\w.-]*"                       # of a video: never hidden, never '..'
ANY = r"(?:.*/)?"                            # whatever folders an archive puts around its files
FOREIGN = re.compile(r"(?:^|/)(?:__MACOSX|valid|test|\w*_all_frames|valid_.*)/")   # other splits have the same names


class Source(NamedTuple):
    """title, page: where it is from; root: data.root by default; rules: ((pattern, place), ...); files: what to take"""
    title: str
    page: str
    root: str
    rules: tuple
    files: str

    def destination(self, name):
        """Name in an archive  ->  its place below --output, None if it is not needed"""
        if FOREIGN.search(name):
            return None
        for pattern, place in self.rules:
            match = re.fullmatch(pattern, name, re.ASCII)
            if match:
                return match.expand(place)
        return None


def coco(year, image):
    """The stills of one year; images lie where Coco20iIndex looks for those of an annotation file."""
    return Source(
        f"COCO {year}", "https://cocodataset.org/#download", "data/coco",
        ((rf"{ANY}((?:train|val){year}/{image}\.jpg)", r"\1"),
         (rf"{ANY}(instances_(?:train|val){year}\.json)", r"annotations/\1")),
        f"train{year}.zip, annotations_trainval{year}.zip, and val{year}.zip for tools/workshop/iou_study.py.\n"
        f"Key: data.annotations=annotations/instances_train{year}.json")


SOURCES = {
    "ytvis": Source(
        "YouTube-VIS 2019", "https://youtube-vos.org/dataset/vis/", "data/Youtube-VOS/train",
        ((rf"{ANY}JPEGImages/({NAME}/{NAME}\.jpg)", r"JPEGImages/\1"), (rf"{ANY}(train\.json)", r"\1")),
        "of the 2019 version the images of the training split (not \"all frames\") and train.json, zipped or not."),
    "vspw": Source(
        "VSPW, 480p", "https://github.com/sssdddwww2/vspw_dataset_download", "data/VSPW_480p",
        ((rf"{ANY}data/({NAME}/(?:origin/\d{{8}}\.jpg|mask/\d{{8}}\.png))", r"data/\1"),
         (rf"{ANY}((?:train|val|test)\.txt)", r"\1"), (rf"{ANY}(label_num_dic_final\.json)", r"\1")),
        "VSPW_480p; the page says how to ask for it. Its lists are a data set of their own here: minivspw."),
    "minivspw": Source(
        "MiniVSPW, its lists", "https://github.com/MSiam/tti_fsvos", "data/VSPW_480p",
        ((rf"(?:{ANY}nminivspw_pascal/|(?:[^/]+/)?)((?:train|val|test)_[0-3]\.txt)", r"minivspw_lists/\1"),),
        "the folder lists/nminivspw_pascal. train_0, train_1 and train_3 were never published:\n"
        "python -m tools.make_minivspw_lists data/VSPW_480p --output data/VSPW_480p/minivspw_lists makes all twelve."),
    "coco2014": coco(2014, r"COCO_(?:train|val)2014_\d{12}"),
    "coco2017": coco(2017, r"\d{12}"),
    "davis": Source(
        "DAVIS 2017, trainval at 480p", "https://davischallenge.org/davis2017/code.html", "data/DAVIS",
        ((rf"{ANY}((?:JPEGImages/480p/{NAME}/\d{{5}}\.jpg|Annotations/480p/{NAME}/\d{{5}}\.png))", r"\1"),
         (rf"{ANY}(ImageSets/201[67]/(?:train|val)\.txt)", r"\1")),
        "DAVIS-2017-trainval-480p.zip; for DAVIS 2016 the lists of DAVIS-data.zip as well."),
    "ytvos": Source(
        "YouTube-VOS, training split", "https://youtube-vos.org/dataset/vos/", "data/YouTube-VOS/train",
        ((rf"{ANY}((?:JPEGImages/{NAME}/\d{{5}}\.jpg|Annotations/{NAME}/\d{{5}}\.png))", r"\1"),
         (rf"{ANY}(meta\.json)", r"\1")),
        "train.zip of the 2019 or 2018 version. valid.zip, unpacked beside it, is for submissions to the server\n"
        "(data.root=data/YouTube-VOS/valid)."),
    "weights": Source(
        "ResNet-50, ImageNet weights", "https://github.com/nankepan/VIPMT", "pretrain_model",
        ((rf"{ANY}({NAME}\.pth)", r"\1"),),
        "resnet50_v2.pth, the \"backbone\" link of the README there. Its SHA-256 was never published.\n"
        "Without it: backbone.weights=torchvision backbone.stem=plain"),
}
