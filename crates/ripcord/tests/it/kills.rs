//! The shop taken back under `kill -9` at each event of the run: whatever was written last, the next process finishes it.
//!
//! Every sixth event in the plain test command, every one with the feature `real`.

use std::path::Path;
use std::time::{Duration, Instant};

use ripcord_core::{AppId, Seq, Store as _};
use ripcord_store::SqliteStore;
use rustix::process::Signal;

use crate::bed::Bed;

const STEP: u64 = if cfg!(feature = "real") { 1 } else { 6 };

struct Shop {
    bed: Bed,
    port: u16,
    settings: String,
}

impl Shop {
    fn open() -> Self {
        let exe = env!("CARGO_BIN_EXE_ripcord");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let bed = Bed::with(&format!(
            r#"
application: shop
components:
  code: {{ directory: {{ path: shop/current, releases: shop/releases }} }}
  settings: {{ env-file: {{ path: shop/.env }} }}
  flags: {{ json-file: {{ path: shop/flags.json }} }}
  orders: {{ sqlite: {{ path: shop/orders.db }} }}
  web:
    command:
      start: [{exe}, shop, start, --dir, shop, --port, "{port}"]
      stop: [{exe}, shop, stop, --dir, shop]
      instance: [{exe}, shop, instance, --dir, shop]
      evidence: [tail, -n, "100", shop/logs/shop.log]
    needs: [code, settings, flags, orders]
    health:
      - http: {{ url: "{url}/api/health", measure: status }}
        assert: status == 200 && json.version == target.version
        within: 20s
  maintenance:
    http-switch:
      on: {{ post: "{url}/admin/maintenance/enable" }}
      off: {{ post: "{url}/admin/maintenance/disable" }}
      observe: {{ get: "{url}/admin/maintenance", field: /enabled }}
      bearer: {{ dotenv: {{ file: shop/.env, key: ADMIN_TOKEN }} }}
policy: {{ watch: 10ms }}
"#
        ));
        let mut shop = Self { bed, port, settings: String::new() };
        shop.shop(&["init"]);
        shop.put_out("1.0.0");
        let good = ["release", "mark", "1.0.0", "--good", "--why", "it sold"];
        shop.bed.ok(&good);
        shop.settings = shop.bed.read("shop/.env");
        shop
    }

    fn shop(&self, args: &[&str]) {
        self.bed.ok(&[&["shop"], args, &["--dir", "shop"]].concat());
    }

    /// What a deployment does, and the record of it.
    fn put_out(&self, version: &str) {
        self.shop(&["release", "--version", version]);
        self.shop(&["stop"]);
        self.shop(&["switch", "--version", version]);
        self.shop(&["start", "--port", &self.port.to_string()]);
        self.bed.ok(&["release", "record", version]);
    }

    fn is_back(&self) {
        let link = std::fs::read_link(self.bed.path("shop/current")).unwrap();
        assert!(link.ends_with("1.0.0"), "{link:?}");
        assert_eq!(self.bed.read("shop/.env"), self.settings);
        self.bed.ok(&["shop", "instance", "--dir", "shop"]);
        assert!(!self.bed.path("shop/run/maintenance").exists(), "traffic is on");
        let verified = self.bed.json(&["verify"]);
        assert!(!verified.to_string().contains("fail"), "{verified}");
        assert_eq!(self.bed.json(&["log", "verify"])["whole"], true);
        let status = self.bed.json(&["status"]);
        assert!(status["run"].is_null(), "{status}");
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.bed.run(&["shop", "stop", "--dir", "shop"]);
    }
}

fn head(state: &Path) -> Seq {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = AppId { application: "shop".parse().unwrap(), environment: "production".parse().unwrap() };
    let store = SqliteStore::open_to_read(state).unwrap().unwrap();
    runtime.block_on(store.head(&app)).unwrap().0
}

#[test]
fn a_rollback_killed_at_any_event_is_finished_by_the_next() {
    let shop = Shop::open();
    let state = shop.bed.path(".ripcord");
    let mut kills = 0;
    for n in (1..400).step_by(STEP as usize) {
        let mut settings = shop.settings.clone();
        settings.push_str(&format!("BAD={n}\n"));
        shop.bed.write("shop/.env", &settings);
        shop.put_out(&format!("1.1.{n}"));
        let base = head(&state);
        let mut running = shop.bed.start(&["rollback", "--yes"]);
        let deadline = Instant::now() + Duration::from_secs(60);
        let at = Seq(base.0 + n);
        while head(&state) < at && !running.has_ended() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let finished = running.has_ended();
        if finished {
            let ended = running.ended();
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            shop.is_back();
            break;
        }
        running.signal(Signal::KILL);
        running.ended();
        // Killed when everything was restored and only its watch was left, there is nothing to go back from any more.
        let was_back = std::fs::read_link(shop.bed.path("shop/current")).unwrap().ends_with("1.0.0");
        kills += 1;
        let verb: &[&str] = if was_back { &["resume"] } else { &["rollback", "--yes"] };
        let next = shop.bed.run(verb);
        // A run of which only the watch was left may end before it is asked to go on.
        assert!(next.code == Some(0) || was_back, "killed at event {n} of the run: {next:#?}");
        shop.is_back();
    }
    assert!(kills >= 4, "only {kills} of its events could be killed at");
}
