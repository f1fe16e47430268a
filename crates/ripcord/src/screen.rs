//! The terminal: results on standard output, progress and problems on standard error, one line of status at its foot.
//!
//! Colour only where a terminal reads it, and never instead of a word. Whatever is written passes the redactor first.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use ripcord_core::Redactor;

use crate::exit::Exit;
use crate::problem::Problem;

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default().bold();
pub const WARN: Style = AnsiColor::Yellow.on_default();
pub const FAINT: Style = Style::new().dimmed();

pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    match text.is_empty() {
        true => text,
        false => format!("{style}{text}{style:#}"),
    }
}

pub fn strong(text: impl std::fmt::Display) -> String {
    paint(Style::new().bold(), text)
}

/// Something to be shown: for people as text, for programs as the value itself.
pub trait View: serde::Serialize {
    fn text(&self) -> String;
}

pub struct Screen {
    json: bool,
    redactor: Redactor,
    /// Whether standard error is a terminal that one line can be kept current on.
    live: bool,
    status: Mutex<String>,
}

impl Screen {
    pub fn new(json: bool, redactor: Redactor) -> Self {
        // Where escapes are stripped (NO_COLOR) a line cannot be kept current either.
        let escapes = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
        let live = escapes && io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self { json, redactor, live, status: Mutex::default() }
    }

    pub fn json(&self) -> bool {
        self.json
    }

    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Whether problems may be coloured.
    pub fn colour(&self) -> bool {
        anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
    }

    /// Shows a result.
    pub fn show<V: View>(&self, view: &V) -> Result<(), Problem> {
        match self.json {
            true => {
                let text = serde_json::to_string_pretty(view).map_err(|error| unprintable(&error))?;
                self.result(&text)
            }
            false => self.result(view.text().trim_end()),
        }
    }

    /// One line of a stream of results: with `--json` one object, else text.
    pub fn show_line<V: View>(&self, view: &V) -> Result<(), Problem> {
        match self.json {
            true => self.result(&serde_json::to_string(view).map_err(|error| unprintable(&error))?),
            false => self.result(view.text().trim_end()),
        }
    }

    /// Text that is itself the result.
    pub fn result(&self, text: &str) -> Result<(), Problem> {
        self.wipe();
        let mut out = anstream::stdout().lock();
        let text = self.redactor.clean(text);
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // Whoever read has enough (`ripcord log | head`).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => {
                Err(Problem::new(Exit::Unavailable, "standard output cannot be written").cause(error.to_string()))
            }
        }
    }

    /// A line of progress, a warning or a hint. The status line stays below it.
    pub fn line(&self, text: &str) {
        let text = self.redactor.clean(text);
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = anstream::stderr().lock();
        // Nobody can be told that standard error is gone.
        let _ = match status.is_empty() {
            true => writeln!(out, "{text}"),
            false => write!(out, "\r\x1b[K{text}\n{status}").and_then(|()| out.flush()),
        };
    }

    /// What is going on right now; replaced by the next, and not shown where there is no terminal.
    pub fn status(&self, text: &str) {
        if !self.live || self.json {
            return;
        }
        let text: String = self.redactor.clean(text).chars().take(100).collect();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status == text {
            return;
        }
        let mut out = anstream::stderr().lock();
        let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
        *status = text;
    }

    pub fn wipe(&self) {
        self.status("");
    }

    pub fn warn(&self, text: &str) {
        self.line(&format!("{} {text}", paint(WARN, "warning:")));
    }

    pub fn hint(&self, text: &str) {
        self.line(&paint(FAINT, text).to_string());
    }

    /// Whether a person can be asked.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal() && !self.json
    }

    /// Asks, and returns the line typed; nothing at the end of input.
    pub fn ask(&self, question: &str) -> Option<String> {
        self.wipe();
        {
            let mut out = anstream::stderr().lock();
            write!(out, "{} ", self.redactor.clean(question)).and_then(|()| out.flush()).ok()?;
        }
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer).ok()?;
        (read > 0).then(|| answer.trim().to_owned())
    }
}

fn unprintable(error: &serde_json::Error) -> Problem {
    Problem::new(Exit::Internal, "the result cannot be written as JSON").cause(error.to_string())
}
