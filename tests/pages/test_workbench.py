"""The service's page in a real browser, over the real service with small models: from dropped images to a saved draft."""

from __future__ import annotations

import base64
import importlib
import io
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_browser import NEEDED, launched
from PIL import Image

from conftest import small_config
from dicom_files import radiograph, ramp, saved
from rayscribe.classifiers.config import ClassifyConfig, CohortConfig
from rayscribe.classifiers.run import train_classifier
from rayscribe.config import BackboneConfig, ImageConfig, TrainConfig
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import check
from rayscribe.training.run import train_method

if NEEDED:
    uvicorn = importlib.import_module("uvicorn")
else:
    uvicorn = pytest.importorskip("uvicorn", reason="needs the service: pip install -e '.[serve]'")

pytestmark = pytest.mark.slow

FINDINGS = ("Cardiomegaly", "Pleural Effusion")
PATIENT = "DOE^JANE"
DISCLAIMER = "Research draft written by a machine-learning model. Not a medical device; not for clinical use."


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture(scope="module")
def models(browser: Any, world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Folders of two report models and a classifier that have learned next to nothing."""
    root = tmp_path_factory.mktemp("models")
    for name, seed in (("model-a", 1), ("model-b", 2)):
        train_method(replace(small_config(epochs=1), seed=seed), world, root / name, notify=lambda text: None)
    write_phantom(root / "phantom", PhantomConfig(studies=120, size=64, seed=5))
    checked = check(read_iu_xray(root / "phantom"), source={"source": "phantom"}, missing_is_fault=True)
    write_manifest(root / "classes.parquet", checked.manifest)
    config = ClassifyConfig(
        cohort=CohortConfig(findings=FINDINGS),
        images=ImageConfig(size=64, resize=68),
        backbone=BackboneConfig(name="test_resnet"),
        train=TrainConfig(epochs=1, batch_size=16, workers=0, metric="auroc", clip_value=None, bucket=False),
    )
    train_classifier(config, root / "classes.parquet", root / "classifier", notify=lambda text: None)
    return root / "model-a", root / "model-b", root / "classifier"


@dataclass
class Service:
    """A running service: its address, and every byte that it was sent."""

    url: str
    bodies: list[bytes] = field(default_factory=list)


def serving(models: tuple[Path, ...], folder: Path, **settings: Any) -> Iterator[Service]:
    from rayscribe.serve.app import create_app
    from rayscribe.serve.settings import ServeConfig

    app = create_app(ServeConfig(models=models, database=f"sqlite:///{folder / 'jobs.sqlite'}", **settings))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        service = Service(f"http://127.0.0.1:{listening.getsockname()[1]}/")

        async def heard(scope: Any, receive: Any, send: Any) -> None:
            async def kept() -> Any:
                message = await receive()
                service.bodies.append(message.get("body", b""))
                return message

            await app(scope, kept if scope["type"] == "http" else receive, send)

        server = uvicorn.Server(uvicorn.Config(heard, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield service
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def service(models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    yield from serving(models, tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def films(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two views of a drawn study, under a patient's name."""
    folder = tmp_path_factory.mktemp("films")
    views = read_manifest(world).split("test")[0].images[:2]
    return [Path(shutil.copy(view, folder / f"{PATIENT}-{place}.png")) for place, view in enumerate(views)]


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Any]:
    """The page as it opens. Fails when a script fails, a policy is broken or anything but the service is asked."""
    yield from opened(browser, service.url)


def opened(browser: Any, url: str, expected: str = r"Failed to load resource", **context: Any) -> Iterator[Any]:
    """`expected`: what the console may say; the browser notes there every refusal of a server."""
    made = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True, **context)
    page, asked, failed = made.new_page(), [], []
    page.set_default_timeout(15_000)
    made.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda line: failed.append(line.text) if line.type in ("error", "warning") else None)
    page.goto(url)
    page.locator("#model option").first.wait_for(state="attached")
    yield page
    made.close()
    assert [line for line in failed if not re.match(expected, line)] == []
    assert [one for one in asked if not one.startswith((url, "blob:", "data:"))] == []


def give(page: Any, *films: Path) -> None:
    page.set_input_files("#files", list(films))
    page.locator("#write:enabled").wait_for()


