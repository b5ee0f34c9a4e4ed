"""What a stranger's Anthropic client sees of a server.

usage: anthropic_client.py --base-url http://127.0.0.1:8080 --scripted-url http://127.0.0.1:8081
"""

import anthropic
import client_checks

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox and a lantern."}]
# The package knows of no temperature any more; the server does.
GREEDY = {"temperature": 0}


def text_of(message):
    """What a message says, thoughts and calls left out."""
    return "".join(block.text for block in message.content if block.type == "text")


def check_models(client, model):
    listed = client.models.list()
    assert [entry.id for entry in listed.data] == [model] and not listed.has_more, listed
    assert listed.data[0].display_name == model and listed.data[0].created_at.year >= 2025, listed
    assert client.models.retrieve(model).id == model


def check_message(client, model):
    answer = client.messages.create(model=model, max_tokens=300, messages=MESSAGES, system="Be kind.")
    assert answer.type == "message" and answer.role == "assistant" and answer.model == model, answer
    assert text_of(answer).strip(), answer
    assert answer.stop_reason in ("end_turn", "max_tokens"), answer
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 5, answer.usage
    assert answer.usage.output_tokens > 10, answer.usage
    assert answer._request_id, "every answer has an id"


def check_message_stream_equals_whole(client, model):
    options = dict(model=model, max_tokens=24, messages=MESSAGES, extra_body=GREEDY)
    whole = text_of(client.messages.create(**options))
    with client.messages.stream(**options) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 3, "one piece for a whole text is no stream"
    assert "".join(pieces) == text_of(final) == whole
    assert final.stop_reason == "max_tokens", final
    assert final.usage.output_tokens == 24 and final.usage.cache_read_input_tokens > 0, final.usage


def check_stop_sequence(client, model):
    options = dict(model=model, max_tokens=40, messages=MESSAGES, extra_body=GREEDY)
    text = text_of(client.messages.create(**options))
    stop = text.split()[3]
    answer = client.messages.create(stop_sequences=[stop], **options)
    assert answer.stop_reason == "stop_sequence" and answer.stop_sequence == stop, answer
    assert text_of(answer) == text[: text.index(stop)], (answer, text)


def check_count_tokens(client, model):
    usage = client.messages.create(model=model, max_tokens=1, messages=MESSAGES).usage
    counted = client.messages.count_tokens(model=model, messages=MESSAGES).input_tokens
    assert counted == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)


def check_errors(client, model):
    try:
        client.messages.create(model=model, max_tokens=1, messages=[{"role": "user", "content": "fox " * 4000}])
    except anthropic.BadRequestError as error:
        assert "prompt is too long: " in error.message, error
        assert error.body["error"]["type"] == "invalid_request_error", error.body
    else:
        raise AssertionError("a prompt that does not fit was taken")
    try:
        client.models.retrieve("no-such-model")
    except anthropic.NotFoundError:
        pass
    else:
        raise AssertionError("there is no such model")


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather of a city", "input_schema": SCHEMA}
QUESTION = {"role": "user", "content": "Weather in Oslo and Rome?"}


def check_calls_of_a_message(client, model):
    options = dict(model=model, max_tokens=400, tools=[TOOL], thinking={"type": "enabled", "budget_tokens": 1024})
    answer = client.messages.create(messages=[QUESTION], **options)
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"], answer
    assert answer.stop_reason == "tool_use" and answer.content[0].thinking == "A call, so.", answer
    calls = answer.content[2:]
    assert [call.input for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}], calls
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain"} for call in calls]
    turn = [QUESTION, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    again = client.messages.create(messages=turn, **options)
    assert again.content[1].text == "Let me look.", again


def check_calls_of_a_stream(client, model):
    with client.messages.stream(model=model, max_tokens=400, messages=[QUESTION], tools=[TOOL]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert {"thinking", "text", "input_json", "content_block_stop", "message_stop"} <= kinds, kinds
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use", "tool_use"], final
    assert final.content[3].input == {"city": "Rome"} and final.stop_reason == "tool_use", final


def connect(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=300)


if __name__ == "__main__":
    client_checks.main(f"anthropic {anthropic.__version__}", dict(globals()), connect)
