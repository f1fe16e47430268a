//! The switch against a real server with a door.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use ripcord_core::{Action, Component, Holds, Lifecycle, Outcome, Retry, Seen};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Bench, Server, apply, before, cx, cx_at, nobody, place, proof, step, survey};

/// A shop with a maintenance mode. `broken`: what the switch answers instead of doing anything.
#[derive(Default)]
struct Shop {
    closed: AtomicBool,
    /// The switch is turned, and users get in all the same.
    leaks: AtomicBool,
    broken: AtomicU16,
    switched: AtomicU32,
}

type TheShop = State<Arc<Shop>>;

fn allowed(headers: &HeaderMap) -> bool {
    headers.get("authorization").and_then(|value| value.to_str().ok()) == Some("Bearer canary-admin")
}

async fn turn(shop: Arc<Shop>, headers: HeaderMap, to: bool) -> (StatusCode, String) {
    shop.switched.fetch_add(1, Ordering::SeqCst);
    if !allowed(&headers) {
        return (StatusCode::UNAUTHORIZED, "who are you?".to_owned());
    }
    let broken = shop.broken.load(Ordering::SeqCst);
    // 507: done, and then trouble.
    if matches!(broken, 0 | 507) {
        shop.closed.store(to, Ordering::SeqCst);
    }
    match broken {
        0 => (StatusCode::OK, String::new()),
        status => (StatusCode::from_u16(status).unwrap(), "no".to_owned()),
    }
}

struct Case {
    bench: Bench,
    shop: Arc<Shop>,
    server: Server,
}

impl Case {
    async fn new() -> Self {
        let shop = Arc::<Shop>::default();
        let home = |State(shop): TheShop, headers: HeaderMap| async move {
            assert!(headers.get("authorization").is_none(), "users have no token");
            let open = !shop.closed.load(Ordering::SeqCst) || shop.leaks.load(Ordering::SeqCst);
            if open { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        };
        let state = |State(shop): TheShop| async move { Json(json!({"enabled": shop.closed.load(Ordering::SeqCst)})) };
        let on = |State(shop): TheShop, headers: HeaderMap| turn(shop, headers, true);
        let off = |State(shop): TheShop, headers: HeaderMap| turn(shop, headers, false);
        let router: Router = Router::new()
            .route("/", get(home))
            .route("/maintenance", get(state))
            .route("/maintenance/enable", post(on))
            .route("/maintenance/disable", post(off))
            .with_state(Arc::clone(&shop));
        let bench = Bench::new();
        bench.secret("token", "canary-admin\n");
        Self { bench, shop, server: Server::start(router).await }
    }

    fn switch(&self, more: &str) -> Arc<dyn Component> {
        switch(&self.bench, &self.server.url, more)
    }

    fn closed(&self) -> bool {
        self.shop.closed.load(Ordering::SeqCst)
    }
}

fn switch(bench: &Bench, url: &str, more: &str) -> Arc<dyn Component> {
    bench.component(
        "http-switch",
        &format!(
            "on: {{ post: {url}/maintenance/enable }}\noff: {{ post: {url}/maintenance/disable }}\n\
             observe: {{ get: {url}/maintenance, field: /enabled }}\n{more}"
        ),
    )
}

const TOKEN: &str = "bearer: { file: token }";

#[tokio::test]
async fn rf25_paused_means_users_are_turned_away_and_resumed_means_they_get_in() {
    let case = Case::new().await;
    let door = case.switch(&format!("{TOKEN}\nprove: {{ url: {}/ }}", case.server.url));
    assert_eq!(door.capabilities().lifecycle, Lifecycle::Switch);
    let (pause, resume) = (step("pause", Action::Pause), step("resume", Action::Resume));
    let seen = survey(&*door, &[]).await;
    assert_eq!((seen.running, seen.label.as_deref()), (Some(true), Some("off: users get in")));
    assert_eq!(door.holds(&cx(), &pause, None).await.holds, Holds::Origin);
    assert_eq!(door.holds(&cx(), &resume, None).await.holds, Holds::Target);

    assert_eq!(proof(apply(&*door, &pause).await).found, "the switch is on, and users get 503");
    assert!(case.closed());
    assert_eq!(survey(&*door, &[]).await.running, Some(false));
    assert_eq!(door.holds(&cx(), &pause, None).await.holds, Holds::Target);
    proof(apply(&*door, &pause).await);

    assert_eq!(proof(apply(&*door, &resume).await).found, "the switch is off, and users get in");
    assert!(!case.closed());
    let shown = door.show(&place(), &Action::Pause);
    assert_eq!(shown.commands, [["POST".to_owned(), format!("{}/maintenance/enable", case.server.url)]]);
}

#[tokio::test]
async fn rf25_a_pause_that_does_not_pause_is_found() {
    let case = Case::new().await;
    case.shop.leaks.store(true, Ordering::SeqCst);
    let door = case.switch(&format!("{TOKEN}\nprove: {{ url: {}/ }}", case.server.url));
    let pause = step("pause", Action::Pause);
    let outcome = door.apply(&cx_at(Timestamp::now(), Duration::from_secs(1)), &pause, &before(&pause, None)).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.what, "it answered success, but the switch says on, but a request from outside got 200");
    let found = door.holds(&cx(), &pause, None).await.holds;
    assert_eq!(found, Holds::Neither { found: "the switch says on, but a request from outside got 200".into() });
}

