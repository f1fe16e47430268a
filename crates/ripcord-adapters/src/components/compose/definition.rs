//! How a container was made, in Compose's words, read from the container itself.
//!
//! The same words are hashed for the revision and given back to Compose for a restore, so that nothing counts which could not be put
//! back, and nothing is put back which did not count. What every container has differently (its name, addresses, the random names
//! of its anonymous volumes) is left out, and so is what the Engine fills in by itself.
//! Not in it: what Compose keeps to itself (`depends_on`, hooks, profiles), and the content of files that are mounted.
//! Source: Compose specification, "Services"; Docker Engine API reference, "Inspect a container".

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit, Mac};
use ripcord_core::{Redactor, Revision, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

/// Labels of ours, which are no part of what a service is.
pub(super) const OUR_LABELS: &str = "dev.ripcord.";
const COMPOSE_LABELS: &str = "com.docker.compose.";
/// What the Engine gives a container that asks for nothing.
const SHARED_MEMORY: i64 = 64 << 20;

/// A service of one container, in the words of a Compose file; networks and volumes by their names in the Engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Definition(BTreeMap<String, Value>);

/// The keys under which a project has its networks and volumes, by their names in the Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys {
    pub(super) networks: BTreeMap<String, String>,
    pub(super) volumes: BTreeMap<String, String>,
}

impl Definition {
    /// Reads it from an inspected container.
    pub(super) fn of(container: &Value) -> Self {
        let (config, host) = (&container["Config"], &container["HostConfig"]);
        let mut words = Words::default();
        words.process(container, config);
        words.limits(host);
        words.rights(host);
        words.surroundings(container, host);
        words.labels(config);
        Self(words.0)
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.get("environment").and_then(Value::as_object).into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = (&str, &Value)> {
        let networks = self.0.get("networks").and_then(Value::as_object).into_iter().flatten();
        networks.map(|(name, value)| (name.as_str(), value))
    }

    /// Volumes that have names.
    pub(super) fn volumes(&self) -> BTreeSet<&str> {
        let mounts = self.0.get("volumes").and_then(Value::as_array).into_iter().flatten();
        mounts.filter(|mount| mount["type"] == "volume").filter_map(|mount| mount["source"].as_str()).collect()
    }

    /// Ports of this machine that it takes, each with the address; not those that the Engine chooses.
    pub(super) fn ports(&self) -> Vec<u16> {
        let ports = self.0.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let tcp = ports.filter_map(|port| port.strip_suffix("/tcp"));
        tcp.filter_map(|port| port.rsplit(':').nth(1)?.parse().ok()).collect()
    }

    /// What a restore could not put back.
    pub(super) fn beyond_compose(&self) -> Option<&'static str> {
        self.0.contains_key("x-device-requests").then_some("devices by request (GPUs)")
    }

    /// Makes values that are secrets by their names known, so that they are in no text of ours.
    pub(super) fn teach(&self, redactor: &Redactor) {
        for (_, value) in self.environment().filter(|(key, value)| is_secret(key, value)) {
            redactor.learn(&Secret::new(value));
        }
    }

    /// A keyed hash: without the key nobody can test a guess of a value against it.
    pub(super) fn hash(&self, key: &[u8; 32]) -> String {
        let text = serde_json::to_vec(&canonical(&json!(self.0))).unwrap_or_default();
        // A key of any length is taken, so this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
        mac.update(&text);
        mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What differs, by name and without values.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let mut names = vec![];
        let keys: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        for key in keys {
            let (a, b) = (self.0.get(key), other.0.get(key));
            match (a.and_then(Value::as_object), b.and_then(Value::as_object)) {
                _ if a == b => {}
                (Some(a), Some(b)) => {
                    let below: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                    let unlike = below.into_iter().filter(|name| a.get(*name) != b.get(*name));
                    names.extend(unlike.map(|name| format!("{key}.{name}")));
                }
                _ => names.push(key.clone()),
            }
        }
        names
    }

