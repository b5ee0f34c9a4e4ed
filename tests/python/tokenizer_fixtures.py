"""Writes tokenizers of many configurations, and what independent implementations make of 2,000 texts with each.

usage: tokenizer_fixtures.py OUT [--show CASE NUMBER]

OUT/texts-KIND.json are the texts, OUT/CASE the files of a checkpoint that a tokenizer is read from, OUT/cases.json says
which texts belong to a case, which implementation is the reference, and where the results are: OUT/results/HASH.json, which
cases with equal results share. Results are the ids of the first 8 texts (and the decoded text, where it is compared)
and for each text three base64 digits: the low 18 bits of the 32-bit FNV-1a hash of the ids as little-endian u32 and the
decoded text's UTF-8.
`--show` prints the reference's whole result for one text of a case.

The references: sentencepiece for tokenizer.model files; transformers for tokens of added_tokens.json and for the keys
`add_bos_token` and `add_eos_token`; for GGUFs llama.cpp's rules (llama-vocab.cpp: `tokenizer_st_partition` and "Handle per
token attributes"), written down here, around sentencepiece's segmentation of what is between special tokens. All
vocabularies are trained here, on sentences of the script's own. Needs transformers 5, sentencepiece, protobuf and gguf.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import re
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

TEXTS = 2000
SAMPLE = 8
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
WORDS = (
    "the a river fox ran to house under old stone bright morning she he said that it was very small tree wind and of in "
    "on with over garden walked slowly because tomorrow 12 345 6.7 don't it's naïve café Zürich über 東京 日本語 привет мир"
).split()
# Compositions, widths, ligatures, marks and blanks that a normalizer changes, or leaves alone.
ODD = [
    "ﬁ", "①", "２０", "™", "ｶﾞ", "ﾊﾟ", "ｶ", "ﾞ", "e\u0301", "e\u0301\u0323", "é", "\u1e9b\u0323", "각", "\u1100\u1161\u11a8", "ﷺ", "½", "Å",
    "\u00a0", "\u3000", "\u2003", "\u200b", "\u200d", "\ufeff", "\t", "\n", "\r\n", "\x01", "\u2581", "🙂", "👩‍👩‍👧", "𝔸", "ß", "İ",
    "x<0x0A>", "%", "^", "[", "]", "\\", "-", "|", "~",
]
ROLES = ["<|user|>", "<|assistant|>", "<|end|>", "<|system|>", "<|endoftext|>", "<s>", "</s>", "<unk>"]
CHATML = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|im_", "<tool>"]
OWN = ["<sep>", "<sep><sep>", "[x]", "fox+", "a.b", "\u2581\u2581", "é|"]


def texts(kind):
    rng = random.Random(f"texts {kind}")
    marks = {"plain": [], "chat": ROLES + CHATML, "close": CHATML}[kind]
    blanks = [" ", " ", " ", "", "  ", "   "] + (["\n", "\n\n", "\t", " \n "] if marks else [])

    def part():
        draw = rng.random()
        if marks and draw < 0.3:
            return rng.choice(marks)
        if draw < 0.45:
            return rng.choice(ODD[6:] if kind != "plain" else ODD)
        if draw < 0.55 and kind == "plain":
            return rng.choice(OWN)
        return rng.choice(WORDS)

    found = {"": None, " ": None, "   ": None, "\u2581": None, " \u2581 ": None}
    if marks:
        end = "" if kind == "close" else " "
        found = dict.fromkeys(["", *marks, *(mark + end for mark in marks), *(mark + "\n" + mark for mark in marks)])
    while len(found) < TEXTS:
        text = "".join(rng.choice(blanks) + part() for _ in range(rng.randint(1, 4))) + rng.choice(["", "", " ", "  "])
        if kind == "close":
            # transformers 5 gives no space of its own to a part that begins with one, as version 4 and sentencepiece do.
            text = re.sub(r"(?<![^>])[ \u2581]+", "", text)
        found[text] = None
    return list(found)[:TEXTS]


def sentences():
    rng = random.Random("sentences")
    for _ in range(3000):
        yield " ".join(rng.choice(WORDS + OWN[:1]) for _ in range(rng.randint(3, 12)))


def train(**options):
    model = io.BytesIO()
    options = {"vocab_size": 460, "model_type": "bpe", "byte_fallback": True, "character_coverage": 0.9999, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(), model_writer=model, hard_vocab_limit=False, minloglevel=2, num_threads=1, **options
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto


def custom_rules(folder):
    """A character map of a few rules: longest match, deletion, growth, spaces."""
    rules = {"ｶ": "カ", "ｶﾞ": "ガ", "e\u0301": "é", "e\u0301\u0323": "ệ", "\t": " ", "\u3000": "  ", "\u00a0": " ", "\u200b": "", "™": "TM", "ß": "ss", "a": "ä", "fox": "vixen"}
    path = folder / "rules.tsv"
    path.write_text("".join(f"{' '.join(f'{ord(c):X}' for c in a)}\t{' '.join(f'{ord(c):X}' for c in b)}\n" for a, b in rules.items()))
    return path


def spm_cases(folder):
    keep = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    identity = {"normalization_rule_name": "identity"}
    suffix = {"treat_whitespace_as_suffix": True}
    bare = {"add_dummy_prefix": False}
    own = {"user_defined_symbols": OWN}
    rules = {"normalization_rule_tsv": str(custom_rules(folder))}
    options = {
        "identity": keep,
        "no-prefix": {**keep, **bare},
        "extra-whitespace": identity,
        "extra-whitespace-no-prefix": {**identity, **bare},
        "suffix": {**keep, **suffix},
        "suffix-extra-whitespace": {**identity, **suffix},
        "suffix-no-prefix": {**keep, **suffix, **bare},
        "user-defined": {**keep, **own},
        "user-defined-no-prefix": {**keep, **bare, **own},
        "user-defined-extra-whitespace": {**identity, **own},
        "user-defined-suffix": {**keep, **own, **suffix},
        "nmt-nfkc": {"normalization_rule_name": "nmt_nfkc"},
        "rules": {**rules, "remove_extra_whitespaces": False},
        "rules-extra-whitespace": rules,
        "rules-user-defined": {**rules, **own},
        "rules-suffix-no-prefix": {**rules, **suffix, **bare},
        "unescaped": keep,
        "unescaped-extra-whitespace": identity,
        "no-byte-fallback": {**keep, "byte_fallback": False},
    }
    for name, chosen in options.items():
        proto = train(**chosen)
        if name.startswith("unescaped"):
            proto.normalizer_spec.escape_whitespaces = False
            for piece in proto.pieces:
                piece.piece = piece.piece.replace("\u2581", " ")
        # A path of this machine.
        proto.normalizer_spec.ClearField("normalization_rule_tsv")
        yield name, proto


def config_files(folder, tokenizer_config, **others):
    folder.mkdir(parents=True)
    model = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 8, "num_attention_heads": 1}
    for name, content in {"config": model, "tokenizer_config": tokenizer_config, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


class Out:
    def __init__(self, folder, show):
        self.folder, self.show, self.cases, self.texts = folder, show, {}, {}
        (folder / "results").mkdir(parents=True)

    def kind(self, name):
        if name not in self.texts:
            self.texts[name] = texts(name)
            (self.folder / f"texts-{name}.json").write_text(json.dumps(self.texts[name], ensure_ascii=False, indent=0) + "\n")
        return self.texts[name]

    def case(self, name, kind, reference, encode, decode=None, **fields):
        """`fields` go into the manifest: `folder` or `gguf`, and what a test changes in them."""
        results = [(ids := list(encode(text)), decode(ids) if decode else "") for text in self.kind(kind)]
        if self.show and self.show[0] == name:
            print(repr(self.texts[kind][int(self.show[1])]), results[int(self.show[1])])
        hashes = "".join(digits(b"".join(id.to_bytes(4, "little") for id in ids) + text.encode()) for ids, text in results)
        sample = [[ids, text] if decode else [ids] for ids, text in results[:SAMPLE]]
        lines = lambda items: "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]"
        hashes = [hashes[at : at + 120] for at in range(0, len(hashes), 120)]
        content = f'{{"sample": {lines(sample)}, "hashes": {lines(hashes)}}}\n'
        file = hashlib.sha256(content.encode()).hexdigest()[:12] + ".json"
        (self.folder / "results" / file).write_text(content)
        self.cases[name] = {"texts": kind, "reference": reference, "decoded": decode is not None, "results": file, **fields}


def fnv1a(data):
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def digits(data):
    value = fnv1a(data)
    return "".join(DIGITS[value >> shift & 63] for shift in (12, 6, 0))


def sentencepiece_models(out, scratch):
    for name, proto in spm_cases(scratch):
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        folder = out.folder / "spm" / name
        config_files(folder, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
        (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
        # An unknown piece decodes to " ⁇ " in sentencepiece alone; and where it drops all spaces that a text begins with, it
        # drops but one of a piece that begins with two.
        blanks = proto.normalizer_spec.remove_extra_whitespaces and any(piece.piece.startswith("\u2581\u2581") for piece in proto.pieces)
        decode = processor.decode if proto.trainer_spec.byte_fallback and not blanks else None
        out.case(f"spm/{name}", "plain", "sentencepiece", processor.encode, decode, folder=f"spm/{name}")


def vocabulary(proto, extra):
    """Tokens, scores and types as llama.cpp's converter writes them."""
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    return pieces + [(text, -1000.0, kind) for text, kind in extra]


