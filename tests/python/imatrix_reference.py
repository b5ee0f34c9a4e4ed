#!/usr/bin/env python3
"""Compares what `imatrix` of an emitted program wrote with hooks in transformers.

usage: imatrix_reference.py HF IMATRIX IDS...

HF is the folder that the program was made of, IMATRIX the program's file, each IDS the tokens of one window in order (`tokenize` of
the program prints them), separated by commas. Every matrix of the file is looked at: dense ones by hooks of their modules, experts by what
their module is handed, expert by expert. The largest difference of a column's sum is printed, in means of the matrix' sums, with all matrices whose
columns differ by more than a hundredth, which halves in the products of tiles come to, or whose rows are counted otherwise; then the exit status is 1.
Needs torch, transformers and gguf.
"""

import sys

import gguf
import torch
import transformers

TILE = 63  # of the program: of a last tile with an even number of tokens the last one is left out
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
         "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
         "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}


def main():
    folder, file, windows = sys.argv[1], sys.argv[2], sys.argv[3:]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    sums, counts = {}, {}

    def add(name, matrix, matrices, rows):
        total = sums.setdefault(name, torch.zeros(matrices, rows.shape[-1], dtype=torch.float64))
        total[matrix] += rows.double().pow(2).sum(0)
        counts.setdefault(name, torch.zeros(matrices))[matrix] += len(rows)

    def dense(name):
        return lambda _, arguments: add(name, 0, 1, arguments[0].reshape(-1, arguments[0].shape[-1]))

    def experts(layer):
        def hook(module, arguments):
            x, chosen = arguments[0].reshape(-1, arguments[0].shape[-1]), arguments[1]
            for expert in range(module.num_experts):
                rows = x[(chosen == expert).any(-1)]
                gate, up = (rows @ module.gate_up_proj[expert].T).chunk(2, -1)
                inner = module.act_fn(gate) * up
                for role, values in (("gate", rows), ("up", rows), ("down", inner)):
                    add("blk.%d.ffn_%s_exps.weight" % (layer, role), expert, module.num_experts, values)
        return hook

    for path, module in model.named_modules():
        parts = path.split(".")
        layer = int(parts[2]) if path.startswith("model.layers.") else None
        role = ".".join(parts[3:])
        if role == "mlp.experts":
            module.register_forward_pre_hook(experts(layer))
        elif role in NAMES:
            module.register_forward_pre_hook(dense("blk.%d.%s.weight" % (layer, NAMES[role])))
        elif path == "lm_head":
            module.register_forward_pre_hook(dense("output.weight"))
    for window in windows:
        ids = [int(i) for i in window.split(",")]
        left = len(ids) % TILE or TILE
        with torch.no_grad():
            model(torch.tensor([ids[:len(ids) - (left % 2 == 0)]]))
    if model.config.tie_word_embeddings:
        sums["token_embd.weight"], counts["token_embd.weight"] = sums.pop("output.weight"), counts.pop("output.weight")

    tensors = {t.name: torch.tensor(t.data.copy()) for t in gguf.GGUFReader(file).tensors}
    names = sorted(name[:-len(".in_sum2")] for name in tensors if name.endswith(".in_sum2"))
    worst, failed = 0.0, []
    for name in names:
        if name not in sums:
            failed.append("%s: the script knows no such matrix" % name)
            continue
        found, of = tensors[name + ".in_sum2"].reshape(sums[name].shape).double(), tensors[name + ".counts"].flatten()
        difference = ((found - sums[name]).abs() / sums[name].mean(-1, keepdim=True).clamp(min=1e-12)).max().item()
        worst = max(worst, difference)
        if difference > 1e-2 or not torch.equal(of, counts[name]):
            failed.append("%s: columns differ by %.2e; counts %s, %s expected" % (name, difference, of.tolist(), counts[name].tolist()))
    missing = sorted(set(sums) - set(names))
    print("%d of %d matrices agree, largest difference %.1e of a mean; not in the file: %s"
          % (len(names) - len(failed), len(names), worst, ", ".join(missing) or "none"))
    print("\n".join(failed))
    sys.exit(bool(failed or missing))


main()
