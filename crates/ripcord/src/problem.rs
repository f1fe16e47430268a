//! What goes wrong, as the person at the terminal is told it: what, why, where, in what state everything is, what to do.

use std::error::Error;
use std::path::Path;

use ripcord_adapters::BuildError;
use ripcord_config::Report;
use ripcord_core::{BadName, NoPlan, StoreError};
use ripcord_engine::{NoProposal, ShelfError, Stop, TakeError};
use ripcord_vault::VaultError;
use serde::Serialize;

use crate::exit::Exit;

#[derive(Debug)]
pub enum Problem {
    Told(Box<Told>),
    /// Mistakes in the configuration: they are shown with their lines.
    Configuration(Report),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    #[serde(skip)]
    pub exit: Exit,
    pub error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Most of what can go wrong does so before anything is begun.
const UNCHANGED: &str = "nothing was changed";

impl Problem {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self::Told(Box::new(Told {
            exit,
            error: what.into(),
            cause: vec![],
            place: None,
            state: UNCHANGED.to_owned(),
            help: None,
        }))
    }

    /// An error and the chain behind it, under a sentence of ours.
    pub fn from_error(exit: Exit, what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut problem = Self::new(exit, what);
        let mut next = Some(error);
        while let Some(cause) = next {
            problem = problem.cause(cause.to_string());
            next = cause.source();
        }
        problem
    }

    pub fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(Exit::Unavailable, format!("cannot {what} `{}`", path.display())).cause(error.to_string())
    }

    fn with(mut self, change: impl FnOnce(&mut Told)) -> Self {
        if let Self::Told(told) = &mut self {
            change(told);
        }
        self
    }

    /// A cause that only repeats what was said is left out.
    pub fn cause(self, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        self.with(|told| {
            if !told.error.contains(&cause) && !told.cause.iter().any(|known| known.contains(&cause)) {
                told.cause.push(cause);
            }
        })
    }
    pub fn place(self, place: impl Into<String>) -> Self {
        self.with(|told| told.place = Some(place.into()))
    }
    pub fn state(self, state: impl Into<String>) -> Self {
        self.with(|told| told.state = state.into())
    }
    pub fn help(self, help: impl Into<String>) -> Self {
        self.with(|told| told.help = Some(help.into()))
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Told(told) => told.exit,
            Self::Configuration(_) => Exit::Usage,
        }
    }
}

impl From<Report> for Problem {
    fn from(report: Report) -> Self {
        Self::Configuration(report)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let help = match &error {
            StoreError::Unavailable { .. } => {
                "nothing is begun without the record: see that its directory can be written"
            }
            StoreError::Damaged { .. } => "`ripcord log verify` says where the record is not what was written",
            StoreError::Newer { .. } => "use the version of Ripcord that wrote it, or a newer one",
        };
        Self::new(Exit::Unavailable, error.to_string()).help(help)
    }
}

impl From<Stop> for Problem {
    fn from(stop: Stop) -> Self {
        let state = "what was done is on the record; the next holder of the lease observes before it goes on";
        match stop {
            Stop::Store(error) => Self::from(error).state(state),
            Stop::LostLease | Stop::Overtaken { .. } => {
                let help = "`ripcord status` shows who works on it now";
                Self::new(Exit::Unavailable, stop.to_string()).state(state).help(help)
            }
            Stop::OutOfOrder(_) => {
                let help = "`ripcord log verify` says whether the record was tampered with; else this is an error inside Ripcord";
                Self::new(Exit::Internal, stop.to_string()).state(state).help(help)
            }
            Stop::Broken { .. } => Self::new(Exit::Internal, stop.to_string())
                .state(state)
                .help("please report it; `ripcord status` shows what is left"),
            Stop::Missing { what } => {
                Self::new(Exit::Refused, format!("the record has no {what}")).help("`ripcord status` lists the runs")
            }
            Stop::Asked { why } => {
                Self::new(Exit::Unavailable, why).state(state).help("`ripcord status` shows what is left")
            }
        }
    }
}

impl From<TakeError> for Problem {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Store(error) => error.into(),
            TakeError::Acquire(error) => {
                let problem = Self::new(Exit::Unavailable, "the lease cannot be had").cause(error.to_string());
                problem.help("`ripcord status` shows who has it")
            }
        }
    }
}

impl From<NoProposal> for Problem {
    fn from(error: NoProposal) -> Self {
        let (exit, help) = match error {
            NoProposal::Store(error) => return error.into(),
            NoProposal::Record(stop) => return stop.into(),
            NoProposal::NoTarget(_) => {
                (Exit::Refused, "`ripcord release list` shows what was recorded; name one with `--to`")
            }
            NoProposal::NoPlan(NoPlan::NothingToDo { .. }) => {
                (Exit::NothingToDo, "`ripcord status` shows what is live")
            }
            NoProposal::NoPlan(NoPlan::HalfWay { .. }) => {
                (Exit::Refused, "leave out `--scope`, or add to it what was named")
            }
            NoProposal::NoPlan(_) => (Exit::Refused, "`ripcord check --live` shows what can be seen and what is there"),
            NoProposal::Unlawful(_) => (Exit::Internal, "please report it, with the configuration"),
            NoProposal::NoUndo { .. } => (Exit::Refused, "`ripcord rollback --to VERSION` goes to a release by name"),
            NoProposal::NoStrategy { .. } | NoProposal::NoLevel { .. } => {
                (Exit::Usage, "`ripcord plan` shows the levels of the default strategy")
            }
        };
        let what = match exit {
            Exit::NothingToDo => "there is nothing to take back",
            _ => "there is no plan",
        };
        Self::from_error(exit, what, &error).help(help)
    }
}

impl From<ShelfError> for Problem {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::Vault(error) => error.into(),
            ShelfError::Store(error) => error.into(),
            ShelfError::Stopped(stop) => stop.into(),
            ShelfError::Elsewhere { ref name, .. } => {
                Self::new(Exit::Refused, error.to_string()).help(format!("the system itself keeps it, as `{name}`"))
            }
            ShelfError::Unreadable { .. } => Self::new(Exit::Unavailable, error.to_string()),
            ShelfError::Broke { .. } => Self::new(Exit::Internal, error.to_string()),
        }
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        let advice = error.advice();
        let problem = Self::from_error(Exit::Unavailable, "the vault cannot be used", &error);
        match advice {
            Some(advice) => problem.help(advice),
            None => problem,
        }
    }
}

impl From<BuildError> for Problem {
    fn from(error: BuildError) -> Self {
        Self::from_error(Exit::Usage, error.to_string(), &error)
            .help("`ripcord check` looks at the whole configuration")
    }
}

impl From<BadName> for Problem {
    fn from(error: BadName) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_inside_is_not_told_as_something_somebody_asked_for() {
        let problem = Problem::from(Stop::Broken { what: "driving a run failed: task 7 panicked".to_owned() });
        assert_eq!(problem.exit(), Exit::Internal);
        let Problem::Told(told) = problem else { panic!() };
        assert_eq!(told.error, "an error inside Ripcord: driving a run failed: task 7 panicked");
        assert_eq!(Problem::from(Stop::Asked { why: "a deployment".to_owned() }).exit(), Exit::Unavailable);
    }
}