def draft(page: Any, *films: Path) -> Any:
    """Locator of the sentences of a fresh draft."""
    give(page, *films)
    page.get_by_role("button", name="Write draft").click()
    page.locator("#first .say").first.wait_for()
    return page.locator("#first .say")


def edit(page: Any, words: str, place: int = 0) -> None:
    page.locator("#first .say").nth(place).dblclick()
    page.locator("#first textarea").fill(words)
    page.keyboard.press("Enter")


def words(page: Any, column: str = "#first") -> list[str]:
    """The sentences without the tags of their mentions."""
    return page.locator(f"{column} .say").evaluate_all(
        """all => all.map(one => {
            const copy = one.cloneNode(true);
            copy.querySelectorAll(".tag").forEach(tag => tag.remove());
            return copy.textContent;
        })"""
    )


def picture(page: Any, view: int = 0) -> np.ndarray:
    """What a view's canvas shows now."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    url = page.locator("canvas").nth(view).evaluate("one => one.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as shown:
        return np.asarray(shown.convert("RGB"), np.int32)


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.array_equal(one, other))


def is_grey(shown: np.ndarray) -> bool:
    return bool((shown == shown[..., :1]).all())


def downloaded(page: Any, kind: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.locator("#kinds").get_by_role("button", name=kind, exact=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_from_images_to_an_edited_draft_in_every_format(page: Any, service: Service, films: list[Path]) -> None:
    service.bodies.clear()
    sentences = draft(page, *films)
    assert page.locator("canvas").count() == 2
    assert page.locator("#draft-state").inner_text() == "preliminary"
    rest = words(page)[1:]
    edit(page, "Small pleural effusion.")
    assert page.locator("#draft-state").inner_text() == "preliminary, edited, not saved"
    sentences.first.locator(".tag.positive").wait_for()
    name, text = downloaded(page, "Text")
    assert name.endswith(".txt")
    assert " ".join(["Small pleural effusion.", *rest]) in " ".join(text.decode().split())
    assert DISCLAIMER in text.decode()
    assert page.locator("#draft-state").inner_text() == "preliminary, edited"
    plain = json.loads(downloaded(page, "JSON")[1])
    assert (plain["format"], plain["status"], plain["is_edited"]) == ("rayscribe-draft-1", "preliminary", True)
    first = plain["reports"][0]["sentences"][0]
    assert (first["text"], first["evidence"]) == ("Small pleural effusion.", [])
    assert first["mentions"][0] | {"start": 0, "end": 0} == {
        "observation": "Pleural Effusion",
        "state": "positive",
        "start": 0,
        "end": 0,
    }
    assert plain["reports"][0]["log_probability"] is None
    assert plain["reports"][1]["log_probability"] < 0
    assert downloaded(page, "PDF")[1].startswith(b"%PDF")
    assert json.loads(downloaded(page, "FHIR")[1])["resourceType"] == "Bundle"
    for locked in ("DICOM SR", "DICOM PDF"):
        assert page.get_by_role("button", name=locked).is_disabled()
    assert "every image has to be DICOM; none of these is" in page.locator("#dicom-reason").inner_text()
    sent = b"".join(service.bodies)
    assert b'filename="image-2"' in sent and PATIENT.encode() not in sent


def test_dicom_originals_open_the_dicom_formats(page: Any, tmp_path: Path) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "PatientName": PATIENT, "PatientID": "7"}
    draft(page, saved(tmp_path / f"{PATIENT}.dcm", radiograph(ramp(), **uids)))
    assert page.locator("#dicom-reason").inner_text() == ""
    for kind in ("DICOM SR", "DICOM PDF"):
        assert downloaded(page, kind)[1][128:132] == b"DICM"


def test_a_bad_file_is_said_at_once_by_its_name_and_the_others_stay(
    page: Any, films: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "no image.png"
    bad.write_text("words")
    give(page, films[0], bad, films[1])
    refused = page.locator("#refused li").inner_text()
    assert refused.startswith("no image.png: ") and len(refused) > len("no image.png:  Dismiss") + 10
    assert page.locator("canvas").count() == 2
    assert page.locator("figcaption .name").all_inner_texts() == [film.name for film in films]
    page.get_by_role("button", name="Remove view 1").click()
    assert page.locator("figcaption .name").all_inner_texts() == [films[1].name]


def test_files_can_be_dropped(page: Any, films: list[Path]) -> None:
    content = list(films[0].read_bytes())
    page.evaluate(
        """(content) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], "dropped.png", {type: "image/png"}));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        content,
    )
    page.locator("canvas").wait_for()
    assert page.locator("figcaption .name").inner_text() == "dropped.png"


