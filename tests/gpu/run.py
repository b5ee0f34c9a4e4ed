#!/usr/bin/env python3
"""Checks and times emitted projects on an NVIDIA GPU: what `cargo xtask gpu` packed, on the machine that has the GPU.

  run.py OUT [--only REGEX] [--context N] [--prompt N] [--clients N,..] [--answer N,..] [--serve=ARGUMENTS] [--sanitizer]

Needs numpy, the driver and NVRTC. Prints a table of each part and writes the programs' own output to OUT.
"""
import argparse
import http.client
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"F32": np.float32, "I32": np.int32}
failures = []


def tensors(path):
    """The F32 and I32 tensors of a safetensors file."""
    with open(path, "rb") as file:
        raw = file.read()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    data = raw[8 + length :]
    return {
        name: np.frombuffer(data[t["data_offsets"][0] : t["data_offsets"][1]], DTYPES[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
        if name != "__metadata__" and t["dtype"] in DTYPES
    }


def program(folder, out, log, *arguments, wrapper=(), **variables):
    """What a program prints; its whole output goes to a file of OUT."""
    environment = {**os.environ, "METAL_SIM_DEVICE": "cuda", **variables}
    command = [*wrapper, os.path.join(folder, "program"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    with open(os.path.join(out, log), "a") as file:
        file.write(f"$ {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
    return done.returncode, done.stdout, done.stderr


def agreement(reference, label, bound, logits):
    """As `cargo xtask cases` compares: largest difference, top-1 tokens that must agree, greedy steps."""
    own = label + "." if label + ".logits" in reference else ""
    want = reference[own + "logits"]
    greedy = reference.get(own + "greedy_ids", np.zeros(0, np.int32))
    margin = reference.get(own + "greedy_margin", np.zeros(0, np.float32))
    count = len(reference["input_ids"])
    difference = float(np.abs(logits[:count] - want).max())
    difference = difference if np.isfinite(difference) else float("inf")
    best = np.sort(want, 1)
    needed = best[:, -1] - best[:, -2] > 2 * bound
    wrong = int((logits[:count].argmax(1) != want.argmax(1))[needed].sum())
    step = 0
    while step < len(greedy) and margin[step] >= 2 * bound and logits[count - 1 + step].argmax() == greedy[step]:
        step += 1
    complete = step == len(greedy) or margin[step] < 2 * bound
    fine = difference <= bound and wrong == 0 and complete
    return fine, f"{difference:.1e}", f"{int(needed.sum()) - wrong}/{int(needed.sum())}", f"{step}"


def logits(folder, out, ids, *flags, **variables):
    path = os.path.join(out, "logits.safetensors")
    arguments = ["logits", "--ids", ",".join(map(str, ids)), "-o", path, *flags]
    code, _, errors = program(folder, out, os.path.basename(folder) + ".log", *arguments, **variables)
    if code != 0:
        raise RuntimeError(errors.strip().splitlines()[-1])
    found = tensors(path)["logits"]
    os.remove(path)
    return found


def check_case(case, out, sanitizer):
    name, label, bound = case["name"], case["label"], case["bound"]
    folder = os.path.join(HERE, name)
    reference = tensors(os.path.join(folder, "reference.safetensors"))
    own = label + "." if label + ".logits" in reference else ""
    greedy = reference.get(own + "greedy_ids", np.zeros(0, np.int32))
    ids = [*reference["input_ids"], *greedy[:-1]]
    for path, flags in (("prefill", []), ("decode", ["--decode"])):
        fine, *cells = agreement(reference, label, bound, logits(folder, out, ids, *flags))
        print(f"| {name} | {path} | {bound:.0e} | {' | '.join(cells)} | {'ok' if fine else 'FAILED'} |", flush=True)
        if not fine:
            failures.append(f"{name} {path}")
    code, text, errors = program(folder, out, name + ".log", "verify", "--batches")
    runs = len(re.findall(r" ok$", text, re.M))
    print(f"| {name} | verify | | | | | {f'ok, {runs} runs' if code == 0 else 'FAILED: ' + errors.strip()[:300]} |", flush=True)
    if code != 0:
        failures.append(f"{name} verify")
    # each of the first barriers of a decode step left out: wrong, unless the one after it does its work too
    seen = 0
    barriers = 8
    for index in range(barriers):
        try:
            fine, *_ = agreement(reference, label, bound, logits(folder, out, ids, "--decode", METAL_SIM_SKIP_BARRIER=f"step:{index}"))
        except RuntimeError:
            fine = False
        seen += not fine
    print(f"| {name} | barriers left out | | | | | {seen} of the first {barriers} noticed |", flush=True)
    if seen == 0:
        failures.append(f"{name}: no missing barrier was noticed")
    if sanitizer:
        tool = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"]
        code, text, errors = program(folder, out, name + ".memcheck.log", "logits", "--ids", "1,2,3,4,5,6,7,8", "-o",
                                     os.path.join(out, "sanitized"), wrapper=tool)
        print(f"| {name} | memcheck | | | | | {'ok' if code == 0 else f'FAILED ({code})'} |", flush=True)
        if code != 0:
            failures.append(f"{name} memcheck")


def fill(folder, size):
    """The weights file: its header, then random numbers whose every format is finite. Floats are near 1, as norms are; of matrices
    around 0, so that a router chooses other experts for each token; what a state decays by is negative."""
    path = os.path.join(folder, "weights.safetensors")
    with open(os.path.join(folder, "header.bin"), "rb") as file:
        header = file.read()
    block = np.random.default_rng(1).integers(0, 256, 64 << 20, np.uint8)
    # as the exponent of a half: at most 2^-9
    packed = (block & 0x17).tobytes()
    ones = np.float32(1) + np.frombuffer(packed, np.uint8).astype(np.float32)[: 1 << 20] / 256
    with open(path, "wb") as file:
        file.write(header)
        while file.tell() < size:
            file.write(packed[: size - file.tell()])
        for name, tensor in json.loads(header[8:]).items():
            if name != "__metadata__" and tensor["dtype"] == "F32":
                begin, end = tensor["data_offsets"]
                count = (end - begin) // 4
                numbers = np.resize(ones, count)
                if "decay" in name:
                    numbers = -numbers
                elif len(tensor["shape"]) > 1:
                    numbers = np.random.default_rng(begin).normal(0, 0.05, count).astype(np.float32)
                file.seek(len(header) + begin)
                file.write(numbers.tobytes())
    return path


PROMPT_TOKENS = 64


def ask(port, vocab, seed, length, answers):
    """One streamed answer of `length` tokens to a prompt of its own: when its pieces came, and its tokens."""
    prompt = random.Random(seed).choices(range(10, min(vocab, 2000)), k=PROMPT_TOKENS)
    body = {"prompt": prompt, "max_tokens": length, "temperature": 0.8, "seed": seed, "stream": True,
            "stream_options": {"include_usage": True}}
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    pieces, tokens = [], 0
    for line in connection.getresponse():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event.get("error"):
            raise RuntimeError(str(event["error"]))
        # a random model's tokens may be halves of characters, which come with the next
        if any(choice.get("text") for choice in event.get("choices", [])):
            pieces.append(time.perf_counter() - start)
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    connection.close()
    answers.append((pieces, tokens))


def together(port, vocab, first, clients, length):
    """As many clients at once, with prompts from number `first` on: their answers, and the seconds that all took."""
    answers, start = [], time.perf_counter()
    threads = [threading.Thread(target=ask, args=(port, vocab, first + index, length, answers)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - start


def step_sizes(entry, folder, out):
    """Steps of one to all sequences: their rate, and where their time goes."""
    rows = [1 << bit for bit in range(entry["slots"].bit_length())]
    commands = [["bench", "--prompt", str(PROMPT_TOKENS), "--gen", "128", "--rows", ",".join(map(str, rows))]]
    commands += [["profile", "--rows", str(count), "--context", "128", "--prompt", str(PROMPT_TOKENS if count == 1 else 0)] for count in rows]
    for arguments in commands:
        code, text, errors = program(folder, out, entry["name"] + ".log", *arguments)
        print(text, flush=True)
        if code != 0:
            print(errors)
            failures.append(f"{entry['name']} {arguments[0]}")


def serve_size(entry, folder, out, counts, length, arguments):
    """First tokens, gaps and tokens a second of as many clients as that, each against a server of its own."""
    print(f"prompts of {PROMPT_TOKENS} tokens, answers of {length}")
    print("| clients | tokens/s | first token p50 | last | gap p99 | of one client |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
    alone = None
    for clients in counts:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [os.path.join(folder, "program"), "serve", "--port", str(port), "--quiet", "--speculate", "off", *arguments]
        with open(os.path.join(out, entry["name"] + ".log"), "a") as log:
            server = subprocess.Popen(command, cwd=folder, env={**os.environ, "METAL_SIM_DEVICE": "cuda"}, stdout=log, stderr=log)
        try:
            while True:
                if server.poll() is not None:
                    raise RuntimeError("the server ended")
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/health")
                    if connection.getresponse().status == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.1)
            # kernels and graphs are made once, slots are used: by as many clients with other prompts
            together(port, entry["vocab"], 10**6, clients, length)
            answers, wall = together(port, entry["vocab"], 0, clients, length)
        finally:
            server.kill()
            server.wait()
        if len(answers) < clients:
            failures.append(f"{entry['name']}: {clients - len(answers)} of {clients} answers failed")
        first = sorted(pieces[0] for pieces, _ in answers if pieces) or [float("nan")]
        gaps = sorted(b - a for pieces, _ in answers for a, b in zip(pieces, pieces[1:])) or [float("nan")]
        rate = sum(tokens for _, tokens in answers) / wall
        alone = alone or rate
        print(f"| {clients} | {rate:.1f} | {first[len(first) // 2]:.3f} s | {first[-1]:.3f} s | {gaps[int(len(gaps) * 0.99)]:.3f} s | {rate / alone:.2f} |",
              flush=True)


def numbers(text):
    return [int(number) for number in text.split(",")]


def time_size(entry, options):
    out, context, prompt = options.out, options.context, options.prompt
    name = entry["name"]
    folder = os.path.join(HERE, name)
    start = time.time()
    path = fill(folder, entry["bytes"])
    print(f"\n{name}: {entry['bytes'] / 1e9:.2f} GB of weights written in {time.time() - start:.0f} s", flush=True)
    if entry.get("slots", 1) > 1:
        try:
            step_sizes(entry, folder, out)
            for length in numbers(options.answer):
                serve_size(entry, folder, out, numbers(options.clients), length, options.serve.split())
        except (RuntimeError, OSError) as error:
            print(error)
            failures.append(f"{name} serve")
        os.remove(path)
        return
    for arguments in (
        ["bench", "--prompt", str(prompt), "--gen", "128"],
        ["profile", "--context", str(context), "--prompt", str(prompt)],
        ["generate", "--raw", "--max-tokens", "256", "--seed", "1", "Once upon a time"],
    ):
        code, text, errors = program(folder, out, name + ".log", *arguments)
        # what a random model says is of no interest, how fast it says it is
        print(errors.strip().splitlines()[-1] if arguments[0] == "generate" else text, flush=True)
        if code != 0:
            print(errors)
            failures.append(f"{name} {arguments[0]}")
    os.remove(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--only", default="")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--clients", default="1,4,8,16,64", help="clients of a server at once")
    parser.add_argument("--answer", default="64,256", help="tokens that each of them asks")
    parser.add_argument("--serve", default="", help="more arguments of the server, as one")
    parser.add_argument("--sanitizer", action="store_true", help="also run a few tokens of each case under compute-sanitizer")
    options = parser.parse_args()
    options.out = os.path.abspath(options.out)
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(HERE, "manifest.json")) as file:
        manifest = json.load(file)
    wanted = re.compile(options.only)
    print(subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout)
    if wanted.search("tests"):
        # A process each: one makes the GPU stop on purpose, after which its process gets nothing more from it.
        tests = [os.path.join(HERE, "metal-sim-tests"), "--ignored"]
        listed = subprocess.run([*tests, "--list"], capture_output=True, text=True).stdout
        for name in re.findall(r"^(\S+): test$", listed, re.M):
            done = subprocess.run([*tests, "--exact", name], capture_output=True, text=True)
            print(f"test {name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
            if done.returncode != 0:
                print(done.stdout)
                failures.append(name)
    cases = [case for case in manifest["cases"] if wanted.search(case["name"])]
    if cases:
        print("\n| case | part | bound | difference | top-1 | greedy | |\n| --- | --- | --- | --- | --- | --- | --- |")
    for case in cases:
        try:
            check_case(case, options.out, options.sanitizer)
        except (RuntimeError, OSError) as error:
            print(f"| {case['name']} | | | | | | FAILED: {error} |", flush=True)
            failures.append(case["name"])
    for entry in manifest["sizes"]:
        if wanted.search(entry["name"]):
            time_size(entry, options)
    print("\n" + ("all passed" if not failures else "FAILED: " + "; ".join(failures)))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
