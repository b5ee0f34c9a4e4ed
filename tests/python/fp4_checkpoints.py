"""Writes tiny random checkpoints of NVFP4, MXFP4 and MXFP8 matrices as toolchains store them, with transformers' logits for them.

usage: fp4_checkpoints.py OUT [--only NAME]

OUT/NAME has the forms and reference.safetensors `input_ids` and `logits`, in float32 on the weights that the formats' formulas give;
all forms of a case hold the same numbers. Needs torch, transformers, numpy and gguf.

  nvfp4        Qwen 3: ModelOpt (hf), compressed-tensors (hf-compressed), MLX (mlx), GGUF; some matrices without a second scale
  nvfp4-moe    Qwen 3 MoE: an expert a tensor with a second scale each (hf), stacks with as many (mlx, GGUF)
  fp4-mixed    MLX: nvfp4 with and without a second scale, mxfp4, mxfp8, affine and plain matrices, by module (the folder is called hf: it is the only form)
  fp4-groups   compressed-tensors: nvfp4, mxfp4, mxfp8 and float-quantized matrices (hf)
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tiny_checkpoints import VOCAB, affine, tokenizer_json, write_tokenizer
from toolchain_checkpoints import e4m3

TOKENS = 24
HIDDEN, FFN, EXPERTS = 64, 128, 4
GAIN = 1.5
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
# Root of the mean square of these, and of random E4M3 codes.
SPREAD_4, SPREAD_8 = 2.93, 100.0
F8 = torch.float8_e4m3fn


class Matrix:
    """Codes `[rows, cols]`, scales and a factor, with the weights that they are."""

    def __init__(self, random, kind, rows, cols, factor=None):
        self.kind, self.factor, self.divisor, self.largest = kind, factor, None, None
        group = 16 if kind == "nvfp4" else 32
        spread = GAIN / cols**0.5 / (SPREAD_8 if kind == "mxfp8" else SPREAD_4)
        if kind == "mxfp8":
            codes = torch.tensor(random.standard_normal((rows, cols)) * SPREAD_8, dtype=torch.float32).clamp(-448, 448).to(F8)
            self.codes, values = codes, codes.float()
        else:
            self.codes = torch.from_numpy(random.integers(0, 16, (rows, cols))).to(torch.uint8)
            values = E2M1[self.codes.long()]
        shape = (rows, cols // group)
        if kind == "nvfp4":
            one = 1.0 if factor is None else float(factor)
            self.scales = torch.tensor(spread / one * random.uniform(0.6, 1.4, shape), dtype=torch.float32).to(F8)
            scales = self.scales.float() * one
            if factor is not None:
                # What other conventions store for it.
                self.divisor = np.float32(1) / np.float32(factor)
                self.largest = np.float32(factor) * np.float32(448 * 6)
        else:
            exponents = np.round(np.log2(spread)) + random.integers(-1, 2, shape)
            self.scales = torch.from_numpy((exponents + 127).astype(np.uint8))
            scales = torch.exp2(self.scales.float() - 127)
        self.weights = values * scales.repeat_interleave(group, 1)

    def bytes(self):
        """Codes in order, two a byte."""
        if self.kind == "mxfp8":
            return self.codes.view(torch.uint8)
        return (self.codes[:, 0::2] | self.codes[:, 1::2] << 4).contiguous()

    def model_opt(self):
        return {"weight": self.bytes(), "weight_scale": self.scales, "weight_scale_2": torch.tensor(self.factor or 1.0), "input_scale": torch.tensor(0.01)}

    def compressed(self):
        if self.kind == "mxfp8":
            return {"weight": self.codes, "weight_scale": self.scales}
        parts = {"weight_packed": self.bytes(), "weight_scale": self.scales}
        if self.kind == "nvfp4":
            parts |= {"weight_global_scale": torch.tensor([self.divisor or 1.0]), "input_global_scale": torch.tensor([100.0])}
        return parts

    def mlx(self):
        parts = {"weight": self.bytes().view(torch.uint32), "scales": self.scales.view(torch.uint8)}
        return parts if self.largest is None else parts | {"global_scale": torch.tensor(self.largest)}

    def ggml(self):
        """Blocks of 64, `[rows, bytes]`."""
        sub = self.codes.unflatten(1, (-1, 16))
        halves = (sub[..., :8] | sub[..., 8:] << 4).unflatten(1, (-1, 4)).flatten(2)
        return torch.cat([self.scales.view(torch.uint8).unflatten(1, (-1, 4)), halves], 2).flatten(1).numpy()


def stack(parts):
    """The same tensors of all experts as one."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


GGUF_NAMES = {
    "embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "q_proj": "attn_q", "k_proj": "attn_k",
    "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
}  # fmt: skip


def gguf_name(module):
    stem = next(name for part, name in GGUF_NAMES.items() if module.endswith(part))
    return f"blk.{module.split('.')[2]}.{stem}" if ".layers." in module else stem


