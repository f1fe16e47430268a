//! A PostgreSQL server of the tests' own: on a socket in a directory of its own, as the user `postgres`, gone with who started it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Nowhere but in the server's own store may it be found.
pub const PASSWORD: &str = "canary-pg-4711-geheim";
pub const PORT: u16 = 54329;

pub struct Server {
    pub dir: PathBuf,
    /// Ends the server and removes its directory once its standard input is closed, however that comes about.
    keeper: Child,
}

pub fn bin() -> PathBuf {
    let list = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed");
    let mut found: Vec<PathBuf> = list.flatten().map(|entry| entry.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    found.pop().expect("there is no initdb of PostgreSQL")
}

/// A program of the server's, as its user; root is refused by it.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stdout));
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// With more settings, made once its data directory is there.
    pub fn start_with(more: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("ripcord-pg-").tempdir().unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        // Before anything else, so that it is cleared away whatever happens.
        let keeper = Command::new("setsid")
            .args(["sh", "-c", "cat >/dev/null; cd /; runuser -u postgres -- \"$2/pg_ctl\" -D \"$1/data\" -m immediate -s stop; rm -rf \"$1\""])
            .arg("keeper")
            .args([&dir, &bin()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { dir, keeper };
        let password = server.dir.join("password");
        fs::write(&password, PASSWORD).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
        for name in ["data", "run"] {
            fs::create_dir(server.dir.join(name)).unwrap();
            must(Command::new("chown").arg("postgres:").arg(server.dir.join(name)));
        }
        let mut initdb = as_postgres(&bin().join("initdb"));
        initdb.arg("-D").arg(server.dir.join("data")).args(["-U", "ripcord", "-A", "scram-sha-256", "-E", "UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--no-sync", "--pwfile"]).arg(&password);
        must(&mut initdb);
        fs::remove_file(&password).unwrap();
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nport = {PORT}\nfsync = off\nmax_connections = 80\n\
             shared_buffers = 32MB\nmax_prepared_transactions = 4\nwal_level = logical\nautovacuum_naptime = 1s\n",
            server.run().display()
        );
        let file = server.dir.join("data/postgresql.conf");
        let settings = format!("{settings}{}", more(&server.dir.join("data")));
        fs::OpenOptions::new().append(true).open(file).unwrap().write_all(settings.as_bytes()).unwrap();
        server.up();
        server
    }

    pub fn up(&self) {
        let mut start = as_postgres(&bin().join("pg_ctl"));
        start.arg("-D").arg(self.dir.join("data")).arg("-l").arg(self.dir.join("data/log")).args(["-w", "-s", "start"]);
        // What it leaves running must not hold our pipes.
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = fs::read_to_string(self.dir.join("data/log")).unwrap_or_default();
        assert!(status.success(), "the server does not start:\n{log}");
    }

    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(bin().join("psql"));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command.env("PGHOST", self.run()).env("PGPORT", PORT.to_string()).env("PGUSER", "ripcord");
        command
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", database)
            .env("PGOPTIONS", "-c client_min_messages=warning");
        command
    }

    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        self.sql_at(PORT, database, sql)
    }

    pub fn sql_at(&self, port: u16, database: &str, sql: &str) -> Result<String, String> {
        let mut command = self.psql(database);
        command.env("PGPORT", port.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end before it has read everything, which its exit code says.
        let _ = child.stdin.take().unwrap().write_all(sql.as_bytes());
        let output = child.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|why| panic!("{database}: {sql}\n{why}"))
    }

    pub fn databases(&self, like: &str) -> Vec<String> {
        let like = like.replace('\'', "''");
        let text = self.sql(
            "postgres",
            &format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{like}') ORDER BY 1"),
        );
        text.lines().map(str::to_owned).collect()
    }

    /// Settings of a component for one of its databases.
    pub fn settings(&self, database: &str) -> String {
        let database = serde_json::to_string(database).unwrap();
        format!(
            "connection:\n  socket: {}\n  port: {PORT}\n  database: {database}\n  user: ripcord\n  password: {{ file: password }}\n",
            self.run().display()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// One server for all tests that leave it as it was, each with a database of its own. It ends with the test's process: then the
/// keeper's input is closed.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}
