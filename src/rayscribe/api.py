"""The functions of `import rayscribe as rs`. Heavy imports stand inside them, so that the import itself is light.

>>> import rayscribe as rs
>>> model = rs.load("runs/r2gen")
>>> draft = model.draft(["front.png", "side.png"])
>>> print(draft.text)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from rayscribe.errors import InputError, need_packages
from rayscribe.progress import ProgressBar

if TYPE_CHECKING:
    from rayscribe.classifiers.config import ClassifyConfig
    from rayscribe.classifiers.folder import TrainedClassifier
    from rayscribe.config import RunConfig
    from rayscribe.data.image_inputs import ImageInput
    from rayscribe.data.images import ImageFile
    from rayscribe.data.manifest import Manifest
    from rayscribe.drafts import DecodingConfig
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.evaluation.scorers import Scorers
    from rayscribe.inference.writer import Writer
    from rayscribe.reports.document import Document

_HELD_BACK = 8  # of the training reports for `score`, every eighth chooses the constant report


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained model, as `load` opens it.

    Example:
        >>> model = rs.load("runs/r2gen")
        >>> model.draft("front.png").text
    """

    folder: Path
    kind: Literal["report model", "vision LLM", "classifier"]
    _opened: Writer | TrainedClassifier = field(repr=False)

    @overload
    def draft(  # type: ignore[overload-overlap]  # a path is a sequence of texts, too; it is taken as a path
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        decoding: DecodingConfig | None = None,
        best: int = 1,
        classifier: Model | None = None,
    ) -> Document: ...

    @overload
    def draft(
        self,
        images: Sequence[Sequence[ImageInput]],
        *,
        decoding: DecodingConfig | None = None,
        best: int = 1,
        classifier: Model | None = None,
    ) -> list[Document]: ...

    def draft(
        self,
        images: ImageInput | Sequence[ImageInput] | Sequence[Sequence[ImageInput]],
        *,
        decoding: DecodingConfig | None = None,
        best: int = 1,
        classifier: Model | None = None,
    ) -> Document | list[Document]:
        """Drafts a report for one study, or for several.

        Args:
            images: the images of one study (paths, PIL images, numpy arrays, pydicom data sets; one of them or a list), or a
                list of such lists. Arrays are uint8 or uint16 of shape (height, width), black is air.
            decoding: how tokens are chosen; R2Gen's beam search when None
            best: number of reports, best first; the others are `alternatives`
            classifier: a classifier whose findings stand beside the draft, and in the prompt of a model that reads some

        Returns:
            A draft for one study: `.text`, `.sentences`, `.findings` (states, with calibrated probabilities in [0, 1] where
            a classifier gives them), `.evidence` (for every sentence a grid in [0, 1] for every image), `.alternatives`,
            `.warnings`. A list of drafts for several studies. A classifier gives findings and an empty text.

        Raises:
            InputError: an image is no radiograph, or cannot be read; the message names it

        Example:
            >>> draft = model.draft(["front.png", "side.png"], best=3)
            >>> draft.text, draft.findings, draft.alternatives
        """
        studies, is_one = _studies(images)
        if classifier is not None and classifier.kind != "classifier":
            raise InputError(f"{classifier.folder}: is no classifier")
        if self.kind == "classifier":
            drafts = [self._findings(study) for study in studies]
        else:
            drafts = self._reports(studies, decoding, best, classifier)
        return drafts[0] if is_one else drafts

    def _classified(self, files: Sequence[ImageFile]) -> Any:
        from rayscribe.classifiers.predict import classified

        return classified(cast("TrainedClassifier", self._opened), files)

    def _findings(self, files: Sequence[ImageFile]) -> Document:
        """A classifier's answer as a draft without text."""
        from rayscribe import __version__
        from rayscribe.models.folder import weights_sha256
        from rayscribe.provenance import terms_of
        from rayscribe.reports.document import Author, Document, Report
        from rayscribe.reports.drafting import findings_of

        found, trained = self._classified(files), cast("TrainedClassifier", self._opened)
        author = Author(
            name=self.folder.resolve().name,
            system="classifier",
            weights_sha256=weights_sha256(self.folder),
            rayscribe=__version__,
            section="",
            terms=terms_of(trained.data),
        )
        return Document(
            model=author,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            reports=(Report(sentences=()),),
            images=len(files),
            findings=findings_of(found),
            warnings=tuple(found.warnings),
        )

    def _reports(
        self,
        studies: Sequence[Sequence[ImageFile]],
        decoding: DecodingConfig | None,
        best: int,
        classifier: Model | None,
    ) -> list[Document]:
        """In batches, as `rayscribe generate` writes them."""
        from rayscribe.drafts import DecodingConfig
        from rayscribe.inference.reporter import BATCH
        from rayscribe.reports.drafting import author_of, document_of, findings_of, without_names

        writer, author = cast("Writer", self._opened), author_of(self.folder)
        documents = []
        for start in range(0, len(studies), BATCH):
            batch = studies[start : start + BATCH]
            found = [None if classifier is None else classifier._classified(files) for files in batch]
            read = [
                writer.read(files, states=one.states() if one is not None and writer.needs_states else None)
                for files, one in zip(batch, found, strict=True)
            ]
            drafts = writer.draft(read, decoding or DecodingConfig(), best=best)
            documents += [
                document_of(
                    without_names(draft, [Path(file.name) for file in files]),
                    author,
                    images=len(files),
                    created=datetime.now(UTC),
                    findings=() if one is None else findings_of(one),
                )
                for draft, files, one in zip(drafts, batch, found, strict=True)
            ]
        return documents


