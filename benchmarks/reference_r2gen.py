"""R2Gen's encoder-decoder and search in the published form: no caches, the whole prefix at every step.

Our own plain code, written from the paper and from the names in the published checkpoints. It is what `rayscribe` is
measured against, in speed (`decoding.py`) and in results (`tests/cli/test_import_r2gen.py`). Nothing here is meant to be fast.

Shapes: B studies, K beams, R rows (studies x beams), N patches, T positions, G memory slots, H heads, D width, E = D / H,
M = G x D, C backbone channels, W vocabulary.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

LAYERS, WIDTH, HEADS, SLOTS, CHANNELS = 3, 512, 8, 3, 2048


class UnbiasedNorm(nn.Module):
    """Layer norm that divides by the unbiased deviation plus 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x_RTD: Tensor) -> Tensor:
        return self.gamma * standardised(x_RTD) + self.beta


class ConditionalNorm(nn.Module):
    """The same with gain and bias shifted by two small networks that read the relational memory."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))
        self.mlp_gamma = nn.Sequential(nn.Linear(memory, width), nn.ReLU(), nn.Linear(width, width))
        self.mlp_beta = nn.Sequential(nn.Linear(memory, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x_RTD: Tensor, memory_RTM: Tensor) -> Tensor:
        gain_RTD = self.gamma + self.mlp_gamma(memory_RTM)
        bias_RTD = self.beta + self.mlp_beta(memory_RTM)
        return gain_RTD * standardised(x_RTD) + bias_RTD


def standardised(x_RTD: Tensor) -> Tensor:
    return (x_RTD - x_RTD.mean(-1, keepdim=True)) / (x_RTD.std(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """`linears` are query, key, value and output."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, query_RTD: Tensor, key_RND: Tensor, value_RND: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in zip(self.linears, (query_RTD, key_RND, value_RND), strict=False)
        )
        scores_RHTN = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores_RHTN = scores_RHTN.masked_fill(~mask, -1e9)
        mixed_RHTE = scores_RHTN.softmax(-1) @ value
        return self.linears[3](mixed_RHTE.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, width)
        self.w_2 = nn.Linear(width, width)

    def forward(self, x_RTD: Tensor) -> Tensor:
        return self.w_2(torch.relu(self.w_1(x_RTD)))


class Sublayer(nn.Module):
    """The published code keeps each norm in the residual connection around its sublayer, hence the names."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.feed_forward = FeedForward(width)
        self.sublayer = nn.ModuleList(Sublayer(UnbiasedNorm(width)) for _ in range(2))

    def forward(self, x_BND: Tensor) -> Tensor:
        normed_BND = self.sublayer[0].norm(x_BND)
        x_BND = x_BND + self.self_attn(normed_BND, normed_BND, normed_BND)
        return x_BND + self.feed_forward(self.sublayer[1].norm(x_BND))


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, memory: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.src_attn = Attention(width, heads)
        self.feed_forward = FeedForward(width)
        self.sublayer = nn.ModuleList(Sublayer(ConditionalNorm(width, memory)) for _ in range(3))

    def forward(self, x_RTD: Tensor, encoded_RND: Tensor, memory_RTM: Tensor, mask_R1TT: Tensor) -> Tensor:
        normed_RTD = self.sublayer[0].norm(x_RTD, memory_RTM)
        x_RTD = x_RTD + self.self_attn(normed_RTD, normed_RTD, normed_RTD, mask_R1TT)
        x_RTD = x_RTD + self.src_attn(self.sublayer[1].norm(x_RTD, memory_RTM), encoded_RND, encoded_RND)
        return x_RTD + self.feed_forward(self.sublayer[2].norm(x_RTD, memory_RTM))


class Stack(nn.Module):
    """Layers and the norm after the last."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = UnbiasedNorm(width)

    def forward(self, x_RTD: Tensor, *context: Tensor) -> Tensor:
        for layer in self.layers:
            x_RTD = layer(x_RTD, *context)
        return self.norm(x_RTD)


