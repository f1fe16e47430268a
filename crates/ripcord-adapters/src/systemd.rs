//! What systemd says of a unit.
//!
//! Source: systemctl(1), `show`; org.freedesktop.systemd1(5): `InvocationID` is new with each start, `NRestarts` counts the starts
//! that systemd made by itself.

use std::collections::BTreeMap;

use ripcord_config::Mistake;

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result,Type,NRestarts,InvocationID,FragmentPath,DropInPaths,\
     UnitFileState,ExecMainCode,ExecMainStatus,MainPID,NeedDaemonReload,RemainAfterExit,KillMode,TasksCurrent";

/// A unit as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    /// Why it ended, where it did.
    pub(crate) result: String,
    /// Whether it ends when it has done what it is for, and stands for nothing afterwards.
    pub(crate) passing: bool,
    pub(crate) restarts: u64,
    /// The present or the last instance.
    pub(crate) invocation: Option<String>,
    /// Where its file is, where it has one.
    pub(crate) fragment: Option<String>,
    pub(crate) drop_ins: Vec<String>,
    /// `enabled`, `disabled`, `static`: whether it starts with the machine.
    pub(crate) enabled: String,
    exit: Option<(String, String)>,
    pub(crate) pid: Option<u32>,
    /// Whether its files were changed since systemd read them.
    pub(crate) stale: bool,
    /// How many processes it has that systemd would have ended with it: with `KillMode=process` or `none` they may outlive it.
    tasks: u64,
}

impl Unit {
    /// The arguments of `systemctl` that ask for what [`Unit::read`] reads.
    pub(crate) fn question(unit: &str) -> [&str; 5] {
        ["show", "--no-pager", PROPERTIES, "--", unit]
    }

    /// Reads what `systemctl show` prints; none where it does not say what the unit's state is.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let found: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let word = |name: &str| found.get(name).map(|word| word.trim().to_owned()).unwrap_or_default();
        let filled = |name: &str| Some(word(name)).filter(|word| !word.is_empty());
        // The code is a number of wait(2): 1 is an exit, 2 and 3 are signals.
        let code = filled("ExecMainCode").filter(|code| code != "0");
        Some(Self {
            load: filled("LoadState")?,
            active: filled("ActiveState")?,
            sub: word("SubState"),
            result: word("Result"),
            passing: word("Type") == "oneshot" && word("RemainAfterExit") != "yes",
            restarts: word("NRestarts").parse().unwrap_or_default(),
            invocation: filled("InvocationID").filter(|id| id.bytes().any(|byte| byte != b'0')),
            fragment: filled("FragmentPath"),
            drop_ins: word("DropInPaths").split_whitespace().map(str::to_owned).collect(),
            enabled: filled("UnitFileState").unwrap_or_else(|| "unknown".to_owned()),
            exit: code.map(|code| (code, word("ExecMainStatus"))),
            pid: word("MainPID").parse().ok().filter(|pid| *pid != 0),
            stale: word("NeedDaemonReload") == "yes",
            // It says `[not set]` where nobody counts them.
            tasks: match word("KillMode").as_str() {
                "process" | "none" => 0,
                _ => word("TasksCurrent").parse().ok().filter(|tasks| *tasks != u64::MAX).unwrap_or_default(),
            },
        })
    }

    pub(crate) fn is_there(&self) -> bool {
        !matches!(self.load.as_str(), "not-found" | "bad-setting" | "error")
    }

    /// Whether there is something to stop: also what is on its way up, or waits to be started again.
    pub(crate) fn is_up(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed")
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing")
    }

    /// How many of its processes live on although it was stopped: systemd stops asking when they were not to be killed, or cannot be.
    pub(crate) fn left_behind(&self) -> u64 {
        if self.is_up() { 0 } else { self.tasks }
    }

    /// Whether systemd does not start it again by itself any more, after it did so as often as it may.
    ///
    /// The result does not tell: it stays the one of the first failure, `exit-code`, and is `start-limit-hit` only where a start by
    /// hand was refused.
    pub(crate) fn is_given_up(&self) -> bool {
        self.active == "failed" && (self.restarts > 0 || self.result == "start-limit-hit")
    }

    /// Whether it failed of late, so that systemd may refuse to start it whatever it has become since.
    pub(crate) fn has_used_tries(&self) -> bool {
        self.active == "failed" || self.restarts > 0 || self.is_up() && !self.is_active()
    }

    /// The running instance.
    pub(crate) fn instance(&self) -> Option<&String> {
        self.invocation.as_ref().filter(|_| self.is_up())
    }

    /// The state as people know it from `systemctl status`.
    pub(crate) fn words(&self) -> String {
        let mut words = format!("{} ({})", self.active, self.sub);
        if !matches!(self.result.as_str(), "" | "success") {
            words.push_str(&format!(", {}", self.result));
        }
        if !self.is_active()
            && let Some((code, status)) = &self.exit
        {
            let how = if code == "1" { "exit code" } else { "signal" };
            words.push_str(&format!(", its process ended with {how} {status}"));
        }
        if self.is_given_up() && self.restarts > 0 {
            words.push_str(&format!(", given up after {} restarts", self.restarts));
        }
        match self.left_behind() {
            0 => {}
            1 => words.push_str(", and 1 of its processes still runs"),
            n => words.push_str(&format!(", and {n} of its processes still run")),
        }
        words
    }
}

