"""Opens model folders and drafts reports from images.

>>> import rayscribe as rs
>>> model = rs.load("runs/r2gen")
>>> draft = model.draft(["front.png", "side.png"])
>>> print(draft.text)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from rayscribe.errors import InputError, need_packages

if TYPE_CHECKING:
    import torch

    from rayscribe.classifiers.folder import TrainedClassifier
    from rayscribe.data.image_inputs import ImageInput
    from rayscribe.data.images import ImageFile
    from rayscribe.drafts import DecodingConfig
    from rayscribe.inference.writer import Writer
    from rayscribe.reports.document import Document


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
        images: ImageInput | Iterable[ImageInput],
        *,
        decoding: DecodingConfig | None = None,
        best: int = 1,
        classifier: Model | None = None,
    ) -> Document: ...

    @overload
    def draft(
        self,
        images: Iterable[Iterable[ImageInput]],
        *,
        decoding: DecodingConfig | None = None,
        best: int = 1,
        classifier: Model | None = None,
    ) -> list[Document]: ...

    def draft(
        self,
        images: ImageInput | Iterable[ImageInput] | Iterable[Iterable[ImageInput]],
        *,
        decoding: DecodingConfig | None = None,
        best: int = 1,
        classifier: Model | None = None,
    ) -> Document | list[Document]:
        """Drafts a report for one study, or for several.

        Args:
            images: the images of one study (paths, PIL images, numpy arrays, pydicom data sets; one of them or a list), or a
                list of such lists. Arrays are uint8 or uint16 of shape (height, width), black is air. Generators are read, too.
            decoding: how tokens are chosen; R2Gen's beam search when None
            best: number of reports, best first; the others are `alternatives`
            classifier: a classifier whose findings stand beside the draft, and in the prompt of a model that reads some

        Returns:
            A draft for one study: `.text`, `.sentences`, `.findings` (states, with calibrated probabilities in [0, 1] where
            a classifier gives them), `.evidence` (for every sentence a grid in [0, 1] for every image), `.alternatives`,
            `.warnings`. A list of drafts for several studies. A classifier gives findings and an empty text.

        Raises:
            InputError: an image is no radiograph, or cannot be read; the message names it, by its place where it has no name

        Example:
            >>> draft = model.draft(["front.png", "side.png"], best=3)
            >>> draft.text, draft.findings, draft.alternatives
        """
        _check_options(decoding, best, classifier)
        studies, is_one = _studies(images)
        if self.kind == "classifier":
            drafts = [self._findings(study) for study in studies]
        else:
            drafts = self._reports(studies, decoding, int(best), classifier)
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


def load(
    folder: str | Path, *, device: str | torch.device | None = None, base: str | None = None, download: bool = False
) -> Model:
    """Opens a model folder: a report model's, a vision LLM's or a classifier's.

    Args:
        folder: what `train` or `rayscribe export model` wrote; it needs no other file
        device: cpu, cuda or cuda:N, or a torch.device; a GPU where there is one when None
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

    if not isinstance(folder, str | Path) or not str(folder):
        raise InputError(f"folder {folder!r}: give the path of a model folder, such as 'runs/r2gen'")
    folder, place = Path(os.path.expanduser(folder)), None if device is None else str(device)
    if not (folder / "model.json").is_file() and (newest := _newest_generation(folder)):
        raise InputError(f"{folder}: a run of several generations, no model; load the newest, {newest}")
    kind = format_of(folder)
    if kind == CLASSIFIER_FORMAT:
        return Model(folder=folder, kind="classifier", _opened=load_classifier(folder, chosen_device(place)))
    writer = open_reporter(folder, device=place, base=base, download=download)
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


def _check_options(decoding: object, best: object, classifier: object) -> None:
    from rayscribe.drafts import DecodingConfig

    if not isinstance(decoding, DecodingConfig | None):
        raise InputError(f"decoding: of type {type(decoding).__name__}; give rs.DecodingConfig(...), or None")
    if not isinstance(best, Integral) or isinstance(best, bool) or best < 1:
        raise InputError(f"best {best!r}: a whole number, at least 1")
    if not isinstance(classifier, Model | None):
        raise InputError(f"classifier: of type {type(classifier).__name__}; open its folder with rs.load(...)")
    if classifier is not None and classifier.kind != "classifier":
        raise InputError(f"{classifier.folder}: is no classifier")


def _studies(images: Any) -> tuple[list[list[ImageFile]], bool]:
    """The files of every study, and whether there is one study alone."""
    from rayscribe.data.image_inputs import image_file, is_one_image

    given = [images] if is_one_image(images) else list(images) if _is_listed(images) else []
    if not given:
        raise InputError("name at least one image: a path, a PIL image, an array, a data set, or a list of them")
    if not any(_is_listed(one) for one in given):
        return [[image_file(image, f"image {number}") for number, image in enumerate(given, 1)]], True
    if any(is_one_image(one) for one in given):
        raise InputError("images and lists of images are mixed; give one study's images, or a list of images a study")
    studies = []
    for place, one in enumerate(given, 1):
        files = list(one) if _is_listed(one) else []
        if not files:
            raise InputError(f"study {place}: no list of images, or an empty one (a {type(one).__name__})")
        studies.append([image_file(image, f"study {place}, image {number}") for number, image in enumerate(files, 1)])
    return studies, False


def _is_listed(value: object) -> bool:
    """Whether it is several images in an order: a list, a tuple, a generator."""
    from rayscribe.data.image_inputs import is_one_image

    return isinstance(value, Iterable) and not isinstance(value, bytes | Mapping | Set) and not is_one_image(value)


def _newest_generation(folder: Path) -> Path | None:
    """The model folder of the last generation in the folder of a run that trained several."""
    found = [path for path in folder.glob("generation-*") if (path / "model.json").is_file()]
    return max(found, key=lambda path: (len(path.name), path.name), default=None)
