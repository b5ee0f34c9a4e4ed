"""Renders chat templates with transformers, for the tests of the runtime's own rendering.

usage: chat_goldens.py TEMPLATES

TEMPLATES is a folder of .jinja files; what they give for each conversation is written beside them to goldens.json. A
template that refuses a conversation has null there, one that fails in Python has nothing. Needs transformers and jinja2.
"""

import json
import sys
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
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
CALL = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "unit": "celsius"}}}
SYSTEM = {"role": "system", "content": "You are terse.\nVery."}
QUESTION = {"role": "user", "content": " What's <up> & 'why'? "}
ANSWER = {"role": "assistant", "content": "Not \"much\"."}
TOOL_TURNS = [
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"temperature\": 21.5}"},
]
CONVERSATIONS = {
    "user": ([QUESTION], None),
    "system": ([SYSTEM, QUESTION], None),
    "turns": ([QUESTION, ANSWER, {"role": "user", "content": "Sure?"}], None),
    "system-turns": ([SYSTEM, QUESTION, ANSWER, {"role": "user", "content": "Sure?"}], None),
    "thoughts": ([QUESTION, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nNo."}, {"role": "user", "content": "Sure?"}], None),
    "tools": ([QUESTION], [WEATHER]),
    "system-tools": ([SYSTEM, QUESTION], [WEATHER]),
    "tool-result": (TOOL_TURNS, [WEATHER]),
    "tool-answer": (TOOL_TURNS + [{"role": "assistant", "content": "21.5 °C."}, {"role": "user", "content": "Thanks!"}], [WEATHER]),
}


def render(template, messages, tools, generation):
    try:
        rendered, _ = render_jinja_template([messages], tools=tools, chat_template=template, add_generation_prompt=generation, **TOKENS)
        return rendered[0]
    except jinja2.exceptions.TemplateError:
        return None


def main():
    folder = Path(sys.argv[1])
    conversations = {name: {"messages": messages, "tools": tools} for name, (messages, tools) in CONVERSATIONS.items()}
    rendered = {}
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text()
        rendered[path.stem] = {}
        for name, (messages, tools) in CONVERSATIONS.items():
            try:
                rendered[path.stem][name] = [render(template, messages, tools, generation) for generation in (True, False)]
            except TypeError:
                continue
    goldens = {"tokens": TOKENS, "conversations": conversations, "rendered": rendered}
    (folder / "goldens.json").write_text(json.dumps(goldens, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
