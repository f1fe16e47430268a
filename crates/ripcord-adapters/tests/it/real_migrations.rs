//! Migrations by the real tools on a real PostgreSQL: Alembic and Django from the package index, in one environment for all tests;
//! golang-migrate's and sqlx's tables as those tools keep them.

mod others;
mod projects;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ripcord_core::{Available, CaptureId, Cx, Destroys, Draft, Holds, Made, Outcome, Retry, Seen, Step, StepId};

use self::projects::{ALEMBIC, DJANGO_SETTINGS, MANAGE};
use crate::contract::{Site, before, restore_step, run_cx};
use crate::migrations::{as_step, drafts, failed, not_released, released, survey, wanted};
use crate::real_postgres::server::{PASSWORD, PORT, Server, shared};
use crate::support::proof;

/// An environment with the tools, made once for a run of the tests.
fn venv() -> &'static Path {
    static VENV: OnceLock<(PathBuf, tempfile::TempDir)> = OnceLock::new();
    let (path, _) = VENV.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("venv");
        run(Command::new("python3").args(["-m", "venv"]).arg(&path));
        let packages = ["alembic==1.20.1", "django==5.2.19", "psycopg[binary]==3.3.9"];
        run(Command::new(path.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
            .args(packages));
        (path, dir)
    });
    path
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A project with a database of its own on the server that all share.
struct Project {
    site: Site,
    server: &'static Server,
    database: String,
    kind: &'static str,
}

static COUNT: AtomicU32 = AtomicU32::new(1);

impl Project {
    fn new(kind: &'static str, more: &str) -> Self {
        let server = shared();
        let database = format!("mig_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        let program = match kind {
            "alembic" => format!("program: [{}/bin/alembic]\n", venv().display()),
            "django" => format!("program: [{}/bin/python, manage.py]\n", venv().display()),
            _ => String::new(),
        };
        let environment = match kind {
            "alembic" | "django" => "environment:\n  DATABASE_URL: { file: url }\n",
            _ => "",
        };
        let yaml = format!(
            "tool: {kind}\ndirectory: app\n{program}{environment}database:\n  postgres: {{ socket: {}, port: {PORT}, database: {database}, \
             user: ripcord, password: {{ file: password }} }}\n{more}",
            server.run().display()
        );
        let site = Site::new("migrations", yaml);
        fs::create_dir(site.at("app")).unwrap();
        let project = Self { site, server, database, kind };
        project.secret("password", PASSWORD);
        project.secret("url", &project.url(&project.database));
        match kind {
            "alembic" => ALEMBIC.iter().for_each(|(path, text)| project.write(path, text)),
            "django" => {
                project.write("manage.py", MANAGE);
                project.write("settings.py", DJANGO_SETTINGS);
                project.write("shop/__init__.py", "");
                project.write("shop/migrations/__init__.py", "");
            }
            _ => {}
        }
        project
    }

    fn url(&self, database: &str) -> String {
        let socket = self.server.run().display().to_string().replace('/', "%2F");
        format!("postgresql://ripcord:{PASSWORD}@/{database}?host={socket}&port={PORT}")
    }

