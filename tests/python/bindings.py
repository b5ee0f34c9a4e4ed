"""The Python package of a generated project, as its wheel installs it: run with the wheel's folder on PYTHONPATH, a prompt and its text."""

import sys
import threading

from demo import ForgeError, Model

PROMPT, TEXT = sys.argv[1:]


def fails(status, words, call):
    try:
        call()
    except ForgeError as error:
        assert error.status == status and words in str(error), error
    else:
        raise AssertionError(f"no error of status {status}")


def main():
    fails(7, "/no/such/file", lambda: Model("/no/such/file"))
    with Model() as model:
        info = model.info
        assert info["name"] == "demo" and info["slots"] >= 1 and info["has_chat_template"] == 1, info
        tokens = model.tokenize(PROMPT)
        assert PROMPT in model.detokenize(tokens) and model.tokenize("", special=False) == []
        greedy = {"max_tokens": 32, "temperature": 0}
        stream = model.generate(PROMPT, **greedy)
        fails(13, "to its end", lambda: stream.summary)
        pieces = list(stream)
        assert "".join(pieces) == TEXT and len(pieces) > 1, pieces
        assert stream.summary["finish"] == "length" and stream.summary["completion_tokens"] == 32, stream.summary

        # A text that ends another, one that nobody reads on, one from elsewhere.
        middle = TEXT[len(TEXT) // 2 :][:5]
        assert "".join(model.generate(tokens, stop=[middle], **greedy)) == TEXT[: TEXT.index(middle)]
        assert next(model.generate(tokens)) != ""
        texts = []
        threads = [threading.Thread(target=lambda: texts.append("".join(model.generate(tokens, **greedy)))) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert texts == [TEXT] * 3, texts

        chat = [{"role": "user", "content": "Hi, you!"}]
        assert "Hi, you!" in model.chat_prompt(chat)
        assert len(model.chat_prompt({"messages": chat, "add_generation_prompt": False})) < len(model.chat_prompt(chat))
        answer = model.answer(chat, seed=1, max_tokens=8)
        assert "".join(answer) != "" and answer.summary["completion_tokens"] <= 8

        stopped = model.generate(tokens)
        stopped.cancel()
        try:
            "".join(stopped)
        except ForgeError as error:
            assert error.status == 12, error
        fails(4, "temperature", lambda: model.generate(tokens, temperature=-1))
        fails(10, "empty", lambda: model.generate([]))
    fails(1, "null pointer", lambda: model.info)
    print("the Python package: a text, three at a time, a chat, errors")


main()
