//! What a call consists of besides its name, as a grammar for answers that have to be calls, or that are held to it where they are.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::super::super::assets::Text;
use super::super::super::grammar::Opening;
use super::call::FUNCTION;
use super::values::{self, Around, Notation, Properties, Rules, plain_name};
use super::{CallForm, Style, Tool, harmony};

/// What a model writes of a call behind its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallRest {
    /// Arguments are a JSON object.
    Object {
        /// Up to them.
        before: String,
        /// Behind them, up to the call's end.
        after: String,
    },
    /// Arguments come one after the other.
    Each(Arguments),
}

/// Arguments one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub(super) notation: Notation,
    /// All of a call without any, up to its end.
    pub(super) none: String,
    /// Up to the name of the first.
    pub(super) first: String,
    /// Between a name and its value, where that is text, and where it is not.
    pub(super) is: [String; 2],
    /// Behind a value.
    pub(super) end: String,
    /// From there to the next name.
    pub(super) next: String,
    /// From there to the call's end.
    pub(super) last: String,
    /// Whether they come sorted by name.
    pub(super) sorted: bool,
}

/// A way in which a call begins.
pub struct Begun<'a> {
    /// What tells it.
    pub opening: Opening,
    /// From there to the name.
    pub lead: String,
    /// Behind that.
    pub rest: Cow<'a, CallRest>,
}

impl CallRest {
    /// How calls begin where an answer need have none; none where that is not known, or other text may begin so. `beginning` is what an answer begins
    /// with that begins with a call.
    pub fn begun(&self, form: &CallForm, beginning: Option<&str>, text: &Text) -> Vec<Begun<'_>> {
        if form.style == Style::Channels {
            let after = match self {
                Self::Object { after, .. } => after,
                Self::Each(_) => return Vec::new(),
            };
            let begun = |[before_name, before]: [&str; 2]| Begun {
                opening: Opening::Text(before_name.to_owned()),
                lead: String::new(),
                rest: Cow::Owned(Self::Object { before: before.to_owned(), after: after.clone() }),
            };
            return harmony::CALLS.map(begun).into();
        }
        let begun = || {
            let beginning = beginning.filter(|_| !form.bare)?;
            let open = form.open.first().map_or(FUNCTION, String::as_str);
            let (_, lead) = beginning.split_once(open)?;
            let opening = text.tokenizer.id(open).map_or_else(|| Opening::Text(open.to_owned()), Opening::Token);
            Some(Begun { opening, lead: lead.to_owned(), rest: Cow::Borrowed(self) })
        };
        begun().into_iter().collect()
    }

    /// The grammar of a call of one of `tools`, behind what there is of it already: the name of the tool, if it is `named`; `lead` comes before that
    /// still. Arguments are what the tool's schema says if `strict`, else any. `None` where that cannot be said of a schema in this form.
    pub fn grammar(
        &self,
        form: &CallForm,
        tools: &[Tool],
        lead: &str,
        named: Option<&str>,
        text: &Text,
        strict: impl Fn(&Tool) -> bool,
    ) -> Option<String> {
        let special = form.special_tags(text);
        let mut rules = Rules::new(&special);
        let mut calls = Vec::new();
        for tool in tools.iter().filter(|tool| named.is_none_or(|name| tool.name == name)) {
            let name = if named.is_none() { rules.literal(&tool.name) } else { String::new() };
            let any = json!({ "type": "object" });
            let schema = if strict(tool) && tool.parameters.is_object() { &tool.parameters } else { &any };
            let rest = match self {
                Self::Object { before, after } => {
                    let object = rules.json(schema, schema)?;
                    format!("{} {object} {}", rules.literal(before), rules.literal(after))
                }
                Self::Each(arguments) => arguments.of(schema, &mut rules)?,
            };
            calls.push(rules.rule(&format!("{name} {rest}"))?);
        }
        let (lead, calls) = (rules.literal(lead), calls.join(" | "));
        Some(format!("start: {lead} call\ncall: {calls}\n{}", rules.lines()))
    }
}

impl Arguments {
    /// Those of a schema, up to the call's end.
    fn of(&self, schema: &Value, rules: &mut Rules<'_>) -> Option<String> {
        let mut properties = Properties::of(schema, schema)?;
        if !properties.named.iter().all(|(name, ..)| self.may_be_named(name)) {
            return None;
        }
        if self.sorted {
            properties.named.sort_by_cached_key(|(name, ..)| name.to_lowercase());
        }
        let around = Around { before: &self.is, end: &self.end };
        let write = values::Each { none: &self.none, first: &self.first, next: &self.next, last: &self.last };
        rules.each(&properties, &write, |rules, value| rules.value(self.notation, value, schema, around))
    }

    /// Whether a name can be told from what stands around it.
    fn may_be_named(&self, name: &str) -> bool {
        match self.notation {
            Notation::Text | Notation::Pairs => plain_name(name).is_some(),
            Notation::Python => name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty(),
        }
    }

    /// What a call with these arguments, of texts and of numbers, is written as behind its name; texts have to need no escapes.
    pub(super) fn written(&self, arguments: &Map<String, Value>, quotes: [&str; 2]) -> String {
        if arguments.is_empty() {
            return self.none.clone();
        }
        let pair = |(name, value): (&String, &Value)| match value {
            Value::String(text) => format!("{name}{}{}{text}{}{}", self.is[0], quotes[0], quotes[1], self.end),
            value => format!("{name}{}{value}{}", self.is[1], self.end),
        };
        let mut pairs: Vec<String> = arguments.iter().map(pair).collect();
        if self.sorted {
            pairs.sort();
        }
        format!("{}{}{}", self.first, pairs.join(&self.next), self.last)
    }
}
