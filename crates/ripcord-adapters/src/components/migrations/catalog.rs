//! The schema of a PostgreSQL database, from its catalogues.
//!
//! With an empty search path the server writes every name whole, so that the same schema reads the same for everybody. What belongs to
//! an extension is the extension's. The order of columns is not compared: a column that went and came back is the last.
//! Source: PostgreSQL manual, "System Catalogs"; "System Catalog Information Functions".

use super::database::Rows;
use super::schema::{Part, Schema};

/// Kind, up to three parts of its path, and what it is.
pub(super) const ALL: &str = "
WITH names AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
), foreign_to_us AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS (
    SELECT c.*, n.nspname FROM pg_class c JOIN names n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM foreign_to_us f WHERE f.classid = 'pg_class'::regclass AND f.objid = c.oid)
)
SELECT 'schema', nspname, NULL, NULL, '' FROM names
UNION ALL
SELECT 'table', nspname, relname, NULL,
    concat(relkind, relpersistence, CASE WHEN relrowsecurity THEN ' row security' END, CASE WHEN relforcerowsecurity THEN ' forced' END,
        ' ' || pg_get_partkeydef(oid), ' ' || pg_get_expr(relpartbound, oid))
FROM relations WHERE relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'view', nspname, relname, NULL, concat(relkind, ' ', pg_get_viewdef(oid)) FROM relations WHERE relkind IN ('v', 'm')
UNION ALL
SELECT 'column', r.nspname, r.relname, a.attname,
    concat(format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' END,
        ' default ' || pg_get_expr(d.adbin, d.adrelid), ' identity ' || nullif(a.attidentity::text, ''),
        ' generated ' || nullif(a.attgenerated::text, ''),
        (SELECT ' collate ' || l.collname FROM pg_collation l
         WHERE l.oid = a.attcollation AND a.attcollation <> (SELECT typcollation FROM pg_type WHERE oid = a.atttypid)))
FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE r.relkind IN ('r', 'p', 'f', 'c')
UNION ALL
SELECT 'constraint', r.nspname, r.relname, c.conname, concat(pg_get_constraintdef(c.oid), CASE WHEN NOT c.convalidated THEN ' NOT VALID' END)
FROM pg_constraint c JOIN relations r ON r.oid = c.conrelid WHERE c.contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT 'index', r.nspname, r.relname, i.relname, concat(pg_get_indexdef(x.indexrelid), CASE WHEN NOT x.indisvalid THEN ' INVALID' END)
FROM pg_index x JOIN relations r ON r.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u', 'x'))
UNION ALL
SELECT 'sequence', r.nspname, r.relname, NULL,
    concat(format_type(s.seqtypid, NULL), ' by ', s.seqincrement, CASE WHEN s.seqcycle THEN ' cycle' END,
        (SELECT ' of ' || concat_ws('.', o.nspname, o.relname) FROM pg_depend d JOIN relations o ON o.oid = d.refobjid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1))
FROM relations r JOIN pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT 'trigger', r.nspname, r.relname, t.tgname, concat(pg_get_triggerdef(t.oid), CASE WHEN t.tgenabled <> 'O' THEN ' ' || t.tgenabled::text END)
FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'policy', r.nspname, r.relname, p.polname,
    concat(p.polcmd, p.polpermissive, ' to ',
        (SELECT string_agg(coalesce(a.rolname, 'public'), ',' ORDER BY a.rolname) FROM unnest(p.polroles) o LEFT JOIN pg_roles a ON a.oid = o),
        ' using ' || pg_get_expr(p.polqual, p.polrelid), ' check ' || pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
UNION ALL
SELECT 'function', n.nspname, concat(p.proname, '(', pg_get_function_identity_arguments(p.oid), ')'), NULL,
    CASE WHEN p.prokind IN ('f', 'p') THEN md5(pg_get_functiondef(p.oid)) ELSE p.prokind::text END
FROM pg_proc p JOIN names n ON n.oid = p.pronamespace
WHERE NOT EXISTS (SELECT FROM foreign_to_us f WHERE f.classid = 'pg_proc'::regclass AND f.objid = p.oid)
UNION ALL
SELECT 'type', n.nspname, t.typname, NULL,
    concat(t.typtype, ' ', (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
        CASE WHEN t.typtype = 'd' THEN concat(format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN ' not null' END,
            ' default ' || t.typdefault,
            (SELECT string_agg(' ' || pg_get_constraintdef(c.oid), '' ORDER BY c.conname) FROM pg_constraint c WHERE c.contypid = t.oid)) END)
FROM pg_type t JOIN names n ON n.oid = t.typnamespace
WHERE t.typtype IN ('e', 'd', 'r')
    AND NOT EXISTS (SELECT FROM foreign_to_us f WHERE f.classid = 'pg_type'::regclass AND f.objid = t.oid)
UNION ALL
SELECT 'extension', extname, NULL, NULL, '' FROM pg_extension";

pub(super) fn schema(rows: Rows) -> Schema {
    let part = |row: Vec<Option<String>>| {
        let mut row = row.into_iter();
        let kind = row.next().flatten()?;
        let mut rest: Vec<Option<String>> = row.collect();
        let is = rest.pop().flatten().unwrap_or_default();
        Some((Part { kind, path: rest.into_iter().flatten().collect() }, is))
    };
    Schema(rows.into_iter().filter_map(part).collect())
}
