"""A folder of a person's pictures: which are images, and which are masks that lie beside them."""
from dataloaders.images import PICTURES, natural

OTHER_PICTURES = (".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jxl")          # named, but not read


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
    stems, named_otherwise = {p.stem for p in files}, {p.stem for p in files if p.suffix.lower() != ".png"}
    masks = [p for p in files if p.suffix.lower() == ".png" and (
        p.stem in named_otherwise or p.stem.endswith("_mask") and p.stem.removesuffix("_mask") in stems)]
    images, seen = [p for p in files if p not in masks], {}
    for path in images:
        if path.stem in seen:
            raise ValueError(f"{path}: {seen[path.stem].name} has the same name.\n  Rename one of them, or take it "
                             "away")
        seen[path.stem] = path
    return images, masks