def load(folder: str | Path, *, device: str | None = None, base: str | None = None, download: bool = False) -> Model:
    """Opens a model folder: a report model's, a vision LLM's or a classifier's.

    Args:
        folder: what `train` or `rayscribe export model` wrote; it needs no other file
        device: cpu, cuda or cuda:N; a GPU where there is one when None
        base: vision LLMs: where the base model lies now, if it was moved
        download: vision LLMs: fetch the base model from the Hugging Face hub when it is not on this disk

    Raises:
        InputError: the folder is none, damaged, or of another version; the device is not there

    Example:
        >>> model = rs.load("runs/r2gen", device="cpu")
    """
    from rayscribe.classifiers.folder import CLASSIFIER_FORMAT, load_classifier
    from rayscribe.models.device import chosen_device
    from rayscribe.models.folder import VISION_LLM, format_of

    folder = Path(folder)
    kind = format_of(folder)
    if kind == CLASSIFIER_FORMAT:
        return Model(folder=folder, kind="classifier", _opened=load_classifier(folder, chosen_device(device)))
    writer = open_reporter(folder, device=device, base=base, download=download)
    return Model(folder=folder, kind="vision LLM" if kind == VISION_LLM else "report model", _opened=writer)


def open_reporter(
    folder: Path, *, base: str | None = None, download: bool = False, device: str | None = None
) -> Writer:
    """A model that writes reports, as the command line and the service use it; `load` is for programs.

    `base`, `download`: where a vision LLM's base model lies now, and whether it may be fetched. `device`: cpu, cuda or
    cuda:N; None takes the first GPU, or the CPU where there is none.
    """
    from rayscribe.inference.writer import open_own
    from rayscribe.models.device import chosen_device
    from rayscribe.models.folder import VISION_LLM, format_of

    place = chosen_device(device)
    if format_of(folder) == VISION_LLM:
        need_packages("vlm", "transformers", "peft")
        from rayscribe.vision_llm.writer import VisionLlmWriter  # transformers and peft: seconds to import

        return VisionLlmWriter.load(folder, place, base=base, download=download)
    if base is not None or download:
        raise InputError(f"--base, --download: {folder} is no vision LLM and holds all of its weights")
    return open_own(folder, place)


def list_recipes() -> list[str]:
    """Names that `recipe` knows; behind each may stand `+` and a plug-in, such as `r2gen+ithn`.

    Example:
        >>> "r2gen" in rs.list_recipes()
        True
    """
    from rayscribe.methods import recipes

    return list(recipes())


def recipe(name: str, changes: Mapping[str, Any] | None = None, *, as_published: bool = False) -> RunConfig[Any]:
    """The settings of a published method, to be trained with `train`.

    Args:
        name: one of `list_recipes`, with plug-ins behind `+`
        changes: values by dotted path, as the flags of `rayscribe train` name them
        as_published: the paper's own choices where our defaults differ

    Raises:
        InputError: no such recipe or setting; the message names the nearest

    Example:
        >>> config = rs.recipe("r2gen", {"train.epochs": 20, "backbone.trainable": False})
        >>> config.train.epochs
        20
    """
    from rayscribe.methods import as_published as published
    from rayscribe.methods import find_recipe, run_from_plain
    from rayscribe.settings import to_plain

    run = find_recipe(name)
    if as_published:
        run, _ = published(run)
    if not changes:
        return run
    plain = to_plain(run)
    for path, value in changes.items():
        *steps, last = path.split(".")
        part = plain
        for step in steps:
            part = part.get(step, {}) if isinstance(part, dict) else {}
        if not isinstance(part, dict) or last not in part or isinstance(part[last], dict):
            near = get_close_matches(path, _paths(plain), n=1)
            raise InputError(f"{path}: no such setting of {name}" + (f"; did you mean {near[0]}?" if near else ""))
        part[last] = value
    try:
        return run_from_plain(plain)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from error


