//! The exchange of names: one transaction, and nobody in either database while it runs.
//!
//! Renaming takes the lock that every new session of the database waits for, so newcomers wait instead of failing and find the new
//! database when it is over; it then waits up to five seconds for the sessions there are, which we end meanwhile from another one.
//! Nothing is switched off for it: where we are killed, the server undoes the transaction, and the live database is as it was.

use std::time::Duration;

use ripcord_core::{Digest, Failure};
use tokio::time::Instant;

use super::catalog::{self, Aside, Listed};
use super::facts::About;
use super::restore::Job;
use super::{Desk, Postgres, names};
use crate::components::files::{Stop, point};
use crate::postgres::{PgError, Session, quoted};

/// How long sessions that come back are ended again before a person is told which.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often sessions are ended while the server waits for them.
const AGAIN: Duration = Duration::from_millis(50);

impl Postgres {
    /// Sets the live database aside, and has the one that was built take its name. `state` is that of the live database before it was
    /// compared.
    pub(super) async fn exchange(
        &self,
        desk: &Desk,
        job: Job<'_>,
        built: Option<(&str, &About)>,
        live: Option<&Listed>,
        state: Option<Digest>,
    ) -> Result<(), Stop> {
        let statements = self.statements(desk, job, built, live, state).await?;
        let deadline = Instant::now() + PATIENCE.min(job.cx.limit / 3);
        let ender = self.server.connect(&desk.way, self.server.maintenance()).await?;
        let mut databases: Vec<&str> = live.iter().map(|live| live.name.as_str()).collect();
        databases.extend(built.map(|(name, _)| name));
        loop {
            point("exchange");
            let exchanging = async {
                let done = desk.control.batch_execute(&statements.concat()).await;
                if done.is_err() {
                    let _ = desk.control.batch_execute("ROLLBACK").await;
                }
                done.map_err(PgError::from)
            };
            tokio::pin!(exchanging);
            let exchanged = loop {
                tokio::select! {
                    done = &mut exchanging => break done,
                    () = tokio::time::sleep(AGAIN) => end_sessions(&ender, &databases).await,
                }
            };
            match exchanged {
                Ok(()) => break,
                // Somebody is in it still.
                Err(error) if matches!(error.code(), Some("55006" | "55P03")) => {
                    if Instant::now() >= deadline {
                        return Err(stubborn(&ender, &databases, &error).await.into());
                    }
                }
                Err(PgError::Broken { why }) => return Err(Stop::Unknown(why)),
                Err(error) => return Err(error.into()),
            }
        }
        ender.close().await;
        Ok(())
    }

    async fn statements(
        &self,
        desk: &Desk,
        job: Job<'_>,
        built: Option<(&str, &About)>,
        live: Option<&Listed>,
        state: Option<Digest>,
    ) -> Result<Vec<String>, Stop> {
        let mut all = vec!["BEGIN;".to_owned()];
        if let Some(live) = live {
            let aside = self.free(desk, job).await?;
            let mark = Aside {
                version: 1,
                of: live.name.clone(),
                key: job.key(),
                at: job.cx.now,
                state,
                // With nothing to compare it with, it is kept as it is.
                settled: state.is_none(),
            };
            all.push(format!("ALTER DATABASE {} RENAME TO {};", quoted(&live.name), quoted(&aside)));
            all.push(catalog::marking(&aside, names::ASIDE, &mark)?);
            // People read it, and nothing that still knows its name writes to it by accident.
            all.push(format!("ALTER DATABASE {} SET default_transaction_read_only = on;", quoted(&aside)));
        }
        if let Some((name, about)) = built {
            all.push(format!("ALTER DATABASE {} RENAME TO {};", quoted(name), quoted(desk.database())));
            all.push(format!("ALTER DATABASE {} RESET ripcord.{};", quoted(desk.database()), names::BUILDING));
            all.extend(about.attributes.dressing(desk.database()).into_iter().map(|statement| format!("{statement};")));
        }
        all.push("COMMIT;".to_owned());
        Ok(all)
    }

    /// A name for the former database that nothing has yet.
    async fn free(&self, desk: &Desk, job: Job<'_>) -> Result<String, PgError> {
        let (live, run) = (desk.database(), job.run());
        let mut number = 1;
        loop {
            let name = names::aside(live, &run, number);
            if catalog::find(&desk.control, &name).await?.is_none() {
                return Ok(name);
            }
            number += 1;
        }
    }
}

/// "Signal sent" is all that `pg_terminate_backend` says; whether they are gone is for the rename to find.
/// Source: PostgreSQL manual, "Server Signaling Functions".
async fn end_sessions(ender: &Session, databases: &[&str]) {
    let question =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid()";
    // One that we may not end (a superuser's) fails the whole; the others are ended one by one.
    if ender.query(question, &[&databases]).await.is_ok() {
        return;
    }
    let pids = "SELECT pid FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid()";
    for row in ender.query(pids, &[&databases]).await.unwrap_or_default() {
        let pid: i32 = row.get(0);
        if let Err(error) = ender.query("SELECT pg_terminate_backend($1)", &[&pid]).await {
            tracing::debug!(pid, error = %PgError::from(error), "a session was not ended");
        }
    }
}

/// Who is still there.
async fn stubborn(ender: &Session, databases: &[&str], error: &PgError) -> Failure {
    let question = "SELECT format('%s (process %s, %s, from %s)', coalesce(usename, backend_type), pid, \
             coalesce(nullif(application_name, ''), 'no name'), coalesce(host(client_addr), 'this machine')) \
         FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid() ORDER BY pid LIMIT 5";
    let rows = ender.query(question, &[&databases]).await.unwrap_or_default();
    let sessions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let who = if sessions.is_empty() { error.to_string() } else { sessions.join(", ") };
    Failure::later(format!("sessions do not leave the database: {who}"))
        .advise("stop what they belong to, then retry; the live database is as it was")
}
