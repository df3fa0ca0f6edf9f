"""Folds: the rule against the published lists, and no class on both sides."""
import pytest

from dataloaders.datasets.folds import MINIVSPW_CLASSES, YTVIS_CLASSES, minivspw_classes, split_classes

# The published test classes of YouTube-VIS, fold by fold, written out independently of the rule.
PUBLISHED = {
    1: "person 1, skateboard 5, snake 9, duck 13, train 17, motorbike 21, deer 25, truck 29, snowboard 33, frog 37",
    2: "giant_panda 2, sedan 6, monkey 10, cat 14, horse 18, giraffe 22, owl 26, zebra 30, boat 34, eagle 38",
    3: "lizard 3, ape 7, hand 11, cow 15, turtle 19, leopard 23, surfboard 27, tiger 31, shark 35, earless_seal 39",
    4: "parrot 4, dog 8, rabbit 12, fish 16, bear 20, fox 24, airplane 28, elephant 32, mouse 36, tennis_racket 40",
}

# The published classes of MiniVSPW (the public class files), likewise.
MINIVSPW_NOVEL = {
    1: "airplane 57, bicycle 52, ship_or_boat 55, bottle_or_cup 85, book 111",
    2: "bus 50, car 49, cat 62, chair_or_seat 91, truck 51",
    3: "dog 63, horse 64, motorcycle 53, person 61, table_or_desk 90",
    4: "flower_pot_or_vase 109, sofa 93, train 124, screen_or_television 115, cattle 65",
}
MINIVSPW_BASE = {
    1: {50, 49, 62, 91, 65, 90, 63, 64, 53, 61, 109, 93, 124, 115, 41},
    2: {57, 52, 55, 85, 65, 90, 63, 64, 53, 61, 109, 93, 124, 115, 47},
    3: {57, 52, 55, 85, 50, 49, 62, 91, 65, 109, 93, 124, 115, 111, 51},
    4: {57, 52, 55, 85, 50, 49, 62, 91, 90, 63, 64, 53, 61, 111, 51},
}
MINIVSPW_VALIDATED = {1: {113, 47, 51, 45, 46}, 2: {41, 113, 111, 45, 46}, 3: {113, 41, 45, 46, 47}}


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


@pytest.mark.parametrize("fold", MINIVSPW_NOVEL)
def test_minivspw_classes_are_the_published_ones_and_each_is_on_one_side(fold):
    base, novel = split_classes(MINIVSPW_CLASSES, fold, "minivspw")
    published = [name.rsplit(" ", 1) for name in MINIVSPW_NOVEL[fold].split(", ")]
    assert {MINIVSPW_CLASSES[c]: c for c in novel} == {name: int(label) for name, label in published}
    assert set(base) == MINIVSPW_BASE[fold] and len(base) == 15
    validated = minivspw_classes(fold, "val")
    assert set(validated) == MINIVSPW_VALIDATED.get(fold, MINIVSPW_VALIDATED[3])
    assert sorted([*base, *novel, *validated]) == sorted(MINIVSPW_CLASSES)


def test_minivspw_fold_of_few_classes_is_refused():
    assert split_classes([61, 49, 7], 2, "minivspw") == ([61], [49])
    with pytest.raises(ValueError, match="no test class"):
        split_classes([61], 2, "minivspw")