#[tokio::test]
async fn a_refusal_is_no_maybe_and_a_5xx_is_one() {
    let case = Case::new().await;
    let (door, pause) = (case.switch(TOKEN), step("pause", Action::Pause));
    let check = async |status: u16| {
        case.shop.broken.store(status, Ordering::SeqCst);
        apply(&*door, &pause).await
    };
    let Outcome::Failed(failure) = check(404).await else { panic!() };
    assert_eq!((failure.what.as_str(), failure.retry), ("the switch answers 404: no", Retry::Never));
    assert!(matches!(check(429).await, Outcome::Failed(failure) if failure.retry == Retry::Later));
    assert!(matches!(check(500).await, Outcome::Unknown { why } if why == "the switch answers 500: no"));
    assert_eq!(door.holds(&cx(), &pause, None).await.holds, Holds::Origin);
    assert!(matches!(check(507).await, Outcome::Unknown { .. }));
    assert_eq!(door.holds(&cx(), &pause, None).await.holds, Holds::Target, "it had happened");

    case.bench.secret("token", "wrong");
    let wrong = case.switch(TOKEN);
    let Outcome::Failed(failure) = apply(&*wrong, &step("resume", Action::Resume)).await else { panic!() };
    assert_eq!(failure.what, "the switch answers 401: who are you?");
    assert!(failure.advice.unwrap().contains("token"));
}

#[tokio::test]
async fn a_switch_that_does_not_answer_cannot_be_told() {
    let bench = Bench::new();
    let door = switch(&bench, &nobody().await, "");
    let pause = step("pause", Action::Pause);
    assert!(matches!(survey(&*door, &[]).await.seen, Seen::Unreachable { .. }));
    assert!(matches!(door.holds(&cx(), &pause, None).await.holds, Holds::CannotTell { .. }));
    assert!(
        matches!(apply(&*door, &pause).await, Outcome::Failed(failure) if failure.retry == Retry::Later),
        "it never began"
    );

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cut = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let n = socket.read(&mut request).await.unwrap();
        assert!(request[..n].starts_with(b"POST "));
        socket.shutdown().await.unwrap();
    });
    let door = switch(&bench, &url, "");
    let outcome = door.apply(&cx(), &pause, &before(&pause, None)).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "the request was sent: {outcome:?}");
    cut.await.unwrap();
}

#[tokio::test]
async fn other_switches_have_other_words() {
    let mode = Arc::new(Mutex::new("open".to_owned()));
    let (get_mode, put_mode) = (Arc::clone(&mode), Arc::clone(&mode));
    let router = Router::new().route(
        "/mode",
        get(move || async move { Json(json!({"door": {"mode": *get_mode.lock().unwrap()}})) }).put(
            move |Json(body): Json<Value>| async move {
                *put_mode.lock().unwrap() = body["mode"].as_str().unwrap().to_owned();
            },
        ),
    );
    let (server, bench) = (Server::start(router).await, Bench::new());
    let yaml = format!(
        "on: {{ put: {0}/mode, json: {{ mode: closed }} }}\noff: {{ put: {0}/mode, json: {{ mode: open }} }}\n\
         observe: {{ get: {0}/mode, field: /door/mode, on: closed }}",
        server.url
    );
    let door = bench.component("http-switch", &yaml);
    proof(apply(&*door, &step("pause", Action::Pause)).await);
    assert_eq!(*mode.lock().unwrap(), "closed");
    proof(apply(&*door, &step("resume", Action::Resume)).await);
    assert_eq!(*mode.lock().unwrap(), "open");
}

#[tokio::test]
async fn rf29_the_token_is_in_no_outcome() {
    let case = Case::new().await;
    let door = case.switch(TOKEN);
    let mut all = format!("{:?}", survey(&*door, &[]).await);
    for status in [0, 403, 500] {
        case.shop.broken.store(status, Ordering::SeqCst);
        for action in [Action::Pause, Action::Resume] {
            all += &format!("{:?}", apply(&*door, &step("s", action)).await);
        }
    }
    assert!(!all.contains("canary") && case.shop.switched.load(Ordering::SeqCst) == 6, "{all}");
}
