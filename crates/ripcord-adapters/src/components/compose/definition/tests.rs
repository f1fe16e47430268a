use super::*;

const KEY: [u8; 32] = [7; 32];

/// The same service as Compose 1.29 and Compose 5 make it, as the Engine tells it, without what is the same for all.
fn as_made_by(new: bool) -> Value {
    let (name, id, anonymous) = match new {
        true => ("/pv-api-1", "4ef6fde10d75bb37a6332ff9ba1772d4dd2293e2ec7a4d1c3b2665e9983652c9", "1be122c7"),
        false => ("/pv_api_1", "ce138f9db95204733316a589f3400c29fac8e8fb7a806309e12e1630b88f8094", "16dbe022"),
    };
    let hash = if new { "9e63eb9b" } else { "e637683f" };
    let aliases = |more: &[&str]| {
        let own = if new { vec!["pv-api-1", "api", &id[..12]] } else { vec!["api", &id[..12]] };
        own.into_iter().chain(more.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
    };
    let random =
        json!({ "Type": "volume", "Name": anonymous.repeat(8), "Destination": "/anon", "Mode": "z", "RW": true });
    let data = json!({ "Type": "volume", "Name": "pv_data", "Destination": "/data", "Mode": "rw", "RW": true });
    let bind = json!({ "Type": "bind", "Source": "/srv/x", "Destination": "/x", "Mode": "ro", "RW": false });
    json!({
        "Id": id, "Name": name,
        "Image": "sha256:d5822e603276e4c011a76cf709ba0a5c650329a3ad939f5053459204c948907d",
        "HostConfig": {
            "Binds": ["pv_data:/data:rw", "/srv/x:/x:ro"],
            "LogConfig": { "Type": "json-file", "Config": {} },
            "NetworkMode": if new { "pv_back" } else { "pv_default" },
            "PortBindings": {
                "8080/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "18901" }],
                "8081/tcp": [{ "HostIp": "", "HostPort": "" }],
            },
            "RestartPolicy": { "Name": if new { "" } else { "no" }, "MaximumRetryCount": 0 },
            "ExtraHosts": if new { json!([]) } else { Value::Null },
            "IpcMode": "private", "ShmSize": 67_108_864, "Runtime": "runc", "Memory": 67_108_864, "MemorySwap": 134_217_728,
            "Privileged": false, "PidsLimit": null, "Init": true,
        },
        "Mounts": if new { [random, data, bind] } else { [data, random, bind] },
        "Config": {
            "Hostname": &id[..12], "User": "",
            "Env": if new { ["SVC=api", "DOLLAR=a$b", "VERSION=v1"] } else { ["VERSION=v1", "SVC=api", "DOLLAR=a$b"] },
            "Cmd": ["serve"], "Entrypoint": ["/tiny"], "Image": "lab/tiny:v1",
            "Healthcheck": { "Test": ["CMD", "/tiny", "check"], "Interval": 1_000_000_000, "Retries": 3 },
            "Labels": {
                "com.docker.compose.config-hash": hash, "com.docker.compose.container-number": "1",
                "com.docker.compose.project": "pv", "com.docker.compose.service": "api", "team": "shop",
                "dev.ripcord.run": "run-4",
            },
        },
        "NetworkSettings": { "Networks": {
            "pv_back": { "Aliases": aliases(&["b1"]), "IPAMConfig": if new { json!({}) } else { Value::Null } },
            "pv_default": { "Aliases": aliases(&[]), "IPAMConfig": null },
        } },
    })
}

#[test]
fn a_container_is_read_in_compose_s_words() {
    let definition = Definition::of(&as_made_by(true));
    insta::assert_json_snapshot!(definition, @r#"
    {
      "command": [
        "serve"
      ],
      "entrypoint": [
        "/tiny"
      ],
      "environment": {
        "DOLLAR": "a$b",
        "SVC": "api",
        "VERSION": "v1"
      },
      "healthcheck": {
        "interval": "1000000us",
        "retries": 3,
        "test": [
          "CMD",
          "/tiny",
          "check"
        ]
      },
      "init": true,
      "labels": {
        "team": "shop"
      },
      "logging": {
        "driver": "json-file"
      },
      "mem_limit": "67108864b",
      "networks": {
        "pv_back": {
          "aliases": [
            "b1"
          ]
        },
        "pv_default": {}
      },
      "ports": [
        "127.0.0.1:18901:8080/tcp",
        "8081/tcp"
      ],
      "volumes": [
        {
          "target": "/anon",
          "type": "volume"
        },
        {
          "source": "pv_data",
          "target": "/data",
          "type": "volume"
        },
        {
          "read_only": true,
          "source": "/srv/x",
          "target": "/x",
          "type": "bind"
        }
      ]
    }
    "#);
    assert_eq!(definition.ports(), [18901]);
    assert_eq!(definition.volumes().into_iter().collect::<Vec<_>>(), ["pv_data"]);
}

#[test]
fn two_versions_of_compose_make_one_revision() {
    let (old, new) = (Definition::of(&as_made_by(false)), Definition::of(&as_made_by(true)));
    assert_eq!(old.differing(&new), Vec::<String>::new());
    let image = "sha256:d5822e603276e4c011a76cf709ba0a5c650329a3ad939f5053459204c948907d";
    let made = revision(image, &new, &KEY);
    assert_eq!(revision(image, &old, &KEY), made);
    assert_eq!(made.short(), "sha256:d5822e603276");
    assert_eq!(parts(&made).unwrap().0, image);
}

#[test]
fn whatever_a_release_may_change_is_another_revision() {
    let is = Definition::of(&as_made_by(true));
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 12] = [
        ("environment.SVC", |c| c["Config"]["Env"] = json!(["SVC=other", "DOLLAR=a$b", "VERSION=v1"])),
        ("command", |c| c["Config"]["Cmd"] = json!(["serve", "--fast"])),
        ("ports", |c| c["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostPort"] = json!("18902")),
        ("volumes", |c| c["Mounts"][2]["RW"] = json!(true)),
        ("networks.pv_back", |c| c["NetworkSettings"]["Networks"]["pv_back"]["Aliases"] = json!(["b2"])),
        ("labels.team", |c| c["Config"]["Labels"]["team"] = json!("other")),
        ("mem_limit", |c| c["HostConfig"]["Memory"] = json!(1 << 20)),
        ("restart", |c| c["HostConfig"]["RestartPolicy"] = json!({ "Name": "on-failure", "MaximumRetryCount": 3 })),
        ("healthcheck.retries", |c| c["Config"]["Healthcheck"]["Retries"] = json!(5)),
        ("cap_add", |c| c["HostConfig"]["CapAdd"] = json!(["NET_ADMIN"])),
        ("container_name", |c| c["Name"] = json!("/front")),
        ("hostname", |c| c["Config"]["Hostname"] = json!("front")),
    ];
    for (name, change) in changes {
        let mut container = as_made_by(true);
        change(&mut container);
        let other = Definition::of(&container);
        assert!(is.differing(&other).iter().any(|found| found == name), "{name}: {:?}", is.differing(&other));
        assert_ne!(is.hash(&KEY), other.hash(&KEY), "{name}");
    }
}

#[test]
fn what_every_container_has_differently_is_no_difference() {
    let is = Definition::of(&as_made_by(true));
    type Change = fn(&mut Value);
    let changes: [Change; 5] = [
        |c| c["Config"]["Env"] = json!(["SVC=api", "affinity:container==4ef6fde1", "DOLLAR=a$b", "VERSION=v1"]),
        |c| c["Name"] = json!("/4ef6fde10d75_pv-api-1"),
        |c| c["Mounts"][0]["Name"] = json!("ab".repeat(32)),
        |c| c["Config"]["Labels"]["com.docker.compose.config-hash"] = json!("other"),
        |c| c["Config"]["Labels"]["dev.ripcord.run"] = json!("run-5"),
    ];
    for change in changes {
        let mut container = as_made_by(true);
        change(&mut container);
        assert_eq!(is.differing(&Definition::of(&container)), Vec::<String>::new());
    }
}

#[test]
fn rf29_a_revision_can_be_guessed_only_with_the_key() {
    let definition = Definition::of(&as_made_by(true));
    let (one, other) = (definition.hash(&KEY), definition.hash(&[8; 32]));
    assert!(one != other && one.len() == 32, "{one} {other}");
}

#[test]
fn secrets_are_known_by_their_names() {
    let mut container = as_made_by(true);
    container["Config"]["Env"] = json!([
        "DB_PASSWORD=swordfish-1",
        "MODE=production",
        "API_KEY=short",
        "KEYCLOAK_REALM=shop-users",
        "API_URL=http://api:8080",
        "DATABASE_URL=postgres://shop:trout-2@db/shop",
    ]);
    let redactor = Redactor::default();
    Definition::of(&container).teach(&redactor);
    assert_eq!(redactor.clean("swordfish-1 in production, short"), "[redacted] in production, short");
    assert_eq!(redactor.clean("shop-users at http://api:8080"), "shop-users at http://api:8080");
    assert_eq!(redactor.clean("to postgres://shop:trout-2@db/shop"), "to [redacted]");
}

#[test]
fn a_file_for_one_service_leaves_networks_and_volumes_as_they_are() {
    let definition = Definition::of(&as_made_by(true));
    let keys = Keys {
        networks: [("pv_default", "default"), ("pv_back", "back")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        volumes: [("pv_data".to_owned(), "data".to_owned())].into(),
    };
    let missing = ["pv_back".to_owned()].into();
    let labels = [("dev.ripcord.run".to_owned(), "run-5".to_owned())].into();
    let file = definition.render("api", "sha256:d582", &keys, &missing, &labels);
    let api = &file["services"]["api"];
    assert_eq!(api["image"], "sha256:d582");
    assert_eq!(api["environment"]["DOLLAR"], "a$$b", "a dollar sign is meant");
    assert_eq!(api["networks"], json!({ "back": { "aliases": ["b1"] }, "default": {} }));
    assert_eq!(api["labels"], json!({ "team": "shop", "dev.ripcord.run": "run-5" }));
    assert_eq!(api["volumes"][1], json!({ "type": "volume", "source": "data", "target": "/data" }));
    let networks = json!({ "back": { "name": "pv_back" }, "default": { "name": "pv_default", "external": true } });
    assert_eq!(file["networks"], networks, "one that is gone is made again");
    assert_eq!(file["volumes"], json!({ "data": { "name": "pv_data", "external": true } }));
    assert_eq!(file.as_object().unwrap().keys().collect::<Vec<_>>(), ["networks", "services", "volumes"]);
}

#[test]
fn rarer_settings_are_read_too() {
    let container = json!({
        "Id": "ab".repeat(32), "Name": "/shop_api_1",
        "Config": {
            "Labels": { "com.docker.compose.project": "shop", "com.docker.compose.service": "api",
                "com.docker.compose.container-number": "1" },
            "StopTimeout": 30, "StopSignal": "SIGQUIT", "Healthcheck": { "Test": ["NONE"] },
        },
        "HostConfig": {
            "NetworkMode": "container:ffff", "NanoCpus": 1_500_000_000_i64, "MemorySwap": -1, "ShmSize": 1024, "Runtime": "gvisor",
            "PortBindings": {
                "53/udp": [{ "HostIp": "::1", "HostPort": "53" }],
                "80/tcp": [{ "HostIp": "10.0.0.1", "HostPort": "0" }, { "HostIp": "0.0.0.0", "HostPort": "80" }],
            },
            "Ulimits": [{ "Name": "nofile", "Soft": 1, "Hard": 2 }],
            "Devices": [{ "PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw" }],
            "Tmpfs": { "/t": "size=1k", "/u": "" }, "Dns": ["9.9.9.9", "1.1.1.1"], "CapDrop": ["B", "A"],
            "LogConfig": { "Type": "syslog", "Config": { "tag": "x" } },
            "DeviceRequests": [{ "Driver": "nvidia" }],
            "Mounts": [{ "Type": "tmpfs", "Target": "/m", "TmpfsOptions": { "SizeBytes": 5 } }],
        },
        "Mounts": [{ "Type": "tmpfs", "Destination": "/m", "RW": true }],
    });
    let definition = Definition::of(&container);
    assert_eq!(definition.beyond_compose(), Some("devices by request (GPUs)"));
    assert_eq!(definition.ports(), [80]);
    assert_eq!(
        json!(definition),
        json!({
            "stop_grace_period": "30s", "stop_signal": "SIGQUIT", "healthcheck": { "disable": true },
            "network_mode": "container:ffff", "cpus": 1.5, "memswap_limit": -1, "shm_size": "1024b", "runtime": "gvisor",
            "ports": ["10.0.0.1::80/tcp", "80:80/tcp", "[::1]:53:53/udp"],
            "ulimits": { "nofile": { "soft": 1, "hard": 2 } }, "devices": ["/dev/a:/dev/b:rw"],
            "tmpfs": ["/t:size=1k", "/u"], "dns": ["9.9.9.9", "1.1.1.1"], "cap_drop": ["A", "B"],
            "logging": { "driver": "syslog", "options": { "tag": "x" } },
            "x-device-requests": [{ "Driver": "nvidia" }],
            "volumes": [{ "type": "tmpfs", "target": "/m", "tmpfs": { "size": 5 } }],
        })
    );
}
