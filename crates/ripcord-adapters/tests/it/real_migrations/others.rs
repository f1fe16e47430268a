//! Django by its own program, and files of SQL with the tables of golang-migrate and sqlx.

use std::fs;

use ripcord_core::{Available, Holds, Seen, Step};

use super::Project;
use crate::contract::{Child, restore_step, run_cx};
use crate::migrations::{as_step, failed, survey, wanted};
use crate::support::proof;

const SHOP: &str = "\
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [migrations.CreateModel('Order', [('id', models.BigAutoField(primary_key=True)), ('what', models.TextField())])]
";

fn migration(after: &str, operations: &str) -> String {
    format!(
        "from django.db import migrations, models\ndef fill(apps, editor):\n    apps.get_model('shop', 'Order').objects.update(what='x')\n\n\
         class Migration(migrations.Migration):\n    dependencies = [('shop', '{after}')]\n    operations = [{operations}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf22_django_goes_down_and_up_again_and_a_noop_reverse_is_a_lie() {
    let project = Project::new("django", "when-rolled-back: down");
    project.write("shop/migrations/0001_initial.py", SHOP);
    let migrate = || project.tool(&["manage.py", "migrate", "--no-input"]);
    migrate();
    let good = project.site.capture(1).await;
    project.write(
        "shop/migrations/0002_note.py",
        &migration("0001_initial", "migrations.AddField('Order', 'note', models.TextField(null=True))"),
    );
    project.write(
        "shop/migrations/0003_tag.py",
        &migration("0002_note", "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True))])"),
    );
    migrate();
    let live = project.site.capture(2).await;
    let names = || project.sql("SELECT string_agg(name, ',' ORDER BY name) FROM django_migrations WHERE app = 'shop'");
    let proposed = project.proposed(&live, &good).await;
    assert_eq!(proposed[0].shown.commands[0][1..], ["manage.py", "migrate", "shop", "0002_note", "--no-input"]);
    fs::remove_file(project.site.at("app/shop/migrations/0002_note.py")).unwrap();
    fs::remove_file(project.site.at("app/shop/migrations/0003_tag.py")).unwrap();
    project.carried_out(3, proposed).await;
    assert_eq!(names(), "0001_initial");
    assert_eq!(project.site.seen().await, Seen::At(good.1.revision.clone()));
    let proposed = project.proposed(&good, &live).await;
    project.carried_out(4, proposed).await;
    assert_eq!(names(), "0001_initial,0002_note,0003_tag");

    for (reverse, why) in [
        ("migrations.RunPython(fill)", "its way down refuses: RunPython without reverse_code"),
        (
            "migrations.RunPython(fill, migrations.RunPython.noop)",
            "its way down is a no-op, which undoes nothing: RunPython with a reverse that does nothing",
        ),
    ] {
        project.write(
            "shop/migrations/0002_note.py",
            &migration("0001_initial", "migrations.AddField('Order', 'note', models.TextField(null=True))"),
        );
        project.write(
            "shop/migrations/0003_tag.py",
            &migration("0002_note", "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True))])"),
        );
        project.write("shop/migrations/0004_fill.py", &migration("0003_tag", reverse));
        migrate();
        let now = project.site.capture(5).await;
        let asked = [wanted(&now.0, &now.1), wanted(&live.0, &live.1)];
        let seen = survey(&project.site, &asked).await;
        let Some(Available::Missing { why: said }) = seen.available(&live.1.revision) else { panic!("{seen:?}") };
        assert!(said.contains(why), "{said}");
    }
}

const UP: [(&str, &str, &str); 4] = [
    ("1_init", "CREATE TABLE orders (id int PRIMARY KEY, what text)", "DROP TABLE orders"),
    ("2_note", "ALTER TABLE orders ADD note text", "ALTER TABLE orders DROP note"),
    ("3_fast", "CREATE INDEX CONCURRENTLY by_what ON orders (what)", "DROP INDEX CONCURRENTLY by_what"),
    (
        "4_strict",
        "BEGIN; ALTER TABLE orders ADD CONSTRAINT filled CHECK (what <> ''); COMMIT",
        "BEGIN; ALTER TABLE orders DROP CONSTRAINT filled; COMMIT",
    ),
];

fn scripts(project: &Project, n: usize) {
    for (name, up, down) in &UP[..n] {
        project.write(&format!("{name}.up.sql"), up);
        project.write(&format!("{name}.down.sql"), down);
        for statement in up.split("; ") {
            project.sql(statement.trim_start_matches("BEGIN").trim_start_matches("COMMIT"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golang_migrate_s_one_row_is_kept_and_a_dirty_one_parks() {
    let project = Project::new("golang-migrate", "when-rolled-back: down");
    project.sql("CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)");
    let row = || project.sql("SELECT string_agg(version || ' ' || dirty, ',') FROM schema_migrations");
    let nothing = project.site.capture(1).await;
    scripts(&project, 4);
    project.sql("INSERT INTO schema_migrations VALUES (4, false)");
    let live = project.site.capture(2).await;
    let proposed = project.proposed(&live, &nothing).await;
    assert_eq!(proposed.len(), 5);
    let steps: Vec<Step> = proposed.into_iter().enumerate().map(|(number, draft)| as_step(number, draft)).collect();
    proof(project.apply(3, &steps[0]).await);
    assert_eq!(row(), "3 false");
    // Killed where golang-migrate has marked it: what became of it nobody knows, and nothing goes on by itself.
    let killed = project.site.in_child(3, &steps[1], &Child { kill_at: Some(3), ..Default::default() });
    assert!(killed.is_none());
    assert_eq!(row(), "2 true");
    let seen = project.site.seen().await;
    assert!(
        matches!(&seen, Seen::Between { why } if why.starts_with("migration 2 was begun and not finished")),
        "{seen:?}"
    );
    let held = project.site.component().holds(&run_cx(3), &steps[1], None).await.holds;
    assert!(matches!(held, Holds::Neither { .. }), "{held:?}");
    for step in [&steps[1], &restore_step(&nothing.0, &nothing.1)] {
        let refused = failed(project.apply(3, step).await);
        assert!(refused.contains("was begun and not finished") && refused.contains("by hand"), "{refused}");
    }
    assert_eq!(row(), "2 true");
    // A person saw to it.
    project.sql("UPDATE schema_migrations SET version = 3, dirty = false");
    for step in &steps[1..] {
        proof(project.apply(3, step).await);
    }
    assert_eq!(row(), "", "as golang-migrate leaves it at its beginning");
    assert_eq!(project.sql("SELECT to_regclass('orders') IS NULL"), "t");
    let up = project.proposed(&nothing, &live).await;
    project.carried_out(4, up).await;
    assert_eq!(row(), "4 false");
    assert_eq!(project.site.seen().await, Seen::At(live.1.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_on_postgresql_by_its_role_s_search_path() {
    let project = Project::new("sqlx", "when-rolled-back: down");
    project.sql(&format!("CREATE SCHEMA shop; ALTER DATABASE {} SET search_path = shop", project.database));
    project.sql(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), \
         success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)",
    );
    scripts(&project, 1);
    let recorded = |n: usize| {
        let (name, up, _) = UP[n - 1];
        let name = name.split_once('_').unwrap().1;
        project.sql(&format!(
            "INSERT INTO _sqlx_migrations VALUES ({n}, '{name}', now(), true, sha384('{}'), 5)",
            up.replace('\'', "''")
        ));
    };
    recorded(1);
    let good = project.site.capture(1).await;
    project.write("2_note.up.sql", UP[1].1);
    project.write("2_note.down.sql", UP[1].2);
    project.sql(UP[1].1);
    recorded(2);
    let live = project.site.capture(2).await;
    let all = || {
        project.sql("SELECT string_agg(concat(version, description, success, checksum), ',' ORDER BY version) FROM _sqlx_migrations")
    };
    let there = all();
    let down = project.proposed(&live, &good).await;
    project.carried_out(3, down).await;
    assert_eq!(project.sql("SELECT count(*) FROM _sqlx_migrations"), "1");
    let up = project.proposed(&good, &live).await;
    project.carried_out(4, up).await;
    assert_eq!(all(), there, "what sqlx itself would have written");
    assert_eq!(
        project.sql("SELECT to_regclass('shop.orders') IS NOT NULL AND to_regclass('public.orders') IS NULL"),
        "t"
    );
}
