"""Episode lists: the episodes of a test as a file, so that two methods can be compared on the very same ones.

In: TestEpisodes, or the lines of a finished test. Out: JSON, and read back ListedEpisodes, which are streamed as
TestEpisodes are. tools/episodes.py writes the files and describes the format. A file comes from anybody: its types are
checked, and its names are looked up in the index and never opened as paths.
"""
import hashlib
import json
import logging
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from dataloaders.datasets.folds import FOLDS
from dataloaders.fewshot.sampling import load_supports, read_frames, share_video
from dataloaders.fewshot.streaming import Plan, PlannedEpisodes
from dataloaders.json_values import Id, in_words, read_typed
from dataloaders.transforms import letterbox_area, resize_mask

log = logging.getLogger(__name__)

FORMAT, VERSION = "few-shot video episodes", 1
LONGEST_FAULT = 1000         # characters of an error
FRAME_NAMES = {"ytvis": "files below JPEGImages/ of the data set", "minivspw": "files below data/ of VSPW_480p"}


# -- the file ---------------------------------------------------------------------------------------------------------

class Support(Struct, frozen=True):
    video: str
    frame: str


class ListedEpisode(Struct, frozen=True, rename={"class_name": "class"}):
    """An entry of a list, in names: types are checked, whether there is such a video is not."""
    run: Annotated[int, Meta(ge=0)]
    class_id: Id
    class_name: str
    video: str
    frames: Annotated[tuple[str, ...], Meta(min_length=1)]
    supports: tuple[Support, ...]
    supports_share_video: bool = False

    def __post_init__(self):
        if len(set(self.frames)) < len(self.frames):
            raise ValueError("frames: a frame is named twice")


class Annotations(Struct, frozen=True):
    """Which file the frames were found in"""
    sha256: str


class EpisodeList(Struct, frozen=True, dict=True):
    """A list as its file says it; protocol None: neither I nor II, annotations None: the file does not tell.

    source: its path, which is set when it is read.
    """
    format: str
    version: int
    dataset: str
    fold: Annotated[int, Meta(ge=1, le=FOLDS)]
    shots: Annotated[int, Meta(ge=1)]
    episodes: Annotated[tuple[ListedEpisode, ...], Meta(min_length=1)]
    protocol: str | None = None
    annotations: Annotations | None = None

    def __post_init__(self):
        if (self.format, self.version) != (FORMAT, VERSION):
            raise ValueError(f"has format {self.format!r}, version {self.version}; this program reads {FORMAT!r}, "
                             f"version {VERSION}")
        if self.protocol not in ("I", "II", None):
            raise ValueError(f"protocol: expected \"I\", \"II\" or null, got {self.protocol!r}")
        seen = {}
        for number, episode in enumerate(self.episodes):      # results know an episode by run, class and video
            first = seen.setdefault((episode.run, episode.class_id, episode.video), number)
            if first != number:
                raise ValueError(f"episodes[{first}] and episodes[{number}] are both of run {episode.run}, class "
                                 f"{episode.class_id}, video {episode.video!r}")

    @property
    def runs(self):
        """Sorted numbers of the runs."""
        return sorted({episode.run for episode in self.episodes})


class ResultLine(Struct):
    """What a list takes from a line of results.jsonl, besides what it takes as it is"""
    run: int
    class_id: Id
    support_frames: Annotated[tuple[str, ...], Meta(min_length=1)]


def list_text(header, entries):
    """The file: the header, then an episode per line, so that lines can be edited and compared."""
    head = json.dumps(header, indent=1).removesuffix("\n}")
    return f'{head},\n "episodes": [\n' + ",\n".join("  " + json.dumps(entry) for entry in entries) + "\n ]\n}\n"


def read_episode_list(path):
    """A file  ->  EpisodeList; FileNotFoundError, or ValueError with the entry at fault"""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"episode list: no file {path}.\n"
                                f"  Write one: python -m tools.episodes --config ... --fold 1 --output {path}")
    return _from(path, read_typed(path, EpisodeList, bad_list))


def parse_episode_list(content, source):
    """Parsed JSON, name of its file for messages  ->  EpisodeList"""
    return _from(source, _converted(content, EpisodeList, source))


def _from(source, listed):
    listed.__dict__["source"] = Path(source)
    return listed


def _converted(content, kind, where):
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:
        raise bad_list(where, in_words(error, "the top level")) from None


