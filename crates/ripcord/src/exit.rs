//! How the process ends: every exit code there is, once.

use std::process::ExitCode;

/// An exit code. Scripts rely on them: never give one another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Internal,
    Usage,
    NothingToDo,
    Refused,
    Parked,
    RolledBack,
    Insufficient,
    CheckFailed,
    Unavailable,
    Interrupted,
}

impl Exit {
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::NothingToDo,
        Self::Refused,
        Self::Parked,
        Self::RolledBack,
        Self::Insufficient,
        Self::CheckFailed,
        Self::Unavailable,
        Self::Interrupted,
    ];

    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NothingToDo => 3,
            Self::Refused => 4,
            Self::Parked => 5,
            Self::RolledBack => 6,
            Self::Insufficient => 7,
            Self::CheckFailed => 8,
            Self::Unavailable => 9,
            Self::Interrupted => 130,
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Internal => "an error inside Ripcord",
            Self::Usage => "bad usage or a mistake in the configuration",
            Self::NothingToDo => "nothing to do",
            Self::Refused => "refused: quarantined, no target, an approval or consent missing, another run under way",
            Self::Parked => "a person is needed: a run is parked, or a deployment left things half way",
            Self::RolledBack => "the deployment went bad and was taken back",
            Self::Insufficient => "everything was done, and the symptom remains",
            Self::CheckFailed => "a check or a command failed or came to no verdict, or the record was tampered with",
            Self::Unavailable => "the record or the lease cannot be had",
            Self::Interrupted => "interrupted; what goes on, or does not, was said",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The list for `--help` and for the documentation.
pub fn list() -> String {
    let lines = Exit::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_says_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exit-codes.md");
        let text = std::fs::read_to_string(path).unwrap();
        let written: Vec<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
            .filter(|(code, _)| code.chars().all(|c| c.is_ascii_digit()))
            .map(|(code, meaning)| (code.to_owned(), meaning.to_owned()))
            .collect();
        let ours = Exit::ALL.map(|exit| (exit.code().to_string(), exit.meaning().to_owned()));
        assert_eq!(written, ours);
    }
}
