"""A small model for tests/demo: real files of the usual kinds, made with the standard library.

    demo_model.py make FOLDER        writes it
    demo_model.py show FILE.safetensors    reads one tensor through a memory mapping
"""
import json
import mmap
import os
import random
import struct
import sys

VOCABULARY, WIDTH, LAYERS = 2048, 256, 4


def tensors():
    """(name, shape) of all."""
    yield "embed.weight", (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        yield f"layers.{layer}.attention.weight", (WIDTH, 3 * WIDTH)
        yield f"layers.{layer}.mlp.weight", (WIDTH, 4 * WIDTH)
    yield "norm.weight", (WIDTH,)


def write_safetensors(path):
    """https://github.com/huggingface/safetensors#format: length of the header, header, data."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    source = random.Random(0)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            file.write(struct.pack(f"<{count}f", *(source.gauss(0, 0.02) for _ in range(count))))


def make(folder):
    os.makedirs(folder, exist_ok=True)
    write_safetensors(os.path.join(folder, "model.safetensors"))
    words = {f"token{number}": number for number in range(VOCABULARY)}
    documents = {
        "config.json": {"model_type": "demo", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
                        "torch_dtype": "float32"},
        "generation_config.json": {"max_new_tokens": 16},
        "tokenizer.json": {"version": "1.0", "model": {"type": "WordLevel", "vocab": words, "unk_token": "token0"}},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "token0"},
    }
    for name, document in documents.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as file:
        file.write("---\nlicense: mit\n---\n# A small model\n\nRandom weights, for the demonstration of hugfs.\n")


def show(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        length, = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + length])
        for name in ("embed.weight", "norm.weight"):
            entry = header[name]
            first = struct.unpack_from("<4f", data, 8 + length + entry["data_offsets"][0])
            print(name, entry["dtype"], entry["shape"], "starts with", ", ".join(f"{value:.5f}" for value in first))


if __name__ == "__main__":
    {"make": make, "show": show}[sys.argv[1]](sys.argv[2])
