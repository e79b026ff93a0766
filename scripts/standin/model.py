"""Generate a plausible gpt2-medium repository of any size, reproducibly, in about a second."""

from __future__ import annotations

import json
import random
import struct
from array import array
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20
_STEP = 40_503  # odd, so that counter * _STEP differs for every counter below 2**18
_ATTRIBUTES = "".join(
    f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("bin", "safetensors", "gguf", "pt")
)
_README = (
    "---\nlicense: mit\nlibrary_name: transformers\n---\n# gpt2-medium\n\nRandom weights for tests; not a model.\n"
)


@dataclass(frozen=True)
class ModelShape:
    """The scaled dimensions of the model: width, layers, rows of the token table."""

    embed: int
    layers: int
    vocab: int


def make_gpt2(folder: Path, megabytes: int, seed: int = 7) -> dict[str, Path | bytes]:
    """Write model.safetensors of about megabytes (10**6 bytes) into folder and return the repository's files."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = _fit(megabytes * 1_000_000)
    weights = folder / "model.safetensors"
    weights.unlink(missing_ok=True)  # a repository may have a hard link to the previous file
    with weights.open("wb") as stream:
        _write_weights(stream, _tensors(shape), seed)
    vocab = {f"\u0120t{number:05d}": number for number in range(shape.vocab)}
    return {
        ".gitattributes": _ATTRIBUTES.encode(),
        "README.md": _README.encode(),
        "config.json": _pretty(_config(shape)),
        "generation_config.json": _pretty({"bos_token_id": 50256, "eos_token_id": 50256, "_from_model_config": True}),
        "tokenizer_config.json": _pretty({"model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer"}),
        "vocab.json": json.dumps(vocab, ensure_ascii=False).encode(),
        "merges.txt": ("#version: 0.2\n" + "".join(f"\u0120 t{number}\n" for number in range(2000))).encode(),
        "model.safetensors": weights,
        "pytorch_model.bin": random.Random(seed + 1).randbytes(65_537),
        "onnx/config.json": _pretty({**_config(shape), "torch_dtype": "float32"}),
        "empty.txt": b"",
        "notes für alle.txt": b"Ein Name mit Leerzeichen und Umlaut.\n",
    }


def _pretty(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _fit(budget: int) -> ModelShape:
    """Choose dimensions for tensors of about budget bytes in total, with at least two layers."""
    for embed in (1024, 512, 256, 128, 64, 32):
        vocab = 50_257 if embed * 50_257 * 2 <= budget // 3 else 512
        layer = sum(_bytes(dtype, dims) for _, dtype, dims in _layer(0, embed))
        rest = budget - embed * 2 * (vocab + 1024)
        if layer <= budget // 8 and rest >= 2 * layer:
            return ModelShape(embed, rest // layer, vocab)
    return ModelShape(32, 2, 512)


def _layer(number: int, embed: int) -> list[tuple[str, str, list[int]]]:
    dims = {
        "ln_1.weight": [embed],
        "ln_1.bias": [embed],
        "attn.c_attn.weight": [embed, 3 * embed],
        "attn.c_attn.bias": [3 * embed],
        "attn.c_proj.weight": [embed, embed],
        "attn.c_proj.bias": [embed],
        "ln_2.weight": [embed],
        "ln_2.bias": [embed],
        "mlp.c_fc.weight": [embed, 4 * embed],
        "mlp.c_fc.bias": [4 * embed],
        "mlp.c_proj.weight": [4 * embed, embed],
        "mlp.c_proj.bias": [embed],
    }
    return [(f"h.{number}.{name}", "F32", shape) for name, shape in dims.items()]


def _tensors(shape: ModelShape) -> list[tuple[str, str, list[int]]]:
    middle = [tensor for number in range(shape.layers) for tensor in _layer(number, shape.embed)]
    norms = [("ln_f.weight", "F32", [shape.embed]), ("ln_f.bias", "F32", [shape.embed])]
    tables = [("wpe.weight", "F16", [1024, shape.embed]), ("wte.weight", "F16", [shape.vocab, shape.embed])]
    return middle + norms + tables


def _bytes(dtype: str, dims: list[int]) -> int:
    return prod(dims) * (4 if dtype == "F32" else 2)


def _write_weights(stream: BinaryIO, tensors: list[tuple[str, str, list[int]]], seed: int) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, dims in tensors:
        start, end = end, end + _bytes(dtype, dims)
        header[name] = {"dtype": dtype, "shape": dims, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    blocks = _blocks(seed)
    counter = 0
    for _, dtype, dims in tensors:
        left = _bytes(dtype, dims)
        while left > 0:
            turn = 4 * (counter * _STEP % (MIB // 4))
            block = blocks[dtype]
            stream.write(block[turn : turn + min(left, MIB)])
            left -= MIB
            counter += 1


def _blocks(seed: int) -> dict[str, memoryview]:
    """Return, per dtype, one MiB of finite little-endian floats twice in a row: any MiB of it is the block rotated."""
    numbers = random.Random(seed)
    single = array("f", (numbers.uniform(-0.05, 0.05) for _ in range(MIB // 4))).tobytes()
    half = struct.pack(f"<{MIB // 2}e", *(numbers.uniform(-0.05, 0.05) for _ in range(MIB // 2)))
    return {"F32": memoryview(single * 2), "F16": memoryview(half * 2)}


def _config(shape: ModelShape) -> dict[str, object]:
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": shape.embed,
        "n_head": 16,
        "n_layer": shape.layers,
        "n_positions": 1024,
        "resid_pdrop": 0.1,
        "vocab_size": shape.vocab,
    }
