"""A timm image encoder as the vision tower of a LLaVA, and a LLaVA composed of such an encoder and a language model on disk.

A composed folder loads with plain transformers once this module is imported. Shapes: I images, N patches, C channels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from rayscribe.config import BackboneConfig
from rayscribe.errors import InputError
from rayscribe.files import beside, check_new, write_text
from rayscribe.models.backbones import Backbone
from rayscribe.models.folder import origin_of
from rayscribe.provenance import inherited, write_training_images

IMAGE_TOKEN = "<image>"

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% for part in message['content'] -%}
{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
"ChatML with placeholders for images; SmolLM2's and Qwen's language models have its tokens. No system prompt."


class BackboneTowerConfig(PretrainedConfig):
    """The timm model, and the width that the projector reads."""

    model_type = "rayscribe_backbone"

    def __init__(self, name: str = "mobilenetv2_100", hidden_size: int = 1280, **others: Any) -> None:
        self.name, self.hidden_size = name, hidden_size
        super().__init__(**others)


class BackboneTower(PreTrainedModel):
    """Pictures to the features of every patch, as the last hidden state. Its batch norms are frozen."""

    config_class = BackboneTowerConfig
    main_input_name = "pixel_values"

    def __init__(self, config: BackboneTowerConfig) -> None:
        super().__init__(config)
        self.backbone = Backbone(BackboneConfig(name=config.name, trainable=False))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Does nothing: timm has initialised the weights."""

    def forward(self, pixel_values: Tensor, **others: Any) -> BaseModelOutputWithPooling:
        """`pixel_values` (I, 3, H, W), normalised by the processor; features (I, N, C)."""
        self.backbone.net.eval()
        features_INC = self.backbone.features(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=features_INC, hidden_states=(features_INC,))


AutoConfig.register(BackboneTowerConfig.model_type, BackboneTowerConfig, exist_ok=True)
AutoModel.register(BackboneTowerConfig, BackboneTower, exist_ok=True)


def compose(language: Path, backbone: BackboneConfig, out: Path, *, size: int = 224, seed: int = 0) -> None:
    """Writes a LLaVA into `out`: the weights of the encoder and the language model, with an untrained projector.

    Raises InputError unless `language` is a language model with ChatML's tokens, and for several layers or encoders.
    """
    if backbone.layers > 1 or backbone.beside:
        raise InputError("a vision LLM reads the last layer of one image encoder; leave out layers and beside")
    check_new(out)
    torch.manual_seed(seed)
    tokenizer, words = _language_model(language)
    encoder = Backbone(backbone)
    model = _llava(words, encoder, backbone.name, image=tokenizer.get_vocab()[IMAGE_TOKEN])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": size, "width": size},
            do_center_crop=False,
            image_mean=list(backbone.mean),
            image_std=list(backbone.std),
        ),
        tokenizer=tokenizer,
        patch_size=_stride(encoder, size),
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
        image_token=IMAGE_TOKEN,
    )
    with beside(out) as made:
        model.save_pretrained(made)
        processor.save_pretrained(made)
    if origin := origin_of(backbone.weights):
        # A model tuned on this one must record the encoder's training data.
        about = {"format": "composed", "data": inherited({}, origin)}
        write_text(out / "model.json", json.dumps(about, indent=2) + "\n")
        write_training_images(out, [], backbone.sources)


def _language_model(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model, both extended by the image token. Raises InputError if ChatML's tokens are missing."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        words = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a language model in safetensors ({error}); give the folder of one") from error
    if tokenizer.convert_tokens_to_ids("<|im_end|>") in (None, tokenizer.unk_token_id):
        raise InputError(f"{folder}: its tokenizer lacks ChatML's <|im_start|> and <|im_end|>; use an instruct model")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    tokenizer.eos_token = "<|im_end|>"
    words.resize_token_embeddings(max(tokenizer.get_vocab()[IMAGE_TOKEN] + 1, words.config.vocab_size))
    return tokenizer, words


def _llava(words: Any, encoder: Backbone, name: str, *, image: int) -> Any:
    """The combined model; `name` is the encoder's in timm, `image` the id of the image token."""
    config = LlavaConfig(
        vision_config=BackboneTowerConfig(name=name, hidden_size=encoder.channels),
        text_config=words.config,
        image_token_index=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=words.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(words.model.state_dict())
    model.lm_head.load_state_dict(words.lm_head.state_dict())
    model.model.vision_tower.backbone.net.load_state_dict(encoder.net.state_dict())
    model.tie_weights()
    return model


@torch.no_grad()
def _stride(encoder: Backbone, size: int) -> int:
    """Side of a patch in pixels, from which the processor computes the number of patches per image."""
    patches = encoder.images(torch.zeros(1, size, size, dtype=torch.uint8)).shape[1]
    side = round(patches**0.5)
    if side * side != patches or size % side:
        raise InputError(
            f"--backbone.name {encoder.config.name}: its {patches} patches of {size} pixels do not form a square grid"
        )
    return size // side
