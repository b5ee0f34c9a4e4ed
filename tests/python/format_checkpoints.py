"""Writes three small random Llama checkpoints that hold every weight format, with transformers' logits for them.

usage: format_checkpoints.py OUT [--only formats-gguf|formats-iq|formats-mlx]

OUT/formats-gguf/model.MIXED.gguf has another GGML format in nearly every matrix, random blocks with scales that give weights of a
usual size; OUT/formats-iq/model.IQ.gguf has those whose blocks are 256 weights and whose codes are indices; OUT/formats-mlx/mlx has every bit width and group size of MLX's affine quantisation. Beside them lies
reference.safetensors: `input_ids` and `logits`, in float32 on the dequantised weights (by the `gguf` package; affine ones
here, scale * code + bias). Needs torch, transformers, accelerate, gguf and numpy.
"""

import argparse
import itertools
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as T
from safetensors.torch import save_file
from tiny_checkpoints import VOCAB, tokenizer_json

TOKENS = 40
LAYERS = 3
# Standard deviation of the weights, times the square root of the row's length.
GAIN = 1.5
# Format -> (bytes per block, offsets of f16 fields, offset of an E8M0 scale)
BLOCKS = {
    T.Q8_0: (34, [0], None),
    T.Q4_0: (18, [0], None),
    T.Q4_1: (20, [0, 2], None),
    T.Q5_0: (22, [0], None),
    T.Q5_1: (24, [0, 2], None),
    T.Q2_K: (84, [80, 82], None),
    T.Q3_K: (110, [108], None),
    T.Q4_K: (144, [0, 2], None),
    T.Q5_K: (176, [0, 2], None),
    T.Q6_K: (210, [208], None),
    T.IQ4_NL: (18, [0], None),
    T.MXFP4: (17, [], 0),
    T.IQ4_XS: (136, [0], None),
    T.IQ3_XXS: (98, [0], None),
    T.IQ3_S: (110, [0], None),
    T.IQ2_XXS: (66, [0], None),
    T.IQ2_XS: (74, [0], None),
    T.IQ2_S: (82, [0], None),
    T.IQ1_S: (50, [0], None),
    T.IQ1_M: (56, [], None),
}
# Per layer: q, k, v, output, gate, up, down. Rows of the output projection are 128 wide: no K-quants there.
MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
FORMATS = [
    [T.Q4_1, T.Q4_1, T.Q5_1, T.Q5_0, T.Q2_K, T.Q3_K, T.Q5_K],
    [T.IQ4_NL, T.MXFP4, T.Q3_K, T.MXFP4, T.Q4_1, T.Q5_0, T.Q2_K],
    [T.Q5_K, T.Q2_K, T.Q6_K, T.IQ4_NL, T.MXFP4, T.IQ4_NL, T.Q3_K],
]
EMBEDDING, HEAD = T.Q5_1, T.MXFP4
IQ_FORMATS = [
    [T.IQ4_XS, T.IQ3_XXS, T.IQ2_XXS, T.IQ3_S, T.IQ2_XS, T.IQ2_S, T.IQ1_S],
    [T.IQ1_M, T.IQ1_S, T.IQ2_S, T.IQ4_XS, T.IQ3_XXS, T.IQ2_XXS, T.IQ1_M],
    [T.IQ2_XS, T.IQ3_S, T.IQ1_M, T.IQ3_XXS, T.IQ1_S, T.IQ4_XS, T.IQ3_S],
]
IQ_EMBEDDING, IQ_HEAD = T.IQ2_S, T.IQ3_S


def blocks(random, kind, rows, cols):
    """[rows, bytes] random blocks whose weights have the wanted spread."""
    size, halves, exponent = BLOCKS[kind]
    count = rows * cols // gguf.GGML_QUANT_SIZES[kind][0]
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    field = random.uniform(0.5, 1.0, (count, len(halves)))
    wanted = GAIN / cols**0.5

    def put(factor):
        for index, offset in enumerate(halves):
            data[:, offset : offset + 2] = (field[:, index] * factor).astype("<f2").view(np.uint8).reshape(-1, 2)
        if kind == T.IQ1_M:
            # The half lies in the top nibbles of the last four shorts.
            half = (np.linspace(0.5, 1.0, count) * factor).astype("<f2").view("<u2")
            shorts = data[:, 48:].view("<u2")
            shorts[:] = shorts & 0x0FFF | (half[:, None] >> np.array([0, 4, 8, 12]) & 15) << 12
        if exponent is not None:
            data[:, exponent] = np.clip(np.round(127 + np.log2(factor)), 0, 254)
        return data.reshape(rows, -1)

    spread = gguf.quants.dequantize(put(2.0**-6), kind).std()
    return put(2.0**-6 * wanted / spread)


