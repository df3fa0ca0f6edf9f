"""A folder of a person's pictures: which are images, and which are masks that lie beside them."""
import unicodedata

from dataloaders.images import PICTURES, natural

OTHER_PICTURES = (".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jxl")          # named, but not read


def plain_stem(path):
    """A file's name without its ending; systems differ in whether an accent is part of its letter"""
    return unicodedata.normalize("NFC", path.stem)


def pictures_in(folder):
    """Folder  ->  (images, masks), paths in the order of their names, 2 before 10

    A PNG is a mask if it shares its name with a picture of another kind (dog.jpg, dog.png), or ends with _mask behind
    that of any picture. Hidden files do not count. ValueError where two images share a name.
    """
    files = sorted((p for p in folder.iterdir() if p.suffix.lower() in PICTURES + OTHER_PICTURES
                    and not p.name.startswith(".") and not p.is_dir()), key=natural)
    for path in files:
        if not path.is_file():                                      # without a word a film would lack a frame
            raise ValueError(f"{path}: a link that leads nowhere, or no regular file.\n  Put the file there, or take "
                             "it away")
    stems = set(map(plain_stem, files))
    named_otherwise = {plain_stem(p) for p in files if p.suffix.lower() != ".png"}
    masks = [p for p in files if p.suffix.lower() == ".png" and (
        plain_stem(p) in named_otherwise
        or p.stem.endswith("_mask") and plain_stem(p).removesuffix("_mask") in stems)]
    images, seen = [p for p in files if p not in masks], {}
    for path in images:
        if plain_stem(path) in seen:
            raise ValueError(f"{path}: {seen[plain_stem(path)].name} has the same name.\n  Rename one of them, or take "
                             "it away")
        seen[plain_stem(path)] = path
    return images, masks
