//! Why a cluster did not do what it was asked, and what a person does about it.

use ripcord_core::Failure;

/// Why a cluster did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No endpoint took the request, so nothing was done.
    Unreachable(String),
    /// An endpoint took the request and did not say what became of it.
    Unanswered(String),
    /// It said no, in its own words.
    Refused { code: i64, message: String },
    /// It could not be asked: a secret or a certificate is missing here.
    Observer(String),
}

impl Trouble {
    pub(crate) fn why(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("no endpoint of etcd can be reached: {why}"),
            Self::Unanswered(why) => format!("etcd did not answer: {why}"),
            Self::Refused { message, .. } => format!("etcd refuses: {message}"),
            Self::Observer(why) => why.clone(),
        }
    }

    pub(super) fn compacted(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("revision has been compacted"))
    }

    /// The answer was too large for the gateway's own connection.
    pub(super) fn too_large(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("larger than max"))
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let what = trouble.why();
        let advice = match &trouble {
            Trouble::Unreachable(_) | Trouble::Unanswered(_) => return Self::later(what),
            Trouble::Observer(_) => return Self::never(what),
            Trouble::Refused { message, .. } => advice(message),
        };
        let failure = Self::never(what);
        match advice {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }
}

/// What a person does about a refusal.
fn advice(message: &str) -> Option<&'static str> {
    let known = [
        ("user name is empty", "the cluster wants a login: set `user` and `password`"),
        ("invalid user ID or password", "see that `user` and `password` are those of a user of the cluster"),
        (
            "permission denied",
            "grant the user's role readwrite permission on the whole prefix: `etcdctl role grant-permission`",
        ),
        ("database space exceeded", "compact and defragment the cluster, then `etcdctl alarm disarm`"),
        ("too many operations", "set `max-txn-ops` to what the servers are started with"),
        ("request is too large", "a value is larger than the servers take: raise their `--max-request-bytes`"),
        ("auth is not enabled", "the cluster asks for no login: take `user` and `password` out of the settings"),
    ];
    known.iter().find(|(words, _)| message.contains(words)).map(|(_, advice)| *advice)
}
