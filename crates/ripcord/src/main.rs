//! The command line: parses arguments, wires adapters, shows what comes of it. What is true is decided below it.

mod args; // every command and option
mod commands; // what each command does
mod exit; // every exit code
mod problem; // what goes wrong, as it is told
mod progress; // a run as it goes by
mod report_error; // the one printer of problems
mod screen; // the terminal
mod site; // where everything is
mod view; // what commands show
mod words; // events and states in a line
mod work; // how acting commands work
mod world; // from a configuration to a world to act on

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ripcord_core::Redactor;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; anything else is bad usage. Nobody can be told that the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    log();
    let screen = Arc::new(Screen::new(cli.common.json, Redactor::default()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli, &screen)),
        Err(error) => Err(Problem::new(Exit::Internal, "the runtime cannot be started").cause(error.to_string())),
    };
    screen.wipe();
    match ended {
        Ok(code) => code,
        Err(problem) => {
            report_error::report(&screen, &problem);
            problem.exit().into()
        }
    }
}

/// The log is for us: `RIPCORD_LOG=debug` shows it.
fn log() {
    let filter = EnvFilter::try_from_env("RIPCORD_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).finish();
    // Set once, and nothing before it logs.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
