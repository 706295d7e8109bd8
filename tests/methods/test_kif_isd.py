from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rayscribe.errors import InputError
from rayscribe.methods.kif_isd import KifSettings, KnowledgeStage, node_words
from rayscribe.methods.knowledge_graph import PUBLISHED, ROOT, Graph
from rayscribe.methods.promptmrg import STATE_SCORES
from rayscribe.methods.promptmrg_reports import RETRIEVED
from rayscribe.models.layers import Attention, Encoded

SMALL = KifSettings(width=24, hidden=16, node_heads=2, patch_heads=2)


def stage_of(config: KifSettings = SMALL, graph: Graph = PUBLISHED, channels: int = 8, seed: int = 0) -> KnowledgeStage:
    torch.manual_seed(seed)
    return KnowledgeStage(channels, graph, config).eval()


def seen_of(studies: int = 3, patches: int = 5, channels: int = 8, seed: int = 1) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    return Encoded(
        torch.randn(studies, patches, channels, generator=generator), torch.ones(studies, patches, dtype=torch.bool)
    )


def chain() -> Graph:
    """Root, then a - b - c."""
    edges = np.eye(4, dtype=bool)
    edges[0] = edges[:, 0] = True
    edges[1, 2] = edges[2, 1] = edges[2, 3] = edges[3, 2] = True
    return Graph(names=(ROOT, "a", "b", "c"), groups=(0, 1, 1, 1), edges_NN=edges, source="test")


def test_the_published_graph_is_that_of_the_paper() -> None:
    edges = PUBLISHED.edges_NN
    assert edges.shape == (28, 28) and edges.sum() == 210 and (edges == edges.T).all()
    degrees = [28, 2, 2, 9, 3, 9, 3, 11, 5, 5, 5, 9, 3, 15, *[9] * 7, 10, 4, 4, 2, 10, 4, 4]
    assert edges.sum(1).tolist() == degrees
    assert PUBLISHED.names[18] == "cicatrix" and PUBLISHED.names[12] == "bone fractures"


def test_shapes_are_those_of_the_paper() -> None:
    stage = stage_of(KifSettings(), channels=2048)
    seen = seen_of(2, 49, 2048)
    assert stage.nodes().shape == (28, 768)
    found, attention = stage.attend(seen)
    assert found.features_BND.shape == (2, 49, 2048) and attention.shape == (2, 16, 49, 28)
    cross = sum(p.numel() for part in (*stage.layers, stage.norm) for p in part.parameters())
    assert cross == 7_881_728


def test_every_node_is_embedded_by_its_own_words() -> None:
    stage = stage_of(replace(SMALL, layers=1, masked=True))
    assert "bone" in node_words(PUBLISHED) and ROOT not in node_words(PUBLISHED)
    weights_NW = stage.knowledge.words_NW
    assert weights_NW.shape[0] == 27 and torch.allclose(weights_NW.sum(1), torch.ones(27))
    fractures = weights_NW[PUBLISHED.names.index("bone fractures") - 1]
    assert sorted(fractures[fractures > 0].tolist()) == [0.5, 0.5]


def _nodes_that_change(config: KifSettings, graph: Graph, word: str) -> list[int]:
    stage = stage_of(config, graph)
    before = stage.nodes()
    with torch.no_grad():
        stage.knowledge.words.weight[stage.knowledge.vocabulary.index(word)] += torch.randn(config.width)
    return (~torch.isclose(before, stage.nodes()).all(1)).nonzero().flatten().tolist()


def test_a_node_attends_to_its_neighbours_and_to_no_other() -> None:
    """Within one layer; with two everything is connected by the root."""
    assert _nodes_that_change(replace(SMALL, layers=1), chain(), "c") == [0, 2, 3]
    assert _nodes_that_change(replace(SMALL, layers=1, masked=False), chain(), "c") == [0, 1, 2, 3]
    assert _nodes_that_change(replace(SMALL, layers=2), chain(), "c") == [0, 1, 2, 3]