    /// A whole Compose file for this service alone, which names no image by a tag and leaves networks and volumes that are there as
    /// they are. `labels` are added.
    pub(super) fn render(
        &self,
        service: &str,
        image: &str,
        keys: &Keys,
        missing_networks: &BTreeSet<String>,
        labels: &BTreeMap<String, String>,
    ) -> Value {
        let mut words: Map<String, Value> = self.0.clone().into_iter().collect();
        words.insert("image".to_owned(), image.into());
        let key_of = |keys: &BTreeMap<String, String>, name: &str| keys.get(name).cloned().unwrap_or(name.to_owned());
        let mut networks = Map::new();
        if let Some(Value::Object(joined)) = words.get_mut("networks") {
            let named = std::mem::take(joined);
            for (name, how) in named {
                let key = key_of(&keys.networks, &name);
                let is = match missing_networks.contains(&name) {
                    true => json!({ "name": name }),
                    false => json!({ "name": name, "external": true }),
                };
                networks.insert(key.clone(), is);
                joined.insert(key, how);
            }
        }
        let mut volumes = Map::new();
        for mount in words.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            if mount["type"] != "volume" {
                continue;
            }
            let Some(name) = mount["source"].as_str().map(str::to_owned) else { continue };
            let key = key_of(&keys.volumes, &name);
            volumes.insert(key.clone(), json!({ "name": name, "external": true }));
            mount["source"] = key.into();
        }
        let all = words.entry("labels").or_insert_with(|| json!({}));
        for (name, value) in labels {
            all[name] = value.as_str().into();
        }
        let mut file = json!({ "services": { service: words } });
        for (name, section) in [("networks", networks), ("volumes", volumes)] {
            if !section.is_empty() {
                file[name] = section.into();
            }
        }
        literal(&mut file);
        file
    }
}

/// The revision of a service: the image that runs, and how it was made to run.
pub(super) fn revision(image: &str, definition: &Definition, key: &[u8; 32]) -> Revision {
    Revision::exact(format!("{image}+{}", definition.hash(key)))
}

/// The two parts of a revision.
pub(super) fn parts(revision: &Revision) -> Option<(&str, &str)> {
    match revision {
        Revision::Exact(id) => id.0.split_once('+'),
        Revision::Absent => None,
    }
}

/// A dollar sign that is meant, not the beginning of a variable.
fn literal(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(literal),
        Value::Object(map) => map.values_mut().for_each(literal),
        _ => {}
    }
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, canonical(value))).collect();
            sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(canonical).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

/// Whether a variable holds a secret: by its name, and of an address only where it names a user.
fn is_secret(key: &str, value: &str) -> bool {
    let key = key.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| key.contains(word));
    value.len() >= 6
        && (has(&["PASS", "SECRET", "TOKEN", "CREDENTIAL", "PRIVATE"])
            || key.ends_with("KEY")
            || (has(&["URL", "URI", "DSN"]) && value.contains('@')))
}

#[derive(Default)]
struct Words(BTreeMap<String, Value>);

