"""What a stranger's OpenAI client sees of a server.

usage: openai_client.py --base-url http://127.0.0.1:8080 --scripted-url http://127.0.0.1:8081
"""

import json
import urllib.error
import urllib.request

import client_checks
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


def fetch(url, content=None):
    """Status and body of a request that no client library would send."""
    request = urllib.request.Request(url, content, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def check_raw_errors(client, model):
    url = str(client.base_url)
    for content in (b"{", b"[]", b"", b"\xff\xfe", b'{"model": 1}'):
        status, answer = fetch(f"{url}chat/completions", content)
        assert 400 <= status < 500, (content, status, answer)
        error = json.loads(answer)["error"]
        assert error["message"] and error["type"], error
    status, answer = fetch(f"{url}no/such/route")
    assert status == 404 and json.loads(answer)["error"]["message"], answer
    status, answer = fetch(url.removesuffix("v1/") + "health")
    assert status == 200, answer


def check_response(client, model):
    options = dict(model=model, input=MESSAGES, max_output_tokens=24, temperature=0)
    answer = client.responses.create(**options)
    assert answer.object == "response" and answer.status == "incomplete", answer
    assert answer.incomplete_details.reason == "max_output_tokens", answer
    assert answer.output_text.strip() and answer.output[-1].type == "message", answer
    usage = answer.usage
    assert usage.output_tokens == 24 and usage.total_tokens == usage.input_tokens + 24, usage
    chat = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=24, temperature=0)
    assert answer.output_text == chat.choices[0].message.content
    assert client.responses.input_tokens.count(model=model, input=MESSAGES).input_tokens == usage.input_tokens
    again = client.responses.create(**options)
    assert again.usage.input_tokens_details.cached_tokens > 0, again.usage


def check_response_stream(client, model):
    options = dict(model=model, input="Tell me a story.", max_output_tokens=24, temperature=0)
    whole = client.responses.create(**options)
    events = list(client.responses.create(stream=True, **options))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], kinds
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert kinds[-1] == "response.incomplete" and events[-1].response.output_text == whole.output_text, events[-1]


def check_response_errors(client, model):
    error = expect_error(400, lambda: client.responses.create(model=model, input="Hi", previous_response_id="resp_1"))
    assert error.param == "previous_response_id", error
    error = expect_error(400, lambda: client.responses.create(model=model, input="fox " * 4000))
    assert error.code == "context_length_exceeded", error


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
FUNCTION = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
QUESTION = {"role": "user", "content": "Weather in Oslo and Rome?"}


def check_calls_of_a_chat(client, model):
    options = dict(model=model, messages=[QUESTION], tools=[TOOL])
    choice = client.chat.completions.create(**options).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me look.", choice
    cities = [json.loads(call.function.arguments)["city"] for call in choice.message.tool_calls]
    assert cities == ["Oslo", "Rome"], choice
    assert choice.message.reasoning_content == "A call, so.", choice
    with client.chat.completions.stream(**options) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    assert [call.function.arguments for call in streamed.message.tool_calls] == [
        call.function.arguments for call in choice.message.tool_calls
    ], streamed
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "Rain"} for call in choice.message.tool_calls
    ]
    again = client.chat.completions.create(
        model=model, messages=[QUESTION, choice.message, *results], tools=[TOOL], parallel_tool_calls=False
    )
    assert len(again.choices[0].message.tool_calls) == 1, again


def check_calls_of_a_response(client, model):
    options = dict(model=model, tools=[FUNCTION], store=False)
    answer = client.responses.create(input=[QUESTION], **options)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"], answer
    assert answer.output[0].content[0].text == "A call, so.", answer
    assert answer.output_text == "Let me look." and answer.status == "completed", answer
    calls = answer.output[2:]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Oslo", "Rome"], calls
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain"} for call in calls]
    again = client.responses.create(input=[QUESTION, *answer.output, *results], **options)
    assert again.output_text == "Let me look.", again


def check_calls_of_a_response_stream(client, model):
    with client.responses.stream(model=model, input=[QUESTION], tools=[FUNCTION]) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    assert "response.reasoning_text.delta" in kinds and "response.function_call_arguments.done" in kinds, kinds
    assert kinds[-1] == "response.completed", kinds
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"], answer
    assert answer.output[1].content[0].text == "Let me look.", answer


def connect(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)


if __name__ == "__main__":
    client_checks.main(f"openai {openai.__version__}", dict(globals()), connect)
