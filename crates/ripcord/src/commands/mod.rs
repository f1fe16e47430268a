//! One file for each family of commands.

mod agent; // the other end of a connection to a host
mod agree; // asking a person for a yes
mod answer; // approve, decline, and what a person does to a run
mod capture; // what revisions can be restored from
mod check; // check, verify
mod demo; // the demonstration
mod deploy; // a deployment around somebody's command
mod explain; // why
mod incident; // declare, incidents
mod init; // a first configuration
mod log; // the journal
mod paper; // schema, reference, completions, manual
mod release; // the ledger
mod report; // documents
mod rollback; // plan, rollback, undo
mod shop; // the demonstration's shop
mod status; // everything at a glance
mod watch; // holding the lease

use std::process::ExitCode;
use std::sync::Arc;

use crate::args::{Cli, Command};
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::{Screen, View};
use crate::work::{Errand, Until, Worked, work};
use crate::world::{Reach, Station};

pub async fn run(cli: Cli, screen: &Arc<Screen>) -> Result<ExitCode, Problem> {
    let common = &cli.common;
    let exit = match cli.command {
        Command::Init { name } => init::init(common, screen, name),
        Command::Check { live } => check::check(common, screen, live).await,
        Command::Verify => check::verify(common, screen).await,
        Command::Schema => paper::schema(screen),
        Command::Reference => paper::reference(screen),
        Command::Completions { shell } => paper::completions(shell, screen),
        Command::Man { dir } => paper::man(dir, screen),
        Command::Demo { scenario, keep } => demo::demo(screen, scenario, keep).await,
        Command::Deploy(deploy) => deploy::deploy(common, screen, deploy).await,
        Command::Release(release) => release::release(common, screen, release).await,
        Command::Status { live } => status::status(common, screen, live).await,
        Command::Watch { upkeep_after } => watch::watch(common, screen, upkeep_after).await,
        Command::Plan { run, aim } => rollback::plan(common, screen, run, aim).await,
        Command::Rollback { aim, consent, dry_run, reason } => {
            rollback::rollback(common, screen, aim, consent, dry_run, reason).await
        }
        Command::Undo { run, consent, dry_run } => rollback::undo(common, screen, run, consent, dry_run).await,
        Command::Approve { run, consent, plan, reason } => {
            answer::approve(common, screen, run, consent, plan, reason).await
        }
        Command::Decline { run, reason } => answer::decline(common, screen, run, reason).await,
        Command::Pause { run } => answer::pause(common, screen, run).await,
        Command::Resume { run, watch } => answer::resume(common, screen, run, watch).await,
        Command::Retry { run, step, watch } => answer::retry(common, screen, run, step, watch).await,
        Command::Skip { run, step, reason, watch } => answer::skip(common, screen, run, step, reason, watch).await,
        Command::Done { run, step, evidence, watch } => answer::done(common, screen, run, step, evidence, watch).await,
        Command::Take { run, obligation, reason } => answer::take(common, screen, run, obligation, reason).await,
        Command::Abandon { run, reason } => answer::abandon(common, screen, run, reason).await,
        Command::Declare { what, severity, issue } => incident::declare(common, screen, what, severity, issue).await,
        Command::Incident(incident) => incident::incident(common, screen, incident).await,
        Command::Capture(capture) => capture::capture(common, screen, capture).await,
        Command::Log { verify, show } => log::log(common, screen, verify, show).await,
        Command::Explain { what } => explain::explain(common, screen, &what).await,
        Command::Report { run, out } => report::report(common, screen, &run, out.as_deref()).await,
        Command::Agent => agent::agent().await,
        // The shop has exit codes of its own.
        Command::Shop { words } => return shop::shop(screen, &words).await,
    };
    exit.map(ExitCode::from)
}

/// Asks something that is answered in words.
async fn request(station: &Station, doing: &'static str, ask: ripcord_core::Ask) -> Result<Worked, Problem> {
    work(station, Errand { doing, ask: Some(ask), run: None, until: Until::Answered }).await
}

/// Shows a view; there is nothing else to it.
fn shown<V: View>(screen: &Screen, view: &V) -> Result<Exit, Problem> {
    screen.show(view)?;
    Ok(Exit::Done)
}

/// Everything needed to act.
async fn acting(common: &crate::args::Common, screen: &Arc<Screen>) -> Result<Station, Problem> {
    Station::open(common, screen, Reach::Act).await
}
