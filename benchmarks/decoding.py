"""How fast reports are written: our decoders against the published forms of R2Gen's and R2GenCMN's and `transformers`.

    .venv/bin/pip install transformers
    .venv/bin/python benchmarks/decoding.py             # ten minutes; --batch 4 for a quicker, rougher answer
    .venv/bin/python benchmarks/decoding.py --only r2gen_cmn

Vocabulary 760, 60 tokens, 98 patches, batch 16, three beams, every hypothesis at full length, random weights, one thread,
CPU seconds, ours and theirs in turns in one process. Targets: R2Gen at least 25 times and R2GenCMN at least 60 times faster
than the full-prefix form with identical tokens; the plain decoder at least 1.8 times faster than `generate()` with its cache on
a BART of the same size. See `reference_cmn.py` for what R2GenCMN's full-prefix form computes that its published code caches.

Our linear layers run by oneDNN when no gradient is needed (see `rayscribe.models.layers.linear`); theirs by what PyTorch picks,
which is MKL. So the ratios are lower on a processor of Intel than on one of AMD.

Shapes: B studies, V views, N patches, C channels, D width.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from reference_cmn import ReferenceCMN
from reference_r2gen import CHANNELS, ReferenceR2Gen, randomised, reference_beam_search

from rayscribe.config import BackboneConfig, ModelConfig, NoSettings, RunConfig, TextConfig
from rayscribe.drafts import DecodingConfig
from rayscribe.methods.build import build_model
from rayscribe.methods.published_names import converted, sizes_of
from rayscribe.methods.r2gen_cmn import R2GenCmnSettings
from rayscribe.models.decoding import Vocabulary, beam_search
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch

ROWS, TOKENS, PATCHES, BEAMS = 761, 60, 49, 3
NEVER = -1e4  # the end's bias: no hypothesis ends before the last token
LEGACY = Vocabulary(pad=0, begin=0, end=0)
LEGACY_TEXT = TextConfig(legacy_ids=True)
UNUSED = BackboneConfig(name="resnet50")  # the models are fed features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="studies")
    parser.add_argument("--repeats", type=int, default=3, help="of the fast sides; the median counts")
    parser.add_argument("--only", choices=tuple(COMPARISONS), nargs="+", default=tuple(COMPARISONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{arguments.batch} studies, {BEAMS} beams, {TOKENS} tokens, {2 * PATCHES} patches, one thread, CPU seconds")
    for name in arguments.only:
        ours, theirs, target, seconds = COMPARISONS[name]
        torch.manual_seed(0)
        report(ours, theirs, *seconds(arguments.batch, arguments.repeats), target)


def report(ours: str, theirs: str, our_seconds: float, their_seconds: float, target: float) -> None:
    print(
        f"| {ours} {our_seconds:.2f} s | {theirs} {their_seconds:.2f} s "
        f"| {their_seconds / our_seconds:.1f} times faster (target {target}) |",
        flush=True,
    )


def r2gen_against_reference(studies: int, repeats: int) -> tuple[float, float]:
    return against_reference(randomised(ReferenceR2Gen(ROWS), seed=0), studies, repeats)


def cmn_against_reference(studies: int, repeats: int) -> tuple[float, float]:
    reference = randomised(ReferenceCMN(ROWS), seed=0)
    with torch.no_grad():
        reference.encoder_decoder.memory_matrix.mul_(20)  # so that the answers are as large as what asked
    return against_reference(reference, studies, repeats)


def against_reference(reference: ReferenceR2Gen | ReferenceCMN, studies: int, repeats: int) -> tuple[float, float]:
    """From features to reports. The weights go through the mapping of `import-r2gen`; the tokens must be identical."""
    with torch.no_grad():
        reference.encoder_decoder.logit.bias[0] = NEVER
    published = reference.state_dict()
    sizes, method = sizes_of(published)
    system = "r2gen_cmn" if isinstance(method, R2GenCmnSettings) else "r2gen"
    config = RunConfig(system=system, method=method, text=LEGACY_TEXT, backbone=UNUSED, model=sizes)
    model = build_model(config, ROWS).eval()
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("backbone.")}
    model.load_state_dict(converted(published, config, own), strict=False)
    batch = random_batch(studies)
    assert batch.maps_BVNC is not None
    features_BNC = batch.maps_BVNC.flatten(1, 2)
    ours = [cpu_seconds(lambda: generated(model, batch)) for _ in range(repeats)]
    theirs = cpu_seconds(lambda: reference_beam_search(reference, features_BNC, beams=BEAMS, max_length=TOKENS))
    ours += [cpu_seconds(lambda: generated(model, batch)) for _ in range(repeats)]
    assert ours[0][1] == theirs[1], "the two write different reports"
    assert all(len(report) == TOKENS for report in theirs[1])
    return statistics.median(seconds for seconds, _ in ours), theirs[0]


def plain_against_bart(studies: int, repeats: int) -> tuple[float, float]:
    """From encoded patches to reports, on both sides without the encoder."""
    from transformers import BartConfig, BartForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    config = RunConfig(system="baseline", method=NoSettings(), text=LEGACY_TEXT, backbone=UNUSED, model=ModelConfig())
    model = build_model(config, ROWS).eval()
    with torch.no_grad():
        model.decoder.head.bias[0] = NEVER
    layers: dict[str, Any] = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in {"layers": 3, "attention_heads": 8, "ffn_dim": 512}.items()
    }
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=ROWS,
            d_model=512,
            max_position_embeddings=128,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            forced_eos_token_id=None,
            **layers,
        )
    ).eval()
    encoded_BND = torch.randn(studies, 2 * PATCHES, 512)
    encoded = Encoded(encoded_BND, torch.ones(studies, 2 * PATCHES, dtype=torch.bool))

    def generate() -> list[list[int]]:
        with torch.inference_mode():
            return bart.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded_BND),
                num_beams=BEAMS,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
                do_sample=False,
                use_cache=True,
            ).tolist()

    written(model, encoded), generate()  # the first time is slower
    ours, theirs = [], []
    for _ in range(repeats):  # in turns, so that a busy machine slows both
        ours.append(cpu_seconds(lambda: written(model, encoded)))
        theirs.append(cpu_seconds(generate))
    assert all(len(report) == TOKENS for report in ours[0][1])
    assert all(len(tokens) == TOKENS + 1 for tokens in theirs[0][1])
    return statistics.median(seconds for seconds, _ in ours), statistics.median(seconds for seconds, _ in theirs)


def random_batch(studies: int) -> Batch:
    return Batch(
        rows_B=torch.arange(studies),
        has_view_BV=torch.ones(studies, 2, dtype=torch.bool),
        tokens_BT=torch.zeros(studies, 1, dtype=torch.long),
        has_token_BT=torch.ones(studies, 1, dtype=torch.bool),
        maps_BVNC=torch.rand(studies, 2, PATCHES, CHANNELS) * torch.rand(studies, 1, 1, CHANNELS),
    )


@torch.inference_mode()
def generated(model: ReportModel, batch: Batch) -> list[list[int]]:
    return written(model, model.encode(batch))


@torch.inference_mode()
def written(model: ReportModel, encoded: Encoded) -> list[list[int]]:
    found = beam_search(model.decoder, encoded, LEGACY, DecodingConfig(beams=BEAMS), max_tokens=TOKENS)
    return [list(best[0].tokens) for best in found]


def cpu_seconds(work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    """Of this process, and what the work returned."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


COMPARISONS: dict[str, tuple[str, str, float, Callable[[int, int], tuple[float, float]]]] = {
    "plain": ("plain decoder", "transformers generate(), BART", 1.8, plain_against_bart),
    "r2gen": ("R2Gen", "full prefix at every step", 25, r2gen_against_reference),
    "r2gen_cmn": ("R2GenCMN", "full prefix at every step", 60, cmn_against_reference),
}


if __name__ == "__main__":
    main()
