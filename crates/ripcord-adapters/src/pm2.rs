//! What pm2 says of an application.
//!
//! Any pm2 command, even `pm2 --version`, starts pm2's daemon where none runs. So the daemon is looked for by its socket first: where
//! nobody answers, nothing runs under it. What `pm2 jlist` prints is one line of JSON, which may come after a banner and remarks that
//! begin with a bracket too; it holds each application's whole environment, and is never kept.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord_config::wire::Text;
use ripcord_core::Failure;
use serde_json::Value;

use crate::BuildCx;
use crate::components::tool::Tool;

/// The longest one question to pm2 may take: it is a program of Node's, and takes its time.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

pub(crate) struct Pm2 {
    pub(crate) tool: Tool,
    pub(crate) home: PathBuf,
    pub(crate) app: String,
}

/// One instance of an application.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) pid: u64,
    /// `online`, `stopped`, `errored`, `launching`, `stopping`, `waiting restart`.
    pub(crate) status: String,
    /// Starts that were not the first, whoever asked for them.
    pub(crate) restarts: u64,
    /// Starts after it ended too soon.
    pub(crate) unstable: u64,
    pub(crate) cluster: bool,
    pub(crate) script: String,
    pub(crate) directory: String,
    pub(crate) version: Option<String>,
    /// When it was started, in milliseconds since 1970.
    pub(crate) since: u64,
    pub(crate) memory_bytes: f64,
    /// Of one processor, in percent.
    pub(crate) cpu_percent: f64,
    pub(crate) logs: Vec<PathBuf>,
    pub(crate) environment: BTreeMap<String, String>,
}

pub(crate) fn program() -> Vec<Text> {
    vec![Text("pm2".to_owned())]
}

impl Pm2 {
    pub(crate) fn new(program: &[Text], home: Option<&Path>, app: &Text, cx: &BuildCx) -> Result<Self, String> {
        let given = home.map(|home| cx.base.join(home)).or_else(|| std::env::var_os("PM2_HOME").map(PathBuf::from));
        let home = given.or_else(|| std::env::home_dir().map(|home| home.join(".pm2")));
        let home = home.ok_or("this user has no home directory: give `home`, which is PM2_HOME")?;
        let tool = Tool::new(program, cx).with("PM2_HOME", home.display().to_string());
        // Colours would stand in what is shown to people.
        Ok(Self {
            tool: tool.with("NO_COLOR", "1").with("PM2_DISABLE_VERSION_CHECK", "true"),
            home,
            app: app.to_string(),
        })
    }

    pub(crate) fn daemon_runs(&self) -> Result<bool, Failure> {
        match UnixStream::connect(self.home.join("rpc.sock")) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(false),
            Err(error) => {
                let what = format!("pm2's daemon in {} cannot be asked: {error}", self.home.display());
                Err(Failure::never(what)
                    .advise("run as the user whose pm2 it is, and see that `home` is that one's PM2_HOME"))
            }
        }
    }

    /// The application's instances; none where no daemon runs.
    pub(crate) async fn processes(&self, limit: Duration) -> Result<Vec<Process>, Failure> {
        self.named(&self.app, limit).await
    }

    /// The instances of any application.
    pub(crate) async fn named(&self, app: &str, limit: Duration) -> Result<Vec<Process>, Failure> {
        if !self.daemon_runs()? {
            return Ok(vec![]);
        }
        let printed = self.tool.whole(&["jlist"], limit.min(ANSWER)).await?;
        let all = read(&String::from_utf8_lossy(&printed))
            .ok_or_else(|| Failure::never("`pm2 jlist` prints no list").advise("see what `pm2 jlist` says there"))?;
        Ok(all.iter().filter_map(|one| Process::read(one, app)).collect())
    }
}

/// The list in what was printed.
fn read(text: &str) -> Option<Vec<Value>> {
    let mut lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('['));
    lines.find_map(|line| {
        let list: Vec<Value> = serde_json::from_str(line).ok()?;
        list.iter().all(Value::is_object).then_some(list)
    })
}

