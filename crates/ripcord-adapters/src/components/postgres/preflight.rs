//! Whether a capture or a restore can be done, asked before anything is: each reason by its name, with what to do about it.

use std::path::Path;

use ripcord_core::{Failure, Made};
use rustix::fs::{Access, access};

use super::catalog::Listed;
use super::facts::About;
use super::{Desk, Postgres};
use crate::components::disk::room;
use crate::postgres::{PgError, Session};

/// Whether the role sees every row: a dump by another is one of what it may see, or none.
pub(super) async fn readable(session: &Session) -> Result<(), Failure> {
    let question = "SELECT rolname::text, rolsuper OR rolbypassrls, \
             (SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid::regclass::text) FROM pg_class c \
              WHERE c.relrowsecurity AND row_security_active(c.oid)), \
             (SELECT string_agg(t, ', ' ORDER BY t) FROM (SELECT c.oid::regclass::text AS t FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'S', 'm') \
                   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't' \
                   AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN c.relkind = 'S' \
                            THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END) \
                 LIMIT 5) x) \
         FROM pg_roles WHERE rolname = current_user";
    // The check must see what the policies do, which our sessions refuse to be subject to.
    session.batch_execute("SET row_security = on").await.map_err(PgError::from)?;
    let row = session.query_one(question, &[]).await.map_err(PgError::from)?;
    session.batch_execute("SET row_security = off").await.map_err(PgError::from)?;
    let (role, sees_all): (String, bool) = (row.get(0), row.get(1));
    let (hidden, closed): (Option<String>, Option<String>) = (row.get(2), row.get(3));
    if sees_all && closed.is_none() {
        return Ok(());
    }
    let advice = "let Ripcord use a superuser, or a role with BYPASSRLS that is a member of pg_read_all_data";
    match (hidden, closed) {
        (Some(tables), _) if !sees_all => {
            let what = format!(
                "the role `{role}` sees only the rows that policies let it see of {tables}: a capture would lack the others"
            );
            Err(Failure::never(what).advise(advice))
        }
        (_, Some(tables)) => {
            Err(Failure::never(format!("the role `{role}` may not read {tables}: a capture would lack it"))
                .advise(advice))
        }
        _ => Ok(()),
    }
}

impl Postgres {
    /// Whether the captured database can be built on this server, and take the place of the live one.
    pub(super) async fn preflight(
        &self,
        desk: &Desk,
        live: Option<&Listed>,
        about: &About,
        made: &Made,
    ) -> Result<(), Failure> {
        self.may_exchange(desk, live).await?;
        let (has, needs) = (desk.system.version, about.server);
        if has / 10_000 < needs / 10_000 {
            let what = format!("the capture is of PostgreSQL {}, and the server is {}", needs / 10_000, has / 10_000);
            return Err(Failure::never(what).advise("restore to a server of that version or a newer one"));
        }
        let asked: Vec<&String> = about.extensions.keys().collect();
        let question =
            "SELECT e FROM unnest($1::text[]) e WHERE e NOT IN (SELECT name::text FROM pg_available_extensions)";
        let missing = names(desk, question, &asked).await?;
        if !missing.is_empty() {
            let what = format!("the server does not have the extensions {}", missing.join(", "));
            return Err(Failure::never(what).advise("install them on the server, then retry"));
        }
        let asked: Vec<&String> = about.roles.iter().chain([&about.attributes.owner]).collect();
        let question =
            "SELECT DISTINCT r FROM unnest($1::text[]) r WHERE r NOT IN (SELECT rolname::text FROM pg_roles)";
        let missing = names(desk, question, &asked).await?;
        if !missing.is_empty() {
            let what =
                format!("roles that own or use something in the captured database are gone: {}", missing.join(", "));
            return Err(Failure::never(what).advise("create them again (`CREATE ROLE`), then retry"));
        }
        self.has_room(desk, about).await?;
        room(&self.directory, "the capture, while it is restored,", made.bytes, 1)
    }

    /// Whether the live database can be given another name.
    pub(super) async fn may_exchange(&self, desk: &Desk, live: Option<&Listed>) -> Result<(), Failure> {
        if desk.system.standby {
            return Err(Failure::never("the server is a standby: it takes no changes")
                .advise("name the primary in `connection`"));
        }
        let major = desk.system.major();
        let marks = match major {
            15.. => {
                "has_parameter_privilege('ripcord.restored', 'SET') AND has_parameter_privilege('ripcord.aside', 'SET') \
                     AND has_parameter_privilege('ripcord.building', 'SET')"
            }
            _ => "false",
        };
        let question = format!(
            "SELECT rolname::text, rolsuper, rolcreatedb, pg_has_role('pg_signal_backend', 'MEMBER'), {marks}, \
                 coalesce((SELECT pg_has_role(d.datdba, 'MEMBER') FROM pg_database d WHERE d.datname = $1), true) \
             FROM pg_roles WHERE rolname = current_user"
        );
        let row = desk.control.query_one(&question, &[&desk.database()]).await.map_err(PgError::from)?;
        let role: String = row.get(0);
        if !row.get::<_, bool>(1) {
            let rights = [
                "create databases (CREATEDB)",
                "end sessions (pg_signal_backend)",
                "leave its mark on databases (GRANT SET ON PARAMETER ripcord.restored, ripcord.aside, ripcord.building)",
                "rename the database (be a member of its owner)",
            ];
            let lacking: Vec<&str> = rights
                .iter()
                .enumerate()
                .filter(|(at, _)| !row.get::<_, bool>(at + 2))
                .map(|(_, right)| *right)
                .collect();
            if !lacking.is_empty() {
                let what = format!("the role `{role}` may not {}", lacking.join(", nor "));
                return Err(Failure::never(what).advise("give it the right, or let Ripcord use a superuser"));
            }
        }
        let Some(live) = live else { return Ok(()) };
        let question = "SELECT 'the prepared transaction `' || gid || '`' FROM pg_prepared_xacts WHERE database = $1 \
             UNION ALL SELECT 'the logical replication slot `' || slot_name || '`' FROM pg_replication_slots WHERE database = $1 \
             UNION ALL SELECT 'the subscription `' || subname || '`' FROM pg_subscription \
                 WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = $1)";
        let rows = desk.control.query(question, &[&live.name]).await.map_err(PgError::from)?;
        let held: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        match held.is_empty() {
            true => Ok(()),
            false => Err(Failure::never(format!("the database cannot be exchanged while it has {}", held.join(", ")))
                .advise("commit or roll back what is prepared, drop the slots and subscriptions or take them to another database")),
        }
    }

    /// Whether the server's disk takes another database, where it is a disk of this machine and can be looked at.
    async fn has_room(&self, desk: &Desk, about: &About) -> Result<(), Failure> {
        let place = desk
            .control
            .query_one("SELECT current_setting('data_directory', true), inet_server_addr() IS NULL", &[])
            .await;
        let Ok(row) = place else { return Ok(()) };
        let (directory, local): (Option<String>, bool) = (row.get(0), row.get(1));
        let Some(directory) = directory.filter(|_| local) else { return Ok(()) };
        let directory = Path::new(&directory);
        if access(directory, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            return Ok(());
        }
        // The rows again, and their way through the write-ahead log.
        room(directory, "the restored database", about.bytes.unsigned_abs() * 2, 1000)
    }
}

async fn names(desk: &Desk, question: &str, asked: &[&String]) -> Result<Vec<String>, Failure> {
    let rows = desk.control.query(question, &[&asked]).await.map_err(PgError::from)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
