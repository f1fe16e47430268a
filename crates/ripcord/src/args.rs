//! The command line: every command and option there is. What they do is in `commands/`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use ripcord_core::{CaptureId, ComponentId, IncidentId, Name, ObligationId, RunId, StepId};
use ripcord_demo::demo::Scenario;

/// Takes a system back to its last known good release.
///
/// Code, configuration, flags, data: recorded before every deployment, taken back as one, verified, and put on record.
#[derive(Debug, Parser)]
#[command(name = "ripcord", version, max_term_width = 110, after_help = more())]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

fn more() -> String {
    format!(
        "Environment:\n  RIPCORD_STATE  where the record is kept, instead of `.ripcord` beside the configuration\n  \
         RIPCORD_LOG    what is logged to standard error: `info`, `debug`\n  \
         NO_COLOR       no colour\n\nExit codes:\n{}",
        crate::exit::list()
    )
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The configuration. By default the `ripcord.yaml` of this directory or the nearest above it.
    #[arg(long, short, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// The environment. By default the only one, or `production`.
    #[arg(long = "env", short = 'e', visible_alias = "environment", global = true, value_name = "NAME")]
    pub environment: Option<String>,
    /// Prints results as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long a process that vanished is waited for before its work is taken over.
    #[arg(long, global = true, hide = true, env = "RIPCORD_LEASE", hide_env_values = true, value_name = "TIME", value_parser = span)]
    pub lease: Option<Duration>,
}

fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no time: write `15s`"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("`{text}` is no time: write `15s`, `1m` or `500ms`")),
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a first `ripcord.yaml` for what is found in this directory.
    Init {
        /// The application's name. By default that of the directory.
        #[arg(long)]
        name: Option<String>,
    },
    /// Looks for mistakes in the configuration.
    Check {
        /// Also looks at every component and signal, and whether the last known good release is all there.
        #[arg(long)]
        live: bool,
    },
    /// Prints the JSON Schema of `ripcord.yaml`.
    Schema,
    /// Prints the reference of `ripcord.yaml`.
    Reference,
    /// Shows it all in about a minute: a shop under load is deployed, goes bad, and is taken back.
    Demo {
        /// `release`: a toggle is not enough, code goes back. `data`: orders are damaged, the database goes back.
        #[arg(long, default_value = "release", value_name = "release|data")]
        scenario: Scenario,
        /// Leaves everything running, in this directory.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        keep: Option<PathBuf>,
    },
    /// Deploys a version with your own command: captured before, watched after, taken back where it goes bad.
    Deploy(Deploy),
    /// What was released, how it turned out, and which versions are kept out.
    #[command(subcommand)]
    Release(Release),
    /// What is live, whether one could go back, and what is under way.
    Status {
        /// Also looks at every component, and at what the last known good release needs.
        #[arg(long)]
        live: bool,
    },
    /// Watches the triggers, decides, and carries runs out, until interrupted.
    ///
    /// While nothing is under way it also looks after what is kept: captures that one would go back to are read back every day,
    /// those that nothing needs are forgotten, what was set aside long ago is removed.
    Watch {
        /// How long after the start captures are read back and pruned for the first time.
        #[arg(long, hide = true, env = "RIPCORD_UPKEEP_AFTER", hide_env_values = true, value_name = "TIME", value_parser = span)]
        upkeep_after: Option<Duration>,
    },
    /// Shows what a rollback would do, or the plan of a run. Changes nothing.
    Plan {
        /// A run, whose plan is shown.
        #[arg(value_parser = run_id)]
        run: Option<RunId>,
        #[command(flatten)]
        aim: Aim,
    },
    /// Takes the application back to the last known good release, or to the one named.
    Rollback {
        #[command(flatten)]
        aim: Aim,
        #[command(flatten)]
        consent: Consent,
        /// Shows the plan and changes nothing.
        #[arg(long, conflicts_with_all = ["yes", "confirm"])]
        dry_run: bool,
        /// Why, for the record.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Approves a run that waits.
    Approve {
        #[command(flatten)]
        run: OfRun,
        #[command(flatten)]
        consent: Consent,
        /// The beginning of the digest of the plan that is approved: another plan is refused.
        #[arg(long, value_name = "DIGEST")]
        plan: Option<String>,
        /// Why, for the record.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Declines a run that waits.
    Decline {
        #[command(flatten)]
        run: OfRun,
        /// Why, for the record.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lets a run begin no further step.
    Pause {
        #[command(flatten)]
        run: OfRun,
    },
    /// Lets a paused or interrupted run go on.
    Resume {
        #[command(flatten)]
        run: OfRun,
        #[command(flatten)]
        watch: Watch,
    },
    /// Tries a failed step of a parked run again.
    Retry {
        #[command(flatten)]
        run: OfRun,
        /// Only this step. By default every one that failed.
        #[arg(long, value_parser = step_id)]
        step: Option<StepId>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Goes on without a step.
    Skip {
        #[arg(value_parser = run_id)]
        run: RunId,
        #[arg(value_parser = step_id)]
        step: StepId,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Says that a step was done by hand.
    Done {
        #[arg(value_parser = run_id)]
        run: RunId,
        #[arg(value_parser = step_id)]
        step: StepId,
        /// What shows that it was done.
        #[arg(long)]
        evidence: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Takes over by name what a run left switched off.
    Take {
        #[arg(value_parser = run_id)]
        run: RunId,
        #[arg(value_parser = obligation_id)]
        obligation: ObligationId,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Takes a run back: to the state captured before it changed anything.
    Undo {
        #[arg(value_parser = run_id)]
        run: RunId,
        #[command(flatten)]
        consent: Consent,
        /// Shows the plan and changes nothing.
        #[arg(long, conflicts_with_all = ["yes", "confirm"])]
        dry_run: bool,
    },
    /// Ends a run where it stands. What it left off is listed.
    Abandon {
        #[command(flatten)]
        run: OfRun,
        /// Why, for the record.
        #[arg(long, default_value = "abandoned by hand")]
        reason: String,
    },
    /// Runs every check of the configuration against what is live.
    Verify,
    /// Declares an incident: it is decided on as a breach would be.
    Declare {
        /// What is wrong.
        what: String,
        /// One of the configured severities. By default the second.
        #[arg(long, value_name = "NAME")]
        severity: Option<Name>,
        /// The issue it is, for the decision matrix.
        #[arg(long, value_name = "NAME")]
        issue: Option<Name>,
    },
    /// Incidents: list them, close one.
    #[command(subcommand)]
    Incident(Incident),
    /// What revisions can be restored from: list, verify, restore beside, export.
    #[command(subcommand)]
    Capture(Capture),
    /// What happened, from the journal.
    #[command(args_conflicts_with_subcommands = true)]
    Log {
        #[command(subcommand)]
        verify: Option<LogCommand>,
        #[command(flatten)]
        show: LogShow,
    },
    /// Why: derives a verdict again from the evidence that was stored with it.
    Explain {
        /// A trigger, the number of an event, or a run.
        #[arg(value_name = "TRIGGER|EVENT|RUN")]
        what: String,
    },
    /// Writes the report of a run.
    Report {
        #[arg(value_parser = run_id)]
        run: RunId,
        /// The file to write. By default standard output.
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
    },
    /// Prints completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// Prints the manual page, or writes one for every command.
    Man {
        /// The directory for the pages.
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Takes care of the places on this host, for a Ripcord elsewhere that started it over SSH.
    #[command(hide = true)]
    Agent,
    /// The shop of the demonstration.
    #[command(hide = true)]
    Shop {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Where a rollback goes, and how far.
#[derive(Debug, Clone, Args)]
pub struct Aim {
    /// The release to go to: a version, `rel-N` or `N`. By default the last known good.
    #[arg(long, value_name = "RELEASE")]
    pub to: Option<String>,
    /// Only these components.
    #[arg(long, value_delimiter = ',', value_name = "COMPONENT,..")]
    pub scope: Vec<ComponentId>,
    /// The strategy. By default that of the configuration.
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<Name>,
    /// The level of the strategy. By default the lowest that restores.
    #[arg(long, value_name = "N")]
    pub level: Option<u8>,
}

impl Aim {
    pub fn is_given(&self) -> bool {
        self.to.is_some() || !self.scope.is_empty() || self.strategy.is_some() || self.level.is_some()
    }
}

/// What a person must type before a plan that gives data up.
pub const CONFIRM: &str = "CONFIRM DATA LOSS";

/// How a plan is agreed to.
#[derive(Debug, Clone, Args)]
pub struct Consent {
    /// Does not ask. A plan that gives data up needs `--confirm` besides.
    #[arg(long, short)]
    pub yes: bool,
    /// Consents to what the plan gives up, in exactly these words: "CONFIRM DATA LOSS".
    #[arg(long, value_name = "WORDS", value_parser = confirmed)]
    pub confirm: Option<String>,
    #[command(flatten)]
    pub watch: Watch,
}

fn confirmed(text: &str) -> Result<String, String> {
    match text == CONFIRM {
        true => Ok(text.to_owned()),
        false => Err(format!("the words are `{CONFIRM}`")),
    }
}

#[derive(Debug, Clone, Args)]
pub struct Watch {
    /// Ends when everything is restored; the watch that follows is left to whoever holds the lease next.
    #[arg(long)]
    pub no_watch: bool,
}

#[derive(Debug, Clone, Args)]
pub struct OfRun {
    /// The run. By default the one that is not over.
    #[arg(value_parser = run_id)]
    pub run: Option<RunId>,
}

#[derive(Debug, Args)]
pub struct Deploy {
    /// The version that is deployed.
    #[arg(long, value_name = "VERSION")]
    pub version: String,
    /// The command that deploys it, behind `--`. It finds RIPCORD_VERSION, RIPCORD_APPLICATION and RIPCORD_ENVIRONMENT in its
    /// environment, and must not ask questions.
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Release {
    /// Every release, the newest first.
    List,
    /// One release: where each component was, and from what it can be restored.
    Show {
        /// A version, `rel-N` or `N`.
        release: String,
    },
    /// Records what is live as a release, and captures it.
    Record { version: String },
    /// Judges a release: good ones can be gone back to, bad ones are kept out.
    Mark {
        /// A version, `rel-N` or `N`.
        release: String,
        #[arg(long, conflicts_with = "bad", required_unless_present = "bad")]
        good: bool,
        #[arg(long)]
        bad: bool,
        /// Why, for the record.
        #[arg(long)]
        why: String,
    },
    /// What differs between two releases.
    Diff { from: String, to: String },
    /// Whether a version may be deployed: for a pipeline, which should stop at exit code 4.
    Check { version: String },
    /// Lets a version that was kept out be deployed again.
    Lift {
        version: String,
        /// Why, for the record.
        #[arg(long)]
        why: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Incident {
    /// Incidents, the newest first.
    List,
    /// Closes an incident.
    Close {
        /// By default the open one.
        #[arg(value_parser = incident_id)]
        incident: Option<IncidentId>,
        /// Why, for the record.
        #[arg(long)]
        why: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Capture {
    /// Every capture, the newest first.
    List {
        /// Only of this component.
        component: Option<ComponentId>,
    },
    /// Reads captures back and compares them with the record.
    Verify {
        /// By default all that are held in the vault.
        #[arg(value_parser = capture_id)]
        capture: Option<CaptureId>,
    },
    /// Restores a capture into a new directory, beside everything that is live.
    Restore {
        #[arg(value_parser = capture_id)]
        capture: CaptureId,
        /// A directory that does not exist yet.
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        to: PathBuf,
    },
    /// Writes a capture to standard output as a tar archive.
    Export {
        #[arg(value_parser = capture_id)]
        capture: CaptureId,
    },
    /// Forgets captures that are older than `policy.keep-captures` and that nothing needs.
    ///
    /// What the live release or the last known good goes back to is never forgotten, nor what a run that is not over made.
    Prune {
        /// Says what would be forgotten, and forgets nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Prints the journal (as `log` alone does).
    Show(LogShow),
    /// Checks that nothing in the journal was changed, left out or put in.
    Verify,
}

#[derive(Debug, Clone, Args)]
pub struct LogShow {
    /// Only events of this run.
    #[arg(long, value_parser = run_id)]
    pub run: Option<RunId>,
    /// Only events after this one (a number), or after this moment (2026-01-31T12:00:00Z).
    #[arg(long, value_name = "EVENT|TIME")]
    pub since: Option<String>,
    /// Goes on as more happens, until interrupted.
    #[arg(long)]
    pub follow: bool,
}

macro_rules! typed {
    ($($name:ident -> $id:ident)*) => {$(
        fn $name(text: &str) -> Result<$id, std::convert::Infallible> {
            Ok($id::typed(text))
        }
    )*};
}

typed! {
    run_id -> RunId
    obligation_id -> ObligationId
    incident_id -> IncidentId
    capture_id -> CaptureId
}

fn step_id(text: &str) -> Result<StepId, std::convert::Infallible> {
    Ok(StepId(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_deployment_takes_its_command_as_it_is() {
        let cli = Cli::try_parse_from(["ripcord", "deploy", "--version", "v2", "--", "make", "deploy", "--env", "x"]);
        let Command::Deploy(deploy) = cli.unwrap().command else { panic!("it is a deployment") };
        assert_eq!((deploy.version.as_str(), deploy.command.join(" ").as_str()), ("v2", "make deploy --env x"));
    }

    #[test]
    fn consent_to_a_loss_is_in_exact_words() {
        let rollback = |words: &str| Cli::try_parse_from(["ripcord", "rollback", "--yes", "--confirm", words]).is_ok();
        assert!(rollback("CONFIRM DATA LOSS"));
        assert!(!rollback("confirm data loss"));
        assert!(!rollback("yes"));
    }

    #[test]
    fn no_help_shows_what_is_in_the_environment() {
        // Whatever is set there may be a secret.
        let mut command = Cli::command();
        command.build();
        let mut open = vec![&command];
        while let Some(command) = open.pop() {
            for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
                assert!(arg.is_hide_env_values_set(), "{}", arg.get_id());
            }
            open.extend(command.get_subcommands());
        }
    }
}