def test_attention_says_where_a_patch_takes_from() -> None:
    stage, seen = stage_of(), seen_of()
    found, weights = stage.attend(seen)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 2, 5), atol=1e-6) and (weights > 0).all()
    assert torch.equal(found.features_BND, stage(seen).features_BND)


def test_weighed_attention_equals_the_fused_one() -> None:
    torch.manual_seed(0)
    attention = Attention(24, 2, 0.1).eval()
    x, keys_values = torch.randn(2, 5, 24), attention.keys_values(torch.randn(2, 7, 24))
    assert torch.allclose(attention.weighed(x, *keys_values)[0], attention(x, *keys_values), atol=1e-6)


def test_a_study_depends_on_itself_alone() -> None:
    stage, seen = stage_of(), seen_of()
    before = stage(seen).features_BND
    changed = seen.features_BND.clone()
    changed[1] = torch.randn(5, 8)
    after = stage(replace(seen, features_BND=changed)).features_BND
    assert torch.equal(before[[0, 2]], after[[0, 2]]) and not torch.allclose(before[1], after[1])
    alone = stage(Encoded(seen.features_BND[:1], seen.has_patch_BN[:1])).features_BND
    assert torch.allclose(alone, before[:1], atol=1e-6)


def test_the_graph_replaces_the_patches_or_is_added_to_them() -> None:
    seen = seen_of()
    replaced = stage_of()(seen).features_BND
    added = stage_of(replace(SMALL, residual=True))(seen).features_BND
    assert torch.allclose(added, replaced + seen.features_BND)


def test_what_else_was_seen_is_handed_on() -> None:
    seen = replace(
        seen_of(),
        extras={RETRIEVED: torch.randn(3, 2, 4), STATE_SCORES: torch.randn(3, 4, 18)},
        prompt_BO=torch.zeros(3, 18, dtype=torch.long),
    )
    found = stage_of()(seen)
    assert found.extras == seen.extras and found.prompt_BO is seen.prompt_BO
    assert found.has_patch_BN is seen.has_patch_BN


def test_gradients_reach_the_words_of_every_node() -> None:
    stage = stage_of()
    stage(seen_of()).features_BND.square().sum().backward()
    grads: list[Tensor | None] = [stage.knowledge.words.weight.grad, stage.knowledge.root_1D.grad]
    assert all(grad is not None and (grad != 0).any(1).all() for grad in grads)


def test_words_start_from_vectors_that_are_given() -> None:
    stage = stage_of()
    vector = torch.arange(24.0)
    assert stage.copy_words({"heart": vector, "elephant": vector}) == 1
    assert torch.equal(stage.knowledge.words.weight[stage.knowledge.vocabulary.index("heart")], vector)


def test_a_graph_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    replace(chain(), counts={"studies": 7}).save(path)
    found = Graph.load(path)
    assert found.names == chain().names and found.groups == chain().groups and found.counts == {"studies": 7}
    assert (found.edges_NN == chain().edges_NN).all() and found.digest == chain().digest != PUBLISHED.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format 'other'; this version reads rayscribe-graph-1"),
        ({"groups": [0, 1, 1]}, "not as many groups as names"),
        ({"names": [ROOT, "a", "a", "c"]}, "a duplicate name"),
        ({"edges": [[0, 0], [1, 1], [2, 2], [3, 3]]}, "a node that is not connected to the root"),
        ({"edges": [[0, 0], [0, 1], [0, 2], [0, 3]]}, "a node that is not connected to itself"),
        ({"edges": [[0, 9]]}, "not a graph"),
        ({"names": None}, "not a graph"),
    ],
)
def test_a_file_that_is_no_graph_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    chain().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as error:
        Graph.load(path)
    assert str(path) in str(error.value) and "rayscribe build graph" in str(error.value)


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rayscribe build graph"):
        Graph.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json: not a graph"):
        Graph.load(tmp_path / "broken.json")
