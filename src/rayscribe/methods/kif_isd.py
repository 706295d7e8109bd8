"""KIF of KIF-ISD, "Graph-Driven Medical Report Generation with Adaptive Knowledge Distillation": a graph before the decoder.

Masked self-attention reads a graph of findings and organs; every patch of the image then attends to the nodes, and the result
replaces the patch before the decoder (spec A2.1 to A2.4). Disease head, retrieved reports and prompt are PromptMRG's; the
self-distillation is the plug-in in `distill.py`.

Differences from the released code, two modules of which were never published (spec A2.9):

* every node is embedded on its own, as the mean of its words' vectors, and the root is learned. The released code feeds all
  names as one text truncated at 32 word pieces, so the mask and the positions fall on the wrong words and half of the nodes
  are missing;
* node states are expanded to the batch; the released reshape scrambles them for some batch sizes and fails for others;
* `--method.residual` adds the patches to the graph's output. Off by default, as released; recommended by the spec;
* layer norms are PyTorch's; the released ones divide by the unbiased deviation.

Shapes: B studies, P patches, C channels, N nodes, H heads, D = `width` of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from tyro.conf import arg

from rayscribe.config import RunConfig
from rayscribe.data.dataset import Extras
from rayscribe.data.images import Grey
from rayscribe.methods.knowledge_graph import PUBLISHED, Graph
from rayscribe.methods.method import (
    CardLine,
    Lookup,
    Method,
    Preparation,
    Resources,
    Source,
    TrainedModel,
    patch_embedding,
)
from rayscribe.methods.promptmrg import (
    PromptMrgSettings,
    bert_sizes,
    diagnosis_inputs,
    diagnosis_line,
    diagnosis_prompt,
    diagnosis_resources,
    diagnosis_stage,
    diagnosis_task,
    prepared_retrieval,
    promptmrg,
    said_states,
)
from rayscribe.methods.promptmrg_reports import ReportBank
from rayscribe.models.layers import (
    EPS,
    Attention,
    Encoded,
    EncoderLayer,
    Linear,
    feed_forward,
    init_transformer_,
    waves_PD,
)
from rayscribe.models.report_model import ReportModel
from rayscribe.settings import need
from rayscribe.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class KifSettings:
    """The knowledge graph and its fusion with the patches (sizes of the released code), and PromptMRG's settings."""

    diagnosis: Annotated[PromptMrgSettings, arg(name="")] = field(default_factory=PromptMrgSettings)
    graph: str = "published"
    "`published`, the 28 nodes of the paper, or a file made by `rayscribe build graph`"
    width: int = 768
    hidden: int = 1024
    "width of the feed-forward layers"
    layers: int = 2
    "layers of the graph attention, and of the patches' attention to the nodes"
    node_heads: int = 6
    patch_heads: int = 16
    dropout: float = 0.1
    masked: bool = True
    "restrict a node's attention to its neighbours; false: every node (a control)"
    residual: bool = False
    "add the patches to the graph's output; false: the output replaces them (released code)"
    query: Literal["none", "findings"] = "none"
    "what the image's query to the retrieved reports includes: nothing more (released inference), or the names of 20 findings"

    def __post_init__(self) -> None:
        for flag, heads in (("--method.node-heads", self.node_heads), ("--method.patch-heads", self.patch_heads)):
            need(heads >= 1 and self.width % heads == 0, flag, heads, f"must divide --method.width {self.width}")
        need(self.width % 2 == 0, "--method.width", self.width, "must be even, for the sines and cosines of groups")
        need(self.hidden >= 1, "--method.hidden", self.hidden, "at least 1")
        need(self.layers >= 1, "--method.layers", self.layers, "at least 1")
        need(0 <= self.dropout < 1, "--method.dropout", self.dropout, "at least 0, below 1")

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError as PromptMRG's settings do, and for a query without retrieved reports."""
        self.diagnosis.check(run)
        fits = self.query == "none" or self.diagnosis.memory
        need(fits, "--method.query", self.query, "queries the retrieved reports; it needs --method.memory")


