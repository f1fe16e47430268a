//! What systemd says of a unit.
//!
//! Source: systemctl(1), `show`; org.freedesktop.systemd1(5): `InvocationID` is new with each start, `NRestarts` counts the starts
//! that systemd made by itself.

use std::collections::BTreeMap;

use ripcord_config::Mistake;

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result,Type,NRestarts,InvocationID,FragmentPath,DropInPaths,\
     UnitFileState,ExecMainCode,ExecMainStatus,MainPID,NeedDaemonReload";

/// A unit as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    /// Why it ended, where it did.
    pub(crate) result: String,
    pub(crate) oneshot: bool,
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
            oneshot: word("Type") == "oneshot",
            restarts: word("NRestarts").parse().unwrap_or_default(),
            invocation: filled("InvocationID").filter(|id| id.bytes().any(|byte| byte != b'0')),
            fragment: filled("FragmentPath"),
            drop_ins: word("DropInPaths").split_whitespace().map(str::to_owned).collect(),
            enabled: filled("UnitFileState").unwrap_or_else(|| "unknown".to_owned()),
            exit: code.map(|code| (code, word("ExecMainStatus"))),
            pid: word("MainPID").parse().ok().filter(|pid| *pid != 0),
            stale: word("NeedDaemonReload") == "yes",
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

    /// Whether it ran, did what it was for, and ended.
    pub(crate) fn is_done(&self) -> bool {
        self.oneshot && self.active == "inactive" && self.result == "success" && self.exit.is_some()
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
    fn a_unit_that_ran_and_ended_is_done() {
        let ended = [("Type", "oneshot"), ("ActiveState", "inactive"), ("SubState", "dead"), ("ExecMainCode", "1")];
        assert!(with(&ended).is_done());
        assert!(!with(&[&ended[..], &[("Result", "exit-code")]].concat()).is_done());
        assert!(!with(&ended[1..]).is_done(), "a service that ended is gone");
    }
}