/// What is wrong with a unit's name, where something is. Source: systemd.unit(5).
pub(crate) fn unit_mistake(unit: &str, field: &str) -> Option<Mistake> {
    const KINDS: [&str; 8] = ["service", "socket", "target", "timer", "path", "mount", "slice", "scope"];
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let good = !unit.starts_with(['-', '.'])
        && unit.chars().all(plain)
        && unit.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && KINDS.contains(&kind));
    (!good).then(|| {
        Mistake::new(format!("`{unit}` is no unit of systemd")).at(field).help("write its full name: `shop.service`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: &str = "Type=simple\nResult=success\nNRestarts=0\nMainPID=412\nExecMainCode=0\nExecMainStatus=0\n\
        LoadState=loaded\nActiveState=active\nSubState=running\nFragmentPath=/etc/systemd/system/shop.service\n\
        DropInPaths=/etc/systemd/system/shop.service.d/10-a.conf /etc/systemd/system/shop.service.d/b.conf\n\
        UnitFileState=enabled\nInvocationID=5d1f0c8de33f4b6d9c0a6fd83a0d0001\nNeedDaemonReload=no\n";

    fn with(changes: &[(&str, &str)]) -> Unit {
        let mut text = ACTIVE.to_owned();
        for (name, value) in changes {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}="))).unwrap().to_owned();
            text = text.replace(&format!("{line}\n"), &format!("{name}={value}\n"));
        }
        Unit::read(&text).unwrap()
    }

    #[test]
    fn a_unit_is_read_as_systemd_shows_it() {
        let unit = with(&[]);
        assert!(unit.is_active() && unit.is_up() && unit.is_there() && !unit.stale);
        assert_eq!((unit.drop_ins.len(), unit.pid, unit.enabled.as_str()), (2, Some(412), "enabled"));
        assert_eq!(unit.instance().unwrap(), "5d1f0c8de33f4b6d9c0a6fd83a0d0001");
        assert_eq!(unit.words(), "active (running)");
        assert_eq!(Unit::read(""), None);
    }

    #[test]
    fn what_waits_to_be_started_again_is_up_and_not_active() {
        let crashed = [("ActiveState", "activating"), ("SubState", "auto-restart"), ("Result", "exit-code")];
        let unit = with(&[&crashed[..], &[("ExecMainCode", "1"), ("ExecMainStatus", "3")]].concat());
        assert!(unit.is_up() && !unit.is_active());
        assert_eq!(unit.words(), "activating (auto-restart), exit-code, its process ended with exit code 3");
    }

    #[test]
    fn a_unit_nobody_knows_is_no_stopped_one() {
        let unit = with(&[("LoadState", "not-found"), ("ActiveState", "inactive"), ("InvocationID", "")]);
        assert!(!unit.is_there() && unit.instance().is_none());
        let never = with(&[("ActiveState", "inactive"), ("InvocationID", "00000000000000000000000000000000")]);
        assert_eq!(never.invocation, None, "it never ran");
    }

    #[test]
    fn a_unit_that_was_started_too_often_is_given_up_whatever_its_result() {
        let failed = [("ActiveState", "failed"), ("SubState", "failed"), ("Result", "exit-code"), ("NRestarts", "5")];
        let unit = with(&failed);
        assert!(unit.is_given_up() && unit.has_used_tries());
        assert_eq!(unit.words(), "failed (failed), exit-code, given up after 5 restarts");
        assert!(!with(&failed[..3]).is_given_up(), "it was not started again at all");
        assert!(!with(&[]).has_used_tries());
    }

    #[test]
    fn processes_that_outlive_their_unit_are_told_where_they_should_not() {
        let more = |words: &str| Unit::read(&format!("{ACTIVE}{words}")).unwrap();
        assert_eq!(more("TasksCurrent=2\n").left_behind(), 0, "it runs");
        let stopped = "ActiveState=failed\nTasksCurrent=2\nKillMode";
        assert_eq!(more(&format!("{stopped}=control-group\n")).left_behind(), 2);
        assert!(more(&format!("{stopped}=control-group\n")).words().ends_with("and 2 of its processes still run"));
        assert_eq!(more(&format!("{stopped}=process\n")).left_behind(), 0, "so it is meant");
        assert_eq!(more("ActiveState=inactive\nTasksCurrent=[not set]\n").left_behind(), 0);
        assert_eq!(more("ActiveState=inactive\nTasksCurrent=18446744073709551615\n").left_behind(), 0);
    }

    #[test]
    fn a_unit_that_only_passes_is_known() {
        let more = |words: &str| Unit::read(&format!("{ACTIVE}{words}")).unwrap().passing;
        assert!(more("Type=oneshot\nRemainAfterExit=no\n"));
        assert!(!more("Type=oneshot\nRemainAfterExit=yes\n") && !more(""));
    }
}