def train(
    config: RunConfig[Any] | ClassifyConfig,
    data: str | Path,
    run: str | Path,
    *,
    resume: bool = False,
    features: str | Path | None = None,
    device: str | None = None,
    generations: int = 1,
) -> Model:
    """Trains a method on a manifest; prepares what it needs beside it. Prints its progress.

    Args:
        config: of `recipe`, or a classifier's settings
        data: the manifest of `rayscribe prepare`
        run: the folder to write, then a model folder; an existing run is never overwritten
        resume: go on with an interrupted run, with the same settings
        features: folder of the feature cache of frozen image encoders; the user's cache folder when None
        device: cpu, cuda or cuda:N; a GPU where there is one when None
        generations: train this many models, each taught by the one before (methods with self-distillation)

    Returns:
        The best model by the validation metric (`config.train.metric`); the test split is never read.

    Raises:
        InputError: the data do not go with the settings, the folder holds a run, the loss is no number, the disk is full

    Example:
        >>> model = rs.train(rs.recipe("r2gen"), data="iu.parquet", run="runs/mine")
    """
    from rayscribe.classifiers.config import ClassifyConfig
    from rayscribe.training.learner import Place
    from rayscribe.training.run import train_generations

    kept = None if features is None else Path(features)
    place = Place(data=Path(data), run=Path(run), resume=resume, features=kept, device=device)
    if not isinstance(config, ClassifyConfig):
        return load(train_generations(config, place, generations=generations), device=device)
    from rayscribe.classifiers.run import train_classifier

    if generations != 1:
        raise InputError(f"generations {generations}: a classifier learns nothing from an earlier one")
    train_classifier(config, place.data, place.run, resume=resume, features=kept, device=device)
    return load(place.run, device=device)


def evaluate(
    predictions: str | Path | Mapping[str, str],
    data: str | Path | Manifest,
    *,
    split: str = "test",
    protocol: Protocol | None = None,
    scorers: Scorers | None = None,
    stage: Callable[[str], None] = lambda name: None,
    progress: ProgressBar = iter,
) -> dict[str, Any]:
    """Scores predictions for a split of a manifest: what `rayscribe evaluate` computes. Needs no model and no torch.

    Args:
        predictions: JSONL, CSV or JSON with ids and reports, or reports by study id; your own or another system's
        data: the manifest, or its path
        split: train, val or test; a look at test is noted in the folder of the model that wrote the file
        protocol: how references are made; findings, full references when None
        scorers: labeler, RadGraph, sentence encoder, label tables; the built-in rules alone when None
        stage: is told each of the stages as it begins
        progress: wraps the loops that take long

    Returns:
        JSON values: `scores` with 95 % intervals, the same of `floors` that see no image, `signature` (the protocol),
        `alarms` in words, subsets, and per-report `statistics`.

    Raises:
        InputError: studies lack a prediction, the split lacks the section, or the file was written for another protocol

    Example:
        >>> result = rs.evaluate("predictions.jsonl", data="iu.parquet", split="test")
        >>> result["scores"]["bleu4"]
    """
    from rayscribe.data.manifest import Manifest, read_manifest
    from rayscribe.data.predictions import read_predictions
    from rayscribe.evaluation.evaluate import evaluate_predictions, note_scored
    from rayscribe.evaluation.protocol import Protocol, check_protocol

    protocol = protocol or Protocol()
    path = Path(predictions) if isinstance(predictions, str | Path) else None
    if path is not None:
        check_protocol(path, protocol)
    reports = predictions if isinstance(predictions, Mapping) else read_predictions(Path(predictions))
    result = evaluate_predictions(
        reports,
        data if isinstance(data, Manifest) else read_manifest(data),
        split=split,
        protocol=protocol,
        scorers=scorers,
        stage=stage,
        progress=progress,
    )
    if split == "test" and path is not None:
        note_scored(path, result)
    return result


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    training: Sequence[str] = (),
    patients: Sequence[str] = (),
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu",
) -> dict[str, Any]:
    """Scores reports against references, two lists of texts: what `evaluate` computes without images.

    Args:
        references: what the radiologists wrote, one text a study
        hypotheses: what the system wrote, in the same order
        training: training reports, for the floors that need some (a constant report, the most frequent one); without them
            the floor is the system's own reports given to other studies
        patients: the patient of every study, by whom the bootstrap resamples; studies when empty
        cleaning: of references and hypotheses: R2Gen's for IU X-Ray, or for MIMIC-CXR

    Returns:
        As `evaluate` does.

    Raises:
        InputError: the lists differ in length, are empty, or hold an empty reference

    Example:
        >>> result = rs.score(["The heart is enlarged."], ["Heart size is normal."])
        >>> result["scores"]["bleu1"]
    """
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.evaluate import evaluate_predictions
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.evaluation.scorers import Scorers
    from rayscribe.study import Study

    for name, texts in (("references", references), ("hypotheses", hypotheses), ("training", training)):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{name}: give a list of texts")
    if not references or len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references and {len(hypotheses)} hypotheses; give one of each a study")
    if patients and len(patients) != len(references):
        raise InputError(f"{len(references)} references and {len(patients)} patients; give one a study")
    if empty := [place for place, text in enumerate(references) if not text.strip()]:
        raise InputError(f"reference {empty[0]} (counted from 0) is empty; leave the study out")
    subjects = patients or [""] * len(references)
    studies = [
        Study(id=str(place), images=(), findings=text, split="test", subject=subject)
        for place, (text, subject) in enumerate(zip(references, subjects, strict=True))
    ]
    for place, text in enumerate(training):
        part = "val" if place % _HELD_BACK == 0 else "train"
        studies.append(Study(id=f"training {place}", images=(), findings=text, split=part))
    return evaluate_predictions(
        {str(place): text for place, text in enumerate(hypotheses)},
        Manifest(studies=tuple(studies), provenance={"source": "two lists of reports"}),
        split="test",
        protocol=Protocol(cleaning=cleaning),
        scorers=Scorers(image_floors=False),
    )


