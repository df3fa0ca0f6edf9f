"""What has to be downloaded, from where, and where each file belongs: the data sets of tools/prepare_data.py.

A rule is a pattern over <archive>/<name in it> and the place below --output that it leads to. Archives differ in their
outermost folders, so that most patterns look at the end. No page is ever fetched: their owners ask for a
registration or an agreement, which is yours to give.
"""
import re
from typing import NamedTuple

NAME = r"[\w-][\w.-]*"                       # of a video: never hidden, never '..'
ANY = r"(?:.*/)?"                            # whatever folders an archive puts around its files
FOREIGN = re.compile(r"(?:^|/)(?:__MACOSX|valid|test|\w*_all_frames|valid_.*)/")   # other splits have the same names


class Source(NamedTuple):
    """title, page: where it is from; root: data.root by default; rules: ((pattern, place), ...); about: the rest."""
    title: str
    page: str
    root: str
    rules: tuple
    about: str

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
        f"""For IoUNet on synthesised masks (Section 4.3, Table 6): the images and instance masks of the training split.
Download: train{year}.zip, annotations_trainval{year}.zip; val{year}.zip too for tools/workshop/iou_study.py.
Tree:
    data/coco/
    ├── annotations/instances_train{year}.json
    └── train{year}/*.jpg
Use:  python train.py --config config/vipmt/iounet_coco20i.yaml --fold 1 \\
          data.annotations=annotations/instances_train{year}.json
The classes of the video data are left out by name (dataloaders/datasets/coco20i.py). COCO-20i's lists are of 2014;
2017 divides the same images otherwise into train and val, and is what config/vipmt/iounet_coco20i.yaml names.""")


SOURCES = {
    "ytvis": Source(
        "YouTube-VIS 2019", "https://youtube-vos.org/dataset/vis/", "data/Youtube-VOS/train",
        ((rf"{ANY}JPEGImages/({NAME}/{NAME}\.jpg)", r"JPEGImages/\1"), (rf"{ANY}(train\.json)", r"\1")),
        """The paper's main data set (Table 1): 40 categories, 2238 videos, 3774 objects in its training split, the only
one whose annotations are public. The page leads to a registration and to the files; take the 2019 version.
Download: the images of the training split (not "all frames") and train.json, zipped or not.
Tree:
    data/Youtube-VOS/train/
    ├── train.json
    └── JPEGImages/<video>/<frame>.jpg
Use:  python train.py --config config/vipmt/ytvis.yaml --fold 1
Fold g tests category n if (n - 1) mod 4 = g - 1. The YouTube-VIS fork of pycocotools is not needed."""),
    "vspw": Source(
        "VSPW, 480p", "https://github.com/sssdddwww2/vspw_dataset_download", "data/VSPW_480p",
        ((rf"{ANY}data/({NAME}/(?:origin/\d{{8}}\.jpg|mask/\d{{8}}\.png))", r"data/\1"),
         (rf"{ANY}((?:train|val|test)\.txt)", r"\1"), (rf"{ANY}(label_num_dic_final\.json)", r"\1")),
        """For MiniVSPW (Table 2). The page says how to ask for the data; take VSPW_480p.
Tree:
    data/VSPW_480p/
    ├── train.txt, val.txt
    ├── data/<video>/origin/*.jpg, mask/*.png
    └── minivspw_lists/        see: python -m tools.prepare_data explain minivspw
Use:  python train.py --config config/vipmt/minivspw.yaml --fold 1
A mask's pixels are VSPW's label numbers: 0 others, 255 void."""),
    "minivspw": Source(
        "MiniVSPW, its lists", "https://github.com/MSiam/tti_fsvos", "data/VSPW_480p",
        ((rf"(?:{ANY}nminivspw_pascal/|(?:[^/]+/)?)((?:train|val|test)_[0-3]\.txt)", r"minivspw_lists/\1"),),
        """Which frames of VSPW each fold trains on and tests: text files of the TTI release, folder
lists/nminivspw_pascal. train_0, train_1 and train_3 are not among the published ones that we have seen.
All twelve can be made from VSPW's own masks by the published rule, and compared with the published ones:
    python -m tools.make_minivspw_lists data/VSPW_480p --output data/VSPW_480p/minivspw_lists --check PUBLISHED
Tree:
    data/VSPW_480p/minivspw_lists/train_0.txt ... test_3.txt
Use:  python train.py --config config/vipmt/minivspw.yaml --fold 1"""),
    "coco2014": coco(2014, r"COCO_(?:train|val)2014_\d{12}"),
    "coco2017": coco(2017, r"\d{12}"),
    "weights": Source(
        "ResNet-50, ImageNet weights", "https://github.com/nankepan/VIPMT", "pretrain_model",
        ((rf"{ANY}({NAME}\.pth)", r"\1"),),
        """The frozen encoder. The paper's is resnet50_v2.pth, with a deep stem: the "backbone" link in the README of
the released code. Its SHA-256 was never published, and we have not had the file in hand: `check` prints that of
yours and loads it strictly, tensor by tensor; --sha256 compares it with one that you were given.
torchvision's files carry the beginning of their SHA-256 in their names (resnet50-0676ba61.pth), which is checked.
Tree:
    pretrain_model/resnet50_v2.pth
Use:  backbone.weights=FILE, with the keys that `check` prints
Or none of it: backbone.weights=torchvision backbone.stem=plain (fetched by torchvision)."""),
}
