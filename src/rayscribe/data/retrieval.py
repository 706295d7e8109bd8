"""The training reports most similar to an image: the index that `rayscribe build retrieval` makes (PromptMRG, spec A1.2).

A self-contained folder that is copied into every model that uses it:

retrieval.json        row order (study ids and patients), how the index was built, hashes of the files
bank.safetensors      one vector per training report and per name of 20 findings; the aligned kind also has the queries
                      of the training studies, each from a map that was fitted without that study
encoder.safetensors   aligned kind: image encoder and map to the reports' space
encoder/              CLIP kind: vision model and image processor, as transformers saves them

It contains no report text. The search is exact.

Shapes: R training reports, M width of the space, S studies, K reports per study, F names of findings.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rayscribe.data.images import Grey
from rayscribe.data.retrieval_encoders import AlignedEncoder, ClipEncoder
from rayscribe.errors import InputError
from rayscribe.files import sha256_of, whole_file
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

RETRIEVAL_FORMAT = "rayscribe-retrieval-1"
ABOUT, BANK = "retrieval.json", "bank.safetensors"
_BLOCK = 256  # studies
_MANY = 50_000  # number of reports from which FAISS searches, if installed


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """A loaded index. `about` is the content of retrieval.json."""

    folder: Path
    about: dict[str, Any]
    bank_RM: NDArray[np.float16]
    findings_FM: NDArray[np.float16]
    queries_RM: Tensor | None
    encoder: AlignedEncoder | ClipEncoder

    @classmethod
    def load(cls, folder: Path) -> Retrieval:
        """Loads an index. Raises InputError if it is missing, damaged or of another version."""
        about = _read_about(folder)
        for path in _damaged(folder, about):
            raise InputError(f"{path}: missing or damaged; copy the folder again, or build the index again")
        try:
            bank = load_file(folder / BANK)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder / BANK}: cannot be read ({error}); build the index again") from error
        if not len(bank["bank"]) == len(about["ids"]) == len(about["subjects"]):
            raise InputError(f"{folder / ABOUT}: does not match the rows of {BANK}; build the index again")
        encoder = AlignedEncoder.load(folder, about) if about["kind"] == "aligned" else ClipEncoder.load(folder)
        return cls(
            folder=folder,
            about=about,
            bank_RM=bank["bank"].numpy(),
            findings_FM=bank["findings"].numpy(),
            queries_RM=bank.get("queries"),
            encoder=encoder,
        )

    def save(self, folder: Path) -> None:
        """Writes a copy; every file is replaced as a whole, retrieval.json last."""
        there = folder / ABOUT
        same = there.is_file() and there.read_bytes() == (self.folder / ABOUT).read_bytes()
        if same and not _damaged(folder, self.about):
            return
        for name in (*self.about["sha256"], ABOUT):
            with whole_file(folder / name) as temporary:
                temporary.write_bytes((self.folder / name).read_bytes())

    @property
    def width(self) -> int:
        return int(self.bank_RM.shape[1])

    @property
    def ids(self) -> list[str]:
        """Study ids in row order."""
        found: list[str] = self.about["ids"]
        return found

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()

    def least_images_side(self) -> int:
        """Shortest image side that the encoder needs, in pixels."""
        return self.encoder.side

    def study_vectors(
        self,
        studies: Sequence[Study],
        *,
        folder: Path | None = None,
        device: torch.device | None = None,
        progress: ProgressBar = iter,
    ) -> Tensor:
        """Queries of the studies' images (S, M), float32 of unit length; `folder`: the feature cache.

        Studies of the bank use the maps that were fitted without them, so that they retrieve no better reports than a new study
        does.
        """
        rows = [self._query_rows.get(study_hash(study.id, study.sha256)) for study in studies]
        vectors_SM = torch.zeros(len(studies), self.width)
        new = [at for at, row in enumerate(rows) if row is None]
        if new:
            found = self.encoder.studies([studies[at] for at in new], folder=folder, device=device, progress=progress)
            vectors_SM[new] = found
        if self.queries_RM is not None:
            vectors_SM[[at for at, row in enumerate(rows) if row is not None]] = self.queries_RM[
                [row for row in rows if row is not None]
            ].float()
        return vectors_SM

    @cached_property
    def _query_rows(self) -> dict[str, int]:
        """Rows of the stored queries by study and images: another data set may contain a study with the same id."""
        if self.queries_RM is None:
            return {}
        return {name: row for row, name in enumerate(self.about["identities"])}

    def image_vector(self, images: Sequence[Grey]) -> Tensor:
        """The query (M) of one study from its images, as `read_image` returns them."""
        return self.encoder.images(images)

    def nearest(
        self, vectors_SM: Tensor, *, top: int, studies: Sequence[Study] | None = None, use_faiss: bool | None = None
    ) -> NDArray[np.int32]:
        """Rows of the `top` most similar reports (S, K), best first, by cosine.

        Ties are broken by row, except with FAISS. With `studies`, excludes rows of the same study or of the same patient (if
        known). `use_faiss` None: FAISS, an extra, searches among very many reports; it is exact as well. Raises InputError if
        too few rows remain.
        """
        without = [self._own_rows(study) for study in studies] if studies is not None else [[]] * len(vectors_SM)
        most = max(map(len, without), default=0)
        rows = len(self.bank_RM)
        if top + most > rows:
            raise InputError(
                f"{self.folder}: {rows} training reports are too few for {top} besides {most} of the same study or patient; "
                f"give --method.reports {max(1, rows - most)} or less"
            )
        if use_faiss is None:
            use_faiss = rows >= _MANY and importlib.util.find_spec("faiss") is not None
        search = self._faiss if use_faiss else self._exact
        found = search(vectors_SM, without, top, most)
        return np.array(found, np.int32).reshape(len(vectors_SM), top)

    def _exact(self, vectors_SM: Tensor, without: Sequence[list[int]], top: int, most: int) -> list[list[int]]:
        bank_MR = torch.from_numpy(self.bank_RM).float().T
        found: list[list[int]] = []
        for start in range(0, len(vectors_SM), _BLOCK):
            scores_SR = vectors_SM[start : start + _BLOCK].float() @ bank_MR
            for row, own in enumerate(without[start : start + _BLOCK]):
                scores_SR[row, own] = -torch.inf
            least_S = scores_SR.topk(top, dim=1).values[:, -1]
            for scores_R, least in zip(scores_SR, least_S):  # topk alone breaks ties arbitrarily
                rows = (scores_R >= least).nonzero()[:, 0]
                best = scores_R[rows].argsort(descending=True, stable=True)[:top]
                found.append(rows[best].tolist())
        return found

    def _faiss(self, vectors_SM: Tensor, without: Sequence[list[int]], top: int, most: int) -> list[list[int]]:
        """Searches for as many more as may have to be excluded, then excludes them."""
        import faiss

        index = faiss.IndexFlatIP(self.width)
        index.add(self.bank_RM.astype(np.float32))
        _, rows_SK = index.search(vectors_SM.float().numpy(), top + most)
        return [
            [row for row in rows if row not in own][:top]
            for rows, own in zip(rows_SK.tolist(), map(set, without), strict=True)
        ]

    def _own_rows(self, study: Study) -> list[int]:
        return sorted({*self._rows_of["", study.id], *(self._rows_of[study.subject, ""] if study.subject else ())})

    @cached_property
    def _rows_of(self) -> defaultdict[tuple[str, str], list[int]]:
        """Rows by (patient, "") and by ("", study)."""
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for row, (id_, subject) in enumerate(zip(self.ids, self.about["subjects"], strict=True)):
            found["", id_].append(row)
            if subject:
                found[subject, ""].append(row)
        return found


def study_hash(id_: str, sha256: Sequence[str]) -> str:
    """A hash of a study's id and images."""
    return hashlib.sha256("\n".join([id_, *sha256]).encode()).hexdigest()[:16]


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    if not path.is_file():
        raise InputError(
            f"{folder}: no index of reports (no {ABOUT}); make one with `rayscribe build retrieval DATA --out {folder}`"
        )
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != RETRIEVAL_FORMAT:
            raise InputError(f"{path}: format {about['format']!r}; this version reads {RETRIEVAL_FORMAT}")
        if not isinstance(about["sha256"], dict):
            raise TypeError("sha256 is no table")
        wanted = ("kind", "ids", "subjects", "identities", "sha256", "digest", "section", "cleaning")
        if lacking := [name for name in wanted if name not in about]:
            raise InputError(f"{path}: {lacking[0]} is missing; build the index again")
        # The names are of files that are read, and copied into a model's folder.
        if BANK not in about["sha256"] or any(
            Path(name).is_absolute() or ".." in Path(name).parts for name in about["sha256"]
        ):
            raise InputError(f"{path}: lists files that no index has; build it again")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an index of reports ({error!r}); build it again") from error
    return about


def _damaged(folder: Path, about: dict[str, Any]) -> list[Path]:
    """Files whose hash differs from that in retrieval.json."""
    named: dict[str, str] = about["sha256"]
    return [
        folder / name
        for name, digest in named.items()
        if not (folder / name).is_file() or sha256_of(folder / name) != digest
    ]
