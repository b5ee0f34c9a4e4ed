//! What a line that begins with a slash asks for.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::super::super::assets::SamplingOptions;

/// What `/help` says.
pub const HELP: &str = "/new              start over
/system [TEXT]    show or change the instructions that come first
/undo             take the last question and its answer back
/retry            answer the last question again
/set [NAME VALUE] show or change temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty,
                  seed, max_tokens; the value default takes the checkpoint's
/save FILE        write the conversation as JSON messages
/load FILE        go on with such a file
/quit             leave, like Ctrl-D
A line that ends in \\ goes on in the next one; so does everything between two lines of \"\"\". Ctrl-C ends an answer.";

/// A command of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Help,
    New,
    System(Option<String>),
    Save(PathBuf),
    Load(PathBuf),
    Undo,
    Retry,
    Set(Option<(String, String)>),
    Quit,
}

/// The command that a line is, if it is one. What begins with a slash and is no command's name is a message where it has a second
/// slash or more words, as paths and questions about them have.
///
/// # Errors
/// What is wrong with a command.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let Some(rest) = line.strip_prefix('/') else { return Ok(None) };
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let given = || (!argument.is_empty()).then(|| argument.to_owned());
    let file = || given().map(PathBuf::from).ok_or_else(|| format!("/{name} needs a file"));
    let alone = |command: Command| match given() {
        None => Ok(command),
        Some(_) => Err(format!("/{name} stands alone")),
    };
    let command = match name {
        "help" | "?" => alone(Command::Help)?,
        "new" => alone(Command::New)?,
        "system" => Command::System(given()),
        "save" => Command::Save(file()?),
        "load" => Command::Load(file()?),
        "undo" => alone(Command::Undo)?,
        "retry" => alone(Command::Retry)?,
        "set" => match argument.split_once(char::is_whitespace) {
            Some((name, value)) => Command::Set(Some((name.to_owned(), value.trim().to_owned()))),
            None if argument.is_empty() => Command::Set(None),
            None => return Err(format!("/set {argument} needs a value")),
        },
        "quit" | "exit" => alone(Command::Quit)?,
        other if other.contains('/') || !argument.is_empty() => return Ok(None),
        other => return Err(format!("there is no command /{other}; /help shows those that there are")),
    };
    Ok(Some(command))
}

/// Changes a setting by its name.
///
/// # Errors
/// No such setting, or no such value of it.
pub fn set(
    sampling: &mut SamplingOptions,
    max_tokens: &mut Option<usize>,
    name: &str,
    value: &str,
) -> Result<(), String> {
    fn to<T: std::str::FromStr>(place: &mut Option<T>, name: &str, value: &str) -> Result<(), String> {
        *place = match value {
            "default" => None,
            _ => Some(value.parse().map_err(|_| format!("{name}: {value} is not a value for it"))?),
        };
        Ok(())
    }
    match name {
        "temperature" => to(&mut sampling.temperature, name, value),
        "top_k" => to(&mut sampling.top_k, name, value),
        "top_p" => to(&mut sampling.top_p, name, value),
        "min_p" => to(&mut sampling.min_p, name, value),
        "repeat_penalty" => to(&mut sampling.repeat_penalty, name, value),
        "presence_penalty" => to(&mut sampling.presence_penalty, name, value),
        "frequency_penalty" => to(&mut sampling.frequency_penalty, name, value),
        "seed" => to(&mut sampling.seed, name, value),
        "max_tokens" => to(max_tokens, name, value),
        _ => Err(format!("there is no setting {name}; /set shows those that there are")),
    }
}

/// Every setting, a line each.
pub fn settings(sampling: &SamplingOptions, max_tokens: Option<usize>) -> String {
    let show = |value: Option<String>| value.unwrap_or_else(|| "default".to_owned());
    let number = |value: Option<f32>| show(value.map(|value| value.to_string()));
    let mut text = String::new();
    for (name, value) in [
        ("temperature", number(sampling.temperature)),
        ("top_k", show(sampling.top_k.map(|value| value.to_string()))),
        ("top_p", number(sampling.top_p)),
        ("min_p", number(sampling.min_p)),
        ("repeat_penalty", number(sampling.repeat_penalty)),
        ("presence_penalty", number(sampling.presence_penalty)),
        ("frequency_penalty", number(sampling.frequency_penalty)),
        ("seed", show(sampling.seed.map(|value| value.to_string()))),
        ("max_tokens", show(max_tokens.map(|value| value.to_string()))),
    ] {
        let _ = writeln!(text, "{name:18}{value}");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Command, SamplingOptions, parse, set, settings};

    #[test]
    fn lines_are_commands_or_messages() {
        let command = |line: &str| parse(line).unwrap();
        assert_eq!(command("/new"), Some(Command::New));
        assert_eq!(command("/system  Be brief. "), Some(Command::System(Some("Be brief.".to_owned()))));
        assert_eq!(command("/system"), Some(Command::System(None)));
        assert_eq!(command("/save a b.json"), Some(Command::Save("a b.json".into())));
        assert_eq!(command("/set top_k 3"), Some(Command::Set(Some(("top_k".to_owned(), "3".to_owned())))));
        for message in ["Hi", "what is /new", "/etc/passwd", "/tmp is full, why?", ""] {
            assert_eq!(command(message), None, "{message}");
        }
        for wrong in ["/save", "/undo it", "/set top_k", "/nwe"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_are_changed_by_name() {
        let (mut sampling, mut most) = (SamplingOptions::default(), None);
        let mut set = |name: &str, value: &str| set(&mut sampling, &mut most, name, value);
        set("temperature", "0.5").unwrap();
        set("max_tokens", "7").unwrap();
        set("seed", "1").unwrap();
        set("seed", "default").unwrap();
        assert!(set("top_k", "many").is_err() && set("heat", "1").is_err());
        let text = settings(&sampling, most);
        assert!(text.starts_with("temperature       0.5\n") && text.ends_with("max_tokens        7"), "{text}");
        assert!(text.contains("\nseed              default\n"), "{text}");
    }
}
