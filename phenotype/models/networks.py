"""Networks that several families are built of: strided convolutions to 4 a side, and their mirror image; 2-D or 3-D."""

from __future__ import annotations

from torch import Tensor, nn

from phenotype.models.base import halvings

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
UNCONV: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def channels(width: int, size: int) -> list[int]:
    """Channels after each halving of an image of `size` pixels down to 4: doubling, up to four times `width`."""
    return [min(width * 2**level, 4 * width) for level in range(halvings(size))]


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of eight channels, not batches: a batch norm would let the images of a batch see each other."""
    return nn.GroupNorm(max(1, channels // 8), channels)


def encoder(
    size: int, width: int, out: int, *, dims: int = 2, inputs: int = 1, norm: bool = True, slope: float = 0.2
) -> nn.Sequential:
    """Images (n, inputs, *spatial) -> (n, out): strided convolutions down to 4 a side, then one linear layer."""
    layers: list[nn.Module] = []
    before = inputs
    for after in channels(width, size):
        layers.append(CONV[dims](before, after, 4, stride=2, padding=1))
        if norm:
            layers.append(group_norm(after))
        layers.append(nn.LeakyReLU(slope))
        before = after
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 4**dims, out))


def decoder(size: int, width: int, latent: int, *, dims: int = 2, outputs: int = 1) -> nn.Sequential:
    """Codes (n, latent) -> images (n, outputs, *spatial) in [0, 1]: the mirror image of `encoder`."""
    widths = channels(width, size)[::-1]
    layers: list[nn.Module] = [nn.Linear(latent, widths[0] * 4**dims), nn.Unflatten(1, (widths[0], *[4] * dims))]
    for before, after in zip(widths, [*widths[1:], outputs], strict=True):
        layers += [group_norm(before), nn.ReLU(), UNCONV[dims](before, after, 4, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.Sigmoid())


def feature_maps(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What leaves each halving of an `encoder`, or of its convolutions alone, for images `x`: finest first."""
    maps = []
    for layer in layers:
        if isinstance(layer, nn.Flatten):
            break
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            maps.append(x)
    return maps