def test_a_sentence_shows_where_the_decoder_looked_and_a_finding_its_grad_cam(page: Any, films: list[Path]) -> None:
    sentences = draft(page, *films)
    plain = picture(page)
    assert is_grey(plain)
    sentences.first.click()
    legend = page.locator("#legend-words")
    assert "Where the model looked while it wrote" in legend.inner_text()
    assert "Not the place of a lesion." in legend.inner_text()
    assert not is_grey(picture(page, 0)) and not is_grey(picture(page, 1))
    page.keyboard.press("o")
    assert is_same(picture(page), plain)
    page.keyboard.press("o")
    page.get_by_role("button", name=re.compile("^Cardiomegaly")).click()
    page.get_by_text("looked for Cardiomegaly (Grad-CAM).").wait_for()
    assert sentences.first.get_attribute("aria-pressed") == "false"
    edit(page, "There is a pleural effusion.")  # has no evidence of its own, and names what the classifier knows
    sentences.first.locator(".tag").wait_for()
    page.get_by_text("looked for Pleural Effusion (Grad-CAM).").wait_for()
    assert page.locator("#finding-list [aria-pressed=true]").get_attribute("data-name") == "Pleural Effusion"


def test_findings_stand_there_in_words_and_without_a_draft_too(page: Any, films: list[Path]) -> None:
    give(page, films[0])
    page.get_by_role("button", name="Findings only").click()
    rows = page.locator("#finding-list li")
    rows.first.wait_for()
    shown = rows.all_inner_texts()
    assert sorted(row.split("\n")[0] for row in shown) == list(FINDINGS)
    for row in shown:
        assert re.search(r"(flagged|called normal)\s.*(likely|certain|as not)\s+[\d.]+ %", row, re.DOTALL)
    rows.first.get_by_role("button").click()
    page.get_by_text("(Grad-CAM)").wait_for()


def test_a_sentence_that_the_classifier_contradicts_says_so(page: Any, films: list[Path]) -> None:
    draft(page, films[0])
    effusion = page.locator("#finding-list li", has_text="Pleural Effusion")
    is_present = "not flagged" not in effusion.inner_text()
    said, denied = ("No pleural effusion.", "Small pleural effusion.")[:: 1 if is_present else -1]
    edit(page, said)
    page.locator("#first .say").first.locator(".tag.against").wait_for()
    assert "(but classifier: " + ("flagged, " if is_present else "not flagged, ") in page.locator("#work").inner_text()
    edit(page, denied)
    page.locator("#first .say").first.locator(f".tag.{'positive' if is_present else 'negative'}").wait_for()
    assert page.locator("#first .say").first.locator(".tag.against").count() == 0


def test_a_service_that_only_classifies_says_so(
    browser: Any, models: tuple[Path, ...], films: list[Path], tmp_path: Path
) -> None:
    for service in serving(models[2:], tmp_path):
        context = browser.new_context()
        page = context.new_page()
        page.goto(service.url)
        page.get_by_text("no model that writes reports").wait_for()
        page.set_input_files("#files", films[:1])
        page.get_by_role("button", name="Findings only").click()
        page.locator("#finding-list li").first.wait_for()
        assert page.locator("#write").is_disabled()
        context.close()


def test_a_study_that_fails_names_the_view_at_fault(page: Any, films: list[Path]) -> None:
    give(page, *films)
    problem = {"title": "Unprocessable", "status": 422, "detail": "image 2: nothing to see", "image": 2}
    failed = {"state": "failed", "progress": 0.1, "stage": "", "position": None, "draft": None, "problem": problem}
    page.route(
        "**/v1/studies/*",
        lambda route: route.fulfill(json={"id": route.request.url.rsplit("/", 1)[1], **failed}),
    )
    page.get_by_role("button", name="Write draft").click()
    assert f"Draft, {films[1].name}: image 2: nothing to see" in page.get_by_role("alert").inner_text()
    assert page.locator("canvas").count() == 2 and page.locator("#write").is_enabled()