def llama_cpp(proto, tokens, rstrip):
    """Encodes as llama.cpp does: special tokens out of the text first, the longest first, each in the whole text before
    the next; what is between them begins with a space of its own."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    special = [(text, id) for id, (text, _, kind) in enumerate(tokens) if kind in (2, 3, 4)]
    special.sort(key=lambda token: -len(token[0].encode()))

    def encode(text):
        parts = [text]
        for token, id in special:
            next_parts = []
            for part in parts:
                while isinstance(part, str) and token in part:
                    before, part = part.split(token, 1)
                    next_parts += [before] if before else []
                    next_parts.append(id)
                    if rstrip(token):
                        # llama.cpp drops ASCII's white space alone, Phi-3's own tokenizer.json all.
                        part = part.lstrip()
                if part != "":
                    next_parts.append(part)
            parts = next_parts
        return [id for part in parts for id in ([part] if isinstance(part, int) else processor.encode(part))]

    return encode


def phi3(out):
    proto = train(normalization_rule_name="identity", remove_extra_whitespaces=False)
    extra = [("<|endoftext|>", 3), ("<|assistant|>", 3), ("<|system|>", 4), ("<|end|>", 3), ("<|user|>", 4)]
    tokens = vocabulary(proto, extra)
    out.folder.joinpath("gguf").mkdir()
    kept = {"<unk>", "<s>", "<|endoftext|>"}
    for file, name, architecture, strips in [
        ("phi-3", "Phi-3-mini-4k-instruct", "phi3", True),
        ("phi3-upper-case", "My PHI3 tune", "llama", True),
        ("phi-3.5-spaces", "Phi 3.5 Mini Instruct", "phi3", True),
        ("llama", "Phillis 3", "llama", False),
    ]:
        path = out.folder / "gguf" / f"{file}.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name(name)
        writer.add_tokenizer_model("llama")
        writer.add_token_list([text for text, _, _ in tokens])
        writer.add_token_scores([score for _, score, _ in tokens])
        writer.add_token_types([kind for _, _, kind in tokens])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(False)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        encode = llama_cpp(proto, tokens, lambda token: strips and token not in kept)
        out.case(f"gguf/{file}", "chat", "llama.cpp's rule", encode, gguf=f"gguf/{file}.gguf")


def from_transformers(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda text: tokenizer(text)["input_ids"]


def added_tokens(out, scratch):
    proto = train(normalization_rule_name="identity", remove_extra_whitespaces=False)
    size = len(proto.pieces)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "add_bos_token": True, "legacy": True}
    llama = {**config, "tokenizer_class": "LlamaTokenizer"}
    added = {"<|im_end|>": size, "<|im_start|>": size + 1}
    tool = {"<tool>": size + 2, **added}
    listed = {str(id): {"content": text, "lstrip": False, "rstrip": True, "normalized": True, "single_word": False, "special": True} for text, id in added.items()}
    for name, chosen, files in [
        ("added", config, {"added_tokens": added}),
        ("added-llama", llama, {"added_tokens": added}),
        ("added-first-only", {**llama, "legacy": False}, {"added_tokens": added}),
        ("added-of-many", config, {"added_tokens": tool, "special_tokens_map": {"additional_special_tokens": ["<tool>"], "pad_token": {"content": "<|im_start|>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}}}),
        ("added-decoder", {**config, "added_tokens_decoder": listed}, {"added_tokens": tool}),
        ("added-none", config, {}),
    ]:
        folder = out.folder / "added" / name
        config_files(folder, chosen, **files)
        shared = out.folder / "added" / "tokenizer.model"
        shared.write_bytes(proto.SerializeToString())
        whole = scratch / name
        shutil.copytree(folder, whole)
        shutil.copy(shared, whole)
        encode = from_transformers(whole)
        kind = "close" if chosen is llama else "chat"
        out.case(f"added/{name}", kind, "transformers", encode, folder=f"added/{name}", copy=["added/tokenizer.model"])


def byte_level(scratch):
    """A byte-level tokenizer.json trained here; BOS and EOS are added tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(sentences(), trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<bos>", "<eos>"], show_progress=False))
    return json.loads(tokenizer.to_str())


def bos_and_eos(out, scratch):
    base = byte_level(scratch)
    ids = {"<bos>": 0, "<eos>": 1}

    def template(before, after):
        special = lambda texts: [{"SpecialToken": {"id": text, "type_id": 0}} for text in texts]
        single = special(before) + [{"Sequence": {"id": "A", "type_id": 0}}] + special(after)
        pair = single + [{"Sequence": {"id": "B", "type_id": 1}}]
        tokens = {text: {"id": text, "ids": [ids[text]], "tokens": [text]} for text in before + after}
        return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}

    plain = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    processors = {
        "none": None,
        "bytes": plain,
        "bos": template(["<bos>"], []),
        "eos": template([], ["<eos>"]),
        "both": template(["<bos>"], ["<eos>"]),
        "sequence": {"type": "Sequence", "processors": [plain, template(["<bos>"], [])]},
        "sequence-both": {"type": "Sequence", "processors": [plain, template(["<bos>"], ["<eos>"])]},
        "roberta": {"type": "RobertaProcessing", "sep": ["<eos>", 1], "cls": ["<bos>", 0], "trim_offsets": True, "add_prefix_space": False},
    }
    folder = out.folder / "bos" / "model"
    config = {"bos_token": "<bos>", "eos_token": "<eos>"}
    config_files(folder, config)
    (folder / "tokenizer.json").write_text(json.dumps(base, ensure_ascii=False) + "\n")
    lines = [f"{json.dumps(kind)}: {json.dumps(processor)}" for kind, processor in processors.items()]
    (out.folder / "bos" / "post_processors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    absent_false_true = [None, False, True]
    for kind, processor in processors.items():
        for tokenizer_class in ["PreTrainedTokenizerFast", "LlamaTokenizerFast"]:
            # Where the class and no file decides, transformers 4 and 5 differ.
            if processor is None and tokenizer_class != "PreTrainedTokenizerFast":
                continue
            for add_bos, add_eos in itertools.product(absent_false_true, absent_false_true):
                keys = {"tokenizer_class": tokenizer_class, "add_bos_token": add_bos, "add_eos_token": add_eos}
                keys = {key: value for key, value in keys.items() if value is not None}
                whole = scratch / f"bos-{kind}-{tokenizer_class}-{add_bos}-{add_eos}"
                shutil.copytree(folder, whole)
                (whole / "tokenizer.json").write_text(json.dumps({**base, "post_processor": processor}))
                (whole / "tokenizer_config.json").write_text(json.dumps({**config, **keys}))
                name = f"bos/{kind}/{tokenizer_class}/{add_bos}-{add_eos}".lower()
                out.case(name, "plain", "transformers", from_transformers(whole), folder="bos/model", tokenizer_config=keys, post_processor=kind)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--show", nargs=2, metavar=("CASE", "NUMBER"))
    arguments = parser.parse_args()
    for old in ["spm", "gguf", "added", "bos", "results"]:
        shutil.rmtree(arguments.out / old, ignore_errors=True)
    out = Out(arguments.out, arguments.show)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        sentencepiece_models(out, scratch)
        phi3(out)
        added_tokens(out, scratch)
        bos_and_eos(out, scratch)
    lines = [f"{json.dumps(name)}: {json.dumps(case, ensure_ascii=False)}" for name, case in out.cases.items()]
    (arguments.out / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
