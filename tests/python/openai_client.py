"""What a stranger's OpenAI client sees of a served project.

usage: openai_client.py --base-url http://127.0.0.1:8080/v1

Every check is a function `check_*`; the last line counts them.
"""

import argparse
import sys
import traceback

import httpx
import openai

PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]


def check_models(client, model):
    listed = client.models.list()
    assert listed.object == "list", listed
    assert [entry.id for entry in listed.data] == [model], listed
    assert listed.data[0].object == "model", listed
    assert client.models.retrieve(model).id == model


def check_completion(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.object == "text_completion", answer
    assert answer.model == model and answer.id and answer.created > 0, answer
    choice = answer.choices[0]
    assert choice.index == 0 and choice.finish_reason == "length", choice
    assert choice.text.strip(), choice
    usage = answer.usage
    assert usage.completion_tokens == 12, usage
    assert usage.prompt_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def check_completion_stream_equals_whole(client, model):
    options = dict(model=model, prompt=PROMPT, max_tokens=24, temperature=0)
    whole = client.completions.create(**options).choices[0].text
    chunks = list(client.completions.create(stream=True, **options))
    assert len(chunks) > 3, "one chunk for a whole text is no stream"
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "length" and not any(reasons[:-1]), reasons


def check_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=300, seed=1)
    assert answer.object == "chat.completion", answer
    choice = answer.choices[0]
    assert choice.message.role == "assistant", choice
    assert choice.finish_reason in ("stop", "length"), choice
    assert "fox" in choice.message.content.lower(), choice
    assert "<|" not in choice.message.content, choice
    assert answer.usage.completion_tokens > 10, answer.usage


def check_chat_stream(client, model):
    options = dict(model=model, messages=MESSAGES, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**options).choices[0].message.content
    stream = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
    chunks = list(stream)
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 24, chunks[-1]
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "length" and not any(reasons[:-1]), reasons


def check_stop(client, model):
    options = dict(model=model, prompt=PROMPT, max_tokens=60, temperature=0)
    text = client.completions.create(**options).choices[0].text
    stop = text.split(".")[0].split()[-1]
    stopped = client.completions.create(stop=[stop], **options).choices[0]
    assert stopped.finish_reason == "stop", stopped
    assert stopped.text == text[: text.index(stop)], (stopped.text, text, stop)
    chunks = client.completions.create(stop=stop, stream=True, **options)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == stopped.text


def check_seed(client, model):
    def text(seed):
        options = dict(model=model, prompt=PROMPT, max_tokens=24, temperature=1.0)
        return client.completions.create(seed=seed, **options).choices[0].text

    assert text(7) == text(7)
    assert len({text(seed) for seed in range(4)}) > 1


def check_closed_stream_leaves_the_server_free(client, model):
    stream = client.completions.create(model=model, prompt=PROMPT, max_tokens=400, temperature=1.0, stream=True)
    next(iter(stream))
    stream.close()
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=1, temperature=0)
    assert answer.usage.completion_tokens == 1


def expect_error(status, call):
    try:
        call()
    except openai.APIStatusError as error:
        assert error.status_code == status, (status, error.status_code, error.body)
        assert isinstance(error.body, dict) and error.body.get("message"), error.body
        assert error.body.get("type"), error.body
        return error
    raise AssertionError(f"no error where status {status} is due")


def check_errors(client, model):
    def complete(**options):
        return lambda: client.completions.create(**{"model": model, "prompt": PROMPT, "max_tokens": 1, **options})

    def chat(**options):
        return lambda: client.chat.completions.create(**{"model": model, "max_tokens": 1, **options})

    expect_error(400, complete(temperature="warm"))
    expect_error(400, complete(prompt="fox " * 4000))
    expect_error(400, chat(messages=[]))
    expect_error(400, chat(messages=[{"role": "user", "content": "fox " * 4000}]))
    expect_error(404, lambda: client.models.retrieve("no-such-model"))
    expect_error(404, lambda: client.embeddings.create(model=model, input="x"))


def check_raw_errors(client, model):
    url = str(client.base_url)
    headers = {"content-type": "application/json"}
    for content in (b"{", b"[]", b"", b"\xff\xfe", b'{"model": 1}'):
        answer = httpx.post(f"{url}chat/completions", content=content, headers=headers)
        assert 400 <= answer.status_code < 500, (content, answer.status_code, answer.text)
        error = answer.json()["error"]
        assert error["message"] and error["type"], error
    answer = httpx.get(f"{url}no/such/route")
    assert answer.status_code == 404 and answer.json()["error"]["message"], answer.text
    health = httpx.get(url.removesuffix("v1/") + "health")
    assert health.status_code == 200, health.text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", required=True)
    options = parser.parse_args()
    client = openai.OpenAI(base_url=options.base_url, api_key="none", max_retries=0, timeout=300)
    model = client.models.list().data[0].id
    checks = [(name, check) for name, check in globals().items() if name.startswith("check_")]
    failed = 0
    for name, check in checks:
        try:
            check(client, model)
            print(f"ok      {name}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc(file=sys.stdout)
    print(f"openai {openai.__version__}: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
