"""RadGraph F1 (Jain et al., 2021; reward levels of Delbrouck et al., 2022): shared entities and relations of two reports.

The graphs come from the package `radgraph` with a model on disk, or from precomputed RadGraph JSON. The model is neither
shipped nor downloaded.

Shapes: R reports, K columns, S samples.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.metrics.statistics import Floats, Rows

LEVELS = ("simple", "partial", "complete")
"Entities; entities and whether they have a relation; entities and their relations."

RADGRAPH_COLUMNS = (*(f"radgraph_{level}" for level in LEVELS), "reports")

Annotation = Mapping[str, Any]
'RadGraph\'s JSON of one report: {"entities": {id: {"tokens", "label", "relations": [[type, id], ...], ...}}, ...}.'

MODELS = ("radgraph", "radgraph-xl")
"Supported model types; the package's echograph is not for X-rays, modern-radgraph-xl goes wrong under transformers 5."

_CHUNK = 64  # reports per call; the package keeps one object per span of all reports in a call


def rewards(hypothesis: Annotation, reference: Annotation) -> tuple[float, float, float]:
    """F1 of one pair of reports at each of `LEVELS`, in [0, 1], as the package computes it; 0 if either has no entities.

    Repeated facts count once. Like the package, it lower-cases entities with relations at the last level only.
    """
    simple, partial, complete = (
        _f1(facts(hypothesis), facts(reference))
        for facts in (_entities, _entities_with_presence, _entities_with_relations)
    )
    return simple, partial, complete


def radgraph_rows(hypotheses: Sequence[Annotation | None], references: Sequence[Annotation | None]) -> Rows:
    """Sufficient statistics: each report's rewards, whose means are the scores. A report without annotation scores 0."""
    assert len(hypotheses) == len(references)
    table_RK = np.zeros((len(references), len(RADGRAPH_COLUMNS)))
    table_RK[:, -1] = 1
    for row, (hypothesis, reference) in enumerate(zip(hypotheses, references)):
        if hypothesis is not None and reference is not None:
            table_RK[row, :-1] = rewards(hypothesis, reference)
    return Rows(RADGRAPH_COLUMNS, table_RK, radgraph_score)


def radgraph_score(sums_SK: Floats) -> dict[str, Floats]:
    """`radgraph_{simple,partial,complete}` (S,): mean rewards, in [0, 1]."""
    return {name: sums_SK[:, place] / sums_SK[:, -1] for place, name in enumerate(RADGRAPH_COLUMNS[:-1])}


def read_annotations(path: Path) -> dict[str, Annotation]:
    """Precomputed RadGraph JSON: annotations by study id. Raises InputError if the file holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); give RadGraph's JSON") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{path}: not JSON ({error}); give RadGraph's annotations by study id") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}; it must be an object with one annotation per study id"
        )
    for study, annotation in content.items():
        wrong = _what_is_wrong(annotation)
        if wrong:
            raise InputError(f"{path}: {study!r}: {wrong}; write it as RadGraph does")
    return content


@dataclass(frozen=True, slots=True)
class RadGraph:
    """An annotator; `RadGraph.load(folder)` loads one."""

    name: str
    annotator: Any

    @classmethod
    def load(cls, folder: Path) -> RadGraph:
        """Loads an unpacked model of the package, in a folder named after its type: config.json, vocabulary/, weights.th.

        The transformer that its config names must be a local folder (absolute, or inside `folder`) or in the local cache of the
        hub; only its config and tokenizer are read, as weights.th holds its weights. Raises InputError where a part is missing.
        """
        try:
            package = importlib.import_module("radgraph")  # seconds to import, and optional
            cached_transformers = importlib.import_module("radgraph.allennlp.common.cached_transformers")
        except ImportError as error:
            raise InputError(
                f"RadGraph needs its package ({error}); install it: pip install 'rayscribe[radgraph]'"
            ) from error
        if folder.name not in MODELS:
            raise InputError(f"{folder}: unknown model type; name the folder after its model: {' or '.join(MODELS)}")
        weights = folder / "weights.th"
        for path in (folder / "config.json", folder / "vocabulary" / "non_padded_namespaces.txt", weights):
            if not path.is_file():
                raise InputError(f"{path}: missing; unpack the published {folder.name}.tar.gz there")
        config = _with_local_transformer(folder)
        with tempfile.TemporaryDirectory() as temporary:
            # The package looks up a model by cache and type, and locks its vocabulary, which may be read-only.
            copy = Path(temporary) / folder.name
            shutil.copytree(folder / "vocabulary", copy / "vocabulary", copy_function=shutil.copyfile)
            (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
            (copy / "weights.th").symlink_to(weights.resolve())
            ready_tokenizer(cached_transformers, config["dataset_reader"]["token_indexers"]["bert"]["model_name"])
            try:
                with contextlib.redirect_stdout(sys.stderr):  # it prints to stdout
                    # On the CPU, where it loads weights as plain weights only.
                    annotator = package.RadGraph(model_type=folder.name, model_cache_dir=temporary, cuda=-1)
            except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                raise InputError(f"{weights}: not the weights of this model: {error}") from error
        return cls(name=f"{folder.name} {sha256_of(weights)[:12]}", annotator=annotator.eval())

    def annotate(self, reports: Sequence[str]) -> list[Annotation | None]:
        """One annotation per report; None for an empty report."""
        import torch  # seconds to import; only needed here

        found: list[Annotation | None] = [None] * len(reports)
        rows = [row for row, report in enumerate(reports) if report.strip()]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Document .* single token")  # such reports are fine
                annotations = self.annotator([reports[row] for row in chunk])
            for place, row in enumerate(chunk):
                found[row] = annotations[str(place)]
        return found


def ready_tokenizer(cached_transformers: Any, transformer: str) -> None:
    """Adds the methods that the package calls and transformers 5 dropped to the package's tokenizer of `transformer`."""
    for options in ({"use_fast": True}, {"use_fast": True, "cache_dir": None}):  # as its embedder and its indexer ask
        tokenizer = cached_transformers.get_tokenizer(transformer, **options)
        if not hasattr(tokenizer, "encode_plus"):
            tokenizer.encode_plus = tokenizer.__call__
        if not hasattr(tokenizer, "build_inputs_with_special_tokens"):
            tokenizer.build_inputs_with_special_tokens = partial(_with_ends, tokenizer)


