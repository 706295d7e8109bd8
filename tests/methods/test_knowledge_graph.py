from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscribe.data.conditions import Conditions, condition_rates, study_conditions
from rayscribe.errors import InputError
from rayscribe.labels import CONDITIONS, NOT_MENTIONED, POSITIVE, UNLABELLED
from rayscribe.methods.knowledge_graph import Graph, associations, cooccurrence_graph


def conditions_of(positive: dict[str, list[int]], reports: int) -> Conditions:
    states = np.full((reports, len(CONDITIONS)), UNLABELLED, np.int8)
    states[:, :14] = NOT_MENTIONED
    for name, rows in positive.items():
        states[rows, CONDITIONS.index(name)] = POSITIVE
    return Conditions(states_RO=states, source="test")


def edge(graph: Graph, first: str, second: str) -> bool:
    return bool(graph.edges_NN[graph.names.index(first), graph.names.index(second)])


def test_what_stands_together_is_connected_and_what_does_not_is_not() -> None:
    rows = list(range(100))
    known = conditions_of({"Edema": rows[:20], "Pleural Effusion": rows[:18], "Fracture": rows[40:60]}, 100)
    words = [["line", "heart"] if row < 19 else ["heart"] for row in rows]
    graph = cooccurrence_graph(known, words, words=5, least=5)
    assert graph.names[0] == "root" and set(graph.names[1:]) == {
        "edema",
        "pleural effusion",
        "fracture",
        "line",
        "heart",
    }
    assert edge(graph, "edema", "pleural effusion") and edge(graph, "edema", "line")
    assert not edge(graph, "edema", "fracture")
    assert not edge(graph, "edema", "heart")  # it stands everywhere, so it says nothing
    both = next(one for one in graph.counts["edges"] if {one[0], one[1]} == {1, 2})
    assert both[2] == 18 and both[3] == pytest.approx(18 / (20 * 18 / 100))


def test_the_words_of_a_condition_are_no_further_node() -> None:
    known = conditions_of({"Pleural Effusion": list(range(10))}, 30)
    graph = cooccurrence_graph(known, [["pleural", "effusion", "tube"]] * 30, least=5)
    assert set(graph.names[1:]) == {"pleural effusion", "tube"}


def test_what_is_rare_is_left_out_and_nothing_left_is_an_error() -> None:
    known = conditions_of({"Edema": [0, 1], "Fracture": list(range(8))}, 30)
    graph = cooccurrence_graph(known, [["a"]] * 3 + [["b"]] * 27, least=5)
    assert set(graph.names[1:]) == {"fracture", "b"}
    with pytest.raises(InputError, match="lower --least"):
        cooccurrence_graph(conditions_of({}, 3), [["a"], ["b"], []], least=5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_studies_says_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = np.where(rng.random((60, len(CONDITIONS))) < 0.3, POSITIVE, NOT_MENTIONED).astype(np.int8)
    words = [[word for word in "abcdef" if rng.random() < 0.5] for _ in range(60)]
    order = rng.permutation(60)
    first = cooccurrence_graph(Conditions(states_RO=states, source="x"), words)
    second = cooccurrence_graph(Conditions(states_RO=states[order], source="x"), [words[at] for at in order])
    assert first.names == second.names and (first.edges_NN == second.edges_NN).all()


def test_independent_labels_give_hardly_an_edge() -> None:
    rng = np.random.default_rng(0)
    has = rng.random((2000, 30)) < 0.2
    _, lift, doubt = associations(has)
    above = (np.triu(doubt, 1) > 10.83).sum()
    assert above <= 3  # of 435 pairs, p = .001 each
    assert abs(lift[np.triu_indices(30, 1)].mean() - 1) < 0.02


def test_association_is_dunnings_ratio() -> None:
    has = np.array([[1, 1]] * 30 + [[1, 0]] * 10 + [[0, 1]] * 5 + [[0, 0]] * 55, bool)
    both, lift, doubt = associations(has)
    seen = np.array([30, 10, 5, 55.0])
    chance = np.array([40 * 35, 40 * 65, 60 * 35, 60 * 65]) / 100
    assert both[0, 1] == 30 and lift[0, 1] == pytest.approx(30 / 14)
    assert doubt[0, 1] == pytest.approx(2 * (seen * np.log(seen / chance)).sum())


def test_the_verbs_write_a_graph_and_priors_of_the_training_split(
    world: Path, tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    graph, priors = tmp_path / "graph.json", tmp_path / "priors.json"
    said = rayscribe("build", "graph", world, "--out", graph, "--least", "3")
    found = Graph.load(graph)
    assert f"{len(found.names)} nodes" in said and "published graph" in said and found.counts["reports"] == 42
    said = rayscribe("build", "priors", world, "--out", priors)
    rates = json.loads(priors.read_text())["rates"]
    assert list(rates) == list(CONDITIONS[:14]) and "42 studies" in said
    known = study_conditions("rules", ["a"], ["the lungs are clear ."])
    assert condition_rates(str(priors), known)[:14] == pytest.approx(list(rates.values()))
    for kind, out in (("graph", graph), ("priors", priors)):
        assert "exists already" in rayscribe("build", kind, world, "--out", out, code=1)
    assert "--least: too small" in rayscribe("build", "graph", world, "--out", tmp_path / "x", "--least", "0", code=1)
    assert "no such table of labels" in rayscribe(
        "build", "priors", world, "--out", tmp_path / "x", "--labels", tmp_path / "none.csv", code=1
    )
