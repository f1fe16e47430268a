//! The demonstration's shop, so that its processes need no program of their own.

use std::process::ExitCode;
use std::sync::Arc;

use ripcord_demo::shop::{Program, ShopError, USAGE, parse, run};

use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;

pub async fn shop(screen: &Arc<Screen>, words: &[String]) -> Result<ExitCode, Problem> {
    let exe = std::env::current_exe()
        .map_err(|error| Problem::new(Exit::Internal, "this program cannot be found").cause(error.to_string()))?;
    let program = Program { exe, prefix: vec!["shop".into()] };
    let outcome = run(parse(words).map_err(|error| failed(&error))?, program).await.map_err(|error| failed(&error))?;
    if !outcome.text.is_empty() {
        screen.result(&outcome.text)?;
    }
    Ok(ExitCode::from(outcome.code))
}

fn failed(error: &ShopError) -> Problem {
    match error {
        ShopError::Usage { .. } => {
            let usage: Vec<_> = USAGE.lines().map(|line| format!("ripcord shop {line}")).collect();
            Problem::new(Exit::Usage, error.to_string()).help(usage.join("\n"))
        }
        _ => Problem::from_error(Exit::Internal, "the shop failed", error),
    }
}
