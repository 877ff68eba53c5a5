"""Linear chains between two neurons that use every row of a linear operator."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captured import Converted, Net, between, conv, squeeze_and_excite

aten, own = torch.ops.aten, torch.ops.fewspikes
torch.manual_seed(0)  # each process that imports this makes the same weights


def shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def split_and_add(x: Tensor) -> Tensor:
    a, b = aten.split_with_sizes.default(x, [1, 3], 1)
    c, d, e = aten.chunk.default(b, 3, 1)
    return (
        a + c + 2 * torch.stack([d, e], 1).sum(1) + aten.split.Tensor(x, 3, 1)[-1] + torch.unbind(x, 2)[1].unsqueeze(2)
    )


def scalars(x: Tensor) -> Tensor:
    x = aten.add.Scalar(-aten.div.Scalar(aten.mul.Scalar(x, 2.0), 3.0), 0.0)
    return aten.rsub.Tensor(x, aten.rsub.Scalar(aten.sub.Scalar(x, 0.0), 0.0), alpha=2)


W = torch.rand(6, 5, dtype=torch.float64)
INDEX = torch.tensor([2, 0, 2, 1])
TABLE = torch.tensor([[0, 3, 1], [2, 2, 0]])
MASK = torch.tensor([[True, False, True, True], [False, False, True, True], [True, True, False, True]])


def everywhere(index: Tensor, x: Tensor) -> Tensor:
    """An index of an image, the same for each image of a batch."""
    return index[None].expand(x.shape[0], *index.shape)


def scatters(x: Tensor) -> Tensor:
    places = everywhere(TABLE, x)
    first = x.scatter(2, places, x[:, :2, 1:]) + torch.zeros_like(x).scatter_add(2, places, x[:, 1:, :3])
    along = torch.zeros_like(x).scatter(1, everywhere(torch.tensor([[2], [0]]).expand(2, 4), x), x[:, :2])
    return torch.cat([first, along, x.scatter(2, places, 0.5)], 1)


def writes(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 5, 4, dtype=x.dtype)
    y[:, 1:4] = x
    y[:, 0, ::2] = x[:, 1, 1:3]
    y[:, 4] += x[:, 0] - x[:, 2]
    z = x.clone()
    z[:, 1, [3, 0]] = x[:, 2, :2]
    z[:, 2] = 0.0
    z[:, [0, 2], [1, 3]] = 1.5
    z[:, MASK & (TABLE[0, 0] < 1)] = x[:, 0, 0][:, None].expand(-1, 8)
    return torch.cat([y, z, x.index_copy(2, torch.tensor([3, 1]), x[..., :2]).index_fill(1, TABLE[1, :1], 2.0)], 1)


def puts(x: Tensor) -> Tensor:
    rows, columns = torch.tensor([0, 2, 0]), torch.tensor([1, 3, 1])
    put = aten.index_put.default(x, [None, rows, columns], x[:, 0, :3], True)
    return put + aten.index_put.default(x, [None, None, columns[:2]], W[:1, :2])


def contractions(x: Tensor) -> Tensor:
    a, b = W[:4, :3], W[:3, :3]
    return torch.cat(
        [
            torch.einsum("nm,bcm,cd->bdn", W[:, :4], x, b).flatten(1),
            torch.einsum("...cm,mk->...k", x, a).flatten(1),
            torch.einsum("bcm,c,ck->bkmc", x, b[0], b).flatten(1),
            torch.einsum("hck,bck->hbc", W[:2, :3, None].repeat(1, 1, 4), x).transpose(0, 1).flatten(1),
            torch.tensordot(x, W[:4, :3], ([2, 1], [0, 1]))[:, None],
            torch.inner(x, W[:, :4]).flatten(1),
            torch.einsum("bcm->mb", x).T,
        ],
        1,
    )


def products(x: Tensor, f: nn.Bilinear) -> Tensor:
    a, count = W[:4, :4], x.shape[0]
    return torch.cat(
        [
            a[:3, :3] @ x + torch.baddbmm(x, x, a.expand(count, 4, 4), beta=0.5, alpha=2.0),
            torch.addcmul(a[:3], x, a[1:], value=0.5) + torch.addcdiv(x, x, a[:3] + 1) + torch.lerp(x, a[:3], 0.25),
            torch.bmm(a[:3, :3].expand(count, 3, 3), x)[:, :1] + a[0, :3] @ x[:, None],
            torch.addmm(a[0], x[:, 0], a)[:, None]
            + torch.lerp(x, x[:, :1], a[:3])[:, :1]
            + x[:, 2:] @ a[:, :1] @ a[:1],
            torch.mv(x[:, 0], a[0])[:, None, None] + torch.addmv(x[:, 0, 0], x[:, 1], a[1])[:, None, None] + 0 * a[:1],
            f(x[:, :1], a[:1, :2].expand(count, 1, 2)) + torch.linalg.vecdot(x, a[:3])[:, :1, None],
            torch.linalg.cross(x, W[:3, :4].expand(count, 3, 4), dim=1),
        ],
        1,
    )


def patches(x: Tensor) -> Tensor:
    columns = F.unfold(x, (2, 3), (1, 2), (1, 1), (2, 1))
    return F.fold(columns, (5, 4), (2, 3), (1, 2), (1, 1), (2, 1))[:, :, 1:]


def spectra(x: Tensor) -> Tensor:
    whole, half = torch.fft.fft2(x).real, torch.view_as_real(torch.fft.rfft(x, dim=1, norm="ortho"))
    gate = torch.view_as_complex(W[:3, :4].reshape(3, 2, 2).contiguous())
    filtered = torch.fft.irfft2(torch.fft.rfft2(x)[..., :2] * gate, (3, 5), norm="forward")
    kept = torch.zeros(x.shape[0], 3, 3, dtype=torch.complex128)
    kept[:, 1:, :2] = torch.fft.rfft(x)[:, :2, 1:]
    moved = torch.fft.fftshift(torch.fft.ifft(torch.fft.fft(x, 5, 1), dim=1), [1]).imag
    return torch.cat([v.flatten(1) for v in (whole, half, filtered, torch.fft.irfft(kept, 4), moved)], 1)


CASES: dict[str, tuple[Net, tuple[int, ...]]] = {
    "same": (between(lambda x, c: c(x), conv(2, 2, (4, 3), padding="same", dilation=(1, 2))), (2, 6, 5)),
    "valid": (between(lambda x, c: c(x), conv(2, 2, 2, padding="valid", stride=(2, 1))), (2, 5, 5)),
    "dilated": (between(lambda x, c: c(x), conv(4, 2, 3, padding=2, dilation=2, stride=2, groups=2)), (4, 6, 5)),
    "conv1d": (between(lambda x, c: c(x), nn.Conv1d(2, 3, 3, stride=2, padding=2, bias=False)), (2, 7)),
    "conv1d same": (between(lambda x, c: c(x), nn.Conv1d(2, 3, 4, padding="same", bias=False)), (2, 7)),
    "ceil pool": (between(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)), (1, 6, 5)),
    "pool1d": (between(lambda x: F.avg_pool1d(x, 3, ceil_mode=True)), (2, 7)),
    "adaptive": (between(lambda x: F.adaptive_avg_pool2d(x, (3, 1))), (2, 5, 4)),
    "adaptive1d": (between(lambda x: F.adaptive_avg_pool1d(x, 4)), (2, 6)),
    "two pools": (between(lambda x, c: F.adaptive_avg_pool2d(c(x), 2), conv(2, 4, 3, padding=1, groups=2)), (2, 5, 5)),
    "mean": (between(lambda x: x.mean(2, keepdim=True) + x), (2, 3, 4)),
    "sums": (between(lambda x: x.sum((1, -1))), (2, 3, 4)),
    "scalars": (between(scalars), (3,)),
    "constants": (between(lambda x: x[:, None] * W / W.T.mean() - x[:, None].expand(-1, 6, -1)), (5,)),
    "matmul": (between(lambda x: x @ W + aten.mm.default(x.flatten(1)[:, :6], W)[:, None]), (4, 6)),
    "matmul vector": (between(lambda x: torch.cat([x, (x @ W[:, 0])[..., None]], -1)), (4, 6)),
    "matmul stack": (between(lambda x: x[:, None] @ torch.stack([W, W])), (4, 6)),
    "transposes": (between(lambda x: aten.t.default(aten.t.default(x)[:2]).unsqueeze(1).squeeze(1)), (4,)),
    "permute": (
        between(lambda x, f: f(x.permute(0, 2, 3, 1)).transpose(1, -1), nn.Linear(2, 3, bias=False)),
        (2, 3, 4),
    ),
    "pieces": (between(split_and_add), (4, 3)),
    "select": (between(lambda x: x.select(2, -1) + x[:, :, 0]), (2, 3, 4)),
    "steps": (between(lambda x: x[:, :, -5:-1:2, 1:]), (2, 6, 3)),
    "crop": (between(lambda x: F.pad(x, (1, -1, -2, 1))), (2, 4, 4)),
    "pad": (between(lambda x: aten.pad.default(x, [1, 2], "constant", 0.0)), (2, 4)),
    "squeezes": (between(lambda x: aten.squeeze.dims(x[:, :1, :, :1], [1, 3])), (2, 4, 3)),
    "shuffle": (
        between(lambda x, a, b: b(shuffle(a(x), 3)), conv(6, 6, 1, groups=3), conv(6, 4, 1, groups=2)),
        (6, 2, 2),
    ),
    "odd reshape": (between(lambda x, f: f(x.reshape(-1, 6, 2)), nn.Conv1d(6, 4, 1, groups=2, bias=False)), (4, 3)),
    "reshaped sum": (between(lambda x: x.flatten(1) + x.transpose(1, 2).flatten(1)), (4, 6)),
    "windows": (
        between(lambda x, f: f(x.view(-1, 2, 2, 2, 2).transpose(2, 3).flatten(3)), nn.Linear(4, 3, bias=False)),
        (4, 4),
    ),
    "folded batch": (
        between(lambda x, c: c(x.reshape(-1, 1, 3, 3)).view(-1, 4, 3, 3), conv(1, 2, 3, padding=1)),
        (2, 3, 3),
    ),
    "stack": (between(lambda x: torch.stack([x, x.mean(1, keepdim=True).expand(-1, 4)], 1)[:, :1]), (4,)),
    "conv3d": (
        between(lambda x, c: c(x), nn.Conv3d(2, 4, (2, 3, 2), (1, 2, 1), (1, 0, 1), groups=2, bias=False)),
        (2, 3, 5, 3),
    ),
    "pool3d": (between(lambda x: F.adaptive_avg_pool3d(F.avg_pool3d(x, 2, 1), (1, 2, 1))), (2, 3, 4, 3)),
    "conv_transpose1d": (between(lambda x, c: c(x), nn.ConvTranspose1d(2, 3, 3, 2, bias=False)), (2, 4)),
    "conv_transpose3d": (between(lambda x, c: c(x), nn.ConvTranspose3d(2, 2, 2, 2, bias=False)), (2, 2, 3, 2)),
    "interpolated": (
        between(lambda x: F.interpolate(F.interpolate(x, scale_factor=2, mode="bilinear"), (3, 5), mode="bicubic")),
        (2, 3, 4),
    ),
    "antialiased": (
        between(
            lambda x: (
                F.interpolate(x, (2, 3), mode="bilinear", antialias=True)
                + F.interpolate(x, (2, 3), mode="bicubic", antialias=True, align_corners=True)
            )
        ),
        (1, 5, 6),
    ),
    "interpolated lines": (
        between(lambda x: F.interpolate(F.interpolate(x, 7, mode="linear"), scale_factor=2, mode="nearest")),
        (2, 4),
    ),
    "interpolated volumes": (
        between(
            lambda x: F.interpolate(F.interpolate(x, (3, 2, 3), mode="trilinear", align_corners=True), scale_factor=2)
        ),
        (1, 2, 3, 2),
    ),
    "nearest exact": (
        between(
            lambda x: (
                F.interpolate(x[..., 0, 0], 5, mode="nearest-exact")[..., None, None]
                + F.interpolate(x[..., 0], (5, 3), mode="nearest-exact")[..., None]
                + F.interpolate(x, (5, 3, 2), mode="nearest-exact")
            )
        ),
        (1, 3, 2, 3),
    ),
    "paddings": (
        between(
            lambda x: (
                F.pad(x, (1, 2, 0, 1), mode="reflect")
                + F.pad(x, (1, 2, 0, 1), mode="replicate")
                + F.pad(x, (1, 2, 0, 1), mode="circular")
            )
        ),
        (2, 3, 4),
    ),
    "pixels": (between(lambda x: F.pixel_unshuffle(F.channel_shuffle(F.pixel_shuffle(x, 2), 2), 2)), (8, 2, 3)),
    "flip": (between(lambda x: x.flip(1, -1) + x), (3, 2, 4)),
    "repeat": (between(lambda x: x.repeat(1, 2, 1, 3)[..., :2] + aten.tile.default(x, [2, 1, 1])[..., :2]), (2, 3, 2)),
    "cumsum": (between(lambda x: x.cumsum(2) + x), (2, 5, 2)),
    "index_select": (between(lambda x: x.index_select(2, INDEX) + x.index_select(1, INDEX[:3])[..., :1]), (3, 4)),
    "index_add": (
        between(lambda x: x.index_add(1, INDEX, x[:, :1].expand(-1, 4, -1)) + W[:4].index_add(1, INDEX, W[:4, :4])),
        (4, 5),
    ),
    "index": (
        between(
            lambda x: torch.cat(
                [
                    x[:, TABLE].flatten(1),
                    x[:, :, INDEX].flatten(1),
                    x[:, [0, 3], :, [1, 0]].transpose(0, 1).flatten(1),
                    x[:, :, [0, 2], [-1, 1]].flatten(1),
                    x[:, TABLE[:, :1], TABLE[:1]].flatten(1)[:, :5],
                    x[:, :3, MASK[0], 0].flatten(1),
                ],
                1,
            )
        ),
        (4, 4, 2),
    ),
    "gather": (
        between(
            lambda x: (
                torch.gather(x, 2, everywhere(TABLE, x))
                + torch.gather(x, 1, everywhere(TABLE[1:] // 2, x)).expand(-1, 2, -1)
                + torch.gather(x, 1, everywhere(TABLE.flip(1) // 2, x))
            )
        ),
        (3, 4),
    ),
    "scatter": (between(scatters), (3, 4)),
    "writes": (between(writes), (3, 4)),
    "puts": (between(puts), (3, 4)),
    "masks": (
        between(
            lambda x: torch.cat(
                [
                    torch.where(MASK, x, x.flip(2)),
                    torch.where(MASK[:, :1], 0.5, x),
                    x.masked_fill(MASK[0], 0.25) * MASK[:, 1:2],
                    x.masked_fill(~MASK, W[0, 0]),
                    x.tril() + x.triu(1),
                    torch.diag_embed(x[:, 0])[:, :3],
                ],
                1,
            )
        ),
        (3, 4),
    ),
    "products": (between(products, nn.Bilinear(4, 2, 4)), (3, 4)),
    "contractions": (between(contractions), (3, 4)),
    "rearranged": (
        between(
            lambda x: torch.cat(
                [
                    torch.rot90(x, 1, [1, 2]) + torch.rot90(x, 3, [2, 1]) + torch.fliplr(x),
                    torch.rot90(x, 2, [1, 2]),
                    torch.hstack([x, x[:, :1]]),
                    x.diff(2, dim=1, prepend=x[:, 1:]),
                    x.diagonal(-1, 2, 1)[:, None, :1].expand(-1, -1, 3) + x.diagonal(1, 2, 1)[:, None, :1],
                    x.repeat_interleave(2, 1) + x.repeat_interleave(torch.tensor([1, 3, 2]), 1),
                    x.unfold(2, 2, 1).flatten(2)[..., 1:],
                ],
                1,
            )
        ),
        (3, 3),
    ),
    "patches": (between(patches), (2, 5, 4)),
    "spectra": (between(spectra), (3, 4)),
    "roll": (between(lambda x: (x.roll((1, -2), (1, 3)) + x.roll(1, -1))[:, :1, :, :2]), (3, 3, 5)),
    "upsample": (between(lambda x: F.interpolate(F.interpolate(x, scale_factor=2)[..., :3], (5, 4))), (2, 3, 4)),
    "conv_transpose": (
        between(lambda x, c: c(x), nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), 1, 1, 2, False, (1, 2))),
        (4, 3, 5),
    ),
    "cast": (between(lambda x: x.float().double() + x), (3, 2)),
    "biases": (between(lambda x, c, f: f(c(x).flatten(1)) - 0.5, nn.Conv2d(2, 3, 2), nn.Linear(12, 4)), (2, 3, 3)),
    "gate": (squeeze_and_excite(), (3, 2, 2)),
    "dense block": (
        between(
            lambda x, a, b: torch.cat([y := torch.cat([x, a(x)], 1), b(y)], 1),
            conv(2, 2, 3, padding=1),
            conv(4, 1, 3, padding=1),
        ),
        (2, 3, 3),
    ),
    "three branches": (
        between(
            lambda x, a, b: a(x) + b(x) + x.mean((2, 3), keepdim=True),
            conv(4, 4, 3, padding=1, groups=2),
            conv(4, 4, 1),
        ),
        (4, 3, 4),
    ),
}
TRACED = {
    "chunk": lambda x: aten.chunk.default(x, 2, 1)[-1],
    "size": lambda x: aten.slice.Tensor(x, 1, 1, aten.sym_size.int(x, 2)),
    "half": lambda x: aten.slice.Tensor(x, 1, 0, aten.sym_size.int(x, 1) // 2),
    "constant pad": lambda x: aten.constant_pad_nd.default(x, [-1, 2], 0.0),
    "flatten": lambda x: aten.flatten.using_ints(x, 1),
    "squeeze": lambda x: aten.squeeze.dim(aten.slice.Tensor(x, 2, 1, 2), -1),
    "apart": lambda x: own.apart.default(x),
    "gated": lambda x: own.gated.default(aten.slice.Tensor(x, 1, 0, 1), aten.new_ones.default(x, [5, 3])),
    "gated rows": lambda x: own.gated_rows.default(x, aten.new_ones.default(x, [3, 2])),
    "gated columns": lambda x: own.gated_columns.default(aten.new_ones.default(x, [2, 5]), x),
    "quarter": lambda x: own.quarter.default(x, aten.mul.Scalar(aten.slice.Tensor(x, 1, 1, 2), 3.0)),
    "square by neurons": lambda x: own.by_neurons.default(x),
}


@cache
def case(name: str) -> Converted:
    if name in TRACED:
        relu = aten.relu.default
        return Converted.traced(lambda x: relu(TRACED[name](relu(x))), 5, 3)
    net, shape = CASES[name]
    return Converted.of(net, *shape)