def test_images_that_change_leave_the_draft_and_are_said(page: Any, films: list[Path]) -> None:
    draft(page, *films)
    assert page.locator("#stale").is_hidden()
    page.get_by_role("button", name="Remove view 2").click()
    assert page.locator("#stale").is_visible()
    page.locator("#first .say").first.click()
    assert not is_grey(picture(page))
    assert downloaded(page, "Text")[1]


def test_edits_are_undone_and_redone(page: Any, films: list[Path]) -> None:
    draft(page, films[0])
    before = words(page)
    edit(page, "No pneumothorax.")
    page.get_by_role("button", name="Add below").click()
    page.locator("#first textarea").fill("Possible edema.")
    page.keyboard.press("Enter")
    assert words(page) == ["No pneumothorax.", "Possible edema.", *before[1:]]
    page.locator("#first .tag.uncertain").wait_for()
    assert page.locator("#first .tag.negative").count() == 1
    assert page.locator("#first .reads").inner_text() == "Sentence 2. Edema: uncertain"
    page.get_by_role("button", name="Delete").click()
    assert words(page) == ["No pneumothorax.", *before[1:]]
    for _ in range(3):
        page.get_by_role("button", name="Undo").click()
    assert words(page) == before
    assert page.locator("#draft-state").inner_text() == "preliminary"
    page.get_by_role("button", name="Redo").click()
    assert words(page)[0] == "No pneumothorax."
    page.locator("#first .say").first.dblclick()
    page.locator("#first textarea").fill("dropped")
    page.keyboard.press("Escape")
    assert words(page)[0] == "No pneumothorax."


def test_an_alternative_becomes_the_draft(page: Any, films: list[Path]) -> None:
    draft(page, films[0])
    page.locator("#alternatives summary").click()
    rows = page.locator("#alternative-list li")
    assert rows.count() == 3
    assert rows.first.locator(".badge").inner_text() == "in use"
    wanted = rows.nth(1).locator("p").inner_text().split()
    page.get_by_role("button", name="Use this one: alternative 2").click()
    assert " ".join(words(page)).split() == wanted
    assert rows.nth(1).locator(".badge").inner_text() == "in use"
    plain = json.loads(downloaded(page, "JSON")[1])
    assert plain["is_edited"] and len(plain["reports"]) == 3


def test_two_models_stand_side_by_side_with_their_differences(page: Any, films: list[Path]) -> None:
    page.locator("#options summary").click()
    page.get_by_label("Second model, to compare").select_option("model-b")
    draft(page, films[0])
    assert page.locator("#other .author strong").inner_text() == "model-b"
    left, right = page.locator("#first").bounding_box(), page.locator("#other").bounding_box()
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    edit(page, "Words of nobody else.")
    assert page.locator("#first mark.differs").first.inner_text() == "Words of nobody else"
    page.locator("#other .say").first.click()
    page.get_by_text("Where the model looked while it wrote").wait_for()
    page.get_by_role("button", name="Work on this one").click()
    assert page.locator("#first .author strong").inner_text() == "model-b"
    assert words(page, "#other")[0] == "Words of nobody else."


def test_a_reference_differs_in_words_and_in_findings(page: Any, films: list[Path]) -> None:
    draft(page, films[0])
    edit(page, "Small pleural effusion. No pneumothorax.")
    page.locator("#reference summary").click()
    page.get_by_label("Reference report").fill("Large pleural effusion. There is a pneumothorax.")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#compared table").wait_for()
    assert "Large" in page.locator("#compared .words del").all_inner_texts()
    assert "Small" in page.locator("#compared .words ins").all_inner_texts()
    rows = page.locator("#compared tbody tr").all_inner_texts()
    assert "Pneumothorax\tpositive\tnegative" in rows
    assert not any(row.startswith("Pleural Effusion") for row in rows)
    edit(page, "Large pleural effusion. There is a pneumothorax.")  # the comparison follows the draft
    page.locator("#compared tbody", has_text="Pneumothorax").wait_for(state="detached")


