"""Writes which experts transformers chooses, for case folders of mixtures.

usage: expert_choices.py CASE... [--out FOLDER]

Each CASE is a folder with a checkpoint (hf, or hf-bf16 where hf is quantised) and its reference.safetensors. CASE/experts.safetensors, or
FOLDER/NAME.safetensors, gets for the router of each layer in turn (0, 1, ..) `N.experts`, int32 [tokens, chosen], and `N.margin`, float32
[tokens]: how far the score of the last expert (or group) that is chosen is above the best one that is not, in units of what they are chosen by.
The choice is what the model hands its experts; the margin is of scores made here anew, by the rule that the configuration names, and has to
lead to the same choice.
Needs torch, transformers and safetensors.
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file


def gap(scores, chosen):
    """What the chosen scores are above the others, [tokens]; infinite where there are no others."""
    others = scores.masked_fill(chosen, float("-inf")).amax(-1)
    return scores.masked_fill(~chosen, float("inf")).amin(-1) - others


def rule(config, logits, bias):
    """Scores that experts are chosen by, [tokens, experts], those that may be chosen, and how clear the choice of groups is."""
    if bias is not None or config.model_type in ("lfm2_moe", "glm4_moe", "glm4_moe_lite", "deepseek_v3"):
        scores = logits.sigmoid() + (0.0 if bias is None else bias)
    elif config.model_type in ("deepseek_v2",):
        scores = logits.softmax(-1)
    else:
        scores = logits
    groups, kept = getattr(config, "n_group", None) or 1, getattr(config, "topk_group", None) or 1
    if groups == 1 or getattr(config, "topk_method", None) == "greedy":
        return scores, torch.ones_like(scores, dtype=torch.bool), torch.full(scores.shape[:1], float("inf"))
    judged = scores.unflatten(-1, (groups, -1))
    judged = judged.amax(-1) if config.model_type == "deepseek_v2" else judged.topk(2, -1)[0].sum(-1)
    best = torch.zeros_like(judged, dtype=torch.bool).scatter(1, judged.topk(kept, -1)[1], True)
    return scores, best.repeat_interleave(scores.shape[-1] // groups, -1), gap(judged, best)


def choices(folder, reference):
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    config = model.config.get_text_config()
    routers, experts, biases = [], [], []

    def router(module, arguments, result):
        routers.append(result[0])
        given = [argument for argument in arguments[1:] if isinstance(argument, torch.Tensor)]
        biases.append(given[0] if given else getattr(module, "e_score_correction_bias", None))

    for module in model.modules():
        name = type(module).__name__
        if name.endswith("Experts"):
            module.register_forward_pre_hook(lambda _, arguments: experts.append(arguments[1]))
        elif name.endswith("Router"):
            module.register_forward_hook(router)
    with torch.no_grad():
        logits = model(reference["input_ids"][None].long()).logits[0]
    difference = (logits - reference["logits"]).abs().max().item()
    if difference > 1e-4 or not experts or len(experts) != len(routers):
        sys.exit(f"{folder}: logits differ by {difference}; {len(experts)} layers of experts, {len(routers)} routers")
    tensors = {}
    for index, (chosen, scores, bias) in enumerate(zip(experts, routers, biases)):
        scores, allowed, groups = rule(config, scores.reshape(len(chosen), -1), bias)
        mask = torch.zeros_like(allowed).scatter(1, chosen, True)
        margin = torch.minimum(gap(scores.masked_fill(~allowed, float("-inf")), mask), groups)
        # A choice that the rule made here does not give has a margin below 0.
        if margin.min() < 0 or (mask & ~allowed).any():
            sys.exit(f"{folder}: router {index} does not choose by the rule that is made here")
        # The best first; transformers leaves the order open where groups are limited.
        order = scores.gather(1, chosen).argsort(dim=-1, descending=True, stable=True)
        tensors[f"{index}.experts"] = chosen.gather(1, order).to(torch.int32).contiguous()
        tensors[f"{index}.margin"] = margin.to(torch.float32).contiguous()
    return tensors


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("case", type=Path, nargs="+")
    arguments.add_argument("--out", type=Path)
    arguments = arguments.parse_args()
    for case in arguments.case:
        folder = next(folder for folder in (case / "hf-bf16", case / "hf") if folder.is_dir())
        tensors = choices(folder, load_file(case / "reference.safetensors"))
        out = arguments.out / f"{case.name}.safetensors" if arguments.out else case / "experts.safetensors"
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, out)
        least = min(margin.min().item() for name, margin in tensors.items() if name.endswith("margin"))
        print(f"{case.name}: {len(tensors) // 2} routers, least margin {least:.1e}")


if __name__ == "__main__":
    main()
