"""Where in a picture each exit looks: Grad-CAM, through captum."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.errors import InputError
from ramify.needs import need
from ramify.nn.branching import Branching
from ramify.nn.modes import keeping_modes
from ramify.nn.network import Network


def heat_maps(network: Branching, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM of every exit (arXiv:1610.02391): which parts of a picture speak for a class there.

    Let ``A [K, h, w]`` be the output of the last cell with a map before an exit, and ``y`` the exit's logit of the
    class. Then

        ``a_k = mean over pixels of dy / dA_k`` and ``L = ReLU(sum_k a_k A_k)``,

    which is scaled bilinearly to the size of the picture and divided by its maximum. Where nothing speaks for the
    class, the map is 0 everywhere. The final exit of a ``dense`` network also reads all earlier cells; its map shows
    the part of its last cell. A map of one pixel, as deep cells have on small pictures, comes out even.

    The network computes in evaluation mode, without gradients of its own, and keeps the mode it had.

    Args:
        network: with E exits.
        images: float ``[B, C, H, W]`` in [0, 1].
        classes: int64 ``[E, B]``, the class asked for at each exit, normally the one that it answers.

    Returns:
        float ``[E, B, H, W]`` in [0, 1], on the network's device.

    Raises:
        InputError: captum is not installed, shapes do not fit, or an exit has no map to look at, as in lenet300.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> network = Network(NetworkConfig(structure=(0, 1, 0), input_shape=(1, 8, 8), classes=3), stages=2, seed=0)
        >>> images = torch.rand(5, 1, 8, 8)
        >>> heat_maps(network, images, network(images).argmax(dim=2)).shape
        torch.Size([2, 5, 8, 8])
    """
    exits = len(network.stages)
    if images.dim() != 4 or not images.is_floating_point():
        raise InputError(
            f"images: got {images.dtype} of shape {tuple(images.shape)}; accepted: float [pictures, C, H, W] in [0, 1]"
        )
    if classes.shape != (exits, len(images)) or classes.is_floating_point():
        raise InputError(
            f"classes: got {classes.dtype} of shape {tuple(classes.shape)}; accepted: whole numbers of shape "
            f"({exits}, {len(images)}), one for each exit and picture"
        )
    cells = _last_cells(network)
    # Gradients may be off, and the pictures may be inference tensors.
    with keeping_modes(network), torch.inference_mode(False), torch.enable_grad():
        network.eval()
        pictures = images.detach().to(network.mean).clone().requires_grad_()
        maps = [_weighted(network, at, cells[at], pictures, classes[at]) for at in range(exits)]
    height, width = images.shape[2:]
    return torch.stack([_scaled(weighted, (height, width)) for weighted in maps])


def _last_cells(network: Branching) -> list[nn.Module]:
    """For each exit the last cell with a map before it, or the last convolution."""
    layers: list[nn.Module] = []
    for number, stage in enumerate(network.stages, start=1):
        if isinstance(network, Network):
            cells = zip(network.plans[number - 1].cells, stage.get_submodule("cells").children(), strict=True)
            candidates = [cell for plan, cell in cells if plan.type != "linear"]
        else:
            candidates = [layer for layer in stage.get_submodule("body").modules() if isinstance(layer, nn.Conv2d)]
        layers += candidates[-1:] or layers[-1:]
        if len(layers) < number:
            raise InputError(
                f"Grad-CAM: got exit {number} with no convolution before it; accepted: networks with convolutions, as "
                "a heat map needs a map"
            )
    return layers


def _weighted(network: Branching, at: int, cell: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """``sum_k a_k A_k`` of exit ``at``, ``[B, h, w]``."""
    need("explain", "captum")
    from captum.attr import LayerGradCam  # type: ignore[import-untyped]  # captum ships no types

    def answer(pictures: Tensor) -> Tensor:
        trunk, logits = network.run_stage(0, network.enter(pictures), None)
        for stage in range(1, at + 1):
            trunk, logits = network.run_stage(stage, trunk, logits)
        return logits

    # A copy: inference tensors cannot take part in a backward pass.
    weighted: Tensor = LayerGradCam(answer, cell).attribute(images, target=classes.to(images.device, copy=True))
    return weighted.detach()[:, 0]


def _scaled(weighted: Tensor, size: tuple[int, int]) -> Tensor:
    """A map ``[B, h, w]`` of any sign as one ``[B, H, W]`` in [0, 1]."""
    large = F.interpolate(weighted.relu()[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    top = large.amax(dim=(1, 2), keepdim=True)
    return torch.where(top > 0, large / top.clamp_min(torch.finfo(top.dtype).tiny), torch.zeros_like(large))
