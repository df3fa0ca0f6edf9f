"""Folds: the rule against the published lists, and no class on both sides."""
import pytest

from dataloaders.folds import YTVIS_CLASSES, split_classes

# The published test classes of YouTube-VIS, fold by fold (SPEC 7), written out independently of the rule.
PUBLISHED = {
    1: "person 1, skateboard 5, snake 9, duck 13, train 17, motorbike 21, deer 25, truck 29, snowboard 33, frog 37",
    2: "giant_panda 2, sedan 6, monkey 10, cat 14, horse 18, giraffe 22, owl 26, zebra 30, boat 34, eagle 38",
    3: "lizard 3, ape 7, hand 11, cow 15, turtle 19, leopard 23, surfboard 27, tiger 31, shark 35, earless_seal 39",
    4: "parrot 4, dog 8, rabbit 12, fish 16, bear 20, fox 24, airplane 28, elephant 32, mouse 36, tennis_racket 40",
}


@pytest.mark.parametrize("fold", PUBLISHED)
def test_novel_classes_are_the_published_ones(fold):
    _, novel = split_classes(YTVIS_CLASSES, fold)
    assert ", ".join(f"{YTVIS_CLASSES[c]} {c}" for c in novel) == PUBLISHED[fold]


def test_no_fold_tests_a_training_class():
    tested = []
    for fold in PUBLISHED:
        base, novel = split_classes(YTVIS_CLASSES, fold)
        assert len(base) == 30 and not set(base) & set(novel) and sorted(base + novel) == sorted(YTVIS_CLASSES)
        tested += novel
    assert sorted(tested) == list(range(1, 41))


def test_the_rule_serves_other_category_ids():
    assert split_classes([8, 3, 1, 5, 2], 1) == ([2, 3, 8], [1, 5])


@pytest.mark.parametrize("fold", [0, 5, "1", None])
def test_unknown_fold_is_refused(fold):
    with pytest.raises(ValueError, match="1 to 4"):
        split_classes(YTVIS_CLASSES, fold)


@pytest.mark.parametrize("class_ids, side", [([1, 5], "training"), ([2, 3], "test"), ([], "training")])
def test_empty_side_is_refused(class_ids, side):
    with pytest.raises(ValueError, match=f"no {side} class"):
        split_classes(class_ids, 1)
