"""Networks with norms of the signal, softmax, attention of every kind, distances and quotients."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from kinds.kind import Kind, normal

TOKENS, PICTURE, VECTOR, TWO = normal((5, 8)), normal((4, 6, 6)), normal((8,)), normal((5, 8), (3, 8))
CAUSAL = torch.ones(5, 5).tril().bool()
BIAS = torch.linspace(-1.0, 1.0, 25).view(5, 5)
LAST = partial(F.softmax, dim=-1)
FORBIDDEN = BIAS.masked_fill(~CAUSAL, float("-inf"))


class Of(nn.Module):
    """A function between two linear maps."""

    def __init__(self, function, features=8, layer=None):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(features, features), layer, nn.LazyLinear(3)
        self.function = function

    def forward(self, x, *others):
        x = self.first(x)
        return self.last(self.function(x, *others) if self.layer is None else self.function(self.layer(x), *others))


class Attention(nn.Module):
    """Attention written out, with scores treated by a function before the softmax."""

    def __init__(self, mask=lambda scores, *others: scores, heads=2, softmax=LAST):
        super().__init__()
        self.qkv, self.out, self.heads, self.mask, self.softmax = (
            nn.Linear(8, 24),
            nn.Linear(8, 8),
            heads,
            mask,
            softmax,
        )

    def forward(self, x, *others):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = self.mask(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, *others)
        return self.out((self.softmax(scores) @ v).transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """The same by torch's own operator."""

    def __init__(self, mask=None, heads=2, groups=2, **settings):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(8, 4 * heads), nn.Linear(8, 8 * groups), nn.Linear(4 * heads, 8)
        self.heads, self.groups, self.mask, self.settings = heads, groups, mask, settings

    def forward(self, x, *others):
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, self.groups, -1)).permute(2, 0, 3, 1, 4)
        mask = self.mask(*others) if callable(self.mask) else self.mask
        return self.out(
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.settings).transpose(1, 2).flatten(2)
        )


class Heads(nn.Module):
    """torch's own module."""

    def __init__(self, run, **settings):
        super().__init__()
        self.attention, self.run = nn.MultiheadAttention(8, 2, batch_first=True, **settings), run

    def forward(self, *inputs):
        return self.run(self.attention, *inputs)


class Windows(nn.Module):
    """Swin's attention in shifted windows of 3 x 3 pixels, with a bias by relative position and a mask of -100."""

    def __init__(self, channels=4, window=3, shift=1):
        super().__init__()
        self.window, self.shift, self.norm = window, shift, nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        at = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = at[:, None] - at[None] + window - 1
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])
        self.bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, 2))

    def forward(self, x):
        x = self.norm(x.permute(0, 2, 3, 1))
        n, size, _, c = x.shape
        w, area = self.window, self.window**2
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(n, size // w, w, size // w, w, c).transpose(2, 3).reshape(-1, area, c)
        q, k, v = self.qkv(x).reshape(x.shape[0], area, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        scores = q * (c // 2) ** -0.5 @ k.transpose(-2, -1) + self.bias[self.index].permute(2, 0, 1)
        scores = scores.view(n, -1, 2, area, area) + self.mask(size)[:, None]
        x = (scores.flatten(0, 1).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.out(x).view(n, size // w, size // w, w, w, c).transpose(2, 3).reshape(n, size, size, c)
        return torch.roll(x, (self.shift, self.shift), (1, 2)).mean((1, 2))

    def mask(self, size):
        part = torch.zeros(size, size)
        cuts = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        for number, (rows, columns) in enumerate((a, b) for a in cuts for b in cuts):
            part[rows, columns] = number
        part = part.view(size // self.window, self.window, size // self.window, self.window).transpose(1, 2)
        part = part.reshape(-1, self.window**2)
        return torch.where(part[:, None] != part[:, :, None], -100.0, 0.0)


class LinearAttention(nn.Module):
    """Attention with a ReLU in place of the softmax, in time linear in the tokens."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = F.relu(q) + 0.1, F.relu(k) + 0.1
        return self.out(q @ (k.transpose(1, 2) @ v) / (q @ k.sum(1)[:, :, None]))


class CrossCovariance(nn.Module):
    """XCiT's attention between channels, of unit vectors, with a temperature."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out, self.temperature = nn.Linear(8, 24), nn.Linear(8, 8), nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 4, 1)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.out((scores.softmax(-1) @ v).permute(0, 3, 1, 2).flatten(2))


class SelectiveKernel(nn.Module):
    """Two branches of a convolution, weighed against each other by a softmax per channel."""

    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 5, padding=2)
        self.squeeze, self.choose = nn.Linear(6, 4), nn.Linear(4, 12)

    def forward(self, x):
        both = F.relu(torch.stack([self.small(x), self.large(x)], 1))
        shares = self.choose(F.relu(self.squeeze(both.sum(1).mean((2, 3))))).unflatten(1, (2, 6)).softmax(1)
        return (both * shares[..., None, None]).sum(1)


class Prototypes(nn.Module):
    """Class scores as the cosine between an embedding and the classes' prototypes."""

    def __init__(self):
        super().__init__()
        self.embed, self.prototypes = (
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6)),
            nn.Parameter(torch.randn(3, 6)),
        )

    def forward(self, x):
        return 10 * F.linear(F.normalize(self.embed(x), dim=-1), F.normalize(self.prototypes, dim=-1))


class Pooling(nn.Module):
    """Attentive pooling: a learned query looks at all tokens; mean and deviation beside it."""

    def __init__(self):
        super().__init__()
        self.score, self.out = nn.Linear(8, 1), nn.Linear(24, 3)

    def forward(self, x):
        shares = self.score(x).softmax(1)
        return self.out(torch.cat([(shares * x).sum(1), x.mean(1), x.std(1)], -1))


class Adaptive(nn.Module):
    """A layer norm whose scale and shift come from a second input."""

    def __init__(self):
        super().__init__()
        self.norm, self.change, self.out = nn.LayerNorm(8, elementwise_affine=False), nn.Linear(4, 16), nn.Linear(8, 3)

    def forward(self, x, condition):
        scale, shift = self.change(F.silu(condition)).chunk(2, -1)
        return self.out(self.norm(x) * (1 + scale[:, None]) + shift[:, None])


class RmsNorm(nn.Module):
    """Written out as language models have it."""

    def __init__(self):
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)))


