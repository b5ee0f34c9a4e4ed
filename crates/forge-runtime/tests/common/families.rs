//! Families of models by how they write calls: templates of their forms, written for these tests.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::sync::Arc;

use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::server::tools::{CallForm, Style};

use crate::common::{assets, read};

/// A family: its template, and an answer with two calls as its model writes it.
pub struct Family {
    pub name: &'static str,
    pub template: String,
    pub form: CallForm,
    pub answer: &'static str,
    /// What the answer is but for the calls.
    pub content: &'static str,
}

const TURNS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}";
const ENDS: &str = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{% if tools %}{{ tools | tojson }}{% endif %}";

pub fn template(calls: &str) -> String {
    format!("{TURNS}{{% if m.tool_calls %}}{calls}{{% endif %}}{ENDS}")
}

pub fn tags(open: &str, close: &[&str], style: Style) -> CallForm {
    let close = close.iter().map(|tag| (*tag).to_owned()).collect();
    CallForm { open: vec![open.into()], close, style, ..CallForm::default() }
}

const DEEPSEEK: [&str; 4] =
    ["<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜tool▁calls▁begin｜>"];

pub fn families() -> Vec<Family> {
    let separated = |tag: &str| Style::Separated(tag.into());
    vec![
        Family {
            name: "GLM",
            template: template(
                "{% for c in m.tool_calls %}\n<tool_call>{{ c.function.name }}\n{% for k, v in c.function.arguments.items() %}<arg_key>{{ k }}</arg_key>\n\
                 <arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}",
            ),
            form: tags("<tool_call>", &["</tool_call>"], Style::Keys),
            answer: "Let me look.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n\
                     </tool_call>\n<tool_call>now\n</tool_call>",
            content: "Let me look.",
        },
        Family {
            name: "DeepSeek V3.1",
            template: template(
                "<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.function.name + '<｜tool▁sep｜>' + c.function.arguments + '<｜tool▁call▁end｜>' }}\
                 {% endfor %}<｜tool▁calls▁end｜>",
            ),
            form: tags(DEEPSEEK[0], &DEEPSEEK[1..], separated("<｜tool▁sep｜>")),
            answer: "Let me look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Oslo\", \"days\": 3}<｜tool▁call▁end｜>\
                     <｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            content: "Let me look.",
        },
        Family {
            name: "DeepSeek R1",
            template: template(
                "<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + c.function.name + '\\n```json\\n' + c.function.arguments + '\\n```' + '<｜tool▁call▁end｜>' }}\
                 {% endfor %}<｜tool▁calls▁end｜>",
            ),
            form: tags(DEEPSEEK[0], &DEEPSEEK[1..], separated("<｜tool▁sep｜>")),
            answer: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Oslo\", \"days\": 3}\n```<｜tool▁call▁end｜>\n\
                     <｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            content: "",
        },
        Family {
            name: "DeepSeek V3.2",
            template: template(
                "\n\n<｜DSML｜function_calls>{% for c in m.tool_calls %}{{ '\\n' }}<｜DSML｜invoke name=\"{{ c.function.name }}\">\n{% for k, v in c.function.arguments.items() %}\
                 <｜DSML｜parameter name=\"{{ k }}\" string=\"{{ 'true' if v is string else 'false' }}\">{{ v if v is string else v | tojson }}</｜DSML｜parameter>\n\
                 {% endfor %}</｜DSML｜invoke>{% endfor %}\n</｜DSML｜function_calls>",
            ),
            form: tags("<｜DSML｜function_calls>", &["</｜DSML｜function_calls>"], Style::Invoke("｜DSML｜".into())),
            answer: "Let me look.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n\
                     <｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"now\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
            content: "Let me look.",
        },
        Family {
            name: "MiniMax M2",
            template: template(
                "\n<minimax:tool_call>{% for c in m.tool_calls %}{{ '\\n' }}<invoke name=\"{{ c.function.name }}\">\n{% for k, v in c.function.arguments.items() %}\
                 <parameter name=\"{{ k }}\">{{ v if v is string else v | tojson }}</parameter>\n{% endfor %}</invoke>{% endfor %}\n</minimax:tool_call>",
            ),
            form: tags("<minimax:tool_call>", &["</minimax:tool_call>"], Style::Invoke(String::new())),
            answer: "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Oslo</parameter>\n<parameter name=\"days\">3</parameter>\n</invoke>\n\
                     <invoke name=\"now\">\n</invoke>\n</minimax:tool_call>",
            content: "",
        },
        Family {
            name: "Kimi K2",
            template: template(
                "<|tool_calls_section_begin|>{% for c in m.tool_calls %}<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>\
                 {{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>",
            ),
            form: CallForm {
                named_ids: true,
                ..tags(
                    "<|tool_call_begin|>",
                    &["<|tool_call_end|>", "<|tool_calls_section_end|>", "<|tool_calls_section_begin|>"],
                    separated("<|tool_call_argument_begin|>"),
                )
            },
            answer: "Let me look.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"Oslo\", \"days\": 3}<|tool_call_end|>\
                     <|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
            content: "Let me look.",
        },
        Family {
            name: "LFM2",
            template: template(
                "<|tool_call_start|>[{% for c in m.tool_calls %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}=\
                 {{ \"'\" + v + \"'\" if v is string else v }}{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}, {% endif %}{% endfor %}]<|tool_call_end|>",
            ),
            form: tags("<|tool_call_start|>", &["<|tool_call_end|>"], Style::Python),
            answer: "<|tool_call_start|>[weather(city=\"Oslo\", days=3), now()]<|tool_call_end|>Let me look.",
            content: "Let me look.",
        },
        Family {
            name: "gpt-oss",
            template: "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}<|start|>assistant to=functions.{{ c.function.name }}<|channel|>commentary json<|message|>\
                       {{ c.function.arguments | tojson }}<|call|>{% endfor %}{% else %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>\
                       {% endif %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
                .into(),
            form: CallForm { style: Style::Channels, ..CallForm::default() },
            answer: "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Oslo\", \"days\": 3}\
                     <|call|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
            content: "Let me look.",
        },
    ]
}

pub fn text_of(template: &str) -> Arc<Text> {
    let mut json = std::str::from_utf8(read("demo", "tokenizer.json")).expect("UTF-8").to_owned();
    if template.contains("<|channel|>") {
        // Tags are special tokens there, and another ends an answer.
        let pairs = [("<|user|>", "<|channel|>"), ("<|assistant|>", "<|message|>"), ("<|end|>", "<|return|>")];
        pairs.iter().for_each(|(from, to)| json = json.replace(from, to));
    }
    let tokenizer = json.into_bytes().leak();
    let assets = Assets { tokenizer, chat_template: Some(template.to_owned().leak()), ..assets("demo") };
    Arc::new(Text::load(&assets).expect("loads"))
}
