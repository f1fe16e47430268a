//! The demonstration, as it is told.

use std::path::PathBuf;
use std::sync::Arc;

use ripcord_demo::demo::{DemoArgs, DemoError, Line, Scenario, Summary, run};
use serde::Serialize;

use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::{FAINT, GOOD, Screen, View, paint, strong};
use crate::view::table::{command, indent};

#[derive(Serialize)]
#[serde(transparent)]
struct Shown(Line);

impl View for Shown {
    fn text(&self) -> String {
        match &self.0 {
            Line::Chapter { text } => format!("\n{}", strong(text)),
            Line::Command { argv } => paint(GOOD, format!("$ {}", command(argv))),
            Line::Output { text } => indent(text, 2),
            Line::Customers { text } => paint(FAINT, text),
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Told(Summary);

impl View for Told {
    fn text(&self) -> String {
        let mut lines = vec![format!("\n{}", strong("from the journal"))];
        lines.extend(self.0.lines().iter().map(|line| format!("  {line}")));
        if let Some(kept) = &self.0.kept {
            lines.push(format!("\neverything is left in {}: `cd` there and try the commands yourself", kept.display()));
        }
        lines.join("\n")
    }
}

pub async fn demo(screen: &Arc<Screen>, scenario: Scenario, keep: Option<PathBuf>) -> Result<Exit, Problem> {
    let exe = std::env::current_exe()
        .map_err(|error| Problem::new(Exit::Internal, "this program cannot be found").cause(error.to_string()))?;
    // A terminal that is gone is noticed when the summary cannot be written.
    let say = |line: Line| {
        let _ = screen.show_line(&Shown(line));
    };
    let summary = run(&DemoArgs { exe, scenario, keep }, &say).await.map_err(|error| failed(&error))?;
    screen.show_line(&Told(summary))?;
    Ok(Exit::Done)
}

fn failed(error: &DemoError) -> Problem {
    let exit = match error {
        DemoError::Interrupted => {
            return Problem::new(Exit::Interrupted, "interrupted").state("everything was stopped and removed");
        }
        DemoError::NotEmpty(_) => Exit::Usage,
        _ => Exit::Internal,
    };
    Problem::from_error(exit, "the demonstration could not be given", error)
        .state("what it had started was stopped; nothing of yours was touched")
}
