"""Renders chat templates with transformers' apply_chat_template, for the tests of the runtime's own rendering.

usage: chat_goldens.py TEMPLATES...

Each folder of .jinja files gets a goldens.json: the text of every template for every conversation below. A template that
refuses a conversation has null there; one that fails in Python, which no model's user would get past, has nothing.

A conversation is kept as a client sends it. What a server owes to a template is done here before transformers sees it:
arguments of tool calls are decoded, the role "developer" is "system" for a template that does not name it, and contents are
strings or parts as the template takes them. Which roles may have parts is said by a template's first comment,
`{#- roles with parts: user #}`, or `roles with parts alone`; other templates get strings. Needs transformers and jinja2.
"""

import copy
import json
import re
import sys
from pathlib import Path

import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# Published templates that have no comment to say so.
ROLES_WITH_PARTS = {"gemma4": ["user", "assistant", "tool"]}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, today.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name <in English> & country"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "Die Uhrzeit.",
        "parameters": {
            "type": "object",
            "properties": {
                "zones": {"type": "array", "items": {"type": "string"}, "default": ["UTC"]},
                "offset": {"type": "number", "minimum": -1.5, "nullable": True},
                "format": {"type": "object", "properties": {"am_pm": {"type": "boolean"}}},
            },
        },
    },
}


def call(name, arguments, identifier):
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are terse.\nVery."}
QUESTION = {"role": "user", "content": " What's <up> & 'why'? "}
ANSWER = {"role": "assistant", "content": "Not \"much\"."}
SURE = {"role": "user", "content": "Sure?"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "Zürich", "unit": "celsius"}, "call12345")]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"temperature\": 21.5}"}
ASKED = {"role": "user", "content": "Weather in Zürich?"}
PARALLEL = {
    "role": "assistant",
    "content": "Let me look.",
    "tool_calls": [
        call("get_weather", "{\"city\":\"Zürich\"}", "call00001"),
        call("clock", "{\"zones\": [\"CET\", \"东京\"], \"offset\": 2.50, \"format\": {\"am_pm\": false}}", "call00002"),
    ],
}


def text(*parts):
    return [{"type": "text", "text": part} for part in parts]


CONVERSATIONS = {
    "user": {"messages": [QUESTION]},
    "system-closed": {"messages": [SYSTEM, QUESTION], "add_generation_prompt": False},
    "turns": {"messages": [QUESTION, ANSWER, SURE]},
    "system-turns": {"messages": [SYSTEM, QUESTION, ANSWER, SURE]},
    "thoughts-closed": {"messages": [QUESTION, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nNo."}, SURE], "add_generation_prompt": False},
    "system-tools": {"messages": [SYSTEM, QUESTION], "tools": [WEATHER]},
    "tool-result": {"messages": [ASKED, CALLED, RESULT], "tools": [WEATHER]},
    "tool-answer": {"messages": [SYSTEM, ASKED, CALLED, RESULT, {"role": "assistant", "content": "21.5 °C."}, {"role": "user", "content": "Thanks!"}], "tools": [WEATHER, CLOCK]},
    "arguments-text": {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [call("get_weather", "{\"city\":\"Oslo\"}", "call12345")]}, RESULT], "tools": [WEATHER]},
    "parallel": {
        "messages": [
            ASKED,
            PARALLEL,
            {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "rain"},
            {"role": "tool", "name": "clock", "tool_call_id": "call00002", "content": "12:00"},
        ],
        "tools": [CLOCK],
    },
    "parts": {"messages": [{"role": "system", "content": text("Be brief.")}, {"role": "user", "content": text("One.", " Two ")}, {"role": "assistant", "content": text("Three.")}, SURE]},
    "thinking": {
        "messages": [QUESTION, {"role": "assistant", "content": "Yes.", "reasoning_content": "\nLong thought.\n"}, SURE],
        "enable_thinking": True,
        "reasoning_effort": "high",
    },
    "reasoning-off": {"messages": [QUESTION, {"role": "assistant", "content": "Yes.", "reasoning": "Short."}, SURE], "enable_thinking": False},
    "developer": {"messages": [{"role": "developer", "content": "Use metric units."}, QUESTION]},
    "continued": {"messages": [QUESTION, {"role": "assistant", "content": "Well, "}], "continue_final_message": True},
    "unicode": {"messages": [{"role": "system", "content": "日本語で"}, {"role": "user", "content": "naïve 🙂 – ‘ok’\u00a0\u200b\u0301"}]},
    "empty": {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": ""}]},
    "documents": {"messages": [QUESTION], "documents": [{"title": "A", "text": "One\n\ntwo & <3>"}, {"text": "no title"}]},
}


def decoded(function):
    """What an OpenAI client sends as a string of JSON, as an object."""
    try:
        arguments = json.loads(function["arguments"])
    except (KeyError, TypeError, ValueError):
        return
    if isinstance(arguments, dict):
        function["arguments"] = arguments


def prepared(messages, name, template):
    comment = re.match(r"\{#- roles with parts( alone)?: ([a-z, ]+?) -?#\}", template)
    with_parts = comment.group(2).split(", ") if comment else ROLES_WITH_PARTS.get(name, [])
    alone = bool(comment and comment.group(1))
    messages = copy.deepcopy(messages)
    for message in messages:
        if message["role"] == "developer" and not re.search(r"['\"]developer['\"]", template):
            message["role"] = "system"
        for tool_call in message.get("tool_calls") or []:
            decoded(tool_call["function"])
        content = message["content"]
        if message["role"] not in with_parts and isinstance(content, list):
            message["content"] = "\n".join(part["text"] for part in content)
        if alone and message["role"] in with_parts and isinstance(content, str):
            message["content"] = text(content)
    return messages


def render(tokenizer, name, template, conversation):
    fields = {"add_generation_prompt": not conversation.get("continue_final_message"), **conversation}
    fields["messages"] = prepared(fields.pop("messages"), name, template)
    try:
        return tokenizer.apply_chat_template(fields.pop("messages"), chat_template=template, tokenize=False, **fields)
    except jinja2.exceptions.UndefinedError:
        raise
    except ValueError as error:
        # A template that goes through all fields of a message names none.
        if "not an accepted field" in str(error):
            raise TypeError from error
        return None
    except jinja2.exceptions.TemplateError:
        return None


def main():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), **TOKENS)
    for folder in map(Path, sys.argv[1:]):
        rendered = {}
        for path in sorted(folder.glob("*.jinja")):
            texts = rendered[path.stem] = {}
            for name, conversation in CONVERSATIONS.items():
                try:
                    texts[name] = render(tokenizer, path.stem, path.read_bytes().decode(), conversation)
                except (TypeError, AttributeError, KeyError, jinja2.exceptions.UndefinedError):
                    continue
        goldens = {"tokens": TOKENS, "conversations": CONVERSATIONS, "rendered": rendered}
        (folder / "goldens.json").write_text(json.dumps(goldens, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
