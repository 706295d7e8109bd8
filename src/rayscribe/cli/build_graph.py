"""`rayscribe build graph` and `rayscribe build priors`: what the training split says of conditions, as files.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import TextConfig
from rayscribe.errors import InputError
from rayscribe.files import write_text

_USUAL = TextConfig()


def build_graph(arguments: list[str]) -> None:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Build:
        """Connects conditions and words that occur together in training reports: a knowledge graph for --method.graph.

        OUT holds words of reports: the terms of the data hold for it.
        """

        data: tyro.conf.Positional[Path]
        "the manifest"
        out: Path
        "the graph, JSON"
        labels: str = "rules"
        "states of the conditions: `rules`, or a table made by `rayscribe label` or elsewhere"
        entities: str = "lexicon"
        "clinical words: `lexicon`, the built-in rules, or a file made by `rayscribe build entities`"
        words: int = 40
        "at most so many words beside the conditions, the most frequent ones"
        least: int = 5
        "reports in which a node, or two connected ones, occur"
        lift: float = 1.5
        "how many times more often than chance two connected ones occur together"
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section
        "of the report, as the training will read it"
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning
        "as the training will clean it"

    _build_graph(parsed(Build, arguments, "build graph"))


def _build_graph(options: Any) -> None:
    for flag, fits in (("--words", options.words >= 0), ("--least", options.least >= 1), ("--lift", options.lift > 0)):
        if not fits:
            raise InputError(f"{flag}: too small")
    _check_new(options.out)
    from rayscribe.data.entities import study_entities
    from rayscribe.methods import recipe_with
    from rayscribe.methods.knowledge_graph import PUBLISHED, cooccurrence_graph

    text = replace(_USUAL, section=options.section, cleaning=options.cleaning)
    ids, reports, conditions = _training(options.data, options.labels, text)
    found = study_entities(options.entities, ids, reports, section=options.section)
    graph = cooccurrence_graph(conditions, found, words=options.words, least=options.least, lift=options.lift)
    graph.save(options.out)
    print(
        f"{len(graph.names)} nodes, {len(graph.counts['edges'])} edges beside the root's in {len(ids)} reports; "
        f"{graph.density:.0%} of all pairs (published graph: {PUBLISHED.density:.0%}); wrote {options.out}"
    )
    name = recipe_with("graph")
    print(
        f"next: rayscribe train {name} --data {options.data} --method.graph {options.out} --method.retrieval FOLDER --run RUN"
    )


def build_priors(arguments: list[str]) -> None:
    import tyro

    def build(
        data: tyro.conf.Positional[Path],
        out: Path,
        labels: str = "rules",
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section,
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning,
    ) -> None:
        """Counts how often each condition is positive in the training split: PromptMRG's base probabilities.

        Training counts them itself; a file carries those of one data set to another (--method.priors OUT).

        Args:
            data: the manifest
            out: the priors, JSON
            labels: states of the conditions: `rules`, or a table made by `rayscribe label` or elsewhere
            section: of the report, as the training will read it
            cleaning: as the training will clean it
        """
        _check_new(out)
        from rayscribe.labels import CONDITIONS

        ids, _, conditions = _training(data, labels, replace(_USUAL, section=section, cleaning=cleaning))
        labelled, rates_O = conditions.is_labelled_O, conditions.positive_rates_O()
        rates = {name: round(float(rates_O[at]), 4) for at, name in enumerate(CONDITIONS) if labelled[at]}
        about: dict[str, Any] = {
            "format": "rayscribe-priors-1",
            "labels": conditions.source,
            "studies": len(ids),
            "section": section,
            "cleaning": cleaning,
            "rates": rates,
        }
        write_text(out, json.dumps(about, indent=1) + "\n")
        print("\n".join(f"{name:28} {rate:.3f}" for name, rate in rates.items()))
        print(f"{len(ids)} studies, labels of {conditions.source}; wrote {out}")

    parsed(build, arguments, "build priors")


def _check_new(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out}: exists already; delete it, or give another --out")


def _training(data: Path, labels: str, text: TextConfig) -> tuple[list[str], list[str], Any]:
    """Ids, cleaned reports and conditions of the training studies that have the section."""
    from rayscribe.data.conditions import study_conditions
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.split_reports import cleaned_report

    pairs = [(study.id, cleaned_report(study, text)) for study in read_manifest(data).split("train")]
    kept = [(id_, report) for id_, report in pairs if report]
    if not kept:
        raise InputError(f"{data}: no training study has the section {text.section!r} (--section)")
    ids, reports = [id_ for id_, _ in kept], [report for _, report in kept]
    return ids, reports, study_conditions(labels, ids, reports)