class Case:
    """A random model, its matrices by module, and what is not quantised."""

    def __init__(self, seed, experts, kind):
        self.random = np.random.default_rng(seed)
        sizes = dict(
            vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            head_dim=32, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
        )  # fmt: skip
        if experts:
            mixture = dict(num_experts=EXPERTS, num_experts_per_tok=2, moe_intermediate_size=64, norm_topk_prob=True)
            self.config = transformers.Qwen3MoeConfig(**sizes, **mixture)
            model = transformers.Qwen3MoeForCausalLM
        else:
            self.config = transformers.Qwen3Config(**sizes)
            model = transformers.Qwen3ForCausalLM
        self.config._attn_implementation = "eager"
        self.model = model(self.config).eval()
        self.matrices, self.plain = {}, {}
        with torch.no_grad():
            for name, weight in self.model.state_dict().items():
                if name != "lm_head.weight":
                    weight.copy_(self.fill(name, weight, kind))

    def fill(self, name, weight, kind):
        module = name.removesuffix(".weight")
        if weight.dim() == 3:
            # Gate and up of an expert are one matrix here.
            halves = ["gate_proj", "up_proj"] if name.endswith("gate_up_proj") else ["down_proj"]
            stem = module.rsplit(".", 1)[0]
            of = lambda expert, half: self.matrix(f"{stem}.{expert}.{half}", weight.shape[1] // len(halves), weight.shape[2], kind)
            return torch.stack([torch.cat([of(expert, half) for half in halves]) for expert in range(EXPERTS)])
        if "proj" in name or kind(module) is not None and weight.dim() == 2 and not name.endswith("mlp.gate.weight"):
            return self.matrix(module, *weight.shape, kind)
        mean, spread = (1, 0.2) if "norm" in name else (0, 0.2)
        self.plain[module] = torch.tensor(mean + spread * self.random.standard_normal(weight.shape)).to(torch.bfloat16)
        return self.plain[module].float()

    def matrix(self, module, rows, cols, kind):
        name = kind(module)
        if name is None:
            self.plain[module] = torch.tensor(GAIN / cols**0.5 * self.random.standard_normal((rows, cols))).to(torch.bfloat16)
            return self.plain[module].float()
        if name == "affine":
            parts, weights = affine(torch.tensor(GAIN / cols**0.5 * self.random.standard_normal((rows, cols))), 4)
            self.matrices[module] = dict(zip(["weight", "scales", "biases"], parts))
            return weights
        if name == "channels":
            self.matrices[module], weights = e4m3(self.random, rows, cols, (1, cols), "weight_scale", torch.bfloat16)
            return weights
        factor = None if name == "nvfp4-alone" else float(np.float32(self.random.uniform(0.002, 0.01)))
        made = Matrix(self.random, name.removesuffix("-alone"), rows, cols, factor if name == "nvfp4" else None)
        self.matrices[module] = made
        return made.weights

    def folder(self, folder, tensors, settings):
        folder.mkdir(parents=True)
        plain = {f"{module}.weight": tensor for module, tensor in self.plain.items()}
        save_file({**plain, **tensors}, folder / "model.safetensors", metadata={"format": "pt"})
        # A folder's type is that of what is not quantised: the numbers here are bounded as those of half precision.
        architecture = type(self.model).__name__
        written = {**self.config.to_diff_dict(), "architectures": [architecture], "tie_word_embeddings": True, "dtype": "float16"}
        written.pop("_attn_implementation", None)
        (folder / "config.json").write_text(json.dumps({**written, **settings}, indent=1) + "\n")
        write_tokenizer(folder)

    def modules(self, form):
        """The tensors of each matrix by itself."""
        parts = lambda made: made if isinstance(made, dict) else getattr(made, form)()
        return {f"{module}.{part}": tensor for module, made in self.matrices.items() for part, tensor in parts(made).items()}

    def stacks(self):
        """Matrices of experts, by the name that MLX has for all of them."""
        found = {}
        for module, made in self.matrices.items():
            if ".experts." in module:
                found.setdefault(re.sub(r"\.experts\.\d+\.", ".switch_mlp.", module), []).append(made)
        return found

    def write_mlx(self, folder, settings):
        single = {name: tensor for name, tensor in self.modules("mlx").items() if ".experts." not in name}
        for module, experts in self.stacks().items():
            single |= {f"{module}.{part}": tensor for part, tensor in stack([made.mlx() for made in experts]).items()}
        self.folder(folder, single, {"quantization": settings})

    def write_gguf(self, path):
        arch = "qwen3moe" if hasattr(self.config, "num_experts") else "qwen3"
        writer = gguf.GGUFWriter(path, arch)
        writer.add_block_count(1)
        writer.add_context_length(self.config.max_position_embeddings)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(FFN)
        writer.add_head_count(self.config.num_attention_heads)
        writer.add_head_count_kv(self.config.num_key_value_heads)
        writer.add_key_length(self.config.head_dim)
        writer.add_value_length(self.config.head_dim)
        writer.add_layer_norm_rms_eps(self.config.rms_norm_eps)
        writer.add_rope_freq_base(self.config.rope_parameters["rope_theta"])
        if arch == "qwen3moe":
            writer.add_expert_count(EXPERTS)
            writer.add_expert_used_count(2)
            writer.add_expert_feed_forward_length(64)
        tokenizer = tokenizer_json()
        tokens = list(tokenizer["model"]["vocab"])
        tokens += [f"[PAD{index}]" for index in range(len(tokens), VOCAB)]
        special = {token["content"] for token in tokenizer["added_tokens"]}
        types = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.UNUSED if token.startswith("[PAD") else gguf.TokenType.NORMAL for token in tokens]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        for module, tensor in self.plain.items():
            writer.add_tensor(f"{gguf_name(module)}.weight", tensor.float().numpy())
        single = {gguf_name(module): made for module, made in self.matrices.items() if ".experts." not in module}
        for name, made in single.items():
            writer.add_tensor(f"{name}.weight", made.ggml(), raw_dtype=gguf.GGMLQuantizationType.NVFP4)
            if made.factor is not None:
                writer.add_tensor(f"{name}.scale", np.array([made.factor], np.float32))
        for module, experts in self.stacks().items():
            name = f"{gguf_name(module)}_exps"
            blocks = np.stack([made.ggml() for made in experts])
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.NVFP4)
            writer.add_tensor(f"{name}.scale", np.array([made.factor for made in experts], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def reference(self, root):
        torch.manual_seed(3)
        ids = torch.randint(3, VOCAB, (1, TOKENS), dtype=torch.int64)
        with torch.no_grad():
            logits = self.model(ids).logits[0]
        save_file({"input_ids": ids[0].to(torch.int32), "logits": logits.float().contiguous()}, root / "reference.safetensors")
        print(f"{root.name}: standard deviation of the logits {logits.std():.2f}")


GROUPS = {"quant_method": "compressed-tensors", "config_groups": {}}
MODEL_OPT = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}


def nvfp4(root):
    alone = lambda module: "nvfp4-alone" if module.endswith(("k_proj", "up_proj")) else "nvfp4" if "proj" in module else None
    case = Case(40, False, alone)
    case.folder(root / "hf", case.modules("model_opt"), {})
    (root / "hf/hf_quant_config.json").write_text(json.dumps(MODEL_OPT, indent=1) + "\n")
    case.folder(root / "hf-compressed", case.modules("compressed"), {"quantization_config": {**GROUPS, "format": "nvfp4-pack-quantized"}})
    case.write_mlx(root / "mlx", {"group_size": 16, "bits": 4, "mode": "nvfp4"})
    case.write_gguf(root / "model.NVFP4.gguf")
    case.reference(root)


def nvfp4_moe(root):
    case = Case(41, True, lambda module: "nvfp4" if "proj" in module else None)
    case.folder(root / "hf", case.modules("model_opt"), {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}})
    case.write_mlx(root / "mlx", {"group_size": 16, "bits": 4, "mode": "nvfp4"})
    case.write_gguf(root / "model.NVFP4.gguf")
    case.reference(root)