    fn secret(&self, name: &str, text: &str) {
        fs::write(self.site.at(name), text).unwrap();
        fs::set_permissions(self.site.at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.site.at("app").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    /// The project's own tool, as its deployment runs it.
    fn tool(&self, arguments: &[&str]) -> String {
        let program = match self.kind {
            "alembic" => venv().join("bin/alembic"),
            _ => venv().join("bin/python"),
        };
        let mut command = Command::new(program);
        command
            .current_dir(self.site.at("app"))
            .env("DATABASE_URL", self.url(&self.database))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        run(command.args(arguments))
    }

    /// One revision of Alembic's.
    fn revision(&self, id: &str, after: &[&str], up: &str, down: &str) {
        let down_revision = match after {
            [] => "None".to_owned(),
            [one] => format!("'{one}'"),
            several => format!("({})", several.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")),
        };
        let body = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let text = format!(
            "\"\"\"change {id}\"\"\"\nfrom alembic import op\nimport sqlalchemy as sa\nrevision = '{id}'\ndown_revision = {down_revision}\n\n\
             def upgrade():\n{}\ndef downgrade():\n{}",
            body(up),
            body(down)
        );
        self.write(&format!("migrations/versions/{id}.py"), &text);
    }

    async fn apply(&self, run: u64, step: &Step) -> Outcome {
        self.apply_with(run, step, &[]).await
    }

    /// With captures that earlier steps of the run made.
    async fn apply_with(&self, run: u64, step: &Step, made: &[(&str, &CaptureId)]) -> Outcome {
        let cx = Cx { limit: std::time::Duration::from_secs(120), ..run_cx(run) };
        let component = self.site.component();
        let mark = component.holds(&cx, step, None).await.mark;
        let mut before = before(run, step, mark);
        before.captures = made.iter().map(|(step, id)| (StepId((*step).to_owned()), (*id).clone())).collect();
        component.apply(&cx, step, &before).await
    }

    async fn proposed(&self, live: &(CaptureId, Made), target: &(CaptureId, Made)) -> Vec<Draft> {
        let asked = [wanted(&live.0, &live.1), wanted(&target.0, &target.1)];
        let seen = survey(&self.site, &asked).await;
        drafts(&self.site, seen, &asked[1]).unwrap()
    }

    async fn carried_out(&self, run: u64, drafts: Vec<Draft>) -> Vec<String> {
        let mut found = vec![];
        for (number, draft) in drafts.into_iter().enumerate() {
            let step = as_step(number, draft);
            found.push(proof(self.apply(run, &step).await).found);
            let held = self.site.component().holds(&run_cx(run), &step, None).await.holds;
            assert_eq!(held, Holds::Target, "{found:?}");
        }
        found
    }

    fn heads(&self) -> String {
        self.sql("SELECT coalesce(string_agg(version_num, '+' ORDER BY version_num), '') FROM alembic_version")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.server.try_sql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database));
    }
}

const ORDERS: (&str, &str) = (
    "op.create_table('orders', sa.Column('id', sa.Integer, primary_key=True), sa.Column('what', sa.Text, nullable=False))",
    "op.drop_table('orders')",
);
const NOTE: (&str, &str) = ("op.add_column('orders', sa.Column('note', sa.Text))", "op.drop_column('orders', 'note')");
const QTY: (&str, &str) = (
    "op.add_column('orders', sa.Column('qty', sa.Integer, nullable=False, server_default='1'))\nop.alter_column('orders', 'qty', server_default=None)",
    "op.drop_column('orders', 'qty')",
);
const TAGS: (&str, &str) =
    ("op.create_table('tags', sa.Column('tag', sa.Text, primary_key=True))", "op.drop_table('tags')");
const NOTHING: (&str, &str) = ("pass", "pass");

/// A project of Alembic's at its first release, captured; `more` are settings.
async fn alembic(more: &str) -> (Project, (CaptureId, Made)) {
    let project = Project::new("alembic", more);
    project.revision("a1", &[], ORDERS.0, ORDERS.1);
    project.tool(&["upgrade", "heads"]);
    project.sql("INSERT INTO orders VALUES (1, 'tea'), (2, 'milk')");
    let good = project.site.capture(1).await;
    (project, good)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf22_alembic_goes_down_over_no_one_or_three_migrations() {
    for bad in [0, 1, 3] {
        let (project, good) = alembic("when-rolled-back: down").await;
        let all = [("b2", "a1", NOTE), ("c3", "b2", QTY), ("d4", "c3", TAGS)];
        for (id, after, (up, down)) in &all[..bad] {
            project.revision(id, &[after], up, down);
        }
        project.tool(&["upgrade", "heads"]);
        project.sql("UPDATE orders SET what = 'coffee' WHERE id = 1");
        let live = project.site.capture(2).await;
        let asked = [wanted(&live.0, &live.1), wanted(&good.0, &good.1)];
        let losses = survey(&project.site, &asked).await.losses;
        let proposed = project.proposed(&live, &good).await;
        assert_eq!(proposed.len(), if bad == 0 { 0 } else { bad + 1 });
        // The code went back first: nobody on the disk knows the way any more.
        fs::remove_dir_all(project.site.at("app/migrations/versions")).unwrap();
        let found = project.carried_out(3, proposed).await;
        assert_eq!(project.heads(), "a1", "{found:?}");
        assert_eq!(project.sql("SELECT string_agg(what, ',' ORDER BY id) FROM orders"), "coffee,milk", "rows stay");
        assert_eq!(project.site.seen().await, Seen::At(good.1.revision.clone()));
        // Only the column that every row has a value for gives anything up.
        assert_eq!(losses.len(), usize::from(bad == 3));
        if bad == 3 {
            assert_eq!(losses[0].1.rows["part.public.orders.qty"].deleted, 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf22_alembic_branches_and_a_merge_are_taken_apart() {
    let (project, good) = alembic("when-rolled-back: down").await;
    project.revision("b2", &["a1"], NOTE.0, NOTE.1);
    project.tool(&["upgrade", "heads"]);
    let left = project.site.capture(2).await;
    project.revision("c3", &["a1"], TAGS.0, TAGS.1);
    project.revision("m4", &["b2", "c3"], NOTHING.0, NOTHING.1);
    project.tool(&["upgrade", "heads"]);
    let merged = project.site.capture(3).await;
    // To one of the branches, from there to before both, and all the way up again.
    for (run, (from, to), heads) in [
        (4, (&merged, &left), "b2"),
        (5, (&left, &good), "a1"),
        (6, (&good, &merged), "m4"),
        (7, (&merged, &good), "a1"),
    ] {
        let proposed = project.proposed(from, to).await;
        let found = project.carried_out(run, proposed).await;
        assert_eq!(project.heads(), heads, "{found:?}");
        assert_eq!(project.site.seen().await, Seen::At(to.1.revision.clone()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf22_an_empty_or_refusing_downgrade_is_no_way_back() {
    for (id, (up, down), why) in [
        ("b2", (QTY.0, "\"\"\"to do\"\"\"\npass"), "its way down is empty"),
        (
            "b3",
            (QTY.0, "raise NotImplementedError('no way back')"),
            "its way down refuses: raise NotImplementedError('no way back')",
        ),
        (
            "b4",
            ("op.drop_column('orders', 'what')", "op.add_column('orders', sa.Column('what', sa.Text))"),
            "comes back from a restore point only: drops column orders.what",
        ),
    ] {
        let (project, good) = alembic("").await;
        project.revision(id, &["a1"], up, down);
        project.tool(&["upgrade", "heads"]);
        let live = project.site.capture(2).await;
        let asked = [wanted(&live.0, &live.1), wanted(&good.0, &good.1)];
        let seen = survey(&project.site, &asked).await;
        let Some(Available::Missing { why: said }) = seen.available(&good.1.revision) else { panic!("{seen:?}") };
        assert!(said.contains(why) && said.contains("fix forward"), "{said}");
        let refused =
            failed(project.apply_with(3, &restore_step(&good.0, &good.1), &[("capture/part", &live.0)]).await);
        assert!(refused.contains(why), "{refused}");
        assert_eq!(project.heads(), id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compatible_schema_serves_and_stays() {
    let (project, good) = alembic("").await;
    project.revision("b2", &["a1"], NOTE.0, "pass");
    project.tool(&["upgrade", "heads"]);
    let live = project.site.capture(2).await;
    let asked = [wanted(&live.0, &live.1), wanted(&good.0, &good.1)];
    let seen = survey(&project.site, &asked).await;
    assert_eq!(seen.serves(&good.1.revision), Some("`b2` (change b2): it only adds or loosens: column orders.note"));
    assert_eq!(drafts(&project.site, seen, &asked[1]).unwrap(), []);
    // The code of before runs on it.
    project.sql("INSERT INTO orders VALUES (3, 'sugar')");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf22_a_filled_column_goes_only_with_consent() {
    let (project, good) = alembic("").await;
    project.revision("b2", &["a1"], QTY.0, QTY.1);
    project.tool(&["upgrade", "heads"]);
    let live = project.site.capture(2).await;
    let here: [(&str, &CaptureId); 1] = [("capture/part", &live.0)];
    let refused = failed(project.apply_with(3, &restore_step(&good.0, &good.1), &here).await);
    assert!(refused.contains("what nobody consented to: 2 values of part.public.orders.qty"), "{refused}");
    assert_eq!(project.heads(), "b2");
    let proposed = project.proposed(&live, &good).await;
    assert_eq!(proposed[0].destroys, Destroys::GivesUp);
    assert_eq!(proposed[0].shown.commands[0][1..], ["downgrade", "b2@a1"]);
    project.carried_out(4, proposed).await;
    assert_eq!(project.heads(), "a1");
    let aside = std::fs::read_dir(project.site.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains("/part.salvage-")).unwrap();
    let written = std::fs::read_to_string(aside.join("public.orders.qty.csv")).unwrap();
    assert!(written.starts_with("\"id\",\"qty\"") && written.lines().count() == 3, "{written}");
    // As one step that gives up, which is what consent makes of it.
    let up = project.proposed(&good, &live).await;
    project.carried_out(5, up).await;
    let consented = Step { destroys: Destroys::GivesUp, ..restore_step(&good.0, &good.1) };
    proof(project.apply_with(6, &consented, &here).await);
    assert_eq!(project.heads(), "a1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf22_an_old_database_is_not_stamped_but_upgraded() {
    let (project, _) = alembic("").await;
    project.revision("b2", &["a1"], NOTE.0, NOTE.1);
    project.tool(&["upgrade", "heads"]);
    let live = project.site.capture(2).await;
    // Restored from before, and its record set to the newest, as a runbook would.
    project.sql("ALTER TABLE orders DROP COLUMN note");
    let seen = survey(&project.site, &[wanted(&live.0, &live.1)]).await;
    assert!(
        matches!(&seen.seen, Seen::Between { why } if why.contains("column public.orders.note is missing")),
        "{:?}",
        seen.seen
    );
    let refused = failed(project.apply(3, &restore_step(&live.0, &live.1)).await);
    assert!(refused.contains("nothing was stamped"), "{refused}");
    // With its own record it is simply older.
    project.sql("UPDATE alembic_version SET version_num = 'a1'");
    proof(project.apply(4, &restore_step(&live.0, &live.1)).await);
    assert_eq!(project.heads(), "b2");
    assert_eq!(project.site.seen().await, Seen::At(live.1.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_held_by_another_session_is_named_in_time() {
    let (project, good) = alembic("when-rolled-back: down\nlock-timeout: 300ms").await;
    project.revision("b2", &["a1"], NOTE.0, NOTE.1);
    project.tool(&["upgrade", "heads"]);
    let live = project.site.capture(2).await;
    let proposed = project.proposed(&live, &good).await;
    // A writer that does not end; then one that does not even let the schema be looked at.
    for mode in ["ROW EXCLUSIVE", "ACCESS EXCLUSIVE"] {
        let mut holder = Command::new("psql")
            .args([
                "-XAtq",
                "-c",
                &format!("BEGIN; LOCK TABLE orders IN {mode} MODE; SELECT 'held'; SELECT pg_sleep(600)"),
            ])
            .env("PGHOST", project.server.run())
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", "ripcord")
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", &project.database)
            .env("PGAPPNAME", "night-job")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let held = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'orders'::regclass AND granted";
        crate::real_daemon::wait("the lock", || project.sql(held) == "t");
        let (step, before) = (as_step(0, proposed[0].clone()), before(3, &as_step(0, proposed[0].clone()), None));
        let outcome = project.site.component().apply(&run_cx(3), &step, &before).await;
        project.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'night-job'");
        holder.wait().unwrap();
        let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.retry, Retry::Later, "{failure:?}");
        assert!(
            failure.what.contains("a lock was not had within 300 ms") && failure.what.contains("night-job"),
            "{}",
            failure.what
        );
    }
    assert_eq!(project.heads(), "b2", "nothing of it was done");
    project.carried_out(3, proposed).await;
    assert_eq!(project.heads(), "a1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_violate_what_comes_back_are_named_by_key() {
    let (project, _) = alembic("").await;
    project.revision(
        "b2",
        &["a1"],
        "op.create_check_constraint('sane', 'orders', \"length(what) < 10\")",
        "op.drop_constraint('sane', 'orders')",
    );
    project.tool(&["upgrade", "heads"]);
    let strict = project.site.capture(2).await;
    project.revision(
        "c3",
        &["b2"],
        "op.drop_constraint('sane', 'orders')\nop.execute('UPDATE orders SET what = what')",
        "op.create_check_constraint('sane', 'orders', \"length(what) < 10\")",
    );
    project.tool(&["upgrade", "heads"]);
    let live = project.site.capture(3).await;
    project.sql("INSERT INTO orders VALUES (40, 'canary-very-long'), (41, 'canary-very-long too')");
    let proposed = project.proposed(&live, &strict).await;
    let refused = failed(project.apply(4, &as_step(0, proposed[0].clone())).await);
    assert!(refused.contains("2 rows of public.orders violate sane: id 40, 41"), "{refused}");
    assert!(!refused.contains("canary") && !refused.contains(PASSWORD), "{refused}");
    assert_eq!(project.heads(), "c3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_migrations_is_gone_on_from() {
    let (project, good) = alembic("when-rolled-back: down").await;
    for (id, after, (up, down)) in [("b2", "a1", NOTE), ("c3", "b2", TAGS)] {
        project.revision(id, &[after], up, down);
    }
    project.tool(&["upgrade", "heads"]);
    let live = project.site.capture(2).await;
    let proposed = project.proposed(&live, &good).await;
    let steps: Vec<Step> = proposed.into_iter().enumerate().map(|(number, draft)| as_step(number, draft)).collect();
    // Killed before and after the tool did it: what the database says decides, whatever the journal missed.
    for at in [1, 2] {
        let killed =
            project.site.in_child(3, &steps[0], &crate::contract::Child { kill_at: Some(at), ..Default::default() });
        assert!(killed.is_none());
        let held = project.site.component().holds(&run_cx(3), &steps[0], None).await.holds;
        let (expected, heads) = if at == 1 { (Holds::Origin, "c3") } else { (Holds::Target, "b2") };
        assert_eq!((held, project.heads().as_str()), (expected, heads));
    }
    for step in &steps {
        proof(project.apply(3, step).await);
    }
    assert_eq!(project.heads(), "a1");
    // A step whose beginning is long past is done, and never done again on what is there now.
    let refused = failed(project.apply(4, &steps[0]).await);
    assert!(refused.contains("not where this step begins"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_on_a_copy_is_evidence_and_never_touches_the_live_database() {
    let server = shared();
    let copy = format!("mig_copy_{}", std::process::id());
    let rehearse = format!(
        "when-rolled-back: down\nrehearse:\n  environment:\n    DATABASE_URL: {{ file: copy-url }}\n  database:\n    postgres: {{ socket: {}, port: {PORT}, \
         database: {copy}, user: ripcord, password: {{ file: password }} }}",
        server.run().display()
    );
    let project = Project::new("alembic", &rehearse);
    project.secret("copy-url", &project.url(&copy));
    project.revision("a1", &[], ORDERS.0, ORDERS.1);
    project.revision("b2", &["a1"], QTY.0, QTY.1);
    // Its way down does something, and not what is needed.
    project.revision("c3", &["b2"], TAGS.0, "op.drop_column('orders', 'qty')");
    project.tool(&["upgrade", "b2"]);
    project.sql("INSERT INTO orders VALUES (1, 'tea', 3)");
    let good = project.site.capture(1).await;
    let label = good.1.label.clone();
    assert_eq!(label.as_deref(), Some("at b2"));
    project.tool(&["upgrade", "heads"]);
    let before = project.sql("SELECT md5(string_agg(t::text, '')) FROM orders t");
    let (id, made, found) = released(&project.site, 2).await;
    assert!(found.contains("0 of 3 rehearsed on a copy"), "{found}");
    let live = (id, made);
    assert_eq!(project.heads(), "c3");
    assert_eq!(project.sql("SELECT md5(string_agg(t::text, '')) FROM orders t"), before);
    assert_eq!(server.databases(&copy), Vec::<String>::new(), "the copy is taken away");
    let asked = [wanted(&live.0, &live.1), wanted(&good.0, &good.1)];
    let seen = survey(&project.site, &asked).await;
    let Some(Available::Missing { why }) = seen.available(&good.1.revision) else { panic!("{seen:?}") };
    assert!(why.contains("its rehearsal failed"), "{why}");
    // A tool that would have gone to the live database is found out before it is told to do anything.
    project.secret("copy-url", &project.url(&project.database));
    let refused = not_released(&project.site, 4).await;
    assert!(refused.contains("does not work on the copy, but on another database"), "{refused}");
    assert_eq!(project.heads(), "c3");
    // And where the way down is right, it is known to be.
    project.secret("copy-url", &project.url(&copy));
    project.revision("c3", &["b2"], TAGS.0, TAGS.1);
    let (id, made, _) = released(&project.site, 5).await;
    let live = (id, made);
    let asked = [wanted(&live.0, &live.1), wanted(&good.0, &good.1)];
    let seen = survey(&project.site, &asked).await;
    let words = seen.facts.iter().find(|(name, _)| name.ends_with(": c3")).unwrap().1;
    assert!(words.contains("back: down-tested, rehearsed on a copy with its rows"), "{words}");
    // A rollback leaves a schema that serves ahead of its files. The next release is captured all the same: there is nothing of these
    // files to go down by.
    std::fs::remove_file(project.site.at("app/migrations/versions/c3.py")).unwrap();
    let (_, _, found) = released(&project.site, 6).await;
    assert!(found.contains("nothing can be rehearsed: they do not know `c3`"), "{found}");
}
