"""What clients see of a server that know it only as compatible with OpenAI or Anthropic: litellm, langchain-openai and llm.

usage: other_clients.py --scripted-url http://127.0.0.1:8081
"""

import json
import os
import tempfile

# llm reads its models from a folder that has to be known before it is imported.
FOLDER = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = FOLDER.name
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

import client_checks
import langchain_openai
import litellm
import llm
import openai

litellm.suppress_debug_info = True
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": PARAMETERS}}
QUESTION = [{"role": "user", "content": "Weather in Oslo and Rome?"}]
COLOR = {
    "title": "Color",
    "description": "A color",
    "type": "object",
    "properties": {"color": {"enum": ["red", "blue"]}},
    "required": ["color"],
    "additionalProperties": False,
}


def host(client):
    return str(client.base_url).removesuffix("/v1/")


def cities(calls):
    return [json.loads(call.function.arguments)["city"] for call in calls]


def check_calls_through_litellm(client, model):
    for provider, base in (("openai", host(client) + "/v1"), ("hosted_vllm", host(client) + "/v1")):
        options = dict(model=f"{provider}/{model}", api_base=base, api_key="none", messages=QUESTION)
        message = litellm.completion(tools=[TOOL], **options).choices[0].message
        assert cities(message.tool_calls) == ["Oslo", "Rome"] and message.content == "Let me look.", message
        assert message.reasoning_content == "A call, so.", message
        chunks = list(litellm.completion(tools=[TOOL], stream=True, **options))
        whole = litellm.stream_chunk_builder(chunks, messages=QUESTION).choices[0].message
        assert cities(whole.tool_calls) == ["Oslo", "Rome"] and whole.content == "Let me look.", whole
        several = litellm.completion(n=2, logprobs=True, top_logprobs=2, max_tokens=12, **options)
        assert len(several.choices) == 2, several


def check_calls_through_litellm_as_anthropic(client, model):
    options = dict(model=f"anthropic/{model}", api_base=host(client), api_key="none", messages=QUESTION, max_tokens=400)
    message = litellm.completion(tools=[TOOL], **options).choices[0].message
    assert cities(message.tool_calls) == ["Oslo", "Rome"] and message.content == "Let me look.", message


def check_calls_through_langchain(client, model):
    chat = langchain_openai.ChatOpenAI(model=model, base_url=host(client) + "/v1", api_key="none", max_retries=0)
    calling = chat.bind_tools([TOOL])
    answer = calling.invoke("Weather?")
    assert [call["args"]["city"] for call in answer.tool_calls] == ["Oslo", "Rome"], answer
    assert answer.content == "Let me look." and answer.usage_metadata["output_tokens"] > 10, answer
    whole = None
    for chunk in calling.stream("Weather?"):
        whole = chunk if whole is None else whole + chunk
    assert [call["args"]["city"] for call in whole.tool_calls] == ["Oslo", "Rome"], whole
    for method in ("json_schema", "function_calling"):
        color = chat.with_structured_output(COLOR, method=method).invoke("A color, please.")
        assert color["color"] in ("red", "blue"), (method, color)
    scored = chat.bind(logprobs=True, top_logprobs=1).invoke("Hi").response_metadata["logprobs"]["content"]
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 1 for token in scored) and scored, scored


def check_calls_through_llm(client, model):
    entry = f"- model_id: served\n  model_name: {model}\n  api_base: {host(client)}/v1\n"
    with open(os.path.join(FOLDER.name, "extra-openai-models.yaml"), "w") as models:
        models.write(entry + "  supports_tools: true\n  supports_schema: true\n")
    served = llm.get_model("served")

    def get_weather(city: str) -> str:
        "Weather of a city"
        return "Rain"

    for stream in (False, True):
        response = served.prompt("Weather?", tools=[get_weather], stream=stream, key="none")
        assert response.text() == "Let me look.", response.text()
        assert [call.arguments for call in response.tool_calls()] == [{"city": "Oslo"}, {"city": "Rome"}]
    answer = served.prompt("A color, please.", schema=COLOR, stream=False, key="none").text()
    assert json.loads(answer)["color"] in ("red", "blue"), answer


def connect(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)


if __name__ == "__main__":
    client_checks.main("litellm, langchain-openai, llm", dict(globals()), connect)
