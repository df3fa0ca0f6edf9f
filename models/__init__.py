"""METHODS: name -> module, imported when it is used. The only registry; models/method.py says what a method is."""
import importlib

METHODS = {"vipmt": "models.vipmt", "dan": "models.dan", "iounet": "models.iou_training",
           "propagation": "models.propagation", "lwl": "models.lwl", "llb": "models.llb", "cma": "models.cma",
           "first_mask": "models.first_mask", "matching": "models.propagation.first_masks"}
CONTRACT = ("TASK", "Config", "build", "parameter_groups", "load", "compile_parts", "TrainStep", "Segmenter")


def get_method(name):
    """`model.method`: a name of METHODS, or a module of your own, package.module  ->  the module

    ValueError: no such module, or one that lacks part of the contract
    """
    if name not in METHODS and "." not in name:
        raise ValueError(f"model.method: unknown value {name!r}.\n  Choose one of: {', '.join(METHODS)}, or name a "
                         "module of your own: package.module")
    path = METHODS.get(name, name)
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"model.method: no module {path} ({error}).\n  Put its folder into PYTHONPATH") from None
    missing = [part for part in CONTRACT if not hasattr(module, part)]
    if missing:
        raise ValueError(f"model.method: {path} has no {', '.join(missing)}.\n  docs/method.md says what a method is")
    return module
