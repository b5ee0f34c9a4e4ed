"""The pages of `forge inspect --html` and of a program's `profile --html` in headless Chromium: what is drawn is what the JSON says.

usage: plan_page.py --forge PROGRAM --program PROGRAM --chromium /usr/bin/chromium --out FOLDER CHECKPOINT...

Pages and screenshots are left in the folder. Figures at other contexts are held to what `forge inspect --context N --plan --json` says.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys

from playwright.sync_api import expect, sync_playwright

# As long as the name of the demo's checkpoint, which it takes the place of.
NAME = b"Little Storyteller 5M"
HOSTILE = b"</script><b id=evil>x"
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 360, "height": 640}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--forge", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("checkpoints", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    def inspect(checkpoint, *args):
        return subprocess.run([options.forge, "inspect", checkpoint, *args], check=True, capture_output=True, text=True).stdout

    def plan_of(checkpoint, *args):
        return json.loads(inspect(checkpoint, "--plan", "--json", *args))

    pages = []
    for number, checkpoint in enumerate(options.checkpoints):
        path = options.out / f"plan-{number}.html"
        inspect(checkpoint, "--html", path)
        pages.append((path, checkpoint))
    hostile = options.out / "hostile.gguf"
    model = options.checkpoints[0].read_bytes()
    assert len(NAME) == len(HOSTILE) and model.count(NAME) == 1
    hostile.write_bytes(model.replace(NAME, HOSTILE))
    hostile_page = options.out / "hostile.html"
    inspect(hostile, "--html", hostile_page)
    profiled = options.out / "profile.html"
    measure = ["profile", "--context", "64", "--prompt", "0", "--bandwidth", "100", "--html", profiled]
    subprocess.run([options.program, *measure], check=True, capture_output=True)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for path, checkpoint in pages:
            with opened(browser, path, WIDE, "light") as page:
                plan = plan_of(checkpoint)
                assert embedded(page) == plan, f"{path}: the page's data is not the plan's JSON"
                as_planned(page, plan, plan["tile"])
                every_part(page, plan)
                page.screenshot(path=path.with_suffix(".png"), full_page=True)
                longest = plan["options"]["longest_context"]
                for context in (1, longest // 3):
                    ask(page, context)
                    as_planned(page, plan_of(checkpoint, "--context", str(context)), plan["tile"])
                by_keyboard(page, plan)
                # A chip whose peak is announced: the roof has a corner.
                page.locator("#chip").fill("0")
                ask(page, longest)
                as_planned(page, plan_of(checkpoint, "--context", str(longest)), plan["tile"])
            with opened(browser, path, NARROW, "dark") as page:
                as_planned(page, plan, plan["tile"])
                page.screenshot(path=path.with_suffix(".narrow.png"), full_page=True)
        with opened(browser, hostile_page, WIDE, "light") as page:
            expect(page.locator("h1")).to_have_text(HOSTILE.decode())
            assert page.title() == HOSTILE.decode() and page.locator("#evil").count() == 0
        for size, scheme in ((WIDE, "light"), (NARROW, "dark")):
            with opened(browser, profiled, size, scheme) as page:
                as_measured(page)
                page.screenshot(path=options.out / f"profile-{size['width']}.png", full_page=True)
        browser.close()
    print(f"plan pages: {len(pages)} plans and a profile as their JSON says, by slider and keyboard, 360 pixels, hostile name, policy: passed")


@contextlib.contextmanager
def opened(browser, path, size, scheme):
    """A page, of which nothing may be wider than the window or asked for elsewhere; the browser has nothing to complain of."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    wrong, requests = [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.resolve().as_uri())
    expect(page.locator("#timeline svg")).to_be_visible()
    yield page
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"], f"{path}: {width} pixels wide"
    assert requests == [path.resolve().as_uri()], requests
    assert not wrong, wrong
    unnamed = page.evaluate("""() => [...document.querySelectorAll('svg, input, select')].filter((one) =>
        !one.getAttribute('aria-label')).map((one) => one.outerHTML.slice(0, 80))""")
    assert not unnamed, unnamed
    # What the policy forbids does not run.
    page.evaluate("() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); }")
    assert page.evaluate("window.ran") is None and wrong, f"{path}: the policy lets scripts in"
    context.close()