def test_long_work_tells_its_progress_and_can_be_cancelled(page: Any, films: list[Path]) -> None:
    give(page, films[0])
    methods: list[str] = []
    state = {"state": "queued", "progress": 0, "stage": "", "position": 3, "draft": None, "problem": None}

    def slow(route: Any) -> None:
        methods.append(route.request.method)
        id_ = route.request.url.rsplit("/", 1)[1]
        route.fulfill(json={"id": id_, **state}) if route.request.method == "GET" else route.continue_()

    page.route("**/v1/studies/*", slow)
    page.get_by_role("button", name="Write draft").click()
    page.get_by_text("waiting, place 3 in the queue").wait_for()
    state |= {"state": "running", "progress": 0.4, "stage": "writing the report", "position": None}
    page.locator(".job").get_by_text("writing the report").wait_for()
    assert page.get_by_role("progressbar").evaluate("one => one.value") == 0.4
    assert page.locator("#write").is_disabled()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".job").wait_for(state="detached")
    assert methods[-1] == "DELETE"
    assert page.get_by_role("status").inner_text() == "Draft: cancelled."
    assert page.locator("#empty").is_visible() and page.locator("#write").is_enabled()


def test_a_busy_server_is_asked_again(page: Any, films: list[Path]) -> None:
    give(page, films[0])
    problem = {"title": "Too many requests", "status": 429, "detail": "too many studies wait"}
    page.route(
        "**/v1/studies",
        lambda route: route.fulfill(status=429, json=problem, headers={"Retry-After": "1"}),
        times=1,
    )
    page.get_by_role("button", name="Write draft").click()
    notice = page.get_by_role("alert")
    assert "Draft: too many studies wait Busy, try again in 1 s." in notice.inner_text()
    notice.get_by_role("button", name="Try again").click()  # waits until it is enabled
    page.locator("#first .say").first.wait_for()
    assert notice.count() == 0


def test_a_lost_server_loses_no_words(page: Any, films: list[Path]) -> None:
    draft(page, films[0])
    page.route("**/v1/**", lambda route: route.abort())
    edit(page, "No pneumothorax.")
    assert "does not answer. What you wrote is still on this page." in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Text", exact=True).click()
    page.get_by_role("alert").nth(1).wait_for()
    assert words(page)[0] == "No pneumothorax."
    assert "not saved" in page.locator("#draft-state").inner_text()
    page.unroute("**/v1/**")
    page.get_by_role("alert").first.get_by_role("button", name="Try again").click()
    page.locator("#first .tag.negative").wait_for()


def test_leaving_with_an_unsaved_edit_is_asked_about(page: Any, films: list[Path]) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    draft(page, films[0])
    edit(page, "No pneumothorax.")
    page.get_by_role("button", name="Write draft").click()  # would replace it
    assert asked == ["confirm"]
    assert words(page)[0] == "No pneumothorax."
    page.close(run_before_unload=True)
    page.wait_for_timeout(300)
    assert asked == ["confirm", "beforeunload"]
    downloaded(page, "Text")
    page.evaluate("location.reload()")
    page.locator("#empty").wait_for()
    assert asked == ["confirm", "beforeunload"]


def test_what_was_edited_while_the_server_wrote_is_asked_about(page: Any, films: list[Path]) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    draft(page, films[0])
    page.route("**/v1/studies", lambda route: (page.wait_for_timeout(1000), route.continue_()))
    for keys in ("Enter", ""):  # kept, and still in the field
        page.get_by_role("button", name="Write draft").click()
        page.locator("#first .say").first.dblclick()
        page.locator("#first textarea").fill(f"No pneumothorax{keys}.")
        if keys:
            page.keyboard.press(keys)
        page.locator(".job").wait_for(state="detached")
        assert len(asked) == 1 and "edited meanwhile" in asked.pop()
        assert words(page)[0] == f"No pneumothorax{keys}."
        downloaded(page, "Text")  # now it is saved, and can be replaced
    page.get_by_role("button", name="Write draft").click()
    page.locator("#first").get_by_text("No pneumothorax").wait_for(state="detached")
    assert not asked