impl Words {
    /// Nothing said is nothing meant.
    fn say(&mut self, name: &str, value: Value) {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(true) => false,
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn process(&mut self, container: &Value, config: &Value) {
        // Compose 1.29 tells a Swarm of old so that the new container is to be where the one before it was.
        let told = strings(&config["Env"]).filter(|pair| !pair.starts_with("affinity:container="));
        let pairs = told.filter_map(|pair| pair.split_once('='));
        let environment: Map<_, _> = pairs.map(|(key, value)| (key.to_owned(), value.into())).collect();
        self.say("environment", environment.into());
        self.say("entrypoint", config["Entrypoint"].clone());
        self.say("command", config["Cmd"].clone());
        self.say("working_dir", config["WorkingDir"].clone());
        self.say("user", config["User"].clone());
        let id = container["Id"].as_str().unwrap_or_default();
        if config["Hostname"].as_str().is_some_and(|name| !id.starts_with(name)) {
            self.say("hostname", config["Hostname"].clone());
        }
        self.say("domainname", config["Domainname"].clone());
        self.say("tty", config["Tty"].clone());
        self.say("stdin_open", config["OpenStdin"].clone());
        self.say("stop_signal", config["StopSignal"].clone());
        if let Some(seconds) = config["StopTimeout"].as_i64() {
            self.say("stop_grace_period", format!("{seconds}s").into());
        }
        self.say("healthcheck", health(&config["Healthcheck"]));
        self.say("container_name", own_name(container).into());
    }

    fn limits(&mut self, host: &Value) {
        let number = |name: &str| host[name].as_i64().unwrap_or_default();
        let bytes = |value: i64| if value == 0 { Value::Null } else { format!("{value}b").into() };
        let memory = number("Memory");
        self.say("mem_limit", bytes(memory));
        self.say("mem_reservation", bytes(number("MemoryReservation")));
        // Twice the memory is what the Engine takes by itself.
        if number("MemorySwap") != memory.saturating_mul(2) {
            let swap = number("MemorySwap");
            self.say("memswap_limit", if swap == -1 { (-1).into() } else { bytes(swap) });
        }
        if number("NanoCpus") != 0 {
            self.say("cpus", (number("NanoCpus") as f64 / 1e9).into());
        }
        for (name, of) in [
            ("cpu_shares", "CpuShares"),
            ("cpu_quota", "CpuQuota"),
            ("cpu_period", "CpuPeriod"),
            ("cpuset", "CpusetCpus"),
            ("pids_limit", "PidsLimit"),
            ("oom_score_adj", "OomScoreAdj"),
            ("oom_kill_disable", "OomKillDisable"),
        ] {
            self.say(name, host[of].clone());
        }
        if number("ShmSize") != SHARED_MEMORY {
            self.say("shm_size", bytes(number("ShmSize")));
        }
        let ulimits = list(&host["Ulimits"]).filter_map(|limit| {
            let value = json!({ "soft": limit["Soft"], "hard": limit["Hard"] });
            Some((limit["Name"].as_str()?.to_owned(), value))
        });
        self.say("ulimits", ulimits.collect::<Map<_, _>>().into());
    }

    fn rights(&mut self, host: &Value) {
        for (name, of) in [
            ("privileged", "Privileged"),
            ("read_only", "ReadonlyRootfs"),
            ("init", "Init"),
            ("sysctls", "Sysctls"),
            ("userns_mode", "UsernsMode"),
            ("pid", "PidMode"),
            ("uts", "UTSMode"),
            ("cgroup_parent", "CgroupParent"),
        ] {
            self.say(name, host[of].clone());
        }
        for (name, of) in [
            ("cap_add", "CapAdd"),
            ("cap_drop", "CapDrop"),
            ("security_opt", "SecurityOpt"),
            ("group_add", "GroupAdd"),
            ("extra_hosts", "ExtraHosts"),
            ("device_cgroup_rules", "DeviceCgroupRules"),
        ] {
            self.say(name, sorted(strings(&host[of]).map(str::to_owned)));
        }
        let ipc = host["IpcMode"].as_str().unwrap_or_default();
        if !matches!(ipc, "private" | "shareable") {
            self.say("ipc", ipc.into());
        }
        let runtime = host["Runtime"].as_str().unwrap_or_default();
        if runtime != "runc" {
            self.say("runtime", runtime.into());
        }
        let devices = list(&host["Devices"]).filter_map(|device| {
            let part = |name: &str| device[name].as_str();
            Some(format!("{}:{}:{}", part("PathOnHost")?, part("PathInContainer")?, part("CgroupPermissions")?))
        });
        self.say("devices", sorted(devices));
        self.say("x-device-requests", host["DeviceRequests"].clone());
    }

    fn surroundings(&mut self, container: &Value, host: &Value) {
        // The order in which name servers are asked is part of what they mean.
        for (name, of) in [("dns", "Dns"), ("dns_search", "DnsSearch"), ("dns_opt", "DnsOptions")] {
            self.say(name, host[of].clone());
        }
        self.say("ports", sorted(ports(&host["PortBindings"])));
        self.say("restart", restart(&host["RestartPolicy"]));
        let logging = json!({ "driver": host["LogConfig"]["Type"], "options": host["LogConfig"]["Config"] });
        let logging: Map<_, _> = match logging {
            Value::Object(map) => {
                map.into_iter().filter(|(_, value)| *value != json!({}) && !value.is_null()).collect()
            }
            _ => Map::new(),
        };
        self.say("logging", logging.into());
        self.say("volumes", mounts(container, host));
        let tmpfs = host["Tmpfs"].as_object().into_iter().flatten().map(|(path, options)| {
            let options = options.as_str().unwrap_or_default();
            if options.is_empty() { path.clone() } else { format!("{path}:{options}") }
        });
        self.say("tmpfs", sorted(tmpfs));
        let mode = host["NetworkMode"].as_str().unwrap_or_default();
        match mode {
            "default" | "bridge" => self.say("network_mode", "bridge".into()),
            "host" | "none" => self.say("network_mode", mode.into()),
            _ if mode.starts_with("container:") => self.say("network_mode", mode.into()),
            _ => self.say("networks", networks(container)),
        }
    }

    fn labels(&mut self, config: &Value) {
        let labels = config["Labels"].as_object().into_iter().flatten();
        let theirs = labels.filter(|(name, _)| !name.starts_with(COMPOSE_LABELS) && !name.starts_with(OUR_LABELS));
        self.say("labels", theirs.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>().into());
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn sorted(texts: impl Iterator<Item = String>) -> Value {
    texts.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().into()
}

fn health(check: &Value) -> Value {
    let test: Vec<&str> = strings(&check["Test"]).collect();
    if test.first() == Some(&"NONE") {
        return json!({ "disable": true });
    }
    let mut words = Words::default();
    words.say("test", test.into());
    words.say("retries", check["Retries"].clone());
    for (name, of) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ] {
        // Nanoseconds there; microseconds are what every version of Compose reads.
        let micros = check[of].as_i64().unwrap_or_default() / 1000;
        words.say(name, if micros == 0 { Value::Null } else { format!("{micros}us").into() });
    }
    words.0.into_iter().collect::<Map<_, _>>().into()
}

fn restart(policy: &Value) -> Value {
    match (policy["Name"].as_str().unwrap_or_default(), policy["MaximumRetryCount"].as_i64().unwrap_or_default()) {
        ("" | "no", _) => Value::Null,
        ("on-failure", most @ 1..) => format!("on-failure:{most}").into(),
        (name, _) => name.into(),
    }
}

fn ports(bindings: &Value) -> impl Iterator<Item = String> {
    bindings.as_object().into_iter().flatten().flat_map(|(inside, bindings)| {
        list(bindings).map(move |binding| {
            let at = match binding["HostIp"].as_str().unwrap_or_default() {
                "" | "0.0.0.0" => String::new(),
                six if six.contains(':') => format!("[{six}]:"),
                four => format!("{four}:"),
            };
            match binding["HostPort"].as_str().unwrap_or_default() {
                // The Engine chooses.
                "" | "0" if at.is_empty() => inside.clone(),
                "" | "0" => format!("{at}:{inside}"),
                outside => format!("{at}{outside}:{inside}"),
            }
        })
    })
}

fn mounts(container: &Value, host: &Value) -> Value {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for mount in list(&container["Mounts"]) {
        let (sort, target) =
            (mount["Type"].as_str().unwrap_or_default(), mount["Destination"].as_str().unwrap_or_default());
        let mut words = Words::default();
        words.say("type", sort.into());
        words.say("target", target.into());
        words.say("read_only", (mount["RW"] == false).into());
        match sort {
            "volume" if !is_random(mount["Name"].as_str().unwrap_or_default()) => {
                words.say("source", mount["Name"].clone())
            }
            "bind" => words.say("source", mount["Source"].clone()),
            "tmpfs" => {
                let asked = list(&host["Mounts"]).find(|asked| asked["Target"] == target);
                let size = asked.and_then(|asked| asked["TmpfsOptions"]["SizeBytes"].as_i64());
                words.say("tmpfs", size.map_or(Value::Null, |size| json!({ "size": size })));
            }
            _ => {}
        }
        found.insert(target.to_owned(), words.0.into_iter().collect::<Map<_, _>>().into());
    }
    found.into_values().collect::<Vec<_>>().into()
}

/// Whether a volume has no name but the one the Engine gave it.
fn is_random(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn networks(container: &Value) -> Value {
    let id = container["Id"].as_str().unwrap_or_default();
    let label =
        |name: &str| container["Config"]["Labels"][format!("{COMPOSE_LABELS}{name}")].as_str().unwrap_or_default();
    let (service, name) = (label("service"), plain_name(container));
    // Compose and the Engine add these by themselves; a container that was made and never started lacks one.
    let own = |alias: &str| alias == service || alias == name || (alias.len() == 12 && id.starts_with(alias));
    let replaced =
        |alias: &str| strip_hash(alias) == name || alias == name.replace('-', "_") || alias == name.replace('_', "-");
    let joined = container["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let joined = joined.map(|(network, how)| {
        let aliases = strings(&how["Aliases"]).filter(|alias| !own(alias) && !replaced(alias)).map(str::to_owned);
        let mut words = Words::default();
        words.say("aliases", sorted(aliases));
        words.say("ipv4_address", how["IPAMConfig"]["IPv4Address"].clone());
        words.say("ipv6_address", how["IPAMConfig"]["IPv6Address"].clone());
        (network.clone(), Value::from(words.0.into_iter().collect::<Map<_, _>>()))
    });
    joined.collect::<Map<_, _>>().into()
}

/// The name it has when nobody is in the middle of replacing it.
fn plain_name(container: &Value) -> &str {
    strip_hash(container["Name"].as_str().unwrap_or_default().trim_start_matches('/'))
}

/// While a container is replaced, Compose has the old or the new one under `<twelve digits>_<name>`.
pub(super) fn strip_hash(name: &str) -> &str {
    match name.split_once('_') {
        Some((hash, rest)) if hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest,
        _ => name,
    }
}

/// The name that the file gives the container, where it is not the one Compose makes up.
fn own_name(container: &Value) -> &str {
    let label =
        |name: &str| container["Config"]["Labels"][format!("{COMPOSE_LABELS}{name}")].as_str().unwrap_or_default();
    let (project, service, number) = (label("project"), label("service"), label("container-number"));
    let name = plain_name(container);
    let made_up = ["-", "_"].iter().any(|mark| name == [project, service, number].join(mark));
    if made_up { "" } else { name }
}

#[cfg(test)]
mod tests;