def embedded(page):
    return json.loads(page.locator("#data").text_content())


def figure(page, name):
    return float(page.locator(f"[data-figure={name}]").get_attribute("data-value"))


def ask(page, context):
    page.locator("#tokens").fill(str(context))
    # Drawn in the next frame.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def as_planned(page, plan, tile):
    """What is drawn now is the decode step of this plan, and on the roofline a tile."""
    dispatches, totals = plan["decode"]["dispatches"], plan["decode"]["totals"]
    for name in ("bytes", "flops", "dispatches", "barriers"):
        assert figure(page, name) == totals[name], (name, figure(page, name), totals[name])
    assert figure(page, "memory") == plan["memory"]["asked"]["total"]
    chip = page.locator("#chip-name").inner_text().rsplit(", ", 1)[0]
    rate = next(one["tokens_per_second"] for one in plan["chips"] if one["name"] == chip)
    assert abs(figure(page, "rate") / rate - 1) < 1e-9, (chip, figure(page, "rate"), rate)
    peak = next(one["tflops"] for one in plan["chips"] if one["name"] == chip)
    assert (f"{peak} TFLOP/s" if peak else "no peak") in page.locator("#roof").inner_text()
    corners = len(page.locator("#roofline .roof").get_attribute("points").split())
    assert corners == (3 if peak else 2), corners
    # Every dispatch is there, in order, as long as its bytes beside the others of its row.
    drawn = page.evaluate("""() => [...document.querySelectorAll('#map .dispatch')].map((one) =>
        [Number(one.dataset.order), Number(one.firstChild.getAttribute('width')), one.querySelector('title').textContent])""")
    assert [order for order, _, _ in drawn] == [one["order"] for one in dispatches]
    most = max(drawn, key=lambda one: one[1])
    scale = (most[1] + 0.6) / weight(dispatches, most[0])
    for (order, width, title), dispatch in zip(drawn, dispatches):
        expected = max((dispatch["read"] + dispatch["written"]) * scale - 0.6, 0.6)
        assert abs(width - expected) < 0.01 and dispatch["kernel"] in title, (order, width, expected, title)
    lanes = page.locator("#timeline .dispatch")
    assert lanes.count() == len(dispatches)
    kernels = {one["kernel"] for one in dispatches}
    assert page.locator("#roofline .point").count() == len(kernels) + len(tile["kernels"])
    seen = page.locator("#roofline .point").evaluate_all("(all) => all.every((one) => one.getBBox().width > 0 && one.getBBox().y >= 0)")
    assert seen, "a kernel has no place on the roofline"
    rows = page.locator("#kernels tbody tr").evaluate_all("(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert {row[0]: int(row[2]) for row in rows} == {one["kernel"]: one["dispatches"] for one in plan["decode"]["kernels"]}
    total = page.locator("#kernels tfoot td").all_inner_texts()
    assert total[3] == in_units(totals["bytes"]), (total, in_units(totals["bytes"]))


def weight(dispatches, order):
    dispatch = next(one for one in dispatches if one["order"] == order)
    return dispatch["read"] + dispatch["written"]


def in_units(count):
    """Bytes as Forge writes them."""
    value, unit, units = float(count), 0, ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 - 0.05 and unit + 1 < len(units):
        value, unit = value / 1024, unit + 1
    return f"{value:.{1 if unit and value < 99.95 else 0}f} {units[unit]}"


def every_part(page, plan):
    """Each layer's drawing has its dispatches, and its table each of their arguments with its bytes."""
    parts = page.locator("#layer option").evaluate_all("(all) => all.map((one) => [one.value, one.textContent])")
    found = 0
    for value, name in parts:
        page.locator("#layer").select_option(value)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        layer = int(name.split(":")[0].split()[1]) if name.startswith("layer ") else None
        own = [one for one in plan["decode"]["dispatches"] if one["layer"] == layer and (layer is not None or one["stage"] == name)]
        boxes = page.locator("#flow .step").evaluate_all("(all) => all.map((one) => one.querySelector('text').textContent)")
        assert len(boxes) == len(own) and all(one["kernel"].startswith(box.rstrip("…")) for box, one in zip(boxes, own)), (name, boxes)
        barriers = page.locator("#flow .barrier").count()
        assert barriers == sum(one["barrier"] for one in own), (name, barriers)
        rows = page.locator("#uses tbody tr").evaluate_all("(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))")
        wanted = [[one["kernel"], use["role"], use["buffer"], does, f"{use['bytes']:,}"]
                  for one in own for does in ("reads", "writes") for use in one[does]]
        assert rows == wanted, (name, rows, wanted)
        found += len(own)
    assert found == len(plan["decode"]["dispatches"])


def by_keyboard(page, plan):
    """The sliders are reached by Tab and moved by arrows; the chip changes what a token takes, and not its bytes."""
    page.locator("#context").focus()
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["tokens", "chip", "layer"], reached
    page.locator("#chip").focus()
    before, moved, name = figure(page, "rate"), figure(page, "bytes"), page.locator("#chip-name").inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#chip-name")).not_to_have_text(name)
    names = [f"{one['name']}, {one['bandwidth']} GB/s" for one in plan["chips"]]
    at = names.index(page.locator("#chip-name").inner_text())
    assert at == names.index(name) + 1
    faster = plan["chips"][at]["bandwidth"] / plan["chips"][at - 1]["bandwidth"]
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert abs(figure(page, "rate") / before - faster) < 1e-9 and figure(page, "bytes") == moved
    page.locator("#context").focus()
    page.keyboard.press("Home")
    expect(page.locator("#tokens")).to_have_value("1")


def as_measured(page):
    """What is drawn is the page's own profile, of which the sums are made anew here."""
    profile = embedded(page)
    assert profile["format"] == "forge-profile" and profile["device"]["bandwidth"] == 100e9
    (measured,) = profile["passes"]
    dispatches = measured["dispatches"]
    moved = sum(one["bytes"] for one in dispatches)
    assert moved > 0 and all(one["seconds"] > 0 and one["kind"] for one in dispatches)
    # One that moves nothing (a greedy choice collects no candidates) has a place too.
    assert any(one["bytes"] == 0 for one in dispatches)
    assert figure(page, "dispatches") == len(dispatches) == page.locator("#timeline .dispatch").count()
    assert figure(page, "bytes") == moved and figure(page, "flops") == sum(one["flops"] for one in dispatches)
    assert figure(page, "seconds") == measured["seconds"]
    assert abs(figure(page, "share") / (moved / measured["seconds"] / 100e9) - 1) < 1e-9
    kernels = {one["kernel"] for one in dispatches}
    assert page.locator("#roofline .point").count() == page.locator("#kernels tbody tr").count() == len(kernels)
    # A bar is as long as its dispatch took, and its strong part as what the bytes take.
    bars = page.evaluate("""() => [...document.querySelectorAll('#timeline .dispatch')].map((one) =>
        [...one.querySelectorAll('rect')].map((part) => Number(part.getAttribute('width'))))""")
    longest = max(range(len(bars)), key=lambda index: bars[index][0])
    scale = bars[longest][0] / dispatches[longest]["seconds"]
    for (whole, strong), one in zip(bars, dispatches):
        assert abs(whole - max(one["seconds"] * scale, 0.75)) < 0.01, (whole, one)
        assert abs(strong - max(min(one["seconds"], one["bytes"] / 100e9) * scale, 0.5)) < 0.01, (strong, one)


if __name__ == "__main__":
    sys.exit(main())
