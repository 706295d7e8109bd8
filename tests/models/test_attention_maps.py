"""Where a decoder looked: the weights of its attention, per word, per image, per sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from conftest import small_config, small_model
from rayscribe.drafts import Draft
from rayscribe.methods import find_method
from rayscribe.methods.build import build_model
from rayscribe.models.attention_maps import attention_during
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.reports.document import Author
from rayscribe.reports.drafting import document_of

BEGIN, SIDE, WIDTH = 1, 3, 32
REPORT = (4, 7, 5, 9, 6)


def encoded_of(model: ReportModel, views: list[int], *, seed: int = 0) -> tuple[Encoded, Tensor]:
    """Studies of so many views, padded to the widest, with noise where nothing is; and which views there are."""
    generator = torch.Generator().manual_seed(seed)
    has_view_BV = torch.arange(max(views)) < torch.tensor(views)[:, None]
    features_BND = torch.randn(len(views), max(views) * SIDE * SIDE, WIDTH, generator=generator)
    prompts = getattr(model.decoder, "states", None) or getattr(
        getattr(model.decoder, "embedding", None), "states", None
    )
    prompt_BO = torch.randint(0, 4, (len(views), 18), generator=generator) if prompts is not None else None
    has_patch_BN = has_view_BV.repeat_interleave(SIDE * SIDE, dim=1)
    return Encoded(features_BND, has_patch_BN, prompt_BO=prompt_BO), has_view_BV


def bert_model(method: str) -> ReportModel:
    pytest.importorskip("transformers", reason="the BERT decoder is an extra")
    torch.manual_seed(0)
    config = small_config(method)
    config = replace(config, model=replace(config.model, decoder="bert", encoder_layers=0))
    return build_model(config, 12, find_method(config.system).resources(config, None)).eval()


def looks_of(model: ReportModel, views: list[int], *reports: tuple[int, ...]) -> list[list[NDArray[np.float32]]]:
    encoded, has_view_BV = encoded_of(model, views)
    if encoded.features_BND.shape[-1] != channels(model):
        encoded = replace(encoded, features_BND=encoded.features_BND.repeat(1, 1, channels(model) // WIDTH))
    return attention_during(model.decoder, encoded, has_view_BV, [list(reports)] * len(views), begin=BEGIN)


def channels(model: ReportModel) -> int:
    """Of what the decoder looks at: a BERT looks at the backbone's own features."""
    if hasattr(model.decoder, "language"):
        return int(model.decoder.language.config.encoder_hidden_size)
    return WIDTH


@pytest.mark.parametrize("method", ["r2gen", "baseline", "promptmrg", "kif"])
def test_a_words_weights_sum_to_one_over_all_images(method: str) -> None:
    for (look_TVSS,) in looks_of(small_model(method), [2, 1], REPORT):
        assert look_TVSS.shape[0] == len(REPORT) and look_TVSS.shape[2:] == (SIDE, SIDE)
        assert np.allclose(look_TVSS.sum((1, 2, 3)), 1, atol=1e-5) and (look_TVSS >= 0).all()
        assert look_TVSS.std() > 0


def test_a_bert_tells_where_it_looked_too() -> None:
    for (look_TVSS,), views in zip(looks_of(bert_model("promptmrg"), [2, 1], REPORT), (2, 1), strict=True):
        assert look_TVSS.shape == (len(REPORT), views, SIDE, SIDE)
        assert np.allclose(look_TVSS.sum((1, 2, 3)), 1, atol=1e-5)


