//! `chat`: a conversation, on a terminal with a line editor, else line by line from standard input.

mod answer;
mod command;
mod conversation;
mod input;

use clap::Args;
use serde_json::Map;

use super::super::assets::{SamplingOptions, Text};
use super::super::chat_templates::Ending;
use super::super::generation::{Engine, Finish, Request};
use super::super::{Error, LanguageModel, Result};
use super::generate::rates;
use super::{Guesses, Program, Sampling, interrupt, terminal};
use answer::Answer;
use command::Command;
use conversation::Conversation;
use input::{Input, Line};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Instructions that come before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of one answer [default: what the context holds].
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Go on with a conversation that /save wrote.
    #[arg(long, value_name = "FILE")]
    load: Option<std::path::PathBuf>,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    guesses: Guesses,
}

/// What a conversation is led with.
struct Session<M> {
    engine: Engine<M>,
    conversation: Conversation,
    sampling: SamplingOptions,
    max_tokens: Option<usize>,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let text = program.text()?;
    if text.templates.is_empty() {
        return Err(Error::NoTemplate);
    }
    let sampling = options.sampling.options();
    text.defaults.sampling(&sampling)?;
    let mut conversation = Conversation::new(options.system.clone());
    if let Some(path) = &options.load {
        conversation.load(path)?;
    }
    let mut input = Input::open(program.info.name);
    let mut engine = Engine::new(program.model()?, text);
    options.guesses.apply(&mut engine);
    let mut session = Session { engine, conversation, sampling, max_tokens: options.max_tokens };
    terminal::note(input.greeting());
    loop {
        let line = match input.read()? {
            Line::Text(line) => line,
            Line::Interrupted => {
                terminal::note("Ctrl-D or /quit leaves.");
                continue;
            }
            Line::End => return Ok(()),
        };
        match command::parse(&line) {
            Ok(None) => {
                session.conversation.ask(line);
                session.answer()?;
            }
            Ok(Some(Command::Quit)) => return Ok(()),
            Ok(Some(command)) => session.obey(command)?,
            Err(reason) => terminal::error(&reason),
        }
    }
}

impl<M: LanguageModel> Session<M> {
    fn text(&self) -> &Text {
        self.engine.text()
    }

    /// Does what a command says. What is wrong with it is told, and the conversation goes on.
    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Help => terminal::note(command::HELP),
            Command::New => self.conversation.clear(),
            Command::System(None) => {
                terminal::note(
                    self.conversation.system().unwrap_or("There are no instructions; /system TEXT gives some."),
                );
            }
            Command::System(Some(text)) => self.conversation.instruct(&text),
            Command::Save(path) => match self.conversation.save(&path) {
                Ok(messages) => terminal::note(&format!("{messages} messages in {}", path.display())),
                Err(error) => terminal::error(&error.to_string()),
            },
            Command::Load(path) => match self.conversation.load(&path) {
                Ok(messages) => terminal::note(&format!("{messages} messages from {}", path.display())),
                Err(error) => terminal::error(&error.to_string()),
            },
            Command::Undo => match self.conversation.undo() {
                Some(question) => terminal::note(&format!("Taken back: {question}")),
                None => terminal::error("there is nothing to take back"),
            },
            Command::Retry => {
                if !self.conversation.forget_answer() {
                    terminal::error("there is nothing to answer again");
                    return Ok(());
                }
                return self.answer();
            }
            Command::Set(None) => terminal::note(&command::settings(&self.sampling, self.max_tokens)),
            Command::Set(Some((name, value))) => {
                let (mut sampling, mut max_tokens) = (self.sampling.clone(), self.max_tokens);
                let changed = command::set(&mut sampling, &mut max_tokens, &name, &value);
                let checked = changed.and_then(|()| {
                    self.text().defaults.sampling(&sampling).map(drop).map_err(|error| error.to_string())
                });
                match checked {
                    Ok(()) => (self.sampling, self.max_tokens) = (sampling, max_tokens),
                    Err(reason) => terminal::error(&reason),
                }
            }
            Command::Quit => {}
        }
        Ok(())
    }

    /// Answers the last question. One that is too long for the context is taken back.
    fn answer(&mut self) -> Result<()> {
        let prompt = self.text().render_chat(&self.conversation.messages(), Ending::Opened, &Map::new())?;
        let request = Request {
            prompt: self.text().tokenizer.encode_within(&prompt, false, self.engine.model().context())?,
            max_tokens: self.max_tokens,
            sampling: self.text().defaults.sampling(&self.sampling)?,
            stop: Vec::new(),
            continues_prompt: false,
            ..Request::default()
        };
        let mut answer = Answer::new(self.engine.text(), &prompt);
        let watch = interrupt::watch();
        let result = self.engine.generate(&request, &mut answer);
        drop(watch);
        let summary = match result {
            Err(error @ Error::PromptTooLong { .. }) => {
                terminal::error(&format!("{error}; /undo takes the last exchange back, /new starts over"));
                self.conversation.undo();
                return Ok(());
            }
            other => other?,
        };
        let message = answer.end()?;
        terminal::note(&rates(&summary));
        match summary.finish {
            Finish::Length if self.max_tokens.is_none() => terminal::note("The context is full; /new starts over."),
            Finish::Cancelled => terminal::note("Interrupted; /retry answers again, /undo takes the question back."),
            Finish::Length | Finish::Stop => {}
        }
        self.conversation.answered(message);
        Ok(())
    }
}