def bad_list(where, what):
    """The ValueError for a list, or an entry of it, that is wrong; a name from the file may be endless."""
    what = what if len(what) <= LONGEST_FAULT else f"{what[:LONGEST_FAULT]}..."
    return ValueError(f"{where}: {what}.\n  Correct the file, or write it again: python -m tools.episodes")


# -- writing ----------------------------------------------------------------------------------------------------------

def list_header(cfg, index, fold):
    """config, index of the fold, fold  ->  everything of a list but its episodes, as plain values"""
    if cfg.data.dataset not in FRAME_NAMES:
        raise ValueError(f"data.dataset={cfg.data.dataset}: stills have no test episodes.\n"
                         f"  Choose one of: {', '.join(FRAME_NAMES)}")
    return {"format": FORMAT, "version": VERSION, "dataset": cfg.data.dataset, "fold": fold,
            "protocol": cfg.test.protocol, "shots": cfg.data.shots, "seed": cfg.seed,
            "annotations": annotation_record(index), "frame_names": FRAME_NAMES[cfg.data.dataset]}


def annotation_record(index):
    """Which annotations the frames are from: {"file", "bytes", "sha256"}; of MiniVSPW the list of the test side."""
    path = Path(index.path)
    path = path / f"test_{index.fold - 1}.txt" if path.is_dir() else path
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def drawn_entries(episodes):
    """TestEpisodes  ->  one entry each, with the supports that loading would give; no image is decoded."""
    index, known = episodes.index, {}
    for i in range(len(episodes)):
        plan = episodes.plan(i)
        for support in plan.supports:
            key = plan.class_id, support
            if key not in known:
                known[key] = _visible_support(episodes, *key)
        supports = [known[plan.class_id, support] for support in plan.supports]
        yield {
            "run": episodes.run, "class_id": plan.class_id, "class": index.class_name(plan.class_id),
            "video": index.video_name(plan.video), "frames": [index.file_name(plan.video, f) for f in plan.frames],
            "supports": [{"video": index.video_name(v), "frame": index.file_name(v, f)} for v, f in supports],
            "supports_share_video": share_video(supports, plan.video)}


def _visible_support(episodes, class_id, support):
    """The support (video id, frame), or what loading replaces it by where its mask is empty at input size."""
    transform, mask = episodes.transform, episodes.index.read_mask(*support, class_id)
    rows, cols, _, _ = letterbox_area(mask.shape, transform.size)
    if resize_mask(mask, rows, cols, transform.mask_resize).any():
        return support
    _, _, (final,) = load_supports(episodes.index, class_id, [support], transform, transform, episodes.seed)
    return final


def result_entries(lines, index, class_ids, source):
    """Lines of results.jsonl, index of the fold, its test classes, name of the file  ->  one entry each, run by run"""
    names, entries = _Names(index, class_ids), []
    for number, line in enumerate(lines, start=1):
        where = f"{source}, line {number}"
        known = _converted(line, ResultLine, where)
        entries.append({
            "run": known.run, **{key: line.get(key) for key in ("class_id", "class", "video", "frames")},
            "supports": [{"video": names.video_with(frame, known.class_id, where), "frame": frame}
                         for frame in known.support_frames],
            "supports_share_video": line.get("supports_share_video", False)})
    return sorted(entries, key=lambda entry: entry["run"])


# -- replaying --------------------------------------------------------------------------------------------------------

class ListedEpisodes(PlannedEpisodes):
    """The episodes of one run of a list: pairs, frames and supports are the list's, and nothing is drawn.

    plans: list of Plan, in the order in which they are tested.
    """

    def __init__(self, index, cfg, run, plans, source, class_ids):
        super().__init__(index, cfg, run, {c: index.support_videos(c) for c in class_ids})
        self.plans, self.source = plans, source
        self.pairs = [(plan.class_id, plan.video) for plan in plans]

    def frames(self, i):
        return np.array(self.plans[i].frames, np.int64)

    def plan(self, i):
        return self.plans[i]

    def load(self, plan):
        """As listed: unlike a drawn support, one with nothing to see is not replaced but an error."""
        images, masks = self.transform(*read_frames(self.index, plan.class_id, plan.supports))
        for shown, support in zip(masks.flatten(1).any(dim=1).tolist(), plan.supports, strict=True):
            if not shown:
                raise bad_list(self.source, f"support {self.index.file_name(*support)!r} shows nothing of class "
                               f"{self.index.class_name(plan.class_id)} at input size (data.size, data.mask_resize)")
        return images, masks, list(plan.supports)


