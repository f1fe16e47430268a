//! What is defined in a database, in a form that can be compared.
//!
//! Two fingerprints. The *definitions* have every expression as the server prints it, and tell whether anything was changed in
//! one database. The *structure* has names, types, owners, rights and flags, and tells whether a restored database is as the
//! captured one was: an expression may be printed otherwise after it was dumped and read again (`x IN (..)` on a varchar), so
//! there it says nothing. No number of the server's own (OIDs, column numbers after a dropped one) is in either. What belongs to
//! an extension is left to it.

use ripcord_core::Digest;

use crate::postgres::{PgError, Session};

/// Rows of a sort, what they are, and what is only in the definitions.
const QUESTIONS: &[&str] = &[
    // Schemas.
    "SELECT format('schema %I owner %I', n.nspname, pg_get_userbyid(n.nspowner)) || ' ' || \
         {acl(n.nspacl, 'n', n.nspowner)}, '' \
     FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND {own('pg_namespace', n.oid)}",
    // Tables, views, sequences and the like.
    "SELECT format('%s %I.%I owner %I %s %s %s %s %s', c.relkind, n.nspname, c.relname, pg_get_userbyid(c.relowner), \
         c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relispartition) || ' ' || \
         {acl(c.relacl, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END, c.relowner)}, \
         concat_ws(' ', array_to_string(c.reloptions, ','), CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END, \
             pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND {user} AND {own('pg_class', c.oid)}",
    // Columns, in their order.
    "SELECT format('column %I.%I %s %I %s %s %s %s', n.nspname, c.relname, \
             row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname, format_type(a.atttypid, a.atttypmod), \
             a.attnotnull, a.attidentity, a.attgenerated) || ' ' || coalesce((SELECT string_agg(x.t, ',' ORDER BY x.t) FROM \
             (SELECT format('%s:%s:%s', e.grantee::regrole, e.privilege_type, e.is_grantable) AS t FROM aclexplode(a.attacl) e) x), ''), \
         coalesce(pg_get_expr(d.adbin, d.adrelid), '') \
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't' \
         AND {user} AND {own('pg_class', c.oid)}",
    "SELECT format('constraint %I on %s %s %s %s %s', k.conname, k.conrelid::regclass, k.contype, k.convalidated, k.condeferrable, \
             k.condeferred), pg_get_constraintdef(k.oid) \
     FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace \
     WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND {user} AND {own('pg_constraint', k.oid)} \
         AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = k.conrelid AND NOT {own('pg_class', c.oid)})",
    // An index that is not valid is not dumped.
    "SELECT CASE WHEN i.indisvalid THEN format('index %s on %s %s %s %s', i.indexrelid::regclass, i.indrelid::regclass, \
             i.indisunique, i.indisprimary, i.indisreplident) ELSE '' END, \
         pg_get_indexdef(i.indexrelid) \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relpersistence <> 't' AND {user} AND {own('pg_class', c.oid)}",
    "SELECT format('function %s owner %I %s %s %s', p.oid::regprocedure, pg_get_userbyid(p.proowner), p.prokind, p.prosecdef, \
             p.provolatile) || ' ' || {acl(p.proacl, 'f', p.proowner)}, \
         CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE '' END \
     FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {user} AND {own('pg_proc', p.oid)}",
    "SELECT format('trigger %I on %s %s', t.tgname, t.tgrelid::regclass, t.tgenabled), pg_get_triggerdef(t.oid) \
     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE NOT t.tgisinternal AND {user} AND {own('pg_class', c.oid)}",
    "SELECT format('policy %I on %s %s %s %s', p.polname, p.polrelid::regclass, p.polcmd, p.polpermissive, \
             (SELECT string_agg(r, ',' ORDER BY r) FROM (SELECT o::regrole::text AS r FROM unnest(p.polroles) o) x)), \
         concat_ws(' check ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) \
     FROM pg_policy p",
    "SELECT format('type %s owner %I %s %s', t.oid::regtype, pg_get_userbyid(t.typowner), t.typtype, \
             (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)), \
         concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typdefault) \
     FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
     WHERE t.typtype IN ('e', 'd', 'r') AND {user} AND {own('pg_type', t.oid)}",
    "SELECT format('sequence %I.%I %s %s %s %s %s %s %s', schemaname, sequencename, data_type, start_value, min_value, max_value, \
             increment_by, cycle, cache_size), '' FROM pg_sequences",
    "SELECT format('extension %I in %I', e.extname, n.nspname), e.extversion \
     FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace",
    "SELECT format('event trigger %I %s %s %s', evtname, evtevent, evtenabled, evtfoid::regprocedure), '' FROM pg_event_trigger",
    "SELECT format('publication %I %s %s %s %s', pubname, puballtables, pubinsert, pubupdate, pubdelete), '' FROM pg_publication",
    "SELECT format('comment on %s %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), md5(d.description)), '' \
     FROM pg_description d WHERE d.objoid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend x \
         WHERE x.classid = d.classoid AND x.objid = d.objoid AND x.deptype = 'e') AND d.classoid <> 'pg_extension'::regclass",
];

