//! What is said between a controller and an agent. Another version of Ripcord is not spoken with, so nothing here needs to be
//! understood by another one.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    AppId, Before, CaptureId, ComponentId, Cx, HostId, Key, Made, Place, SecretRef, SignalId, Step, Wanted,
};
use ripcord_vault::{Label, Offered, Piece, SnapshotId};
use serde::{Deserialize, Serialize};

/// Raised when the frames or the words change in a way that the version of Ripcord does not tell.
pub(crate) const PROTOCOL: u32 = 1;

/// How often a controller says that it is there.
pub(crate) const PULSE: Duration = Duration::from_secs(15);

/// The line an agent begins with, before any frame: `ripcord-agent <protocol> <version>`. What a login prints stands before it.
pub(crate) const GREETING: &str = "ripcord-agent ";

pub(crate) fn greeting() -> String {
    format!("{GREETING}{PROTOCOL} {}", env!("CARGO_PKG_VERSION"))
}

/// The first call: who the agent is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) app: AppId,
    pub(crate) host: HostId,
    /// The configuration, and what it is called in messages.
    pub(crate) config: String,
    pub(crate) config_name: String,
    pub(crate) directory: PathBuf,
    /// For revisions of files that may hold secrets; in hexadecimal digits.
    pub(crate) revision_key: String,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) pid: u32,
    /// Tells machines apart, whatever they are called.
    pub(crate) machine: String,
    pub(crate) now: Timestamp,
}

/// What the record knows of a capture that a call mentions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Known {
    /// What the agent was told before still holds.
    AsBefore,
    Made(Box<Made>),
    /// There is no such capture, or none to be relied on.
    Nothing,
}

pub(crate) type Mentioned = Vec<(CaptureId, Known)>;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToAgent {
    Hello(Box<Hello>),
    /// Nothing: only that somebody is there.
    Here,
    Survey {
        component: ComponentId,
        cx: Cx,
        place: Place,
        wanted: Vec<Wanted>,
        captures: Mentioned,
    },
    Holds {
        component: ComponentId,
        cx: Cx,
        step: Box<Step>,
        before: Option<Before>,
        captures: Mentioned,
    },
    Apply {
        component: ComponentId,
        cx: Cx,
        step: Box<Step>,
        before: Before,
        captures: Mentioned,
    },
    /// The outcome of a call was heard.
    Heard {
        key: Key,
        at: Timestamp,
    },
    Tidy {
        component: ComponentId,
        cx: Cx,
        place: Place,
        before: Timestamp,
    },
    Read {
        signal: SignalId,
        cx: Cx,
    },
    /// Contents of what was offered to be captured.
    Give {
        offer: u64,
        numbers: Vec<usize>,
    },
    Settled {
        offer: u64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToController {
    Secret {
        from: SecretRef,
    },
    Capture {
        offer: u64,
        label: Label,
        outline: Vec<Offered>,
    },
    Open {
        snapshot: SnapshotId,
        file: Option<String>,
    },
    /// More of what was opened.
    Next {
        reading: u64,
    },
    Close {
        reading: u64,
    },
    Verify {
        snapshot: SnapshotId,
    },
    Lists {
        snapshot: SnapshotId,
    },
    List {
        component: String,
    },
}

/// Pieces of contents, whose bytes follow the head.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Mark {
    number: usize,
    length: usize,
    last: bool,
}

pub(crate) fn pack(pieces: Vec<Piece>) -> (Vec<Mark>, Vec<u8>) {
    let mark = |piece: &Piece| Mark { number: piece.number, length: piece.bytes.len(), last: piece.last };
    let marks = pieces.iter().map(mark).collect();
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.bytes.len()).sum());
    pieces.iter().for_each(|piece| bytes.extend_from_slice(&piece.bytes));
    (marks, bytes)
}

/// None where the bytes are not those the marks speak of.
pub(crate) fn unpack(marks: &[Mark], bytes: &[u8]) -> Option<Vec<Piece>> {
    let (mut rest, mut pieces) = (bytes, Vec::with_capacity(marks.len()));
    for mark in marks {
        let (now, later) = rest.split_at_checked(mark.length)?;
        pieces.push(Piece { number: mark.number, bytes: now.to_vec(), last: mark.last });
        rest = later;
    }
    rest.is_empty().then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_unpacked_as_they_were_packed() {
        let piece = |number, text: &str, last| Piece { number, bytes: text.into(), last };
        let pieces = vec![piece(3, "ab", false), piece(3, "", true), piece(9, "c", true)];
        let (marks, bytes) = pack(pieces.clone());
        assert_eq!(bytes, b"abc");
        assert_eq!(unpack(&marks, &bytes), Some(pieces));
        assert_eq!(unpack(&marks, b"ab"), None);
        assert_eq!(unpack(&marks, b"abcd"), None);
    }
}