class KnowledgeStage(nn.Module):
    """Features of the image encoder to the graph's output of the same size, before the patch embedding."""

    def __init__(self, channels: int, graph: Graph, config: KifSettings) -> None:
        super().__init__()
        self.graph, self.residual = graph, config.residual
        self.knowledge = KnowledgeEncoder(graph, config)
        self.take_in = Linear(channels, config.width)
        self.layers = nn.ModuleList(NodeAttention(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, EPS)
        self.give_back = nn.Sequential(Linear(config.width, config.hidden), nn.ReLU(), Linear(config.hidden, channels))
        init_transformer_(self.layers)

    def nodes(self) -> Tensor:
        """States of the nodes after the graph attention (N, D); the same for all studies."""
        states_ND: Tensor = self.knowledge()
        return states_ND

    def forward(self, seen: Encoded) -> Encoded:
        """Features (B, P, C) to the same shape."""
        return self.attend(seen)[0]

    def attend(self, seen: Encoded) -> tuple[Encoded, Tensor]:
        """The same, and the last layer's attention of patches to nodes (B, H, P, N); each row sums to 1."""
        nodes_BND = self.nodes().expand(len(seen.features_BND), -1, -1)
        x_BPD = self.take_in(seen.features_BND)
        weights_BHPN = x_BPD.new_zeros(0)
        for layer in self.layers:
            x_BPD, weights_BHPN = layer(x_BPD, nodes_BND)
        x_BPC = self.give_back(self.norm(x_BPD))
        if self.residual:
            x_BPC = x_BPC + seen.features_BND
        return replace(seen, features_BND=x_BPC), weights_BHPN

    def copy_words(self, vectors: Mapping[str, Tensor]) -> int:
        """Initialises the words of the nodes' names from these vectors (D); returns how many were found."""
        return self.knowledge.copy_words(vectors)


class KnowledgeEncoder(nn.Module):
    """Node names to states: embedded words, positions by group, and self-attention along the edges."""

    words_NW: Tensor
    positions_ND: Tensor
    edges_NN: Tensor

    def __init__(self, graph: Graph, config: KifSettings) -> None:
        super().__init__()
        self.vocabulary = node_words(graph)
        self.root_1D = nn.Parameter(0.02 * torch.randn(1, config.width))
        self.words = nn.Embedding(len(self.vocabulary), config.width)
        nn.init.normal_(self.words.weight, std=0.02)  # as in BERT
        places = {word: place for place, word in enumerate(self.vocabulary)}
        words_NW = torch.zeros(len(graph.names) - 1, len(places))
        for node, name in enumerate(graph.names[1:]):
            for word in name.split():
                words_NW[node, places[word]] += 1 / len(name.split())
        edges_NN = torch.from_numpy(graph.edges_NN) if config.masked else torch.ones(len(graph.names), len(graph.names))
        self.register_buffer("words_NW", words_NW, persistent=False)
        self.register_buffer("edges_NN", edges_NN.bool(), persistent=False)
        waves = waves_PD(max(graph.groups) + 1, config.width)
        self.register_buffer("positions_ND", waves[list(graph.groups)], persistent=False)
        self.norm_in = nn.LayerNorm(config.width, EPS)
        self.layers = nn.ModuleList(
            EncoderLayer(config.width, config.node_heads, config.hidden, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, EPS)
        self.drop = nn.Dropout(config.dropout)
        init_transformer_(self.layers)

    def forward(self) -> Tensor:
        """States of the nodes (N, D)."""
        x_ND = torch.cat([self.root_1D, self.words_NW @ self.words.weight])
        x_1ND = self.drop(self.norm_in(self.drop(x_ND + self.positions_ND)))[None]
        for layer in self.layers:
            x_1ND = layer(x_1ND, self.edges_NN)
        found: Tensor = self.drop(self.norm(x_1ND))[0]
        return found

    def copy_words(self, vectors: Mapping[str, Tensor]) -> int:
        """Initialises known words from these vectors (D); returns their number."""
        known = [(place, vectors[word]) for place, word in enumerate(self.vocabulary) if word in vectors]
        with torch.no_grad():
            for place, vector_D in known:
                self.words.weight[place] = vector_D
        return len(known)


class NodeAttention(nn.Module):
    """Patches attend to the nodes, not to one another; then feed-forward. Each behind its norm, each with a residual."""

    def __init__(self, config: KifSettings) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.patch_heads, config.dropout)
        self.feed_forward = feed_forward(config.width, config.hidden, config.dropout)
        self.attention_norm = nn.LayerNorm(config.width, EPS)
        self.feed_forward_norm = nn.LayerNorm(config.width, EPS)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_BPD: Tensor, nodes_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, P, D) of the same shape, and the weights (B, H, P, N) before dropout."""
        found_BPD, weights_BHPN = self.attention.weighed(
            self.attention_norm(x_BPD), *self.attention.keys_values(nodes_BND)
        )
        x_BPD = x_BPD + self.drop(found_BPD)
        return x_BPD + self.drop(self.feed_forward(self.feed_forward_norm(x_BPD))), weights_BHPN


def node_words(graph: Graph) -> list[str]:
    """The distinct words of the node names, without the root's."""
    return sorted({word for name in graph.names[1:] for word in name.split()})


