//! PostgreSQL databases on a real server: used by others while they are captured and restored.

pub mod faults; // kills, damage, and who may not
pub mod server;
mod whole; // what is equal afterwards, and what is accounted for

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use self::server::{PASSWORD, Server, shared};
use crate::contract::{Rig, Site};

static COUNT: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The database whose settings were asked for last; they come before the site that it is made for.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn fresh(stem: &str) -> String {
    format!("{stem} {}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The database a site is about.
fn name(site: &Path) -> String {
    fs::read_to_string(site.join("name")).unwrap()
}

fn found(site: &Path, name: &str) {
    fs::write(site.join("name"), name).unwrap();
    fs::write(site.join("password"), PASSWORD).unwrap();
    fs::set_permissions(site.join("password"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Everything in a database, as its user sees it.
pub fn content(server: &Server, database: &str) -> String {
    let sql = r#"SELECT format('SELECT %L, count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM %I.%I t', n.nspname || '.' || relname, n.nspname, relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1 \gexec"#;
    match server.try_sql(database, sql) {
        Ok(text) => text,
        Err(why) if why.contains("does not exist") => "absent".to_owned(),
        Err(why) => panic!("{database}: {why}"),
    }
}

const GOOD: &str = "
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL, cents int CHECK (cents >= 0),
        net numeric GENERATED ALWAYS AS (cents / 1.19) STORED);
    CREATE TABLE big (n int PRIMARY KEY, text text);
    CREATE INDEX by_what ON orders (what);
    INSERT INTO orders (what, cents) SELECT 'good ' || n, n FROM generate_series(1, 10) n;
    INSERT INTO big SELECT n, (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 130) m) FROM generate_series(1, 60) n;";

pub const BAD: &str = "
    CREATE TABLE IF NOT EXISTS added (x int);
    DELETE FROM orders WHERE id > 8; UPDATE orders SET cents = 666 WHERE id = 1;
    INSERT INTO orders (id, what, cents) OVERRIDING SYSTEM VALUE VALUES (100, 'bad', 1), (101, 'bad', 2);
    DELETE FROM added; INSERT INTO added VALUES (1);";

fn make(server: &Server, database: &str) {
    server.sql("postgres", &format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\"")));
    server.sql(database, GOOD);
}

pub struct Database;

impl Rig for Database {
    const KIND: &'static str = "postgres";

    fn settings() -> String {
        let name = fresh("shop");
        LAST.set(Some(name.clone()));
        shared().settings(&name)
    }
    fn good(site: &Path) {
        let name = LAST.take().unwrap();
        found(site, &name);
        make(shared(), &name);
    }
    fn bad(site: &Path) {
        shared().sql(&name(site), BAD);
    }
    fn edit(site: &Path) {
        shared().sql(&name(site), "DELETE FROM orders");
    }
    fn content(site: &Path) -> String {
        content(shared(), &name(site))
    }
}

/// A site about a new database of `server`, with a name made from `stem`.
pub fn site(server: &Server, stem: &str) -> (Site, String) {
    let name = fresh(stem);
    (site_named(server, &name), name)
}

fn site_named(server: &Server, name: &str) -> Site {
    let site = Site::new("postgres", server.settings(name));
    found(&site.path(), name);
    make(server, name);
    site
}
