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


def split_classes(class_ids, fold):
    """The fold rule: fold g tests the classes c with (c - 1) mod 4 = g - 1 and trains on the others.

    class_ids: whatever category ids the data set has; fold 1..4  ->  (base, novel), two sorted lists

    Classes are split, not videos: a video with a person and a dog serves both sides, with different masks.
    """
    if fold not in range(1, FOLDS + 1):
        raise ValueError(f"fold {fold!r} does not exist.\n  Folds are 1 to {FOLDS}: --fold 1")
    ids = sorted(set(class_ids))
    novel = [c for c in ids if (c - 1) % FOLDS == fold - 1]
    base = [c for c in ids if (c - 1) % FOLDS != fold - 1]
    for side, classes in (("training", base), ("test", novel)):
        if not classes:
            raise ValueError(f"fold {fold} leaves no {side} class among the category ids {ids}.\n"
                             f"  Take another fold, or annotations with categories of at least two folds.")
    return base, novel