class RelationalMemory(nn.Module):
    def __init__(self, width: int, heads: int, slots: int) -> None:
        super().__init__()
        self.width, self.slots = width, slots
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.W = nn.Linear(width, 2 * width)
        self.U = nn.Linear(width, 2 * width)

    def forward(self, words_RTD: Tensor) -> Tensor:
        memory_RGD = torch.eye(self.slots, self.width).expand(words_RTD.shape[0], -1, -1)
        states = []
        for word_RD in words_RTD.unbind(1):
            seen = torch.cat([memory_RGD, word_RD[:, None]], dim=1)
            candidate_RGD = memory_RGD + self.attn(memory_RGD, seen, seen)
            candidate_RGD = candidate_RGD + self.mlp(candidate_RGD)
            gates = self.W(word_RD)[:, None] + self.U(torch.tanh(memory_RGD))
            take, keep = gates.chunk(2, dim=-1)
            memory_RGD = torch.sigmoid(take) * torch.tanh(candidate_RGD) + torch.sigmoid(keep) * memory_RGD
            states.append(memory_RGD.flatten(1))
        return torch.stack(states, dim=1)


class Words(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.lut = nn.Embedding(vocabulary, width)

    def forward(self, tokens_RT: Tensor) -> Tensor:
        return self.lut(tokens_RT) * math.sqrt(self.lut.embedding_dim)


class Positions(nn.Module):
    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        place = torch.arange(5000)[:, None].float()
        rate = torch.exp(torch.arange(0, width, 2) * -(math.log(10000.0) / width))
        table = torch.zeros(5000, width)
        table[:, 0::2] = torch.sin(place * rate)
        table[:, 1::2] = torch.cos(place * rate)
        self.register_buffer("pe", table[None])

    def forward(self, words_RTD: Tensor) -> Tensor:
        return words_RTD + self.pe[:, : words_RTD.shape[1]]


class Transformer(nn.Module):
    def __init__(self, vocabulary: int, layers: int) -> None:
        super().__init__()
        self.encoder = Stack([EncoderLayer(WIDTH, HEADS) for _ in range(layers)], WIDTH)
        self.decoder = Stack([DecoderLayer(WIDTH, HEADS, SLOTS * WIDTH) for _ in range(layers)], WIDTH)
        self.tgt_embed = nn.Sequential(Words(vocabulary, WIDTH), Positions(WIDTH))
        self.rm = RelationalMemory(WIDTH, HEADS, SLOTS)

    def decode(self, tokens_RT: Tensor, encoded_RND: Tensor) -> Tensor:
        """Hidden states (R, T, D)."""
        words_RTD = self.tgt_embed(tokens_RT)
        return self.decoder(words_RTD, encoded_RND, self.rm(words_RTD), visible_positions(tokens_RT))


def visible_positions(tokens_RT: Tensor) -> Tensor:
    """(R, 1, T, T): a position sees itself and earlier ones, except id 0 anywhere but at the start."""
    positions = tokens_RT.shape[1]
    is_word_RT = tokens_RT != 0
    is_word_RT[:, 0] = True
    return is_word_RT[:, None, None, :] & torch.ones(positions, positions, dtype=torch.bool).tril()


class EncoderDecoder(nn.Module):
    def __init__(self, vocabulary: int, layers: int) -> None:
        super().__init__()
        self.att_embed = nn.Sequential(nn.Linear(CHANNELS, WIDTH), nn.ReLU(), nn.Dropout(0.5))
        self.model = Transformer(vocabulary, layers)
        self.logit = nn.Linear(WIDTH, vocabulary)


class VisualExtractor(nn.Module):
    """torchvision's ResNet-101 without its pooling and classifier; the patches of the views stand one after another."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet101  # seconds to import; the decoding benchmark needs none

        self.model = nn.Sequential(*list(resnet101(weights=None).children())[:-2])

    def forward(self, images_BV3HW: Tensor) -> Tensor:
        views = [self.model(image).flatten(2).transpose(1, 2) for image in images_BV3HW.unbind(1)]
        return torch.cat(views, dim=1)


class ReferenceR2Gen(nn.Module):
    """R2Gen under its published names. Without images, features (B, N, C) go in."""

    def __init__(self, vocabulary: int, *, layers: int = LAYERS, images: bool = False) -> None:
        super().__init__()
        if images:
            self.visual_extractor = VisualExtractor()
        self.encoder_decoder = EncoderDecoder(vocabulary, layers)

    def encode(self, features_BNC: Tensor) -> Tensor:
        return self.encoder_decoder.model.encoder(self.encoder_decoder.att_embed(features_BNC))

    def forward(self, features_BNC: Tensor, tokens_BT: Tensor) -> Tensor:
        """Log-probabilities (B, T, W) of the token after each of the given ones."""
        hidden_BTD = self.encoder_decoder.model.decode(tokens_BT, self.encode(features_BNC))
        return torch.log_softmax(self.encoder_decoder.logit(hidden_BTD), dim=-1)

    def next_token(self, tokens_RT: Tensor, encoded_RND: Tensor) -> Tensor:
        """Log-probabilities (R, W) after the whole prefix: everything is computed anew."""
        hidden_RTD = self.encoder_decoder.model.decode(tokens_RT, encoded_RND)
        return torch.log_softmax(self.encoder_decoder.logit(hidden_RTD[:, -1]), dim=-1)


class Reference(Protocol):
    """What the search needs of a published model."""

    def encode(self, features_BNC: Tensor) -> Tensor:
        """What the decoder looks at (B, N, D)."""

    def next_token(self, tokens_RT: Tensor, encoded_RND: Tensor) -> Tensor:
        """Log-probabilities (R, W) after the whole prefix."""


Model = TypeVar("Model", bound=nn.Module)


def randomised(model: Model, seed: int) -> Model:
    """Weights as at the start of training, but with gains and biases that differ, so that a wrong mapping shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            is_gain = name.endswith("gamma") or (name.startswith("visual_extractor") and name.endswith("weight"))
            nn.init.normal_(parameter, 1.0 if is_gain else 0.0, 0.1, generator=generator)
    return model.eval()


@torch.inference_mode()
def reference_beam_search(
    model: Reference, features_BNC: Tensor, *, beams: int = 3, max_length: int = 60
) -> list[list[int]]:
    """The best report of every study as ids up to the first 0.

    R2Gen's search: sums of log-probabilities, no length penalty; a beam that emits 0 is stored and goes on with its
    running score lowered by 1000; at the last position every beam is stored; the best stored one wins. The encoder runs
    once.
    """
    encoded_BND = model.encode(features_BNC)
    studies = features_BNC.shape[0]
    stored: list[list[tuple[float, list[int]]]] = [[] for _ in range(studies)]
    prefixes = [[[0]] for _ in range(studies)]
    scores = [[0.0] for _ in range(studies)]
    for position in range(1, max_length + 1):
        rows = torch.tensor([prefix for study in prefixes for prefix in study])
        expanded = encoded_BND.repeat_interleave(len(prefixes[0]), dim=0)
        log_RW = model.next_token(rows, expanded)
        for study in range(studies):
            log_KW = log_RW.unflatten(0, (studies, -1))[study]
            totals = (torch.tensor(scores[study])[:, None] + log_KW).flatten()
            best = totals.topk(beams)
            grown = []
            for place, (total, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                parent, token = divmod(index, log_KW.shape[1])
                grown.append([*prefixes[study][parent], token])
                if token == 0 or position == max_length:
                    stored[study].append((total, grown[-1][1:]))
                    best.values[place] -= 1000
            prefixes[study], scores[study] = grown, best.values.tolist()
    reports = [max(one, key=lambda pair: pair[0])[1] for one in stored]
    return [report[: report.index(0)] if 0 in report else report for report in reports]
