"""IQ4_XS and the formats with grids for packed.py: random weights in Forge's packed layout, and what they are."""

import re

import torch
from packed import concat, codes, entries, point_entries, split_entries, stream

GRIDS = "crates/forge-runtime/src/spec/grids.rs"
LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


def grid(name, dev):
    """[points, coordinates]"""
    text = open(GRIDS).read()
    levels, digits = re.search(r'name: "%s",\s+levels: &\[(.*?)\],\s+digits: "(.*?)",' % name, text, re.S).groups()
    levels = [int(level) for level in levels.split(",")]
    data = bytes.fromhex(re.sub(r"[^0-9a-f]", "", digits))
    bits = 2 if len(levels) == 3 else 4
    values = [levels[byte >> at & ((1 << bits) - 1)] for byte in data for at in range(0, 8, bits)]
    return torch.tensor(values, dtype=torch.float64, device=dev).reshape(-1, 16 // bits)


def make(f, rows, cols, dev, gen):
    """-> ({"w": packed bytes}, dequantise(first row, last row) -> float64)"""

    def ints(below, count):
        return torch.randint(0, below, (rows, count), dtype=torch.int64, device=dev, generator=gen)

    def done(planes, weights):
        return {"w": concat(planes, dev)}, weights

    def plane(values, columns, bits):
        """[rows, cols / columns] in column order"""
        if bits < 8:
            return stream(entries(values, cols, 4, columns), bits)
        data = torch.stack([values >> at & 255 for at in range(0, bits, 8)], -1).reshape(rows, -1).to(torch.uint8)
        return entries(data, cols, 4, columns, bits // 8)

    d = (torch.rand((rows, cols // 256), device=dev, generator=gen) * 2e-4 + 1e-4).to(torch.float16)

    def wide(values, columns):
        return values.double().repeat_interleave(columns, 1)

    if f == "iq4_xs":
        q, s = ints(16, cols), ints(64, cols // 32)
        levels = torch.tensor(LEVELS, dtype=torch.float64, device=dev)
        return done([codes(q.int(), cols, 4, 32), plane(s & 15, 32, 4), plane(s >> 4, 32, 2), d],
                    lambda a, b: wide(d[a:b], 256) * wide(s[a:b] - 32, 32) * levels[q[a:b]])
    coordinates = grid("iq1_s" if f == "iq1_m" else f, dev)
    width = coordinates.shape[1]
    point = ints(len(coordinates), cols // width)

    def at_points(a, b):
        return coordinates[point[a:b]].reshape(b - a, cols)

    if f == "iq1_s":
        s, sign = ints(8, cols // 32), ints(2, cols // 32)
        return done([point_entries(point, s | sign << 3, cols), d],
                    lambda a, b: wide(d[a:b], 256) * wide(2 * s[a:b] + 1, 32) * (at_points(a, b) + 0.125 - 0.25 * wide(sign[a:b], 32)))
    if f == "iq1_m":
        s, sign = ints(8, cols // 16), ints(2, cols // 8)
        return done([point_entries(point, sign, cols), split_entries(s, cols, 16, 3, 2), d],
                    lambda a, b: wide(d[a:b], 256) * wide(2 * s[a:b] + 1, 16) * (at_points(a, b) + 0.125 - 0.25 * wide(sign[a:b], 8)))
    signs = ints(256, cols // 8)
    if f in ("iq3_xxs", "iq2_xxs", "iq2_xs"):
        seven = signs & 127
        signs = seven | (sum(seven >> i & 1 for i in range(7)) & 1) << 7
    columns = 32 if f in ("iq3_xxs", "iq3_s", "iq2_xxs") else 16
    s = ints(16, cols // columns)
    factor = {"iq3_s": lambda s: 2 * s + 1, "iq3_xxs": lambda s: (s + 0.5) / 2}.get(f, lambda s: (s + 0.5) / 4)

    def weights(a, b):
        negative = torch.stack([signs[a:b] >> i & 1 for i in range(8)], -1).reshape(b - a, cols)
        return wide(d[a:b], 256) * wide(factor(s[a:b]), columns) * at_points(a, b) * (1 - 2 * negative)

    if f in ("iq3_xxs", "iq2_xxs"):
        word = sum(signs[:, i::4] % 128 << (7 * i) for i in range(4)) | s << 28
        first = plane(point[:, ::2] | point[:, 1::2] << 8, 8, 16) if width == 4 else plane(point, 8, 8)
        return done([first, plane(word, 32, 32), d], weights)
    if f == "iq2_xs":
        return done([plane(point | signs % 128 << 9, 8, 16), plane(s, 16, 4), d], weights)
    if f == "iq2_s":
        return done([plane(point & 255 | signs << 8, 8, 16), plane(point >> 8, 8, 2), plane(s, 16, 4), d], weights)
    low, ninth = point & 255, point >> 8
    return done([plane(low[:, ::2] | low[:, 1::2] << 8, 8, 16), plane(ninth[:, ::2] | ninth[:, 1::2] << 1, 8, 2),
                 plane(signs, 8, 8), plane(s, 32, 4), d], weights)