def check_header(listed, cfg, fold):
    """What the test is asked for and what the list is must agree: the config is kept with the results."""
    for key, wanted, found in (("data.dataset", cfg.data.dataset, listed.dataset), ("--fold", fold, listed.fold),
                               ("data.shots", cfg.data.shots, listed.shots),
                               ("test.protocol", cfg.test.protocol, listed.protocol)):
        if found not in (wanted, None):
            raise ValueError(f"{listed.source}: its episodes have {key} {str(found)[:200]}, the test has {wanted}.\n"
                             f"  Give {key}{' ' if key == '--fold' else '='}{str(found)[:200]}, or another list.")


def replay(listed, cfg, index, class_ids):
    """EpisodeList, config, index of the fold, its test classes  ->  list of ListedEpisodes, one per run

    All names are looked up here, so that a wrong one is found before anything is segmented.
    """
    record = annotation_record(index)
    if listed.annotations and record and listed.annotations.sha256 != record["sha256"]:
        log.warning("%s was written with another %s (SHA-256 %.12s..., here %.12s...): the frames are the same, their "
                    "masks perhaps not", listed.source, record["file"], listed.annotations.sha256, record["sha256"])
    names, plans = _Names(index, class_ids), {run: [] for run in listed.runs}
    for number, episode in enumerate(listed.episodes):
        plans[episode.run].append(_plan(episode, names, cfg.data.shots, f"{listed.source}: episodes[{number}]"))
    return [ListedEpisodes(index, cfg, run, plans[run], listed.source, class_ids) for run in plans]


def _plan(episode, names, shots, where):
    """ListedEpisode  ->  Plan; where: its place in the file"""
    class_id, index = episode.class_id, names.index
    video = names.video(episode.video, class_id, where)
    if index.class_name(class_id) != episode.class_name:
        raise bad_list(where, f"class {class_id} is {index.class_name(class_id)!r} here, not {episode.class_name!r}")
    frames = [names.frame(frame, video, where) for frame in episode.frames]
    if frames != sorted(frames):
        raise bad_list(where, "frames: they are not in the order of the video")
    if len(episode.supports) != shots:
        raise bad_list(where, f"has {len(episode.supports)} supports, but data.shots is {shots}")
    supports = []
    for k, (name, frame) in enumerate((s.video, s.frame) for s in episode.supports):
        place = f"{where}.supports[{k}]"
        support = names.video(name, class_id, place)
        supports.append((support, names.frame(frame, support, place)))
        if supports[-1][1] not in index.frames(support, class_id):
            raise bad_list(place, f"frame {frame!r} does not show class {episode.class_name}, or too little of it")
    if share_video(supports, video) and not episode.supports_share_video:
        raise bad_list(where, "a support comes from the query video, or two from one video; if that is meant, the "
                              "entry says \"supports_share_video\": true")
    return Plan(class_id, video, tuple(frames), tuple(supports))


class _Names:
    """Names of a file  ->  what the index knows under them, or a ValueError with the place in the file."""

    def __init__(self, index, class_ids):
        self.index = index
        self.videos = {c: {index.video_name(video): video for video in index.videos(c)} for c in class_ids}
        self.positions, self.owners = {}, {}

    def video(self, name, class_id, where):
        """Name of a video that shows the class  ->  its id"""
        if class_id not in self.videos:
            raise bad_list(where, f"class {class_id} is no test class of the fold; these are "
                                  f"{', '.join(map(str, self.videos))}")
        if name not in self.videos[class_id]:
            raise bad_list(where, f"no video {name!r} of class {class_id} ({self.index.class_name(class_id)}) in "
                                  f"{self.index.path}")
        return self.videos[class_id][name]

    def frame(self, name, video, where):
        """File name of a frame of the video  ->  its position"""
        if video not in self.positions:
            count = self.index.length(video)
            self.positions[video] = {self.index.file_name(video, frame): frame for frame in range(count)}
        if name not in self.positions[video]:
            raise bad_list(where, f"video {self.index.video_name(video)} has no frame {name!r} in {self.index.path}")
        return self.positions[video][name]

    def video_with(self, frame, class_id, where):
        """File name of a frame  ->  the name of its video, among those that show the class"""
        if class_id not in self.owners:
            self.owners[class_id] = {self.index.file_name(video, t): name
                                     for name, video in self.videos.get(class_id, {}).items()
                                     for t in range(self.index.length(video))}
        if frame not in self.owners[class_id]:
            raise bad_list(where, f"no video of test class {class_id} in {self.index.path} has the frame {frame!r}")
        return self.owners[class_id][frame]
