"""Tiny vision LLMs made on the spot: each function writes a folder with model, processor and chat template.

A folder is what `from_pretrained` reads of a published model, in the same families and some 100,000 random weights.
As with Llama's own tokenizer, the tokenizer adds the begin token, and so does the chat template.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

BEGIN, END, PAD, HEADER = "<|begin|>", "<|end|>", "<|pad|>", "<|header|>"
TEXTS = [
    "You are an expert radiographer. Describe accurately what you see in this image.",
    "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax.",
    "The heart is enlarged. There is a small left pleural effusion with bibasilar atelectasis.",
    "Findings: stable cardiomediastinal silhouette, no focal consolidation. Impression: no acute disease.",
    "system user assistant Right lower lobe opacity may represent pneumonia; degenerative changes of the spine.",
]
TEMPLATE = """{{ bos_token }}{% for message in messages %}{{ 'HEADER' + message['role'] + '\n' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\
{{ 'END' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'HEADERassistant\n' }}{% endif %}"""
SIGLIP = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
HEAD = 10.0  # times the word head's first weights, which are so small that no word could ever be sure
GATE = 0.5  # of a cross-attention layer; a new model's are 0, so that it cannot see the image


def tiny_mllama(folder: Path) -> None:
    """Llama 3.2 Vision: images reach the text through cross-attention in layers 1 and 3 of 4."""
    tokenizer = _tokenizer(["<|python_tag|>"])
    words = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|python_tag|>", "<|image|>"]})
    assert tokenizer.convert_tokens_to_ids("<|image|>") == words  # one past the output's words, as in the real one
    text = MllamaTextConfig(
        vocab_size=words,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        cross_attention_layers=[1, 3],
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        **_ids(tokenizer),
    )
    vision = MllamaVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_global_layers=1,
        attention_heads=4,
        intermediate_size=64,
        image_size=28,
        patch_size=14,
        intermediate_layers_indices=[0, 1],
        vision_output_dim=32 * 3,
    )
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=words)
    model = _seeded(MllamaForConditionalGeneration, config)
    for name, parameter in model.named_parameters():
        if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate")):
            parameter.data.fill_(GATE)
    images = MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer, chat_template=_template("<|image|>"))
    _save(folder, model, processor, tokenizer)


def tiny_idefics3(folder: Path) -> None:
    """Idefics3, the family of SmolVLM: image tokens among the text, four an image after the pixel shuffle."""
    markers = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
    markers += [f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)]
    tokenizer = _tokenizer(markers)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config=_llama(tokenizer),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    side = {"longest_edge": 32}
    images = Idefics3ImageProcessor(size=side, max_image_size=side, do_image_splitting=False)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=_template("<image>"))
    _save(folder, _seeded(Idefics3ForConditionalGeneration, config), processor, tokenizer)


def tiny_llava(folder: Path) -> None:
    """LLaVA 1.5: sixteen image tokens among the text, from the last but one layer of a CLIP."""
    tokenizer = _tokenizer(["<image>"])
    vision = CLIPVisionConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )
    _save(folder, _seeded(LlavaForConditionalGeneration, config), processor, tokenizer)


def tiny_qwen2_vl(folder: Path) -> None:
    """Qwen2-VL: as many image tokens as the image's size asks for, positions in three axes."""
    tokenizer = _tokenizer(["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"])
    ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]},
        **_ids(tokenizer),
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    pixels = {"shortest_edge": 28**2, "longest_edge": 56**2}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=pixels),
        tokenizer,
        Qwen2VLVideoProcessor(size=pixels),
        chat_template=_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    _save(folder, _seeded(Qwen2VLForConditionalGeneration, config), processor, tokenizer)


def tiny_gemma3(folder: Path) -> None:
    """Gemma 3, the family of MedGemma: four image tokens between two marks, which see each other."""
    tokenizer = _tokenizer(["<boi>", "<img>", "<eoi>"], boi_token="<boi>", image_token="<img>", eoi_token="<eoi>")
    config = Gemma3Config(
        text_config=_gemma(tokenizer) | {"sliding_window": 64, "query_pre_attn_scalar": 8},
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<boi>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<eoi>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<img>"),
    )
    images = Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=_template("<boi>"))
    model = _seeded(Gemma3ForConditionalGeneration, config)
    bridge = model.model.multi_modal_projector.mm_input_projection_weight  # a new model's is 0, so that it cannot see
    bridge.data.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    _save(folder, model, processor, tokenizer)


def tiny_paligemma(folder: Path) -> None:
    """PaliGemma: no chat template; images and prompt see each other, what follows is written after them."""
    tokenizer = _tokenizer(["<image>"])
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = PaliGemmaProcessor(images, tokenizer)
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = PaliGemmaConfig(
        text_config=_gemma(tokenizer) | {"model_type": "gemma"},
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "projection_dim": 32},
        projection_dim=32,
        image_token_index=image,
    )
    model = _seeded(PaliGemmaForConditionalGeneration, config)
    model.model.multi_modal_projector.linear.weight.data.mul_(HEAD)
    _save(folder, model, processor, tokenizer)


def _tokenizer(markers: list[str], **named: str) -> PreTrainedTokenizerFast:
    """Bytes and some of the words of `TEXTS`, then the markers that are not in the vocabulary yet."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = [BEGIN, END, PAD, HEADER, *markers]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    core.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BEGIN, eos_token=END, pad_token=PAD, extra_special_tokens=named
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [HEADER, *markers]})
    return tokenizer


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _llama(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        **_ids(tokenizer),
    )


def _gemma(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        **_ids(tokenizer),
    }


def _template(image: str) -> str:
    return TEMPLATE.replace("HEADER", HEADER).replace("END", END).replace("IMAGE", image)


def _seeded(kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
    model.get_output_embeddings().weight.data.mul_(HEAD)
    return model


def _save(folder: Path, model: PreTrainedModel, processor: ProcessorMixin, tokenizer: PreTrainedTokenizerFast) -> None:
    for name, value in _ids(tokenizer).items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