def label(reports: Sequence[str], *, reading: Literal["plain", "chexpert"] = "plain") -> list[dict[str, str]]:
    """The 14 CheXpert observations of every report, by the built-in rules.

    Args:
        reports: texts, one a study
        reading: plain: as a radiologist reads; chexpert: as the CheXpert labeler answers, also where it misreads

    Returns:
        For every report the state of each observation: positive, negative, uncertain or not mentioned.

    Raises:
        InputError: a report is no text

    Example:
        >>> rs.label(["Small left pleural effusion."])[0]["Pleural Effusion"]
        'positive'
    """
    from rayscribe.labels import OBSERVATIONS, STATE_NAMES
    from rayscribe.metrics.labeler import RuleLabeler

    if isinstance(reports, str) or not all(isinstance(report, str) for report in reports):
        raise InputError("reports: give a list of texts")
    labels_RO = RuleLabeler(as_chexpert=reading == "chexpert").label(list(reports))
    return [
        {name: STATE_NAMES[int(state)] for name, state in zip(OBSERVATIONS, states_O, strict=True)}
        for states_O in labels_RO
    ]


def _studies(images: Any) -> tuple[list[list[ImageFile]], bool]:
    """The files of every study, and whether there is one study alone."""
    from rayscribe.data.image_inputs import image_file, is_one_image

    if is_one_image(images):
        images = [images]
    if not isinstance(images, Sequence) or len(images) == 0:
        raise InputError("name at least one image: a path, a PIL image, an array, a data set, or a list of them")
    is_one = all(is_one_image(one) for one in images)
    if not is_one and any(is_one_image(one) for one in images):
        raise InputError("images and lists of images are mixed; give one study's images, or a list of images a study")
    studies = [images] if is_one else images
    if empty := [place for place, study in enumerate(studies) if not isinstance(study, Sequence) or not len(study)]:
        raise InputError(f"study {empty[0]} (counted from 0) is no list of images, or an empty one")
    return [[image_file(image, number) for number, image in enumerate(study, 1)] for study in studies], is_one


def _paths(plain: Mapping[str, Any], at: str = "") -> list[str]:
    """Dotted paths of all settings."""
    return [
        path
        for name, value in plain.items()
        for path in (_paths(value, f"{at}{name}.") if isinstance(value, Mapping) else [f"{at}{name}"])
    ]