@dataclass(frozen=True, slots=True)
class BankAndGraph:
    """A model's retrieval bank and its knowledge graph."""

    bank: ReportBank
    graph: Graph

    def digests(self) -> list[str]:
        """Digests of the bank and of the graph."""
        return [*self.bank.digests(), self.graph.digest]

    def save(self, folder: Path) -> None:
        """Writes both into the model folder; the graph as graph.json."""
        self.bank.save(folder)
        self.graph.save(folder / "graph.json")

    def check(self, run: RunConfig[Any], source: Source) -> None:
        """Raises InputError if the bank does not match the run's data."""
        self.bank.check(run, source)

    def extras(self, studies: Sequence[Study], lookup: Lookup) -> Extras:
        """The retrieved reports of each study."""
        return self.bank.extras(studies, lookup)

    def image_extras(self, studies: Sequence[Sequence[Grey]]) -> dict[str, Tensor]:
        """The retrieved reports of each study of loose images."""
        return self.bank.image_extras(studies)

    def least_side(self) -> int:
        """Shortest image side that retrieval needs, in pixels."""
        return self.bank.least_side()


def kif() -> RunConfig[KifSettings]:
    """PromptMRG with the knowledge graph, 10 epochs (spec A2.7); KIF-ISD is `kif+isd --generations 2`."""
    base = promptmrg()
    train = replace(base.train, epochs=10, patience=10)
    return RunConfig(system="kif", method=KifSettings(), text=base.text, model=base.model, train=train, seed=base.seed)


def kif_bert() -> RunConfig[KifSettings]:
    """The same with the published BERT decoder."""
    run = kif()
    return replace(run, model=bert_sizes(run.model))


def _resources(run: RunConfig[KifSettings], folder: Path | None) -> Resources:
    bank = diagnosis_resources(run.system, run.method.diagnosis, folder)
    if folder is not None:
        return BankAndGraph(bank, Graph.load(folder / "graph.json"))
    return BankAndGraph(bank, PUBLISHED if run.method.graph == "published" else Graph.load(Path(run.method.graph)))


def _stages(run: RunConfig[KifSettings], channels: int, words: int, resources: Resources) -> list[nn.Module]:
    assert isinstance(resources, BankAndGraph)
    return [
        diagnosis_stage(channels, resources.bank, asks_findings=run.method.query == "findings"),
        KnowledgeStage(channels, resources.graph, run.method),
        *patch_embedding(run, channels, words, resources),
    ]


def _copy_words(
    run: RunConfig[KifSettings], model: ReportModel, vectors: Callable[[Sequence[str]], Mapping[str, Tensor]]
) -> str:
    """Initialises the graph's words from BERT's if they have the same width; returns a note for the user."""
    stage = model.stages[1]
    assert isinstance(stage, KnowledgeStage)
    if run.method.width != run.model.width:
        return ""
    words = node_words(stage.graph)
    return f"{stage.copy_words(vectors(words))} of {len(words)} words of the graph, too"


def _prepare(
    run: RunConfig[KifSettings], source: Source, preparation: Preparation
) -> tuple[RunConfig[KifSettings], Source]:
    found = prepared_retrieval(run, run.method.diagnosis, source, preparation)
    return replace(run, method=replace(run.method, diagnosis=found)), source


def _card(trained: TrainedModel) -> list[CardLine]:
    return [diagnosis_line(trained.config.method.diagnosis)]


METHOD = Method(
    name="kif",
    settings=KifSettings,
    recipes={"kif": kif, "kif_bert": kif_bert},
    stages=_stages,
    prompt=lambda run: diagnosis_prompt(run.method.diagnosis),
    copy_words=_copy_words,
    task=lambda run, model, known, feed: diagnosis_task(run, run.method.diagnosis, model, known, feed),
    prepare=_prepare,
    inputs=lambda run, source: diagnosis_inputs(run.method.diagnosis),
    resources=_resources,
    said=said_states,
    card=_card,
)
