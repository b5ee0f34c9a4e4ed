#!/usr/bin/env python3
"""Writes fuzz/keys.dict: the keys, tensor names and values that the readers of checkpoints know, from their sources' string literals.
libFuzzer puts them into inputs (`-dict=keys.dict`). Run this where readers learn new names."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    words = set()
    for path in sorted((ROOT / "crates/forge-frontend/src").rglob("*.rs")):
        text = path.read_text().split("#[cfg(test)]")[0]
        for literal in re.findall(r'"([A-Za-z0-9_.\-]{3,48})"', text):
            words.add(literal.strip("."))
    lines = ['"%s"' % word for word in sorted(words) if len(word) > 2]
    (ROOT / "fuzz/keys.dict").write_text("\n".join(lines) + "\n")


main()
