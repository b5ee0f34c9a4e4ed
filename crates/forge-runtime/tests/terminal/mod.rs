//! `chat` on a terminal, as a person at one sees it: a pseudo-terminal with the program at its other end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A program at a terminal.
struct Terminal {
    child: Child,
    keyboard: File,
    /// Everything that was written to the screen.
    screen: Arc<Mutex<String>>,
    /// How much of it was looked at.
    read: usize,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let (mut master, mut slave) = (0, 0);
        let none = std::ptr::null_mut();
        // SAFETY: the places for both ends are ours; no name, mode or size is asked for.
        let opened = unsafe { libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast()) };
        assert_eq!(opened, 0, "a pseudo-terminal");
        // SAFETY: both were opened above and belong to nobody else.
        let (master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let end = || slave.try_clone().expect("another handle");
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm").env_remove("NO_COLOR");
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                // Ctrl-C on this terminal is for this program.
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("starts");
        drop((command, slave));
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut output, seen) = (master.try_clone().expect("another handle"), screen.clone());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // The end of a terminal is an error on Linux.
            while let Ok(count @ 1..) = output.read(&mut piece) {
                seen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&piece[..count]));
            }
        });
        Self { child, keyboard: master, screen, read: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("types");
    }

    /// Waits until the screen shows a text beyond what was waited for before.
    fn see(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            let screen = self.screen.lock().expect("no panic").clone();
            if let Some(at) = screen[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{text:?} is not in {:?}", &screen[self.read..]);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types a line at the prompt.
    fn enter(&mut self, line: &str) {
        self.see("> ");
        self.press(line);
        self.press("\r");
    }

    fn ends(mut self) {
        assert!(self.child.wait().expect("ends").success());
    }
}

/// The contents of a saved conversation.
fn saved(path: &Path) -> Vec<String> {
    let messages: Value = serde_json::from_slice(&std::fs::read(path).expect("saved")).expect("JSON");
    let content = |message: &Value| message["content"].as_str().expect("a content").to_owned();
    messages.as_array().expect("a list").iter().map(content).collect()
}

pub fn lines_are_edited_and_conversations_kept(folder: &Path) {
    let file = folder.join("chat.json");
    let save = format!("/save {}", file.display());
    let mut command = super::command(folder, &["chat"]);
    command.env("SCRIPT", "Hello!").env("FORGE_HISTORY", folder.join("history"));
    let mut chat = Terminal::start(command);
    chat.see("Ctrl-D leaves");
    // Backspace, and a letter before the others.
    chat.enter("ix\u{7f}\u{1}H");
    chat.see("Hello!");
    chat.enter("two\\\rlines");
    chat.see("Hello!");
    chat.enter(&save);
    chat.see("4 messages in ");
    assert_eq!(saved(&file), ["Hi", "Hello!", "two\nlines", "Hello!"]);

    chat.enter("/undo");
    chat.see("Taken back: two");
    // Up past two commands and both lines of a message.
    chat.enter(&"\u{1b}[A".repeat(5));
    chat.see("Hello!");
    chat.enter("/system Be brief.");
    chat.enter("/retry");
    chat.see("Hello!");
    chat.enter(&save);
    chat.see("5 messages in ");
    assert_eq!(saved(&file), ["Be brief.", "Hi", "Hello!", "Hi", "Hello!"]);

    chat.enter("/new");
    chat.enter("/undo");
    chat.see("there is nothing to take back");
    chat.enter(&format!("/load {}", file.display()));
    chat.see("5 messages from ");
    chat.enter("/load /no/such/file");
    chat.see("/no/such/file: No such file");
    chat.enter("/set max_tokens 1");
    chat.enter("/set");
    chat.see("max_tokens        1");
    chat.enter("/set temperature -1");
    chat.see("temperature");
    chat.enter("/nonsense");
    chat.see("there is no command /nonsense");
    chat.enter("/quit");
    chat.ends();
    let remembered = std::fs::read_to_string(folder.join("history")).expect("a history");
    assert!(remembered.contains("/system Be brief.") && remembered.contains("/quit"), "{remembered}");
}

pub fn an_interrupt_ends_the_answer_alone(folder: &Path) {
    let file = folder.join("interrupted.json");
    let mut command = super::command(folder, &["chat"]);
    let script = "word ".repeat(150);
    command.env("SCRIPT", script.trim()).env("PACE", "20").env("FORGE_HISTORY", "");
    let mut chat = Terminal::start(command);
    chat.enter("Go on");
    chat.see("word word");
    chat.press("\u{3}");
    chat.see("Interrupted; /retry answers again");
    // At the prompt it takes the line away.
    chat.see("> ");
    chat.press("half a li\u{3}");
    chat.see("Ctrl-D or /quit leaves.");
    chat.enter(&format!("/save {}", file.display()));
    chat.see("2 messages in ");
    let messages = saved(&file);
    assert!(messages[0] == "Go on" && messages[1].starts_with("word word"), "{messages:?}");
    assert!(messages[1].len() < script.len() / 2, "{messages:?}");
    chat.see("> ");
    chat.press("\u{4}");
    chat.ends();
}
