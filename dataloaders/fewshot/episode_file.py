"""The file of an episode list: JSON and what it says, in names. tools/episodes.py describes the format.

In: a file from anybody. Out: an EpisodeList whose types are checked; whether there are such videos and frames is looked
up in episode_list.py.
"""
import json
from dataclasses import dataclass
from pathlib import Path

from dataloaders.datasets.folds import FOLDS
from dataloaders.json_values import read_json

FORMAT, VERSION = "few-shot video episodes", 1
LONGEST_FAULT = 1000         # characters of an error
KINDS = {int: "an integer", str: "text", bool: "true or false", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class ListedEpisode:
    """An entry of a list, in names: types are checked, whether there is such a video is not."""
    run: int
    class_id: int
    class_name: str
    video: str
    frames: tuple               # file names
    supports: tuple             # K pairs (name of the video, file name)
    supports_share_video: bool


@dataclass(frozen=True)
class EpisodeList:
    """A list as its file says it; protocol None: neither I nor II, annotations None: the file does not tell."""
    source: Path
    dataset: str
    fold: int
    protocol: str | None
    shots: int
    annotations: dict | None
    episodes: tuple

    @property
    def runs(self):
        """Sorted numbers of the runs."""
        return sorted({episode.run for episode in self.episodes})


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
    content = read_json(path, None, lambda file, what: bad_list(file, f"is not JSON: {what}"))
    return parse_episode_list(content, path)


def parse_episode_list(content, source):
    """Parsed JSON, name of its file for messages  ->  EpisodeList"""
    content, where = as_object(content, source), f"{source}"
    found = content.get("format"), content.get("version")
    if found != (FORMAT, VERSION) or type(found[1]) is not int:
        raise bad_list(source, f"has format {_shown(found[0])}, version {_shown(found[1])}; this program reads "
                               f"{FORMAT!r}, version {VERSION}")
    fold, shots = (field_of(content, key, int, where) for key in ("fold", "shots"))
    entries = field_of(content, "episodes", list, where)
    if not 1 <= fold <= FOLDS or shots < 1 or not entries:
        raise bad_list(source, f"has fold {fold}, shots {shots} and {len(entries)} episodes; it needs a fold of "
                               f"1 to {FOLDS}, a shot and an episode at least")
    protocol = content.get("protocol")
    if protocol not in ("I", "II", None):
        raise bad_list(source, f"protocol: expected \"I\", \"II\" or null, got {_shown(protocol)}")
    annotations = content.get("annotations")
    if annotations is not None:
        field_of(as_object(annotations, f"{source}: annotations"), "sha256", str, f"{source}: annotations")
    episodes = [_entry(entry, f"{source}: episodes[{number}]") for number, entry in enumerate(entries)]
    return EpisodeList(Path(source), field_of(content, "dataset", str, where), fold, protocol, shots, annotations,
                       _distinct(episodes, source))


def _entry(entry, where):
    """An object of the list "episodes"  ->  ListedEpisode"""
    run, class_id = (field_of(as_object(entry, where), key, int, where) for key in ("run", "class_id"))
    if run < 0:
        raise bad_list(where, f"run: expected 0 or more, got {run}")
    frames, supports = texts_of(entry, "frames", where), []
    if len(set(frames)) < len(frames):
        raise bad_list(where, "frames: a frame is named twice")
    for k, support in enumerate(field_of(entry, "supports", list, where)):
        place = f"{where}.supports[{k}]"
        supports.append(tuple(field_of(as_object(support, place), key, str, place) for key in ("video", "frame")))
    share = "supports_share_video" in entry and field_of(entry, "supports_share_video", bool, where)
    name, video = (field_of(entry, key, str, where) for key in ("class", "video"))
    return ListedEpisode(run, class_id, name, video, frames, tuple(supports), share)


def _distinct(episodes, source):
    """The episodes as a tuple; ValueError if one comes twice: results know an episode by run, class and video."""
    seen = {}
    for number, episode in enumerate(episodes):
        first = seen.setdefault((episode.run, episode.class_id, episode.video), number)
        if first != number:
            raise bad_list(source, f"episodes[{first}] and episodes[{number}] are both of run {episode.run}, class "
                                   f"{episode.class_id}, video {episode.video!r}")
    return tuple(episodes)


def as_object(value, where):
    """The value, which is a dict; where: its place in the file, for messages."""
    if type(value) is not dict:
        raise bad_list(where, f"expected an object, got {_shown(value)}")
    return value


def field_of(record, key, kind, where):
    """record[key], which has exactly the type `kind`: true is no integer."""
    if key not in record:
        raise bad_list(where, f"has no entry {key!r}")
    if type(record[key]) is not kind:
        raise bad_list(where, f"{key}: expected {KINDS[kind]}, got {_shown(record[key])}")
    return record[key]


def texts_of(record, key, where):
    """record[key], a list of texts that is not empty  ->  a tuple"""
    texts = field_of(record, key, list, where)
    wrong = [text for text in texts if type(text) is not str]
    if wrong or not texts:
        raise bad_list(where, f"{key}: expected file names, got {_shown(wrong[0]) if wrong else 'none'}")
    return tuple(texts)


def _shown(value):
    """A value in a message, cut where it is long."""
    return KINDS[type(value)] if type(value) in (list, dict) else repr(value)[:80]


def bad_list(where, what):
    """The ValueError for a list, or an entry of it, that is wrong; a name from the file may be endless."""
    what = what if len(what) <= LONGEST_FAULT else f"{what[:LONGEST_FAULT]}..."
    return ValueError(f"{where}: {what}.\n  Correct the file, or write it again: tools/episodes.py")