def test_findings_of_images_that_are_gone_are_not_shown(page: Any, films: list[Path]) -> None:
    give(page, *films)
    page.route("**/v1/classify", lambda route: (page.wait_for_timeout(1000), route.continue_()))
    page.get_by_role("button", name="Findings only").click()
    page.get_by_role("button", name="Remove view 2").click()
    page.locator("#classify:enabled").wait_for()
    assert page.locator("#findings").is_hidden()
    assert "images have changed" in page.get_by_role("status").inner_text()


def test_copied_text_carries_the_disclaimer(browser: Any, service: Service, films: list[Path]) -> None:
    for page in opened(browser, service.url, permissions=["clipboard-read", "clipboard-write"]):
        draft(page, films[0])
        page.get_by_role("button", name="Copy text").click()
        page.get_by_role("status").get_by_text("Copied").wait_for(state="attached")
        assert page.evaluate("navigator.clipboard.readText()") == f"{' '.join(words(page))}\n\n{DISCLAIMER}\n"
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#first .author'))")
        page.keyboard.press("Control+c")
        assert DISCLAIMER in page.evaluate("navigator.clipboard.readText()")


def test_a_key_is_asked_for_and_kept_in_memory_only(
    browser: Any, models: tuple[Path, ...], films: list[Path], tmp_path: Path
) -> None:
    from rayscribe.serve.keys import add_key

    key = add_key("reader", tmp_path / "keys")
    for service in serving(models, tmp_path, keys=tmp_path / "keys"):
        context = browser.new_context()
        page = context.new_page()
        page.goto(service.url)
        dialog = page.get_by_role("dialog", name="API key")
        for given, said in (("wrong", "This server asks for an API key."), (key, "The server refused this key.")):
            dialog.get_by_text(said).wait_for()
            page.get_by_label("Key", exact=True).fill(given)
            page.keyboard.press("Enter")
        draft(page, films[0])
        assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
        page.reload()
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_role("alert").get_by_text("API key").wait_for()
        context.close()


def test_the_whole_path_by_keyboard(page: Any, films: list[Path]) -> None:
    choosers: list[Any] = []
    page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # the browser hears of it a moment later, so not just before Enter
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the draft"
    while page.evaluate("document.activeElement.id") != "files":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for _ in range(300):
        if choosers:
            break
        page.wait_for_timeout(50)
    choosers[0].set_files(films)
    page.locator("#write:enabled").wait_for()
    page.keyboard.press("g")
    page.locator("#first .say").first.wait_for()
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("No effusion? i r o [")  # shortcuts are words here
    page.keyboard.press("Enter")
    assert words(page)[0] == "No effusion? i r o ["
    assert page.locator("#invert").get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.activeElement.className") == "say"
    page.keyboard.press("Control+z")
    assert words(page)[0] != "No effusion? i r o ["
    page.keyboard.press("a")
    page.keyboard.type("Added.")
    page.keyboard.press("Enter")
    assert words(page)[1] == "Added."
    page.keyboard.press("Delete")
    assert "Added." not in words(page)
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Help").is_visible()
    page.keyboard.press("i")
    page.keyboard.press("Escape")
    assert page.locator("#invert").get_attribute("aria-pressed") == "false"
    while page.evaluate("document.activeElement.textContent") != "JSON":
        page.keyboard.press("Tab")
    with page.expect_download():
        page.keyboard.press("Enter")


def test_tools_change_the_active_view_and_reset_brings_it_back(page: Any, films: list[Path]) -> None:
    give(page, *films)
    first, second = picture(page), picture(page, 1)
    page.keyboard.press("i")
    inside = first.sum(2) > 0
    assert (picture(page)[inside] + first[inside] >= 254).all()
    assert is_same(picture(page, 1), second)
    page.keyboard.press("r")
    assert is_same(picture(page), first)
    for key in ("+", "[", "}"):
        before = picture(page)
        page.keyboard.press(key)
        assert not is_same(picture(page), before)
    page.keyboard.press("r")
    page.locator("canvas").nth(1).hover()
    page.mouse.wheel(0, -300)
    assert page.locator("#zoom-value").inner_text() != "100 %"
    assert is_same(picture(page), first)
    before = picture(page, 1)
    page.mouse.down()
    page.mouse.move(700, 500)
    page.mouse.up()
    assert not is_same(picture(page, 1), before)
    assert page.locator("#width-value").inner_text() != "255" or page.locator("#level-value").inner_text() != "128"
    page.get_by_role("button", name="Reset").click()
    assert is_same(picture(page, 1), second)
    page.keyboard.press("v")
    assert page.locator("canvas:visible").count() == 1


