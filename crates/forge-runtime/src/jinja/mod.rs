//! Jinja2 as transformers sets it up, on top of minijinja: `trim_blocks` and `lstrip_blocks`, loop controls, `{% generation %}`
//! blocks, and Python's operators, methods, filters and way of writing values.
//!
//! What differs still is listed in `docs/chat-templates.md` of Forge.

mod expression;
mod filters;
mod format;
mod json;
mod lexer;
mod literals;
mod methods;
mod operators;
mod repr;
mod source;
mod strings;

use std::fmt;
use std::thread::{self, JoinHandle};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, Output, State, Value};

/// Longest template that is parsed, in bytes; real ones have up to 30 KB.
const LONGEST_SOURCE: usize = 1 << 20;

/// Name of the template in an environment that [`parse`] made.
pub const NAME: &str = "chat_template";

/// Stack for parsing and rendering, of which only what is used takes memory: what nests, and every operator of a chain, takes
/// some by recursion.
pub const STACK_BYTES: usize = 2 << 30;

/// An environment with `source` in it as [`NAME`].
///
/// # Errors
/// A syntax error, with its line.
pub fn parse(source: &str) -> Result<Environment<'static>, Error> {
    if source.len() > LONGEST_SOURCE {
        return Err(methods::refusal(format!("is longer than {LONGEST_SOURCE} bytes")));
    }
    let source = source.to_owned();
    let thread = thread::Builder::new().name("chat template".into()).stack_size(STACK_BYTES);
    let parsed = thread.spawn(move || environment(&source)).map(JoinHandle::join);
    match parsed {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(_)) => Err(methods::refusal("could not be parsed")),
        Err(error) => Err(methods::refusal(format!("no thread to parse it on: {error}"))),
    }
}

fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(write);
    filters::add(&mut environment);
    let source = source::translate(source);
    let source = source.ok_or_else(|| methods::refusal("syntax error: has a tag that is too long, or does not end"))?;
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// Writes the value of an expression into the prompt.
fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match state.auto_escape() {
        AutoEscape::None => repr::write_text(&mut Writer(out), value).map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

struct Writer<'a, 'b>(&'a mut Output<'b>);

impl fmt::Write for Writer<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(text)
    }
}
