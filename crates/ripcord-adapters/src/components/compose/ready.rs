//! Waiting until a service is well: by its health check, and where it has none by running on without ending.
//!
//! The Engine is asked again and again, at intervals that grow with the time it takes; nothing is waited out. What ends for good,
//! or keeps ending, is a failure at once; what is unhealthy may become healthy until the time is over.

use std::time::Duration;

use ripcord_core::Failure;
use tokio::time::{Instant, sleep_until};

use super::Compose;
use super::sight::{Fares, Replica, Sight};
use crate::components::files::Stop;

/// How long a container without a health check must have run.
const SETTLE: Duration = Duration::from_secs(2);
/// After so many restarts it will not come up by itself.
const LOOPS: i64 = 3;
/// Between two looks: a twentieth of what was waited already, within these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How much of a log goes with a failure.
const LINES: usize = 30;

/// What one look says.
enum Verdict {
    Well,
    /// Runs, and has nothing but time to say it is well.
    Settling,
    NotYet {
        name: String,
        why: String,
    },
    Never {
        name: String,
        why: String,
    },
}

fn verdict(sight: &Sight) -> Verdict {
    let told = |one: &Replica, hopeless: bool| {
        let (name, why) = (one.name.clone(), one.ails());
        if hopeless { Verdict::Never { name, why } } else { Verdict::NotYet { name, why } }
    };
    let counted = sight.counted();
    if counted.is_empty() {
        return Verdict::NotYet { name: "its container".to_owned(), why: "is not there".to_owned() };
    }
    // What never started or ended counts here too: one of several replicas that is down is not all of them up.
    let down = sight.all.iter().find(|one| matches!(one.fares(), Fares::Ended | Fares::New));
    let looping =
        counted.iter().find(|one| one.restarts() >= LOOPS && !(one.has_check() && one.fares() == Fares::Well));
    if let Some(one) = down.or(looping.copied()) {
        return told(one, true);
    }
    match counted.iter().find(|one| one.fares() != Fares::Well) {
        Some(one) => told(one, false),
        None if counted.iter().all(|one| one.has_check()) => Verdict::Well,
        None => Verdict::Settling,
    }
}

impl Compose {
    pub(super) async fn until_well(&self, deadline: Instant) -> Result<Sight, Stop> {
        let ready = Duration::from(self.settings.ready);
        let began = Instant::now();
        let until = (began + ready).min(deadline);
        let own_limit = until < deadline;
        let mut steady = None::<(Instant, Option<String>)>;
        loop {
            let looked = self.look(until.max(Instant::now() + Duration::from_secs(1))).await;
            let mut last = match &looked {
                Err(failure) => ("it".to_owned(), format!("cannot be seen: {}", failure.what)),
                Ok(sight) => match verdict(sight) {
                    Verdict::Well => return looked.map_err(Stop::from),
                    Verdict::Never { name, why } => return Err(self.unwell(sight, &name, &why, None).await.into()),
                    Verdict::NotYet { name, why } => (name, why),
                    Verdict::Settling => {
                        let instance = sight.instance();
                        match &steady {
                            Some((since, was)) if *was == instance && since.elapsed() >= SETTLE => {
                                return looked.map_err(Stop::from);
                            }
                            Some((_, was)) if *was == instance => {}
                            _ => steady = Some((Instant::now(), instance)),
                        }
                        ("it".to_owned(), "runs, and not for long enough to say that it stays".to_owned())
                    }
                },
            };
            let next = Instant::now() + (began.elapsed() / 20).clamp(PAUSE.0, PAUSE.1);
            if next >= until {
                let (name, why) = std::mem::take(&mut last);
                if !own_limit {
                    return Err(Stop::Unknown(format!("`{name}` {why}, and the time for this call is over")));
                }
                let sight = looked.map_err(Stop::from)?;
                return Err(self.unwell(&sight, &name, &why, Some(ready)).await.into());
            }
            sleep_until(next).await;
        }
    }

    /// The failure of a service that is not well, with what it said last.
    async fn unwell(&self, sight: &Sight, name: &str, why: &str, after: Option<Duration>) -> Failure {
        let what = match after {
            Some(after) => format!("`{name}` was not well within {}: it {why}", ripcord_core::human(after)),
            None => format!("`{name}` {why}"),
        };
        let mut failure = Failure::never(what).advise(match why.contains("memory") {
            true => "raise its memory limit (`mem_limit`), or choose a release that needs less; then retry",
            false => "see its last lines and its health checks; a longer `ready` helps where it is only slow",
        });
        let Some(one) = sight.all.iter().find(|one| one.name == name) else { return failure };
        let deadline = Instant::now() + Duration::from_secs(2);
        let logged = self.engine.logs(&one.whole, LINES, None, deadline).await.unwrap_or_default();
        let lines = logged.into_iter().map(|line| line.text).chain(one.checks());
        let text = lines.collect::<Vec<_>>().join("\n");
        failure.output =
            (!text.is_empty()).then(|| self.cli.host.redactor().clean(&crate::http::shorten(&text, 16 << 10)));
        failure
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(states: &[Value]) -> String {
        let container = |(number, state): (usize, &Value)| {
            let labels = json!({ "com.docker.compose.container-number": number.to_string() });
            json!({ "Id": format!("{number:064x}"), "Name": format!("/api-{number}"), "Config": { "Labels": labels },
                "RestartCount": state["Restarts"], "State": state })
        };
        match verdict(&Sight::of(states.iter().enumerate().map(container).collect())) {
            Verdict::Well => "well".to_owned(),
            Verdict::Settling => "settling".to_owned(),
            Verdict::NotYet { name, why } => format!("{name} not yet: {why}"),
            Verdict::Never { name, why } => format!("{name} never: {why}"),
        }
    }

    fn health(status: &str) -> Value {
        json!({ "Status": "running", "Health": { "Status": status } })
    }

    #[test]
    fn health_decides_where_there_is_a_check() {
        assert_eq!(told(&[health("healthy"), health("healthy")]), "well");
        assert_eq!(
            told(&[health("healthy"), health("starting")]),
            "api-1 not yet: runs, and its health check has not succeeded yet"
        );
        assert_eq!(told(&[health("unhealthy")]), "api-0 not yet: runs, and its health check fails");
        assert_eq!(told(&[json!({ "Status": "running" })]), "settling");
        assert_eq!(told(&[]), "its container not yet: is not there");
    }

    #[test]
    fn what_ends_or_keeps_ending_is_hopeless() {
        assert_eq!(told(&[json!({ "Status": "exited", "ExitCode": 1 })]), "api-0 never: ended with exit code 1");
        assert_eq!(
            told(&[health("healthy"), json!({ "Status": "exited" })]),
            "api-1 never: ended by itself with exit code 0"
        );
        let looping = |restarts: i64| json!({ "Status": "restarting", "ExitCode": 1, "Restarts": restarts });
        assert_eq!(told(&[looping(2)]), "api-0 not yet: keeps ending (exit code 1) and was restarted 2 times");
        assert_eq!(told(&[looping(3)]), "api-0 never: keeps ending (exit code 1) and was restarted 3 times");
        let recovered = json!({ "Status": "running", "Restarts": 5, "Health": { "Status": "healthy" } });
        assert_eq!(told(&[recovered]), "well", "whatever it took, it is healthy now");
        assert_eq!(told(&[json!({ "Status": "running", "Restarts": 5 })]), "api-0 never: runs");
    }
}
