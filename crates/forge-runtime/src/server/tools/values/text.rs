//! Strings as they are, up to the tag that ends them.

use llguidance::regex_to_lark;
use serde_json::{Map, Value, json};

use super::super::schema::{Kinds, flat, is_word};
use super::{Around, DEEPEST, OF_NUMBERS, OF_TEXT, Rules};

/// Formats of strings. Source: RFC 3339 for dates and times, RFC 9562 for UUIDs; the 29th of February, which needs the year, is left out.
const DATE: &str =
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))";
const TIME: &str = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const IPV4: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const UUID: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
const EMAIL: &str = r"[A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,32}){0,3}@([A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?\.){1,4}[A-Za-z]{2,20}";

impl Rules<'_> {
    /// A value that is text, or else JSON.
    pub(super) fn text_value(&mut self, schema: &Value, root: &Value, around: Around<'_>) -> Option<String> {
        let kinds = Kinds::of(schema, root);
        let [before, before_json] = around.before.each_ref().map(|before| self.literal(before));
        let end = self.literal(around.end);
        if !kinds.is_text() {
            // Of which something is said without that, all else is allowed.
            let mut fields = flat(schema, root)?;
            if !["type", "const", "enum", "anyOf", "oneOf"].iter().any(|field| fields.contains_key(*field)) {
                fields.insert("type".into(), json!(kinds.names()));
            }
            let json = self.json(&Value::Object(fields), root)?;
            return Some(format!("{before_json} {json} {end}"));
        }
        // A newline at either end may be the template's.
        let padded = around.before[0].ends_with('\n') && around.end.starts_with('\n');
        let mut texts = Vec::new();
        self.texts(schema, root, DEEPEST, (around.end, padded), &mut texts)?;
        let mut choices: Vec<String> = texts.iter().map(|text| format!("{before} {text}")).collect();
        if kinds.has("null") {
            choices.push(format!("{before_json} \"null\" {end}"));
        }
        for member in kinds.members.iter().filter(|member| !member.is_string() && !member.is_null()) {
            let json = self.json(&json!({ "const": member }), root)?;
            choices.push(format!("{before_json} {json} {end}"));
        }
        self.choice(&choices)
    }

    /// The strings of a schema, each with the end.
    fn texts(
        &mut self,
        schema: &Value,
        root: &Value,
        depth: usize,
        (end, padded): (&str, bool),
        texts: &mut Vec<String>,
    ) -> Option<()> {
        let (fields, deeper) = (flat(schema, root)?, depth.checked_sub(1)?);
        let members =
            fields.get("const").into_iter().chain(fields.get("enum").and_then(Value::as_array).into_iter().flatten());
        let is_named = fields.contains_key("const") || fields.contains_key("enum");
        if is_named {
            for member in members.filter_map(Value::as_str) {
                if member.contains(end.trim()) {
                    return None;
                }
                // The reader takes a newline from either end.
                let pad = if !padded && (member.starts_with('\n') || member.ends_with('\n')) { "\n" } else { "" };
                texts.push(format!("{} {}", self.literal(&format!("{pad}{member}{pad}")), self.literal(end)));
            }
            return Some(());
        }
        for several in ["anyOf", "oneOf"] {
            let Some(branches) = fields.get(several) else { continue };
            if !fields.keys().all(|field| field == several || field == "type" || is_word(field)) {
                return None;
            }
            for branch in branches.as_array()? {
                if Kinds::of(branch, root).is_text() {
                    self.texts(branch, root, deeper, (end, padded), texts)?;
                }
            }
            return Some(());
        }
        texts.push(self.text(&fields, end, !padded)?);
        Some(())
    }

    /// A string that these fields allow, and the end, which does not stand in it. With `trims`, a newline at either end is no part of it.
    pub(super) fn text(&mut self, fields: &Map<String, Value>, end: &str, trims: bool) -> Option<String> {
        // What is said of other kinds does not matter.
        let others = |field: &str| OF_NUMBERS.contains(&field) || is_word(field);
        if !fields.keys().all(|field| OF_TEXT.contains(&field.as_str()) || others(field)) {
            return None;
        }
        let mut parts = Vec::new();
        let bound = |name: &str| fields.get(name).map(Value::as_u64);
        let (least, most) = (bound("minLength"), bound("maxLength"));
        if least.is_some() || most.is_some() {
            let least = least.map_or(Some(0), |least| least)?;
            let most = most.map_or(Some(String::new()), |most| most.map(|most| most.to_string()))?;
            parts.push(format!("/(?s:.{{{least},{most}}})/"));
        }
        if let Some(pattern) = fields.get("pattern") {
            parts.push(format!("/{}/", searched(pattern.as_str()?)?));
        }
        if let Some(format) = fields.get("format") {
            let format = match format.as_str()? {
                "date" => DATE.to_owned(),
                "time" => TIME.to_owned(),
                "date-time" => format!("{DATE}T{TIME}"),
                "ipv4" => IPV4.to_owned(),
                "uuid" => UUID.to_owned(),
                "email" => EMAIL.to_owned(),
                _ => return None,
            };
            parts.push(format!("/{format}/"));
        }
        let special = self.special.iter().find_map(|(id, tag)| Some((*id, end.split_once(tag.as_str())?)));
        let any = parts.is_empty();
        if any {
            parts.push("/(?s:.*)/".into());
        } else if trims {
            parts.extend(["~/\\n(?s:.*)/".into(), "~/(?s:.*)\\n/".into()]);
        }
        if !any || special.is_some() {
            // Otherwise the first end is the end.
            parts.push(format!("~/(?s:.*){}(?s:.*)/", escaped(end.trim())));
        }
        let body = parts.join(" & ");
        let number = self.name()?;
        self.lines += &format!("TEXT_{number}: {body}\n");
        match special {
            // A terminal has no special tokens.
            Some((id, (lead, rest))) => {
                let lead = if lead.is_empty() { String::new() } else { Value::from(lead).to_string() };
                self.lines += &format!("LED_{number}: TEXT_{number} {lead}\n");
                Some(format!("LED_{number} <[{id}]> {}", self.literal(rest)))
            }
            None => {
                self.lines += &format!("text_{number}[suffix={}]: TEXT_{number}\n", Value::from(end));
                Some(format!("text_{number}"))
            }
        }
    }
}

/// A pattern that is looked for in a text as one of the whole text; `None` of one whose anchors are elsewhere than at its ends.
fn searched(pattern: &str) -> Option<String> {
    let (mut depth, mut in_class, mut is_escaped, mut is_choice) = (0_usize, false, false, false);
    let (mut begins, mut ends) = (false, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if is_escaped => {
                is_escaped = false;
                if !in_class && matches!(c, 'b' | 'B' | 'A' | 'z' | 'Z') {
                    return None;
                }
            }
            '\\' => is_escaped = true,
            ']' => in_class = false,
            '[' => in_class = true,
            _ if in_class => {}
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            '|' => is_choice |= depth == 0,
            '^' if at == 0 => begins = true,
            '$' if at + 1 == pattern.len() => ends = true,
            '^' | '$' => return None,
            _ => {}
        }
    }
    if is_choice && (begins || ends) {
        return None;
    }
    let inner = &pattern[usize::from(begins)..pattern.len() - usize::from(ends)];
    let free = |anchored: bool| if anchored { "" } else { "(?s:.*)" };
    Some(format!("{}(?:{}){}", free(begins), regex_to_lark(inner, "dw"), free(ends)))
}

/// A text as a regular expression.
fn escaped(text: &str) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) };
    text.chars().map(one).collect()
}