def write_gguf(root):
    return write_mixture(root, "MIXED", 1, 32, FORMATS, EMBEDDING, HEAD)


def write_iq(root):
    return write_mixture(root, "IQ", 4, 64, IQ_FORMATS, IQ_EMBEDDING, IQ_HEAD)


def write_mixture(root, name, seed, head_dim, formats, embedding, head):
    random = np.random.default_rng(seed)
    hidden, ffn, heads, kv_heads = 256, 256, 4, 2
    path = root / f"model.{name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("formats")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    model = tokenizer_json()["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if i < 3 else gguf.TokenType.NORMAL for i in range(VOCAB)])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = dict(zip(MATRICES, [(heads * head_dim, hidden), (kv_heads * head_dim, hidden), (kv_heads * head_dim, hidden),
                                 (hidden, heads * head_dim), (ffn, hidden), (ffn, hidden), (hidden, ffn)]))  # fmt: skip

    def matrix(name, kind, shape):
        writer.add_tensor(name, blocks(random, kind, *shape), raw_dtype=kind)

    def norm(name):
        writer.add_tensor(name, (1 + 0.2 * random.standard_normal(hidden)).astype(np.float32))

    matrix("token_embd.weight", embedding, (VOCAB, hidden))
    matrix("output.weight", head, (VOCAB, hidden))
    norm("output_norm.weight")
    for layer, kinds in enumerate(formats):
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
        for name, kind in zip(MATRICES, kinds):
            matrix(f"blk.{layer}.{name}.weight", kind, shapes[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = {"pretrained_model_name_or_path": root, "gguf_file": path.name}
    return transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, attn_implementation="eager")


def affine(random, rows, cols, bits, group):
    """The three tensors of an affine matrix, and its weights."""
    codes = random.integers(0, 2**bits, (rows, cols), dtype=np.uint8)
    spread = GAIN / cols**0.5
    scale = torch.tensor(spread * 3.4 / 2**bits * random.uniform(0.7, 1.3, (rows, cols // group)), dtype=torch.bfloat16)
    bias = torch.tensor(-0.5 * spread * 3.4 * random.uniform(0.8, 1.2, scale.shape), dtype=torch.bfloat16)
    # A row is a little-endian stream of codes.
    stream = np.unpackbits(codes[:, :, None], axis=2, bitorder="little")[:, :, :bits].reshape(rows, -1)
    packed = torch.from_numpy(np.packbits(stream, axis=1, bitorder="little").view("<u4").copy())
    each = [part.float().repeat_interleave(group, dim=1) for part in (scale, bias)]
    weights = each[0] * torch.from_numpy(codes).float() + each[1]
    return {"weight": packed, "scales": scale, "biases": bias}, weights


def write_mlx(root):
    random = np.random.default_rng(2)
    settings = itertools.cycle(itertools.product((2, 3, 4, 5, 6, 8), (32, 64, 128)))
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).eval()
    tensors, quantization = {}, {"bits": 4, "group_size": 64}
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name.endswith("norm.weight"):
                weight.copy_(torch.tensor(1 + 0.2 * random.standard_normal(len(weight))).to(torch.bfloat16))
                tensors[name] = weight.to(torch.bfloat16)
                continue
            bits, group = next(settings)
            parts, weights = affine(random, *weight.shape, bits, group)
            weight.copy_(weights)
            module = name.removesuffix(".weight")
            quantization[module] = {"bits": bits, "group_size": group}
            tensors.update({f"{module}.{part}": tensor for part, tensor in parts.items()})
    folder = root / "mlx"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "mlx"})
    # transformers writes the architecture with the model, which is not saved here.
    written = {**config.to_diff_dict(), "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "quantization": quantization}
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False) + "\n")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n")
    return model


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--only")
    arguments = arguments.parse_args()
    for case, write in {"formats-gguf": write_gguf, "formats-iq": write_iq, "formats-mlx": write_mlx}.items():
        if arguments.only not in (None, case):
            continue
        root = arguments.out / case
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        model = write(root).eval()
        torch.manual_seed(3)
        ids = torch.randint(3, VOCAB, (1, TOKENS), dtype=torch.int64)
        with torch.no_grad():
            logits = model(ids).logits[0]
        tensors = {"input_ids": ids[0].to(torch.int32), "logits": logits.to(torch.float32).contiguous()}
        save_file(tensors, root / "reference.safetensors")
        print(f"{case}: standard deviation of the logits {logits.std():.2f}")


if __name__ == "__main__":
    main()
