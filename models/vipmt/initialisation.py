"""How weights start: as the release does, or balanced, for trainings of a few hundred steps."""
import torch
from torch import nn


def initialise(model, recipe="released"):
    """released: Xavier in the iterations' linear layers, biases 0, all else PyTorch's defaults (IoUNet: its own).

    balanced, ours: as released, features shrink before the first iteration (PyTorch's default for a convolution
    halves them), the self-attention's output is then several times larger than they are, and each iteration passes
    them through a random relu layer without a shortcut. Only a few per cent of what reaches the final classifier
    varies over positions, so that short trainings get stuck with empty or full masks. Here features keep their size
    (Kaiming), the query update starts close to the identity, and the self-attention starts small.
    """
    for module in (*model.mask_heads.modules(), *model.layers.modules()):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if recipe == "balanced":
        balance(model)


@torch.no_grad()
def balance(model):
    activation = model.activation
    for part in (activation.reduce_query, activation.reduce_support, activation.merge_query, activation.merge_support,
                 model.layers):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for layer in model.layers:
        update, fuse = layer.query_activation, layer.query_activation.fuse.conv.weight
        fuse *= 0.1
        fuse[:, :len(fuse), 0, 0] += torch.eye(len(fuse), device=fuse.device)
        update.attention.proj.weight *= 0.1
