"""`rayscribe build KIND`: what a method reads beside the manifest. `train` builds it too; these verbs are for choosing how."""

from collections.abc import Callable

from rayscribe.cli.arguments import choice


def build(arguments: list[str]) -> None:
    """Builds negatives, a retrieval index, entities, priors or a graph from a manifest."""
    kind = choice(arguments, tuple(_KINDS), "kind", "rayscribe build KIND DATA --out PATH [options]")
    _KINDS[kind](arguments[1:])


def _negatives(arguments: list[str]) -> None:
    from rayscribe.cli.build_negatives import build_negatives

    build_negatives(arguments)


def _retrieval(arguments: list[str]) -> None:
    from rayscribe.cli.build_retrieval import build_retrieval

    build_retrieval(arguments)


def _entities(arguments: list[str]) -> None:
    from rayscribe.cli.build_entities import build_entities

    build_entities(arguments)


def _priors(arguments: list[str]) -> None:
    from rayscribe.cli.build_graph import build_priors

    build_priors(arguments)


def _graph(arguments: list[str]) -> None:
    from rayscribe.cli.build_graph import build_graph

    build_graph(arguments)


_KINDS: dict[str, Callable[[list[str]], None]] = {
    "negatives": _negatives,
    "retrieval": _retrieval,
    "entities": _entities,
    "priors": _priors,
    "graph": _graph,
}
