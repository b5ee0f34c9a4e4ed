"""The server's page in headless Chromium, by keyboard alone, 360 pixels wide.

usage: page.py --url http://127.0.0.1:8081 --chromium /usr/bin/chromium [--screenshots FOLDER]

The server's model thinks, says something hostile slowly and calls a function (`scripted_server` with --hostile).
"""

import argparse
import pathlib
import sys

from playwright.sync_api import expect, sync_playwright

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--screenshots", type=pathlib.Path)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme="dark")
        page = context.new_page()
        wrong = []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        requests = []
        page.on("request", lambda request: requests.append(request.url))

        def shot(name):
            if options.screenshots:
                page.screenshot(path=options.screenshots / f"{name}.png")

        page.goto(options.url)
        expect(page.locator("#model")).to_have_text("hash-model")
        expect(page.locator("#load")).to_have_text("0 of 1 at work")

        # The message's field has the focus; Enter sends.
        page.keyboard.type("Weather in Oslo?")
        page.keyboard.press("Enter")
        answer = page.locator(".message.assistant")
        expect(answer.locator(".text")).to_contain_text("<img", timeout=20_000)
        expect(page.locator("#stop")).to_be_visible()
        shot("streaming")
        expect(page.locator("#send")).to_be_visible(timeout=60_000)
        # Hostile words are words.
        assert HOSTILE in answer.locator(".text").inner_text(), answer.inner_text()
        assert page.locator("#messages img, #messages script").count() == 0
        thinking = answer.locator("details").first
        expect(thinking.locator("summary")).to_have_text("Thinking")
        assert thinking.get_attribute("open") is None, "thoughts are folded"
        expect(answer.locator(".who")).to_contain_text("tokens/s")
        expect(answer.locator(".who")).to_contain_text("cached")
        shot("answered")

        # Regenerate, and stop in the middle.
        regenerate = answer.get_by_role("button", name="Regenerate")
        regenerate.focus()
        page.keyboard.press("Enter")
        expect(answer.locator(".text")).to_contain_text("Let", timeout=20_000)
        page.keyboard.press("Escape")
        expect(page.locator("#send")).to_be_visible()
        stopped = answer.locator(".text").inner_text()
        assert stopped and HOSTILE not in stopped, stopped
        assert page.locator(".wrong").count() == 0
        expect(page.locator("#load")).to_have_text("0 of 1 at work", timeout=10_000)

        # A reload loses nothing.
        page.reload()
        expect(page.locator(".message.user .text")).to_have_text("Weather in Oslo?")
        expect(answer.locator(".text")).to_have_text(stopped)

        # Edit: the chat goes on from there.
        page.get_by_role("button", name="Edit").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#text")).to_be_focused()
        expect(page.locator("#text")).to_have_value("Weather in Oslo?")
        assert page.locator(".message").count() == 0
        page.keyboard.press("Control+A")
        page.keyboard.type("Weather in Rome?")

        # Tools, asked for in the settings, are called.
        page.locator("#toggle").focus()
        page.keyboard.press("Enter")
        page.locator("#tools").focus()
        page.keyboard.type('[{"type":"function","function":{"name":"get_weather","parameters":{}}}]')
        shot("settings")
        page.locator("#toggle").focus()
        page.keyboard.press("Enter")
        page.locator("#text").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#send")).to_be_visible(timeout=60_000)
        expect(answer.locator("summary").last).to_have_text("Calls get_weather", timeout=60_000)
        shot("called")

        # Nothing is wider than the window, nothing came from elsewhere, and the browser had nothing to complain of.
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, width
        assert all(url.startswith(options.url) for url in requests), requests
        assert not wrong, wrong
        # What the policy forbids does not run.
        page.evaluate("() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); }")
        assert page.evaluate("window.ran") is None and wrong, "the policy lets scripts in"
        browser.close()
    print("page: stream, stop, regenerate, reload, edit, tools, hostile words, policy, 360 pixels: passed")


if __name__ == "__main__":
    sys.exit(main())