impl Process {
    fn read(one: &Value, app: &str) -> Option<Self> {
        let env = one.get("pm2_env")?;
        if one.get("name").and_then(Value::as_str) != Some(app) {
            return None;
        }
        let text = |name: &str| env.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| env.get(name).and_then(Value::as_u64).unwrap_or_default();
        let monit = |name: &str| one.pointer(&format!("/monit/{name}")).and_then(Value::as_f64).unwrap_or_default();
        let words = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        // A variable stands among pm2's own attributes too, and after some ways of starting only there.
        let inner = env.get("env").and_then(Value::as_object);
        let all = env.as_object().into_iter().chain(inner).flatten();
        let environment = all.filter_map(|(key, value)| Some((key.clone(), words(value)?)));
        let logs = ["pm_out_log_path", "pm_err_log_path"].map(text).into_iter();
        Some(Self {
            id: one.get("pm_id").and_then(Value::as_u64)?,
            pid: one.get("pid").and_then(Value::as_u64).unwrap_or_default(),
            status: text("status"),
            restarts: number("restart_time"),
            unstable: number("unstable_restarts"),
            cluster: text("exec_mode") == "cluster_mode",
            script: text("pm_exec_path"),
            directory: text("pm_cwd"),
            version: Some(text("version")).filter(|version| !matches!(version.as_str(), "" | "N/A")),
            since: number("pm_uptime"),
            memory_bytes: monit("memory"),
            cpu_percent: monit("cpu"),
            logs: logs.filter(|path| !matches!(path.as_str(), "" | "/dev/null" | "NULL")).map(PathBuf::from).collect(),
            environment: environment.collect(),
        })
    }

    /// Whether there is something to stop: also what is on its way up, or waits to be started again.
    pub(crate) fn is_up(&self) -> bool {
        !matches!(self.status.as_str(), "stopped" | "errored" | "")
    }

    pub(crate) fn is_online(&self) -> bool {
        self.status == "online"
    }

    /// This run of it and no other.
    pub(crate) fn instance(&self) -> String {
        format!("{}:{}:{}", self.id, self.pid, self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_found_behind_banner_and_remarks() {
        let list = r#"[{"name":"shop","pm_id":0,"pid":7,"pm2_env":{"status":"online"}}]"#;
        for before in [
            "",
            "\n                        -------------\n\n__/\\\\\\\\___/\\\\___\n                 Runtime Edition\n\n",
            "[PM2] Spawning PM2 daemon with pm2_home=/srv/.pm2\n[PM2] PM2 Successfully daemonized\n",
            ">>>> In-memory PM2 is out-of-date, do:\n>>>> $ pm2 update\nIn memory PM2 version: 5.4.0\n",
            "[]x\n[1]\n",
        ] {
            let found = read(&format!("{before}{list}\n")).unwrap_or_else(|| panic!("{before}"));
            assert_eq!(Process::read(&found[0], "shop").unwrap().pid, 7);
        }
        assert_eq!(read("[]"), Some(vec![]));
        assert_eq!(read("[PM2][ERROR] no daemon\n"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn an_instance_is_read_as_pm2_lists_it() {
        let list = r#"[{"name":"shop","pm_id":3,"pid":412,"monit":{"memory":50000000,"cpu":12.5},"pm2_env":{"status":"online",
            "restart_time":2,"unstable_restarts":1,"exec_mode":"cluster_mode","pm_exec_path":"/srv/app.js","pm_cwd":"/srv",
            "version":"N/A","KEPT":"here only","MODE":"old","pm_uptime":1795265318175,"pm_out_log_path":"/srv/o.log","pm_err_log_path":"/dev/null",
            "env":{"MODE":"good","PORT":8080,"LIST":["a"]}}},{"name":"other","pm_id":4,"pm2_env":{}}]"#;
        let list: Vec<Value> = serde_json::from_str(list).unwrap();
        let shop: Vec<_> = list.iter().filter_map(|one| Process::read(one, "shop")).collect();
        let [process] = shop.as_slice() else { panic!("{shop:?}") };
        assert_eq!(process.instance(), "3:412:1795265318175");
        assert!(process.is_online() && process.cluster && process.version.is_none());
        assert_eq!((process.restarts, process.unstable, process.cpu_percent), (2, 1, 12.5));
        assert_eq!(process.logs, [PathBuf::from("/srv/o.log")]);
        assert_eq!((process.environment["PORT"].as_str(), process.environment["KEPT"].as_str()), ("8080", "here only"));
        assert!(!process.environment.contains_key("LIST"));
    }
}