def test_a_berts_weights_are_those_that_transformers_returns() -> None:
    model = bert_model("promptmrg")
    (look_TVSS,) = looks_of(model, [2], REPORT)[0]
    encoded, _ = encoded_of(model, [2])
    decoder = model.decoder
    words = torch.tensor([[BEGIN, *REPORT[:-1]]])
    with torch.no_grad():
        told = decoder.language.bert(
            inputs_embeds=torch.cat([decoder._prompt(encoded), decoder._words(words)], dim=1),
            encoder_hidden_states=encoded.features_BND.repeat(1, 1, channels(model) // WIDTH),
            is_decoder=True,
            output_attentions=True,
        ).cross_attentions
    expected_TN = torch.stack([weights[0].mean(0) for weights in told]).mean(0)[18:]
    assert np.allclose(look_TVSS.reshape(len(REPORT), -1), expected_TN.numpy(), atol=1e-6)


@pytest.mark.parametrize("method", ["r2gen", "promptmrg"])
def test_the_weights_are_those_of_the_place_that_predicts_the_word(method: str) -> None:
    """Computed by hand, layer by layer, through the attention that also returns its weights."""
    model = small_model(method)
    (look_TVSS,) = looks_of(model, [1], REPORT)[0]
    encoded, _ = encoded_of(model, [1])
    decoder = model.decoder
    with torch.no_grad():
        prompt_1OD = decoder.embedding.prompt(encoded)
        before = prompt_1OD.shape[1]
        assert before == (18 if method == "promptmrg" else 0)
        words_1TD = decoder.embedding(torch.tensor([[BEGIN, *REPORT[:-1]]]), slice(before, before + len(REPORT)))
        x_1TD = torch.cat([prompt_1OD, words_1TD], dim=1)
        if decoder.memory is not None:
            x_1TD = decoder.memory()(x_1TD)
        norms, layers = decoder.norms(x_1TD)[0], []
        for number, layer in enumerate(decoder.layers):
            own, patches, feed = norms[3 * number : 3 * number + 3]
            normed_1TD = own(x_1TD)
            x_1TD = x_1TD + layer.self_attention(normed_1TD, *layer.self_attention.keys_values(normed_1TD), causal=True)
            cross = layer.cross_attention.keys_values(encoded.features_BND)
            mixed_1TD, weights_1HTN = layer.cross_attention.weighed(patches(x_1TD), *cross)
            layers.append(weights_1HTN[0].mean(0)[before:])
            x_1TD = x_1TD + mixed_1TD
            x_1TD = x_1TD + layer.feed_forward(feed(x_1TD))
    assert np.allclose(look_TVSS.reshape(len(REPORT), -1), torch.stack(layers).mean(0).numpy(), atol=1e-6)


@pytest.mark.parametrize("method", ["r2gen", "promptmrg", "kif"])
def test_a_study_looks_the_same_beside_a_wider_one(method: str) -> None:
    model = small_model(method)
    encoded, has_view_BV = encoded_of(model, [1, 3, 2])
    together = attention_during(model.decoder, encoded, has_view_BV, [[REPORT]] * 3, begin=BEGIN)
    for place, views in enumerate((1, 3, 2)):
        own = slice(place, place + 1)
        alone = Encoded(
            encoded.features_BND[own, : views * SIDE * SIDE],
            encoded.has_patch_BN[own, : views * SIDE * SIDE],
            prompt_BO=None if encoded.prompt_BO is None else encoded.prompt_BO[own],
        )
        ((look_TVSS,),) = attention_during(model.decoder, alone, has_view_BV[own, :views], [[REPORT]], begin=BEGIN)
        assert together[place][0].shape == (len(REPORT), views, SIDE, SIDE)
        assert np.allclose(together[place][0], look_TVSS, atol=1e-6)


def test_a_word_does_not_depend_on_those_after_it() -> None:
    (long, short) = looks_of(small_model(), [1], REPORT, REPORT[:3])[0]
    assert np.allclose(long[:3], short, atol=1e-6)


def test_an_empty_report_has_no_words_and_its_place() -> None:
    empty, written = looks_of(small_model(), [1], (), REPORT)[0]
    assert empty.shape == (0, 1, SIDE, SIDE) and len(written) == len(REPORT)


def test_patches_that_lie_in_no_square_tell_nothing() -> None:
    model = small_model()
    encoded, _ = encoded_of(model, [1])
    half = replace(encoded, features_BND=encoded.features_BND[:, :6], has_patch_BN=encoded.has_patch_BN[:, :6])
    assert attention_during(model.decoder, half, torch.ones(1, 1, dtype=torch.bool), [[REPORT]], begin=BEGIN) == [[]]


def test_nobody_watches_afterwards() -> None:
    model = small_model()
    looks_of(model, [1], REPORT)
    assert not any(module._forward_hooks for module in model.modules())


def draft_of(*reports: str) -> Draft:
    """Whose words looked at places that tell them apart: word t at patch t, over all images."""
    attention = []
    for report in reports:
        look_TVSS = np.zeros((len(report.split()), 2, SIDE, SIDE), np.float32)
        for word, look_VSS in enumerate(look_TVSS):
            look_VSS.flat[word] = 1.0
        attention.append(look_TVSS)
    return Draft(reports=list(reports), warnings=[], diagnosis={}, attention=attention)


AUTHOR = Author(name="m", system="r2gen", weights_sha256="0" * 64, rayscribe="0", section="findings")


def places(draft: Draft, report: int) -> list[list[int]]:
    """The patches where every sentence looked."""
    document = document_of(draft, AUTHOR, images=2, created=datetime.now(UTC))
    return [np.flatnonzero(np.array(one.evidence)).tolist() for one in document.reports[report].sentences]


def test_the_evidence_of_a_sentence_is_the_mean_over_its_own_words() -> None:
    assert places(draft_of("the heart is large . no effusion ."), 0) == [[0, 1, 2, 3, 4], [5, 6, 7]]
    draft = draft_of("heart normal . clear .")
    draft.attention[0][1] = draft.attention[0][2]  # two of three words looked there
    document = document_of(draft, AUTHOR, images=2, created=datetime.now(UTC))
    first = np.array(document.reports[0].sentences[0].evidence)
    assert first.max() == 1.0 and np.allclose(first.flat[:3], [0.5, 0, 1], atol=1e-3)


def test_every_alternative_has_its_own_evidence_also_beside_an_empty_one() -> None:
    draft = draft_of("heart normal .", "", "clear . no effusion .")
    assert places(draft, 0) == [[0, 1, 2]] and places(draft, 1) == [] and places(draft, 2) == [[0, 1], [2, 3, 4]]


def test_words_that_do_not_match_the_looks_have_no_evidence() -> None:
    draft = replace(draft_of("heart normal ."), reports=["heart is normal ."])
    document = document_of(draft, AUTHOR, images=2, created=datetime.now(UTC))
    assert document.reports[0].sentences[0].evidence == ()