def fp4_mixed(root):
    kinds = {"embed_tokens": "nvfp4", "q_proj": "nvfp4-alone", "k_proj": "mxfp4", "v_proj": "mxfp8", "o_proj": None, "gate_proj": "affine", "up_proj": "mxfp8", "down_proj": "nvfp4"}
    case = Case(42, False, lambda module: next((kind for name, kind in kinds.items() if module.endswith(name)), None))
    own = {"affine": {"group_size": 32, "bits": 4}, "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"}, "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"}}
    kind = lambda made: "affine" if isinstance(made, dict) else made.kind
    settings = {module: own[kind(made)] for module, made in case.matrices.items() if kind(made) in own}
    case.write_mlx(root / "hf", {"group_size": 16, "bits": 4, "mode": "nvfp4", **settings})
    case.reference(root)


def fp4_groups(root):
    kinds = {"q_proj": "nvfp4", "k_proj": "nvfp4", "v_proj": "mxfp4", "o_proj": "mxfp8", "gate_proj": "mxfp4", "up_proj": "channels", "down_proj": "nvfp4"}
    case = Case(43, False, lambda module: next((kind for name, kind in kinds.items() if module.endswith(name)), None))
    case.folder(root / "hf", case.modules("compressed"), {"quantization_config": {**GROUPS, "format": "mixed-precision"}})
    case.reference(root)


CASES = {"nvfp4": nvfp4, "nvfp4-moe": nvfp4_moe, "fp4-mixed": fp4_mixed, "fp4-groups": fp4_groups}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--only", choices=CASES)
    arguments = arguments.parse_args()
    for name, make in CASES.items():
        if arguments.only in (None, name):
            shutil.rmtree(arguments.out / name, ignore_errors=True)
            (arguments.out / name).mkdir(parents=True)
            make(arguments.out / name)


if __name__ == "__main__":
    main()