class Retention(nn.Module):
    """A causal mean of values with weights that decay, normalised by their absolute sum."""

    def __init__(self):
        super().__init__()
        self.qkv, self.norm = nn.Linear(8, 24), nn.GroupNorm(2, 8)
        self.register_buffer("decay", 0.9 ** (torch.arange(5)[:, None] - torch.arange(5)) * CAUSAL)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) * self.decay
        x = scores / scores.abs().sum(-1, keepdim=True).clamp(min=1.0) @ v
        return self.norm(x.flatten(0, 1)).view_as(x)


def padded(n):
    """Sentences of 1 to 5 tokens, with a mask that is true where one is missing."""
    return torch.randn(n, 5, 8), torch.arange(5) >= torch.randint(1, 6, (n, 1))


def itself(attention, x, **settings):
    return attention(x, x, x, **settings)


def layer(cls=nn.TransformerEncoderLayer, **settings):
    return cls(8, 2, 16, batch_first=True, **settings)


def encoder(**settings):
    return nn.TransformerEncoder(layer(**settings), 2, enable_nested_tensor=False)


def of(name, function, inputs=TOKENS, features=8, layer=None):
    """A kind whose network is a function between two linear maps."""
    return Kind(name, "E", lambda: Of(function, features, layer() if layer else None), inputs)


