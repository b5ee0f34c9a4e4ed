#!/usr/bin/env python3
"""bench-msl-cuda's run.py with what the specs of specs.py need besides: packed weights, and operations of more than a product.

  works.py --build DIR --out DIR ...     from a copy of that bench in which this folder's files lie, with its arguments

Each operation has its inputs and what is expected of them, in float64 by torch; layouts say which it is:
  attn  HEADS/KV_HEADS/HEAD_DIM   rows at position seq - 1 and a few before it, over a cache of type kv
        latent/HEADS              attention over latents of 512 and a rotated part of 64
        latent tile/HEADS/NOPE/VALUE   of a tile, from queries to values
  moe   up, down                  the experts of a row, chosen from logits; 512 tokens: in tiles
  delta forge                     convolution, norms, gates, gated delta rule, gated norm
"""
import functools

import torch

import packed
import run

dev, G = run.dev, run.G
LATENT, ROPE = 512, 64


def normal(*shape):
    return torch.randn(shape, device=dev, generator=G)


def silu(x):
    return x / (1 + torch.exp(-x))


def cache(kind, values):
    """[positions, kv heads, head dim] -> stored bytes, what they stand for in float64"""
    positions, width = values.shape[0], values.shape[1] * values.shape[2]
    if kind in run.DT:
        stored = values.to(run.DT[kind])
        return stored, stored.double()
    bits = {"q8_0": 8, "q4_0": 4}[kind]
    codes = torch.randint(1 if bits == 8 else 0, 1 << bits, (positions, width), device=dev, generator=G, dtype=torch.int32)
    scales = (torch.rand((positions, width // 32), device=dev, generator=G) * 0.5 + 0.5).mul(2.0 ** (1 - bits) * 2).half()
    zero = 1 << (bits - 1)
    numbers = (codes - zero).double() * scales.double().repeat_interleave(32, 1)
    if bits == 8:
        data = (codes - zero).to(torch.int8).view(torch.uint8)
    else:
        data = (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8)
    entries = scales.view(torch.uint8).reshape(positions, -1)
    fill = torch.zeros((positions, -entries.shape[1] % 8), dtype=torch.uint8, device=dev)
    return torch.cat([data, entries, fill], 1).contiguous(), numbers.reshape(values.shape)


def attention(c, once):
    """rows [tokens]: row n at position seq - 1 - 37 n"""
    if c["layout"].startswith("latent/"):
        return latent_attention(c, once)
    if c["layout"].startswith("latent tile/"):
        return latent_tile(c)
    heads, kv_heads, dim = map(int, c["layout"].split("/"))
    seq, rows = c["seq"], c["tokens"]
    q = normal(rows, heads, dim)
    keys, k = cache(c["kv"], normal(seq, kv_heads, dim))
    values, v = cache(c["kv"], normal(seq, kv_heads, dim))
    positions = [seq - 1 - 37 * n for n in range(rows)]
    want = torch.empty(rows, heads, dim, dtype=torch.float64, device=dev)
    for n, position in enumerate(positions):
        for h in range(heads):
            g = h * kv_heads // heads
            weights = torch.softmax(k[:position + 1, g] @ q[n, h].double() * dim ** -0.5, 0)
            want[n, h] = weights @ v[:position + 1, g]
    bufs = {"q": q, "k": keys, "v": values, "positions": torch.tensor(positions, dtype=torch.int32, device=dev)}
    nbytes = sum(b.numel() * b.element_size() for b in (keys, values))
    return run.Work(run.rotated(bufs, ["k", "v"], nbytes, once), want.reshape(-1), want.numel(), nbytes, 4 * rows * seq * heads * dim)


def latent_attention(c, once):
    heads, seq = int(c["layout"].split("/")[1]), c["seq"]
    q = normal(1, heads, LATENT + ROPE) * 0.5
    stored = normal(seq, LATENT + ROPE).half()
    k, scale = stored.double(), 192 ** -0.5
    weights = torch.softmax(q[0].double() @ k.T * scale, 1)
    want = weights @ k[:, :LATENT]
    bufs = {"q": q, "k": stored, "positions": torch.tensor([seq - 1], dtype=torch.int32, device=dev)}
    nbytes = stored.numel() * 2
    return run.Work(run.rotated(bufs, ["k"], nbytes, once), want.reshape(-1), want.numel(), nbytes, 2 * seq * heads * (2 * LATENT + ROPE))


def latent_tile(c):
    """rows at the end of seq positions: queries [heads][nope + rope], whose last 64 rotate in neighbouring pairs, to heads' values"""
    heads, nope, value = map(int, c["layout"].split("/")[1:])
    seq, rows = c["seq"], c["tokens"]
    x, stored = normal(rows, heads, nope + ROPE), normal(seq, LATENT + ROPE).half()
    of_keys = (normal(heads, LATENT, nope) * LATENT ** -0.5).half()
    of_values = (normal(heads, value, LATENT) * LATENT ** -0.5).half()
    angles = torch.arange(seq - rows, seq, device=dev).double()[:, None] * 10000.0 ** (-torch.arange(ROPE // 2, device=dev).double() / 32)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    even, odd = x[..., nope::2].double(), x[..., nope + 1::2].double()
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
    latents, shared = stored.double().split([LATENT, ROPE], 1)
    hidden = torch.arange(seq, device=dev)[None] > torch.arange(seq - rows, seq, device=dev)[:, None]
    want = torch.empty(rows, heads, value, dtype=torch.float64, device=dev)
    for h in range(heads):
        scores = x[:, h, :nope].double() @ (latents @ of_keys[h].double()).T + turned[:, h] @ shared.T
        weights = torch.softmax((scores * (nope + ROPE) ** -0.5).masked_fill(hidden, -torch.inf), 1)
        want[:, h] = weights @ (latents @ of_values[h].double().T)
    bufs = {"x": x, "k": stored, "keys": of_keys.view(torch.uint8), "values": of_values.view(torch.uint8)}
    flops = 2 * rows * (seq - rows / 2) * heads * (nope + ROPE + value)
    return run.Work([bufs], want.reshape(-1), want.numel(), stored.numel() * 2, flops)


def experts(c, once):
    """up: silu(gate x) * up x of the chosen, rows of an expert's width; down: the weighted sum of W x + 1 * x0"""
    rows, cols, tokens, E, K = c["rows"], c["cols"], c["tokens"], c["experts"], c["topk"]
    up = c["layout"] == "up"
    stack = 2 * E * rows if up else E * rows
    w, deq = packed.make(c["format"][6:], stack, cols, dev, G)
    deal = torch.randperm(E, device=dev, generator=G)
    sets, want = [], None
    for i in range(1 if once or tokens > 1 else E // K):
        if tokens == 1:  # sets with no expert in common, so that none is in the cache
            ids = deal[i * K:(i + 1) * K].reshape(1, K)
        else:
            ids = torch.rand(tokens, E, device=dev, generator=G).argsort(1)[:, :K]
        # Logits fall with the place in the choice; those of the others are far below.
        logits = normal(tokens, E) * 0.1 - 8
        logits.scatter_(1, ids, torch.linspace(1, 0, K, device=dev).expand(tokens, K).contiguous())
        weights = torch.softmax(torch.gather(logits, 1, ids).double(), 1)
        x = normal(tokens, cols) if up else normal(tokens, K, cols)
        b = {**w, "x": x, "logits": logits, "experts": ids.to(torch.int32).contiguous(), "weights": weights.float().contiguous()}
        if i == 0 and not once:
            flat, of = ids.reshape(-1), torch.arange(tokens, device=dev).repeat_interleave(K)
            out = torch.empty(tokens * K, rows, dtype=torch.float64, device=dev)
            for e in flat.unique().tolist():
                at = (flat == e).nonzero().flatten()
                if up:
                    xs = x[of[at]].double()
                    out[at] = silu(xs @ deq(e * rows, (e + 1) * rows).T) * (xs @ deq((E + e) * rows, (E + e + 1) * rows).T)
                else:
                    out[at] = x.reshape(-1, cols)[at].double() @ deq(e * rows, (e + 1) * rows).T
            if not up and tokens == 1:
                out = (out.reshape(1, K, rows) * weights[..., None]).sum(1)
            want = out.reshape(-1)
        sets.append(b)
    used = len(sets[0]["experts"].unique())
    nbytes = used * (w["w"].numel() // E)
    if tokens == 1 and len(sets) < 24 and not once:
        sets = sets * (24 // len(sets))
    n = tokens * rows * (1 if tokens == 1 and not up else K)
    return run.Work(sets, want, n, nbytes, 2 * tokens * K * rows * cols * (2 if up else 1))


def delta(c, once):
    """32 value heads of 128, 16 key heads, four taps; a row is q, k, v, a gate for each value, strengths of writes, decays"""
    T, H, KH, D, TAPS = c["tokens"], 32, 16, 128, 4
    channels, head_state = 3 * D, D * D + (TAPS - 1) * 3 * D
    qkv = 2 * KH * D + H * D
    x = torch.cat([normal(T, qkv), normal(T, H * D), normal(T, 2 * H)], 1)
    taps, a, dt, gamma = normal(qkv, TAPS) * 0.5, -torch.rand(H, device=dev, generator=G), normal(H), normal(D)
    old = normal(H, head_state) * 0.1
    for h in range(H):  # heads of one key hold the same past of it
        old[h, D * D:].reshape(TAPS - 1, channels)[:, :2 * D] = old[h // 2 * 2, D * D:].reshape(TAPS - 1, channels)[:, :2 * D]
    state = torch.stack([old, torch.zeros_like(old)])
    record = torch.zeros(T, 19, dtype=torch.int32, device=dev)
    record[:, 0], record[:, 2] = torch.arange(1, T + 1, device=dev), T
    want = None
    if not once:
        past = old[:, D * D:].reshape(H, TAPS - 1, channels).double()
        rows = torch.empty(T + TAPS - 1, H, channels, dtype=torch.float64, device=dev)
        rows[:TAPS - 1] = past.transpose(0, 1)
        of = torch.arange(H, device=dev) // (H // KH)
        own = torch.stack([torch.cat([torch.arange(D) + h // 2 * D, torch.arange(D) + (KH + h // 2) * D, torch.arange(D) + (2 * KH + h) * D])
                           for h in range(H)]).to(dev)
        rows[TAPS - 1:] = x[:, :qkv].double()[:, own]
        mixed = silu(sum(rows[i:i + T] * taps.double()[own, i] for i in range(TAPS)))
        q, k, v = mixed[..., :D], mixed[..., D:2 * D], mixed[..., 2 * D:]
        q = q / torch.sqrt((q * q).sum(-1, keepdim=True) + 1e-6) * D ** -0.5
        k = k / torch.sqrt((k * k).sum(-1, keepdim=True) + 1e-6)
        gate = x[:, qkv:qkv + H * D].double().reshape(T, H, D)
        write = torch.sigmoid(x[:, qkv + H * D:qkv + H * D + H].double())
        keep = torch.exp(a.double() * torch.nn.functional.softplus(x[:, qkv + H * D + H:].double() + dt.double()))
        s, ys = old[:, :D * D].reshape(H, D, D).double(), []
        for t in range(T):
            s = s * keep[t][:, None, None]
            change = (v[t] - torch.einsum("hvk,hk->hv", s, k[t])) * write[t][:, None]
            s = s + change[:, :, None] * k[t][:, None, :]
            y = torch.einsum("hvk,hk->hv", s, q[t])
            ys.append(y / torch.sqrt((y * y).mean(-1, keepdim=True) + 1e-6) * gamma.double() * silu(gate[t]))
        last = rows[T:].transpose(0, 1).reshape(H, -1)
        want = torch.cat([torch.stack(ys).reshape(-1), torch.cat([s.reshape(H, -1), last], 1).reshape(-1)])
    bufs = {"x": x, "taps": taps, "decay": a, "dt": dt, "gamma": gamma, "step": record}
    sets = [{**bufs, "state": state.clone()} for _ in range(1 if once else 24)]

    def out(c, b, y, n):  # results, then the state after the last position
        return torch.cat([y[:T * H * D], b["state"][T % 2].reshape(-1)])
    w = run.Work(sets, want, T * H * D, 2 * H * head_state * 4 + x.numel() * 4, 7 * T * H * D * D, out)
    w.reset = lambda: [b["state"].copy_(state) for b in sets]
    return w


def name(c, usual=run.once_name):
    """what --once names a case's sizes by"""
    if c["op"] == "attn":
        return "seq%d-%s-%s" % (c["seq"], c["layout"].replace("/", "-"), c["kv"])
    return usual(c) + ("-" + c["layout"] if c["op"] == "moe" else "")


def main():
    usual = dict(run.WORK)
    pick = {"attn": lambda c: attention if "/" in c["layout"] else usual["attn"],
            "moe": lambda c: experts if c["layout"] in ("up", "down") else usual["moe"],
            "delta": lambda c: delta if c["layout"] == "forge" else usual["delta"]}
    for op, choose in pick.items():
        run.WORK[op] = functools.partial(lambda choose, c, once: choose(c)(c, once), choose)
    make = run.make
    run.make = lambda f, rows, cols: packed.make(f[6:], rows, cols, dev, G) if f.startswith("forge_") else make(f, rows, cols)
    run.once_name = name
    run.main()


main()
