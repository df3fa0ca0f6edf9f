"""Folds: which classes a fold trains on and which it tests. Written here and nowhere else.

In: the category ids of a data set and a fold, 1 to 4. Out: the base (training) and novel (test) ids.
"""
FOLDS = 4

# YouTube-VIS 2019, by category id. The rule below needs no names; a test compares its folds with the published lists.
YTVIS_CLASSES = dict(enumerate((
    "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey",
    "hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear",
    "motorbike", "giraffe", "leopard", "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra",
    "tiger", "elephant", "snowboard", "boat", "shark", "mouse", "frog", "eagle", "earless_seal", "tennis_racket",
), start=1))

# MiniVSPW, by the label ids of VSPW: twenty classes that are tested, and five that no fold tests.
MINIVSPW_CLASSES = {
    41: "billboard_or_Bulletin_Board", 45: "parasol_or_umbrella", 46: "cushion_or_carpet", 47: "tent", 49: "car",
    50: "bus", 51: "truck", 52: "bicycle", 53: "motorcycle", 55: "ship_or_boat", 57: "airplane", 61: "person",
    62: "cat", 63: "dog", 64: "horse", 65: "cattle", 85: "bottle_or_cup", 90: "table_or_desk", 91: "chair_or_seat",
    93: "sofa", 109: "flower_pot_or_vase", 111: "book", 113: "blackboard", 115: "screen_or_television", 124: "train",
}
MINIVSPW_TEST = {1: (52, 55, 57, 85, 111), 2: (49, 50, 51, 62, 91), 3: (53, 61, 63, 64, 90), 4: (65, 93, 109, 115, 124)}
MINIVSPW_VAL = (41, 45, 46, 47, 113)
MINIVSPW_SWAPS = {1: (51, 41), 2: (111, 47)}    # in this fold the first is validated and the second trained on instead

# Mini-Ref-YouTube-VOS, in the order of its category list. Mini-Ref-SAIL-VOS has three of them; its cars are sedans.
REFYTVOS_CLASSES = dict(enumerate((
    "hat", "plant", "hand", "horse", "raccoon", "squirrel", "bus", "boat", "crocodile", "penguin", "motorbike", "truck",
    "hedgehog", "lion", "earless_seal", "whale", "elephant", "mouse", "snail", "camel", "shark", "giraffe", "tiger",
    "frog", "cat", "dolphin", "cow", "dog", "bear", "zebra", "airplane", "leopard", "fox", "turtle", "deer", "train",
    "sedan", "sheep", "fish", "bird", "rabbit", "duck", "snake", "monkey", "parrot", "lizard", "giant_panda", "person",
), start=1))
SAILVOS_CLASSES = {28: "dog", 37: "car", 48: "person"}


def split_classes(class_ids, fold, dataset="ytvis"):
    """Two sides of a fold: its base and its novel classes.

    class_ids: whatever category ids the data set has; fold 1..4; dataset: data.dataset  ->  (base, novel), sorted lists

    ytvis     fold g tests the classes c with (c - 1) mod 4 = g - 1 and trains on the others
    minivspw  fold g tests the five classes published for it; see `minivspw_classes`
    Classes are split, not videos: a video with a person and a dog serves both sides, with different masks.
    """
    check_fold(fold)
    ids = sorted(set(class_ids))
    if dataset == "minivspw":
        base, novel = ([c for c in ids if c in minivspw_classes(fold, side)] for side in ("train", "test"))
    else:
        novel = [c for c in ids if (c - 1) % FOLDS == fold - 1]
        base = [c for c in ids if (c - 1) % FOLDS != fold - 1]
    for side, classes in (("training", base), ("test", novel)):
        if not classes:
            raise ValueError(f"fold {fold} leaves no {side} class among the category ids {ids}.\n"
                             f"  Take another fold, or annotations with categories of at least two folds.")
    return base, novel


def minivspw_classes(fold, side):
    """MiniVSPW as published: the label ids that a fold trains on, validates or tests, ascending.

    side: train | val | test. The fifteen training classes are the test classes of the other folds, but truck and book
    change places with billboard and tent in folds 1 and 2; we do not know why.
    """
    check_fold(fold)
    train = {c for other, classes in MINIVSPW_TEST.items() if other != fold for c in classes}
    sides = {"train": train, "val": set(MINIVSPW_VAL), "test": set(MINIVSPW_TEST[fold])}
    if fold in MINIVSPW_SWAPS:
        validated, trained = MINIVSPW_SWAPS[fold]
        sides["train"], sides["val"] = train - {validated} | {trained}, sides["val"] - {trained} | {validated}
    return tuple(sorted(sides[side]))


def check_fold(fold):
    """ValueError unless the fold exists."""
    if fold not in range(1, FOLDS + 1):
        raise ValueError(f"fold {fold!r} does not exist.\n  Folds are 1 to {FOLDS}: --fold 1")