/// Writes out what the questions abbreviate: `{user}`, `{own(catalog, oid)}` and `{acl(acl, kind, owner)}`.
fn written_out(question: &str) -> String {
    let mut text = question.replace("{user}", "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'");
    while let Some(at) = text.find('{') {
        let Some(end) = text[at..].find('}').map(|end| at + end) else { break };
        let inner = text[at + 1..end].to_owned();
        let arguments = inner.split_once('(').map_or("", |(_, rest)| rest.strip_suffix(')').unwrap_or(rest));
        let made = match inner.starts_with("own(") {
            true => {
                let (catalog, oid) = arguments.split_once(", ").unwrap_or((arguments, ""));
                format!(
                    "NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = {catalog}::regclass AND x.objid = {oid} \
                     AND x.deptype = 'e')"
                )
            }
            false => {
                let mut parts = arguments.splitn(2, ", ");
                let acl = parts.next().unwrap_or_default();
                let (kind, owner) = parts.next().and_then(|rest| rest.rsplit_once(", ")).unwrap_or_default();
                format!(
                    "coalesce((SELECT string_agg(x.t, ',' ORDER BY x.t) FROM (SELECT format('%s:%s:%s', \
                     CASE WHEN e.grantee = 0 THEN 'public' ELSE pg_get_userbyid(e.grantee) END, e.privilege_type, \
                     e.is_grantable) AS t FROM aclexplode(coalesce({acl}, acldefault(({kind})::\"char\", {owner}))) e) x), '')"
                )
            }
        };
        text.replace_range(at..=end, &made);
    }
    text
}

/// The lines of what is defined, sorted.
pub(super) async fn lines(session: &Session) -> Result<Vec<(String, String)>, PgError> {
    let mut lines = vec![];
    for question in QUESTIONS {
        for row in session.query(&written_out(question), &[]).await? {
            let (structure, definition): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            lines.push((structure, definition.unwrap_or_default()));
        }
    }
    lines.sort();
    Ok(lines)
}

/// The fingerprints of a list: of the structure, and of the definitions.
pub(super) fn prints(lines: &[(String, String)]) -> (Digest, Digest) {
    let structure: Vec<&String> = lines.iter().map(|(line, _)| line).filter(|line| !line.is_empty()).collect();
    (Digest::of_value(&structure), Digest::of_value(&lines))
}

pub(super) async fn fingerprints(session: &Session) -> Result<(Digest, Digest), PgError> {
    Ok(prints(&lines(session).await?))
}

/// What the first has and the second lacks, and the other way round: the first few, for people.
pub(super) fn differing(captured: &[String], restored: &[(String, String)]) -> Vec<String> {
    let restored: Vec<&String> = restored.iter().map(|(line, _)| line).filter(|line| !line.is_empty()).collect();
    let gone = captured.iter().filter(|line| !restored.contains(line)).map(|line| format!("missing: {line}"));
    let added = restored.iter().filter(|line| !captured.contains(line)).map(|line| format!("not captured: {line}"));
    gone.chain(added).take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_written_out_whole() {
        for question in QUESTIONS {
            let text = written_out(question);
            assert!(!text.contains('{') && !text.contains('}'), "{text}");
            assert_eq!(text.matches('(').count(), text.matches(')').count(), "{text}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let restored = vec![("table a".to_owned(), "x".to_owned()), ("table c".to_owned(), String::new())];
        let captured = ["table a".to_owned(), "table b".to_owned()];
        assert_eq!(differing(&captured, &restored), ["missing: table b", "not captured: table c"]);
    }
}