NORMS = (
    of("layer_norm", lambda x: x, layer=lambda: nn.LayerNorm(8)),
    of("layer_norm_of_two_axes", lambda x: x, layer=lambda: nn.LayerNorm((5, 8), eps=1e-3)),
    of("rms_norm", lambda x: x, layer=lambda: nn.RMSNorm(8)),
    Kind("rms_norm_written_out", "E", RmsNorm, TOKENS),
    of("group_norm", lambda x: x, PICTURE, 6, lambda: nn.GroupNorm(2, 4)),
    of("group_norm_of_tokens", lambda x: x, layer=lambda: nn.GroupNorm(1, 5)),
    of("instance_norm", lambda x: x, PICTURE, 6, lambda: nn.InstanceNorm2d(4, affine=True)),
    of("instance_norm_tracked", F.relu, PICTURE, 6, lambda: nn.InstanceNorm2d(4, track_running_stats=True)),
    of("l2_embedding", lambda x: F.normalize(x, dim=-1), VECTOR),
    of("l1_embedding", lambda x: F.normalize(x, p=1.0, dim=1)),
    of("norms", lambda x: torch.stack([x.norm(dim=1), x.norm(p=3, dim=1), x.abs().amax(1)], 1)),
    of("deviations", lambda x: torch.cat([x.std(1), x.var(1, unbiased=False), *torch.std_mean(x, 1)], -1)),
    of("standardised", lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-3)),
    Kind("adaptive_norm", "E", Adaptive, normal((5, 8), (4,))),
)
SOFTMAXES = (
    of("softmax", lambda x: x.softmax(1)),
    of("softmin", lambda x: F.softmin(x, -1)),
    of("log_softmax", lambda x: F.log_softmax(x, -1)),
    of("logsumexp", lambda x: x.logsumexp(1)),
    Kind("class_probabilities", "F", lambda: nn.Sequential(nn.Linear(8, 5), nn.Softmax(-1)), VECTOR),
    Kind("selective_kernel", "F", SelectiveKernel, PICTURE),
    Kind("attentive_pooling", "F", Pooling, TOKENS),
)
ATTENTIONS = (
    Kind("attention", "F", Attention, TOKENS),
    Kind("attention_causal", "F", lambda: Attention(lambda s: s.masked_fill(~CAUSAL, float("-inf"))), TOKENS),
    Kind("attention_where", "F", lambda: Attention(lambda s: torch.where(CAUSAL, s, -1e9)), TOKENS),
    Kind("attention_biased", "F", lambda: Attention(lambda s: s + FORBIDDEN), TOKENS),
    Kind("attention_padded", "F", lambda: Attention(lambda s, k: s.masked_fill(k[:, None, None], -1e4)), padded),
    Kind(
        "attention_padded_sum",
        "F",
        lambda: Attention(lambda s, k: s + k[:, None, None].float() * torch.finfo(torch.float32).min),
        padded,
    ),
    Kind("attention_sigmoid", "F", lambda: Attention(softmax=torch.sigmoid), TOKENS),
    Kind("fused", "F", Fused, TOKENS),
    Kind("fused_causal", "F", lambda: Fused(is_causal=True, scale=0.3), TOKENS),
    Kind("fused_masked", "F", lambda: Fused(CAUSAL), TOKENS),
    Kind("fused_biased", "F", lambda: Fused(FORBIDDEN), TOKENS),
    Kind("fused_padded", "F", lambda: Fused(lambda k: ~k[:, None, None]), padded),
    Kind("fused_padded_and_causal", "F", lambda: Fused(lambda k: ~k[:, None, None] & CAUSAL), padded),
    Kind("grouped_queries", "F", lambda: Fused(heads=4, groups=2, enable_gqa=True), TOKENS),
    Kind("heads", "F", lambda: Heads(itself), TOKENS),
    Kind("heads_bias_kv", "F", lambda: Heads(itself, add_bias_kv=True, add_zero_attn=True), TOKENS),
    Kind("heads_causal", "F", lambda: Heads(partial(itself, attn_mask=~CAUSAL)), TOKENS),
    Kind("heads_padded", "F", lambda: Heads(lambda a, x, k: itself(a, x, key_padding_mask=k)), padded),
    Kind(
        "heads_padded_and_causal",
        "F",
        lambda: Heads(lambda a, x, k: itself(a, x, key_padding_mask=k, attn_mask=~CAUSAL, need_weights=False)),
        padded,
    ),
    Kind("cross_attention", "F", lambda: Heads(lambda a, x, y: a(x, y, y, need_weights=False)[0]), TWO),
    Kind("encoder_layer", "EF", layer, TOKENS),
    Kind("encoder", "EF", lambda: encoder(norm_first=True, activation="gelu"), TOKENS),
    Kind("decoder_layer", "EF", lambda: layer(nn.TransformerDecoderLayer), TWO),
    Kind("shifted_windows", "EF", Windows, PICTURE),
    Kind("linear_attention", "FG", LinearAttention, TOKENS),
    Kind("cross_covariance", "FG", CrossCovariance, TOKENS),
    Kind("retention", "EFG", Retention, TOKENS),
)
DISTANCES = (
    Kind("prototypes", "G", Prototypes, VECTOR),
    of("cosine_similarity", lambda x: F.cosine_similarity(x[:, :1], x[:, 1:], dim=-1)),
    of("pairwise_distance", lambda x: F.pairwise_distance(x[:, :1], x[:, 1:])),
    of("all_distances", lambda x: torch.cdist(x[:, :2], x[:, 2:])),
    of("quotient", lambda x: x[:, :2] / (1 + x[:, 2:4].square())),
    of("addcdiv", lambda x: torch.addcdiv(x, x.flip(1), 1 + x.abs(), value=0.5)),
)
KINDS = (*NORMS, *SOFTMAXES, *ATTENTIONS, *DISTANCES)
