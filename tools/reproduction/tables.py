"""What each table of the paper measures, row by row: which training, tested how, and the numbers of the paper.

Plain data. tools/reproduction/plan.py makes the commands of it; what is filled in comes from results.jsonl.
"""
from dataclasses import dataclass

from utils.evaluation.tables import PAPER, PAPER_ABLATIONS

OWN_SELECTION = ("random", "none", "oracle", "ground_truth")      # rows of ours below Table 7: memory.select
OWN_LENGTHS = (1, 3, 5, 10)                                       # and memory.length
SSM = {True: "w/ SSM", False: "w/o SSM"}


@dataclass(frozen=True)
class Setting:
    """A trained model and how it is tested; folds and seeds are left open."""
    dataset: str = "ytvis"
    model: str = "vipmt"           # a key of reproduce_plan.MODELS
    iou_net: str = "default"       # own: trained with the model | video | image | default: what --iou-net says
    maps: bool = True              # the similarity maps of that IoUNet
    changes: tuple = ()            # key=value of the test alone
    over: tuple = ()               # config files laid over the model's in the test


@dataclass(frozen=True)
class Row:
    """A line of a table. paper: (J, F, mVC7), in Tables 1 and 2 an entry of PAPER, or None; no setting: not ours."""
    label: str
    paper: object = None
    setting: Setting = None


@dataclass(frozen=True)
class TableSpec:
    title: str
    rows: tuple
    by_fold: bool = False          # Tables 1 and 2 give J and F of every fold


def means(entry):
    """An entry of PAPER  ->  (J, F, mVC7), means over folds"""
    return entry["j"][-1], entry["f"][-1], entry["vc"]


def table_1():
    ours = {"IPMT": Setting(model="ipmt_baseline"), "VIPMT": Setting()}
    return TableSpec("State of the art on YouTube-VIS",
                     tuple(Row(name, entry, ours.get(name)) for name, entry in PAPER["ytvis"].items()), by_fold=True)


def table_2():
    ours = {"VIPMT": Setting("minivspw")}
    return TableSpec("State of the art on MiniVSPW",
                     tuple(Row(name, entry, ours.get(name)) for name, entry in PAPER["minivspw"].items()), by_fold=True)


def table_3(plugs):
    """plugs: {row: module:factory}, propagation models of the reader's; the paper's have rows of their own."""
    rows = []
    for dataset, title in (("ytvis", "YouTube-VIS"), ("minivspw", "MiniVSPW")):
        paper = PAPER_ABLATIONS[f"vos_{dataset}"]
        for name in [*paper, *(name for name in plugs if name not in paper)]:
            setting = propagated(dataset, plugs[name]) if name in plugs else None
            rows.append(Row(f"{title}: {name}", paper.get(name), setting))
        rows.append(Row(f"{title}: IPMT + feature matching (ours)", None, propagated(dataset, "matching")))
        rows.append(Row(f"{title}: VIPMT", means(PAPER[dataset]["VIPMT"]), Setting(dataset)))
    return TableSpec("The first frame by IPMT, then a method that propagates it", tuple(rows))


def propagated(dataset, plug):
    return Setting(dataset, "ipmt_baseline", changes=(f"propagation.plug={plug}",),
                   over=("config/vipmt/ablation/ipmt_propagation.yaml",))


def table_4():
    models = {"Baseline": "ipmt_baseline", "+C": "clip", "+C+F": "clip_frame", "+C+F+M": "clip_frame_memory",
              "VIPMT": "vipmt"}
    return TableSpec("Effect of each component", tuple(
        Row("VIPMT (+CCDS)" if name == "VIPMT" else name, numbers, Setting(model=models[name]))
        for name, numbers in PAPER_ABLATIONS["components"].items()))


def table_5():
    models = {"one_way": ("One-way", "one_way"), "bidirectional": ("Bidirectional", "clip_frame")}
    return TableSpec("Communication of clip and frames", tuple(
        Row(models[name][0], numbers, Setting(model=models[name][1]))
        for name, numbers in PAPER_ABLATIONS["communication"].items()))


def table_6():
    """At threshold 0.5. The numbers of the paper are those of +C+F+M: its 0.8 with maps is 63.5, as in Table 4."""
    rows = []
    for (data, variant), numbers in PAPER_ABLATIONS["iou_net_data"].items():
        maps = variant == SSM[True]
        if data == "real":         # learned with the network, on its predictions: without maps another training
            setting = Setting(model="clip_frame_memory" + ("" if maps else "_without_maps"), iou_net="own")
        else:
            setting = judged(data, maps)
        rows.append(Row(f"{data.capitalize()}, {variant}", numbers, changed(setting, "memory.min_iou=0.5")))
    return TableSpec("What IoUNet is trained on", tuple(rows))


def table_7():
    rows = [Row(f"{threshold}, {variant}", numbers,
                changed(judged("image", variant == SSM[True]), f"memory.min_iou={threshold}"))
            for (threshold, variant), numbers in PAPER_ABLATIONS["iou_threshold"].items()]
    rows += [Row(f"ours: memory.select {name}", None, changed(judged("image"), f"memory.select={name}"))
             for name in OWN_SELECTION]
    rows += [Row(f"ours: memory.length {length}", None, changed(judged("image"), f"memory.length={length}"))
             for length in OWN_LENGTHS]
    return TableSpec("IoU threshold, and other memories", tuple(rows))


def judged(data, maps=True):
    """+C+F+M with an IoUNet trained on synthesised masks."""
    return Setting(model="clip_frame_memory", iou_net=data, maps=maps)


def changed(setting, *changes):
    return Setting(setting.dataset, setting.model, setting.iou_net, setting.maps, (*setting.changes, *changes),
                   setting.over)


def table_specs(plugs=None):
    """{row: module:factory} of propagation models  ->  {number: TableSpec}"""
    return {1: table_1(), 2: table_2(), 3: table_3(plugs or {}), 4: table_4(), 5: table_5(), 6: table_6(),
            7: table_7()}