def _with_ends(tokenizer: Any, first: list[int], second: list[int] | None = None) -> list[int]:
    """BERT's ids of one or two texts: begin, first, end, second, end."""
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    return [begin, *first, end] + ([] if second is None else [*second, end])


def _with_local_transformer(folder: Path) -> dict[str, Any]:
    """The model's config, with the name of its transformer replaced by a local folder."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        parts = (
            config["dataset_reader"]["token_indexers"]["bert"],
            config["model"]["embedder"]["token_embedders"]["bert"],
        )
        names = [str(part["model_name"]) for part in parts]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the config of a RadGraph model ({error!r}); unpack it again") from error
    for part, name in zip(parts, names):
        part["model_name"] = str(_transformer_folder(folder, name))
    return config


def _transformer_folder(folder: Path, name: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    found = folder / name  # an absolute path stays as it is
    if not found.is_dir():
        try:
            cached = try_to_load_from_cache(name, "config.json")
        except HFValidationError:  # a path, not a name
            cached = None
        found = Path(cached).parent if isinstance(cached, str) else found
    # Without a vocabulary transformers 5 builds a tokenizer that knows no word, without an error.
    if not (found / "config.json").is_file() or not any((found / x).is_file() for x in ("vocab.txt", "tokenizer.json")):
        raise InputError(
            f"{folder / 'config.json'}: its transformer {name!r} is neither a local folder nor in the local cache of the hub "
            f"with config.json and vocab.txt or tokenizer.json; put these into {folder / name}"
        )
    return found.resolve()


def _f1(hypothesis: set[tuple[Any, ...]], reference: set[tuple[Any, ...]]) -> float:
    hits = len(hypothesis & reference)
    if not hits:
        return 0.0
    precision, recall = hits / len(hypothesis), hits / len(reference)
    return 2 * precision * recall / (precision + recall)


def _entities(annotation: Annotation) -> set[tuple[Any, ...]]:
    return {(entity["tokens"], entity["label"]) for entity in annotation["entities"].values()}


def _entities_with_presence(annotation: Annotation) -> set[tuple[Any, ...]]:
    return {
        (entity["tokens"], entity["label"], bool(entity["relations"])) for entity in annotation["entities"].values()
    }


def _entities_with_relations(annotation: Annotation) -> set[tuple[Any, ...]]:
    entities = annotation["entities"]
    facts: set[tuple[Any, ...]] = set()
    for entity in entities.values():
        if not entity["relations"]:
            facts.add((entity["tokens"], entity["label"]))
        for kind, other in entity["relations"]:
            facts.add((entity["tokens"].lower(), entity["label"], kind, entities[other]["tokens"].lower()))
    return facts


def _what_is_wrong(annotation: object) -> str | None:
    entities = annotation.get("entities") if isinstance(annotation, dict) else None
    if not isinstance(entities, dict):
        return 'no object "entities"'
    for name, entity in entities.items():
        if not isinstance(entity, dict) or not all(isinstance(entity.get(key), str) for key in ("tokens", "label")):
            return f'entity {name!r} without the texts "tokens" and "label"'
        relations = entity.get("relations")
        if not isinstance(relations, list):
            return f'entity {name!r} without the list "relations"'
        for relation in relations:
            if not (isinstance(relation, list) and len(relation) == 2 and all(isinstance(x, str) for x in relation)):
                return f"entity {name!r} has the relation {relation!r}, which is no pair of a type and an id"
            if relation[1] not in entities:
                return f"entity {name!r} has a relation to {relation[1]!r}, which is no entity of it"
    return None
