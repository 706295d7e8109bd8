"""The service as a client sees it: drafts, findings, images, exports, errors, keys, limits."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from serving import ended, form, problem, service, views_of

from rayscribe.api.models import open_reporter
from rayscribe.classifiers.folder import load_classifier
from rayscribe.classifiers.predict import classified
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.reports.document import read_document
from rayscribe.serve import access
from rayscribe.serve.app import create_app
from rayscribe.serve.metrics import ServiceMetrics
from rayscribe.serve.responses import DraftResponse, FindingsResponse, LabelsResponse, ProblemResponse, StudyResponse
from rayscribe.serve.settings import ServeConfig

Open = Callable[..., TestClient]


@pytest.fixture
def open_service(served: dict[str, Path], tmp_path: Path) -> Iterator[Open]:
    """Starts a service in this process and returns its client; ends it after the test."""
    with ExitStack() as stack:

        def start(*names: str, **settings: Any) -> TestClient:
            settings = {"database": f"sqlite:///{tmp_path / 'jobs.sqlite'}"} | settings
            return stack.enter_context(service(served, *names, **settings))

        yield start


@pytest.fixture(scope="module")
def images(world: Path) -> list[Path]:
    return views_of(world)


def letters(text: str) -> str:
    """Without what is set for readers: capitals, and blanks in front of marks."""
    return "".join(text.lower().split())


def test_a_draft_is_the_report_that_predict_writes(
    open_service: Open, served: dict[str, Path], images: list[Path]
) -> None:
    client = open_service()
    answer = client.post("/v1/reports", files=form(images), data={"options": json.dumps({"best": 2})})
    assert answer.status_code == 200, answer.text
    document = read_document(answer.content, "answer")
    writer = open_reporter(served["r2gen"])
    (draft,) = writer.draft([writer.read(images)], DecodingConfig(), best=2)
    assert [letters(report.text) for report in document.reports] == [letters(text) for text in draft.reports]
    assert answer.json()["disclaimer"] == DISCLAIMER and answer.json()["status"] == "preliminary"
    assert document.model.name == "r2gen" and document.images == len(images)


def test_findings_beside_a_draft_are_the_classifiers(
    open_service: Open, served: dict[str, Path], images: list[Path]
) -> None:
    client = open_service()
    document = read_document(client.post("/v1/reports", files=form(images)).content, "answer")
    found = classified(load_classifier(served["findings"]), images)
    told = {finding.name: finding.probability for finding in document.findings}
    assert told == {name: pytest.approx(p, abs=1e-4) for name, p in found.probabilities.items()}
    assert all(finding.wording for finding in document.findings)


def test_every_sentence_says_where_the_decoder_looked_on_every_image(open_service: Open, images: list[Path]) -> None:
    document = read_document(open_service().post("/v1/reports", files=form(images)).content, "answer")
    for sentence in document.reports[0].sentences:
        assert len(sentence.evidence) == len(images)
        assert max(max(row) for grid in sentence.evidence for row in grid) == 1.0


def test_a_finding_is_shown_on_the_image(open_service: Open, served: dict[str, Path], images: list[Path]) -> None:
    client = open_service()
    name = load_classifier(served["findings"]).findings[0]
    answer = client.post("/v1/classify", files=form(images), data={"options": json.dumps({"evidence": name})}).json()
    grids = np.array(answer["evidence"]["grids"])
    assert answer["evidence"]["finding"] == name and grids.shape[0] == len(images) and grids.max() in (0.0, 1.0)
    assert answer["disclaimer"] == DISCLAIMER
    told = problem(client.post("/v1/classify", files=form(images), data={"options": '{"evidence": "Gout"}'}), 422)
    assert name in told["detail"]


def test_an_image_comes_back_as_the_model_reads_it(open_service: Open, images: list[Path]) -> None:
    answer = open_service().post("/v1/images", files=form(images[:1], "image"))
    assert answer.headers["content-type"] == "image/png" and answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(shown, np.asarray(Image.open(images[0]).convert("L")))


def test_the_labeler_reads_a_text(open_service: Open) -> None:
    answer = open_service().post("/v1/labels", json={"text": "The heart is enlarged. No pneumothorax."}).json()
    assert answer["states"] == {"Cardiomegaly": "positive", "Pneumothorax": "negative"}
    assert [one["text"] for one in answer["sentences"]] == ["The heart is enlarged.", "No pneumothorax."]


@pytest.mark.parametrize("kind", ["text", "json", "pdf", "fhir"])
def test_an_edited_draft_is_exported(open_service: Open, images: list[Path], kind: str) -> None:
    client = open_service()
    draft = client.post("/v1/reports", files=form(images)).json()
    draft["reports"][0]["sentences"] = [{"text": "Edited by a reader."}]
    draft["is_edited"] = True
    answer = client.post(f"/v1/exports/{kind}", files=[("draft", (None, json.dumps(draft)))])
    assert answer.status_code == 200, answer.text
    as_file = client.post(f"/v1/exports/{kind}", files=[("draft", ("draft.json", json.dumps(draft)))])
    assert as_file.content == answer.content
    assert "UTF-8" in problem(client.post(f"/v1/exports/{kind}", files=[("draft", ("a", b"\xff"))]), 400)["detail"]
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.content.startswith(b"%PDF") if kind == "pdf" else b"Edited by a reader." in answer.content


def test_an_sr_needs_the_dicom_originals(open_service: Open, images: list[Path], dicom_samples: Path) -> None:
    client = open_service()
    draft = [("draft", (None, json.dumps(client.post("/v1/reports", files=form(images)).json())))]
    assert "DICOM" in problem(client.post("/v1/exports/sr", files=draft), 422)["detail"]
    assert problem(client.post("/v1/exports/sr", files=draft + form(images[:1])), 422)["image"] == 1
    original = next(path for path in sorted(dicom_samples.glob("*.dcm")) if b"DICM" in path.read_bytes()[:140])
    answer = client.post("/v1/exports/sr", files=draft + form([original]))
    assert answer.status_code == 200, answer.text
    assert answer.content[128:132] == b"DICM"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "empty"),
        (b"not an image", 422, "not a PNG, JPEG or DICOM image"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 100, 422, "image 1"),
    ],
)
def test_a_bad_image_is_named_by_its_place(
    open_service: Open, images: list[Path], content: bytes, status: int, said: str
) -> None:
    client = open_service()
    for path, field in (("/v1/reports", "images"), ("/v1/images", "image"), ("/v1/classify", "images")):
        told = problem(client.post(path, files=[(field, ("Doe^John.png", content))]), status)
        assert said in told["detail"] and told["image"] == 1 and "Doe" not in json.dumps(told)
    second = [*form(images[:1]), ("images", ("x", content))]
    assert problem(client.post("/v1/reports", files=second), status)["image"] == 2


def test_bombs_are_refused_before_they_are_decoded(open_service: Open) -> None:
    client = open_service(max_megapixels=1)
    bomb = io.BytesIO()
    Image.new("L", (2000, 2000)).save(bomb, "PNG")
    told = problem(client.post("/v1/images", files=[("image", ("a.png", bomb.getvalue()))]), 413)
    assert "1 million pixels" in told["detail"]
    deflated = b"\0" * 128 + b"DICM" + b"1.2.840.10008.1.2.1.99" + b"\0" * 100
    far = deflated.replace(b"1.2.840", b"\0" * 4000 + b"1.2.840")  # behind a long value of the file's head
    for content in (deflated, far):
        assert "deflated" in problem(client.post("/v1/images", files=[("image", ("a", content))]), 422)["detail"]
    noise, written = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(written, "JPEG", progressive=True)
    whole = written.getvalue()
    scans = whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * 200 + whole[-2:]
    assert client.post("/v1/images", files=[("image", ("a", whole))]).status_code == 200
    assert "scans" in problem(client.post("/v1/images", files=[("image", ("a", scans))]), 422)["detail"]


def test_nothing_of_an_upload_is_written_to_the_disk(open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    noise, written = np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(written, "PNG")
    assert len(written.getvalue()) > 2_000_000
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("on the disk"))
    answer = open_service().post("/v1/images", files=[("image", ("a", written.getvalue()))])
    assert answer.status_code == 200


@pytest.mark.parametrize("charset", ["undefined", "punycode", "nonsense", "hex"])
def test_a_character_set_that_cannot_be_decoded_is_told(open_service: Open, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="\xff-a"\r\n\r\n\xff-\r\n--x--\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    problem(open_service().post("/v1/reports", content=body, headers=headers), 400)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{", "not JSON"),
        ('{"modell": "r2gen"}', "choose from: model, classifier, best, decoding"),
        ('{"model": "../../etc/passwd"}', "choose one of: r2gen, baseline"),
        ('{"model": "findings"}', "choose one of: r2gen, baseline"),
        ('{"classifier": "r2gen"}', "choose one of: findings"),
        ('{"best": 0}', "best"),
        ('{"decoding": {"beam": 3}}', "decoding: unknown setting; choose from: strategy, beams"),
        ('{"decoding": {"beams": "many"}}', "beams"),
        ('{"decoding": {"beams": 0}}', "beams"),
        ('{"decoding": {"beams": 99}}', "beams: at most 16"),
        ('{"decoding": {"temperature": Infinity}}', "temperature"),
        ('{"decoding": {"temperature": NaN}}', "temperature"),
        ('{"decoding": {"temperature": 1e-300}}', "temperature"),
        ('{"decoding": {"length_penalty": 1e308}}', "length-penalty"),
        ('{"decoding": {"seed": 1208925819614629174706176}}', "seed"),
        ('{"decoding": {"block_ngrams": -1}}', "block-ngrams"),
        ("[" * 100_000, "not JSON"),
        ('{"decoding": ' + '{"a": ' * 5000 + "1" + "}" * 5001, "not JSON"),
        ('{"decoding": {"beams": 2}, "best": 4}', "best"),
    ],
)
def test_wrong_options_are_told(open_service: Open, images: list[Path], options: str, said: str) -> None:
    client = open_service()
    for path in ("/v1/reports", "/v1/studies"):
        answer = client.post(path, files=form(images), data={"options": options})
        assert said in problem(answer, 422)["detail"]


def test_sizes_have_bounds(open_service: Open, images: list[Path]) -> None:
    client = open_service(max_images=2, max_megabytes=1)
    assert "at most 2 images" in problem(client.post("/v1/reports", files=form(images[:1] * 3)), 400)["detail"]
    large = [("images", ("a", b"0" * 1_100_000))]
    assert "1 MB" in problem(client.post("/v1/reports", files=large), 413)["detail"]

    def unsized() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        for _ in range(1200):
            yield b"0" * 1000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert "1 MB" in problem(client.post("/v1/reports", content=unsized(), headers=headers), 413)["detail"]
    assert "multipart" in problem(client.post("/v1/reports", content=b"x"), 415)["detail"]
    text = [("options", (None, "{}"))]
    assert "no image" in problem(client.post("/v1/reports", files=text), 400)["detail"]
    elsewhere = [("files", ("a", b"x"))]
    assert "field `images`" in problem(client.post("/v1/reports", files=elsewhere), 400)["detail"]


def test_unknown_addresses_and_paths_outside_are_not_found(open_service: Open) -> None:
    client = open_service()
    for path in ("/v2/reports", "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2f..%2fcli.py", "/v1/studies/1"):
        problem(client.get(path), 404)
    for path in ("/v1/studies/%00", "/v1/studies/" + "g" * 32, "/page/%00", "/page/" + "a" * 5000):
        problem(client.get(path), 404)
    problem(client.delete("/v1/studies/%00"), 404)
    answer = client.get("/v1/reports")
    assert problem(answer, 405) and answer.headers["allow"] == "POST"
    problem(client.post("/v1/exports/exe", data={"draft": "{}"}, files=[("images", ("a", b"x"))]), 404)


def test_models_health_and_measures(open_service: Open, images: list[Path]) -> None:
    client = open_service()
    told = client.get("/v1/models").json()
    assert [one["name"] for one in told["models"]] == ["r2gen", "baseline", "findings"]
    assert not any(one["is_loaded"] for one in told["models"])
    assert told["default"] == {"model": "r2gen", "classifier": "findings"}
    client.post("/v1/reports", files=form(images))
    assert [one["is_loaded"] for one in client.get("/v1/models").json()["models"]] == [True, False, True]
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    measured = client.get("/metrics").text
    assert 'rayscribe_requests_total{method="POST",route="/v1/reports",status="200"} 1.0' in measured
    assert "rayscribe_batch_studies_count 1.0" in measured and "rayscribe_models_loaded 2.0" in measured


def test_models_make_room_for_each_other(open_service: Open, served: dict[str, Path], images: list[Path]) -> None:
    weights = [(served[name] / "model.safetensors").stat().st_size for name in ("r2gen", "baseline")]
    client = open_service("r2gen", "baseline", memory_gib=(max(weights) + 1000) / 2**30)
    for name, other in (("r2gen", "baseline"), ("baseline", "r2gen"), ("r2gen", "baseline")):
        answer = client.post("/v1/reports", files=form(images), data={"options": json.dumps({"model": name})})
        assert answer.json()["model"]["name"] == name
        loaded = {one["name"]: one["is_loaded"] for one in client.get("/v1/models").json()["models"]}
        assert loaded == {name: True, other: False}
    with pytest.raises(InputError, match="--memory-gib"):
        create_app(ServeConfig(models=(served["r2gen"],), memory_gib=100 / 2**30))


def test_a_key_is_asked_for_where_there_are_keys(
    open_service: Open, images: list[Path], tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    keys = tmp_path / "keys.txt"
    key, other = (rayscribe("api-key", name, "--keys", keys).strip() for name in ("ward", "lab"))
    assert key not in keys.read_text() and keys.stat().st_mode & 0o077 == 0
    assert "has a key" in rayscribe("api-key", "ward", "--keys", keys, code=1)
    client = open_service(keys=keys, host="0.0.0.0")
    for path in ("/v1/models", "/metrics", "/v1/studies/1"):
        problem(client.get(path), 401)
    problem(client.post("/v1/reports", files=form(images), headers={"Authorization": "Bearer rs_wrong"}), 401)
    mine, theirs = ({"Authorization": f"Bearer {one}"} for one in (key, other))
    id_ = client.post("/v1/studies", files=form(images), headers=mine).json()["id"]
    problem(client.get(f"/v1/studies/{id_}", headers=theirs), 404)
    problem(client.delete(f"/v1/studies/{id_}", headers=theirs), 404)
    assert client.get(f"/v1/studies/{id_}", headers=mine).status_code == 200
    assert client.get("/").status_code == 200 and client.get("/healthz").status_code == 200


def test_no_address_but_the_loopback_without_keys(served: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="rayscribe api-key"):
        ServeConfig(models=(served["r2gen"],), host="0.0.0.0")


def test_a_service_without_models_or_room_is_refused(served: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="at least one model"):
        ServeConfig(models=())
    with pytest.raises(InputError, match="--max-megapixels 0: at least 1"):
        ServeConfig(models=(served["r2gen"],), max_megapixels=0)


def test_other_pages_may_not_ask(open_service: Open, images: list[Path]) -> None:
    client = open_service()
    problem(client.post("/v1/reports", files=form(images), headers={"Origin": "http://evil.example"}), 403)
    problem(client.get("/v1/models", headers={"Host": "evil.example"}), 421)
    for host in ("[::1", "[", "[v1.x]:80", "127.0.0.1:1@evil.example", "localhost.evil.example", "0.0.0.0", ""):
        problem(client.get("/v1/models", headers={"Host": host}), 421)
    for origin in ("http://[", "null", "http://127.0.0.1:8000.evil.example", "127.0.0.1:8000"):
        problem(client.get("/v1/models", headers={"Origin": origin}), 403)
    assert client.get("/v1/models", headers={"Host": "[::1]:8000"}).status_code == 200
    answer = client.get("/v1/models", headers={"Origin": "http://127.0.0.1:8000"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_the_interface_is_described(open_service: Open) -> None:
    described = open_service().get("/openapi.json").json()
    assert {"/v1/reports", "/v1/classify", "/v1/studies", "/v1/studies/{id}", "/v1/models"} <= described["paths"].keys()
    body = described["paths"]["/v1/reports"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["properties"].keys() == {"images", "options"}
    told = described["paths"]["/v1/reports"]["post"]["responses"]
    assert told["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/DraftResponse"}
    assert told["4XX"]["content"].keys() == {"application/problem+json"}


def test_answers_are_as_they_are_described(open_service: Open, served: dict[str, Path], images: list[Path]) -> None:
    client, name = open_service(), load_classifier(served["findings"]).findings[0]
    options = {"options": json.dumps({"evidence": name})}
    study = client.post("/v1/studies", files=form(images)).json()
    refused = client.post("/v1/images", files=[("image", ("a", b"no image"))])
    for model, answer in (
        (DraftResponse, client.post("/v1/reports", files=form(images)).json()),
        (FindingsResponse, client.post("/v1/classify", files=form(images), data=options).json()),
        (LabelsResponse, client.post("/v1/labels", json={"text": "Possible edema."}).json()),
        (StudyResponse, study),
        (StudyResponse, ended(client, study["id"])),
        (ProblemResponse, refused.json()),
    ):
        kind: TypeAdapter[Any] = TypeAdapter(model)
        assert kind.dump_python(kind.validate_python(answer), mode="json", exclude_unset=True) == answer


def test_damaged_weights_are_told_and_the_service_lives(
    open_service: Open, served: dict[str, Path], images: list[Path], tmp_path: Path
) -> None:
    damaged = {name: tmp_path / "damaged" / name for name in ("r2gen", "findings")}
    for name, folder in damaged.items():
        shutil.copytree(served[name], folder)
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                facts = file.metadata()
            weights = {name: w * torch.nan if w.is_floating_point() else w for name, w in load_file(path).items()}
            save_file(weights, path, facts)
    database = f"sqlite:///{tmp_path / 'damaged.sqlite'}"
    with service(damaged, "r2gen", database=database) as client:
        for options in ("{}", '{"decoding": {"strategy": "sample"}}'):
            answer = client.post("/v1/reports", files=form(images), data={"options": options})
            assert "damaged" in problem(answer, 422)["detail"]
    with service(damaged, "findings", database=database) as client:
        assert "damaged" in problem(client.post("/v1/classify", files=form(images)), 422)["detail"]
    with service(damaged, "r2gen", database=database) as client:
        shutil.rmtree(damaged["r2gen"])
        assert "cannot be loaded" in problem(client.post("/v1/reports", files=form(images)), 503)["detail"]
        assert client.get("/healthz").status_code == 200


def test_a_body_without_images_is_small(open_service: Open) -> None:
    text = json.dumps({"text": "a" * 1_100_000})
    told = problem(open_service().post("/v1/labels", content=text, headers={"content-type": "application/json"}), 413)
    assert "1 MB" in told["detail"]


def test_a_request_that_never_ends_is_let_go(served: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    bounds, timeout = list[float](), asyncio.timeout
    monkeypatch.setattr(access.asyncio, "timeout", lambda seconds: (bounds.append(seconds), timeout(0.05))[1])
    config = ServeConfig(models=(served["r2gen"],), max_seconds=20)
    client = TestClient(
        access.AccessGuard(never, config=config, keys={}, metrics=ServiceMetrics()), base_url="http://localhost"
    )
    problem(client.post("/v1/reports", content=b"x"), 408)
    assert bounds == [50]