def test_a_plain_image_is_shown_grey_for_grey(page: Any, tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).repeat(4).reshape(1, 1024).repeat(1024, 0)
    Image.fromarray(grey).save(tmp_path / "ramp.png")
    give(page, tmp_path / "ramp.png")
    row = picture(page)
    row = row[len(row) // 2, :, 0]
    shown = row[np.flatnonzero(row)[0] :]
    assert shown.max() == 255 and len(np.unique(shown)) > 240 and (np.diff(shown[: shown.argmax()]) >= 0).all()


CONTRASTS = """() => {
    const rgba = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
    const over = (top, ground) => [0, 1, 2].map(at => top[at] * top[3] + ground[at] * (1 - top[3])).concat(1);
    const ground = (one) => {
        const own = rgba(getComputedStyle(one).backgroundColor);
        return own[3] === 1 || !one.parentElement ? own : over(own, ground(one.parentElement));
    };
    const light = (colour) => [.2126, .7152, .0722].reduce((sum, weight, at) => {
        const value = colour[at] / 255;
        return sum + weight * (value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
    }, 0);
    const faults = [];
    let seen = 0;
    for (const one of document.querySelectorAll("body *")) {
        const hasText = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!hasText || one.closest("[disabled], option, .skip") || !one.checkVisibility()) continue;
        const [back, front] = [ground(one), rgba(getComputedStyle(one).color)];
        const [low, high] = [light(back), light(over(front, back))].sort((a, b) => a - b);
        const ratio = (high + .05) / (low + .05);
        seen += 1;
        if (ratio < 4.5) faults.push([one.tagName, one.className, one.textContent.slice(0, 30), ratio]);
    }
    return { faults, seen };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_the_theme_can_be_switched(page: Any, films: list[Path], scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    draft(page, *films)
    edit(page, "Small effusion, no pneumothorax, possible edema.")
    page.locator("#first .tag").nth(1).wait_for()
    page.locator("#alternatives summary").click()
    page.locator("#options summary").click()
    page.locator("#reference summary").click()
    page.get_by_label("Reference report").fill("No effusion.")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#compared table").wait_for()
    found = page.evaluate(CONTRASTS)
    assert found["faults"] == [] and found["seen"] > 60
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    for _ in range(2 if scheme == "light" else 1):
        page.locator("#theme").click()
    assert page.evaluate(ground) != before
    assert page.evaluate(CONTRASTS)["faults"] == []


def test_a_phone_scrolls_in_one_direction_and_the_banner_stays(page: Any, films: list[Path]) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    page.locator("#options summary").click()
    page.get_by_label("Second model, to compare").select_option("model-b")
    draft(page, *films)
    edit(page, "pneumonoultramicroscopicsilicovolcanoconiosis" * 3)
    page.locator("#alternatives summary").click()
    page.locator("#reference summary").click()
    page.get_by_label("Reference report").fill("x" * 200)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#compared .words").wait_for()
    assert page.evaluate(width) == 360
    banner = page.locator("#banner").bounding_box()
    assert banner["y"] == 0 and DISCLAIMER in page.locator("#banner").inner_text()
    page.emulate_media(media="print")
    assert page.locator("#banner").is_visible() and not page.locator("#tools").is_visible()


def test_every_control_has_a_name(page: Any, films: list[Path]) -> None:
    draft(page, *films)
    unnamed = page.locator("button, input, select, textarea, canvas, progress").evaluate_all(
        """all => all.filter(one => !one.textContent.trim() && !one.getAttribute("aria-label") && !one.labels?.length)
            .map(one => one.outerHTML)"""
    )
    assert unnamed == []
    assert page.locator("[style]").evaluate_all("all => all.filter(one => one.tagName !== 'I').length") == 0
