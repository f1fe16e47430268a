//! Flags of a service that takes changes as the standards say: merge patch, JSON patch, put, ETag and If-Match.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ripcord_core::{Action, CapturePurpose, CaptureRef, Component, Holds, Outcome, Retry, Revision, Seen, Want, Wish};
use serde_json::{Value, json};

use crate::contract::Rig;
use crate::support::{Bench, apply, before, cx, inventory, nobody, place, proof, step, survey, wanted};

/// Documents by path. All of what may go wrong can be told to it.
#[derive(Default)]
struct Service {
    documents: Mutex<BTreeMap<String, (Value, u32)>>,
    tokens: bool,
    etags: bool,
    /// What somebody else writes, right before our next write.
    meanwhile: Mutex<Option<(String, Value)>>,
    /// Answered instead of doing anything, or (507) after it.
    broken: AtomicU32,
    /// Every write that came, with its content type.
    writes: Mutex<Vec<(String, String, String)>>,
    /// What the application makes of the flags lags behind by so many looks.
    lag: AtomicU32,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn merge(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *document = patch.clone() };
    if !document.is_object() {
        *document = json!({});
    }
    for (key, value) in patch {
        let map = document.as_object_mut().unwrap();
        match value {
            Value::Null => drop(map.remove(key)),
            value => merge(map.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// As far as our own patches go: test, add, replace and remove in objects.
fn patched(mut document: Value, patch: &Value) -> Option<Value> {
    for operation in patch.as_array()? {
        let path = operation["path"].as_str()?;
        let (above, name) = path.rsplit_once('/')?;
        match operation["op"].as_str()? {
            "test" if document.pointer(path) == Some(&operation["value"]) => {}
            "add" | "replace" => {
                document.pointer_mut(above)?.as_object_mut()?.insert(name.to_owned(), operation["value"].clone());
            }
            "remove" => drop(document.pointer_mut(above)?.as_object_mut()?.remove(name)?),
            _ => return None,
        }
    }
    Some(document)
}

async fn serve(
    State(service): State<Arc<Service>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let path = uri.path().to_owned();
    if path == "/effects" {
        assert_eq!(header("authorization"), "", "users have no token");
        if service.lag.load(Ordering::SeqCst) > 0 {
            service.lag.fetch_sub(1, Ordering::SeqCst);
            return axum::Json(json!({ "checkout": "old" })).into_response();
        }
        let documents = locked(&service.documents);
        let value = documents.get("/flags/new-checkout").map(|(document, _)| document["enabled"].clone());
        return axum::Json(json!({ "checkout": value })).into_response();
    }
    if service.tokens && header("authorization") != "Bearer canary-flags" {
        return (StatusCode::FORBIDDEN, "who are you?").into_response();
    }
    if method != Method::GET {
        let text = String::from_utf8(body.to_vec()).unwrap();
        locked(&service.writes).push((format!("{method} {path}"), header("content-type"), text));
        if let Some((path, value)) = locked(&service.meanwhile).take() {
            let mut documents = locked(&service.documents);
            let version = documents.get(&path).map_or(1, |(_, version)| version + 1);
            documents.insert(path, (value, version));
        }
    }
    let broken = service.broken.load(Ordering::SeqCst);
    if method != Method::GET && !matches!(broken, 0 | 507) {
        return (StatusCode::from_u16(u16::try_from(broken).unwrap()).unwrap(), "no").into_response();
    }
    let mut documents = locked(&service.documents);
    let found = documents.get(&path).cloned();
    let etag = |version: u32| format!("\"v{version}\"");
    if method == Method::GET {
        return match found {
            None => StatusCode::NOT_FOUND.into_response(),
            Some((document, version)) if service.etags => {
                ([("etag", etag(version))], axum::Json(document)).into_response()
            }
            Some((document, _)) => axum::Json(document).into_response(),
        };
    }
    let demanded = header("if-match");
    if !demanded.is_empty() && found.as_ref().map(|(_, version)| etag(*version)) != Some(demanded) {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let changed = match (method, header("content-type").as_str(), found.clone()) {
        (Method::PUT, _, _) => sent,
        (Method::PATCH, "application/merge-patch+json", Some((mut document, _))) => {
            merge(&mut document, &sent);
            document
        }
        (Method::PATCH, "application/json-patch+json", Some((document, _))) => match patched(document, &sent) {
            Some(document) => document,
            None => return StatusCode::CONFLICT.into_response(),
        },
        (_, _, None) => return StatusCode::NOT_FOUND.into_response(),
        _ => return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response(),
    };
    documents.insert(path, (changed, found.map_or(1, |(_, version)| version + 1)));
    if broken == 507 {
        StatusCode::INSUFFICIENT_STORAGE.into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// A service that lives as long as all tests: some of them are processes of their own.
fn start(service: Arc<Service>) -> String {
    let (told, url) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
            axum::serve(listener, Router::new().fallback(serve).with_state(service)).await.unwrap();
        });
    });
    url.recv().unwrap()
}

static SHARED: LazyLock<(Arc<Service>, String)> = LazyLock::new(|| {
    let service = Arc::new(Service { etags: true, ..Service::default() });
    let url = start(Arc::clone(&service));
    (service, url)
});
static DOCUMENTS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The document of the settings made last on this thread, until its site takes it.
    static LAST: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

pub struct Document;

fn document_of(site: &Path) -> String {
    fs::read_to_string(site.parent().unwrap().join("document")).unwrap()
}

fn put(site: &Path, value: Value) {
    let mut documents = locked(&SHARED.0.documents);
    let path = document_of(site);
    let version = documents.get(&path).map_or(1, |(_, version)| version + 1);
    documents.insert(path, (value, version));
}

impl Rig for Document {
    const KIND: &'static str = "http-flags";
    const WRITES: bool = false;
    fn settings() -> String {
        let number = DOCUMENTS.fetch_add(1, Ordering::SeqCst) + 1;
        LAST.set(number);
        format!("url: {}/document-{number}\nflags: [/checkout/new, /uploads]", SHARED.1)
    }
    fn good(site: &Path) {
        fs::write(site.parent().unwrap().join("document"), format!("/document-{}", LAST.get())).unwrap();
        put(site, json!({ "checkout": { "new": false }, "uploads": { "parallel": 1, "at": ["eu"] }, "others": 7 }));
    }
    fn bad(site: &Path) {
        put(site, json!({ "checkout": { "new": true, "x": 1 }, "uploads": { "parallel": 8 }, "others": 7 }));
    }
    fn edit(site: &Path) {
        put(site, json!({ "checkout": {}, "others": 7 }));
    }
    fn content(site: &Path) -> String {
        let documents = locked(&SHARED.0.documents);
        let (document, _) = &documents[&document_of(site)];
        json!([document.pointer("/checkout/new"), document.get("uploads"), document["others"]]).to_string()
    }
}

struct Case {
    bench: Bench,
    service: Arc<Service>,
    url: String,
}

impl Case {
    fn new(service: Service) -> Self {
        let service = Arc::new(service);
        for (flag, value) in [("new-checkout", json!(true)), ("uploads", json!({ "share": 0.5 }))] {
            let document = json!({ "enabled": value, "owner": "team" });
            locked(&service.documents).insert(format!("/flags/{flag}"), (document, 1));
        }
        locked(&service.documents).insert("/all".into(), (json!({ "checkout": { "new": true }, "n": 1 }), 1));
        let url = start(Arc::clone(&service));
        let bench = Bench::new();
        bench.secret("token", "canary-flags\n");
        bench.vault();
        Self { bench, service, url }
    }

    fn flags(&self, more: &str) -> Arc<dyn Component> {
        let yaml = format!(
            "url: \"{}/flags/{{flag}}\"\nflags: [new-checkout, uploads]\nbearer: {{ file: token }}\n{more}",
            self.url
        );
        self.bench.component("http-flags", &yaml)
    }

    fn all(&self, more: &str) -> Arc<dyn Component> {
        let yaml = format!("url: {}/all\nflags: [/checkout/new]\nbearer: {{ file: token }}\n{more}", self.url);
        self.bench.component("http-flags", &yaml)
    }

    fn now(&self, path: &str) -> Value {
        locked(&self.service.documents)[path].0.clone()
    }

    fn writes(&self) -> Vec<(String, String, String)> {
        locked(&self.service.writes).clone()
    }

    fn meanwhile(&self, path: &str, value: Value) {
        *locked(&self.service.meanwhile) = Some((path.to_owned(), value));
    }
}

fn guarded() -> Service {
    Service { tokens: true, etags: true, ..Service::default() }
}

fn set(values: Value) -> ripcord_core::Step {
    step("set", Action::Set { values: serde_json::from_value(values).unwrap() })
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flag_is_set_and_taken_back_with_all_of_them() {
    let case = Case::new(guarded());
    let part = case.flags("");
    let made = proof(apply(&*part, &step("capture", Action::Capture { purpose: CapturePurpose::Protective })).await);
    let good = made.capture.unwrap();
    let id = case.bench.record(9, good.clone());
    let off = set(json!({ "new-checkout": false }));
    proof(apply(&*part, &off).await);
    assert_eq!(case.now("/flags/new-checkout"), json!({ "enabled": false, "owner": "team" }), "the rest is others'");
    assert_eq!(part.holds(&cx(), &off, None).await.holds, Holds::Target);
    proof(apply(&*part, &off).await);
    assert_eq!(case.writes().len(), 1, "what is so is not written");

    let Revision::Exact(revision) = &good.revision else { panic!() };
    let seen = survey(&*part, &[wanted(&revision.0, Some(&id))]).await;
    let want = Want::Revision { revision: good.revision.clone(), capture: Some(id.clone()) };
    let drafts = part.propose(&Wish { place: place(), want }, &inventory(seen)).unwrap();
    assert!(drafts[0].shown.words.ends_with("back: new-checkout true"), "{:?}", drafts[0].shown);
    let restore = step("restore", Action::Restore { to: good.revision.clone(), from: Some(CaptureRef::Known(id)) });
    let done = proof(apply(&*part, &restore).await);
    assert!(!done.set_aside.is_empty());
    assert_eq!(case.now("/flags/new-checkout")["enabled"], true);
    assert_eq!(survey(&*part, &[]).await.seen, Seen::At(good.revision));
}

#[tokio::test]
async fn each_way_of_writing_ends_the_same() {
    for (write, content_type) in [
        ("merge-patch", "application/merge-patch+json"),
        ("json-patch", "application/json-patch+json"),
        ("put", "application/json"),
    ] {
        let case = Case::new(guarded());
        let part = case.all(&format!("write: {write}"));
        proof(apply(&*part, &set(json!({ "/checkout/new": false }))).await);
        assert_eq!(case.now("/all"), json!({ "checkout": { "new": false }, "n": 1 }), "{write}");
        proof(apply(&*part, &set(json!({ "/checkout/new": null }))).await);
        assert_eq!(case.now("/all"), json!({ "checkout": {}, "n": 1 }), "{write}");
        proof(apply(&*part, &set(json!({ "/checkout/new": { "share": 1 } }))).await);
        assert_eq!(case.now("/all")["checkout"]["new"], json!({ "share": 1 }), "{write}");
        assert!(case.writes().iter().all(|(_, sent, _)| sent == content_type), "{:?}", case.writes());
    }
}

#[tokio::test]
async fn a_change_elsewhere_is_taken_in_and_one_of_the_flag_stops_it() {
    for write in ["merge-patch", "json-patch", "put"] {
        let case = Case::new(guarded());
        let part = case.all(&format!("write: {write}"));
        case.meanwhile("/all", json!({ "checkout": { "new": true }, "n": 2 }));
        proof(apply(&*part, &set(json!({ "/checkout/new": false }))).await);
        assert_eq!(case.now("/all"), json!({ "checkout": { "new": false }, "n": 2 }), "{write}");
        case.meanwhile("/all", json!({ "checkout": { "new": "canary" }, "n": 2 }));
        let failure = failed(apply(&*part, &set(json!({ "/checkout/new": true }))).await);
        assert_eq!(failure.what, "`/checkout/new` was changed by somebody else meanwhile");
        assert_eq!((failure.retry, case.now("/all")["checkout"]["new"].clone()), (Retry::Never, json!("canary")));
    }
}

#[tokio::test]
async fn without_an_etag_a_json_patch_still_notices() {
    let case = Case::new(Service { tokens: true, ..Service::default() });
    let part = case.all("write: json-patch");
    assert!(survey(&*part, &[]).await.facts["unguarded"].contains("no ETag"));
    case.meanwhile("/all", json!({ "checkout": { "new": "canary" }, "n": 2 }));
    let failure = failed(apply(&*part, &set(json!({ "/checkout/new": false }))).await);
    assert!(failure.what.contains("somebody else"), "{}", failure.what);
}

#[tokio::test]
async fn a_flag_in_force_is_what_the_application_says() {
    let case = Case::new(guarded());
    let effects = format!("effects: {{ new-checkout: {{ get: {}/effects, field: /checkout }} }}", case.url);
    let part = case.flags(&effects);
    case.service.lag.store(2, Ordering::SeqCst);
    let off = set(json!({ "new-checkout": false }));
    let done = proof(apply(&*part, &off).await);
    assert_eq!(done.found, "new-checkout false; the application says so");
    case.service.lag.store(u32::MAX, Ordering::SeqCst);
    let Holds::Neither { found } = part.holds(&cx(), &off, None).await.holds else { panic!() };
    assert_eq!(found, "the application has `new-checkout` at \"old\", not false");
    let short = crate::support::cx_at(jiff::Timestamp::now(), std::time::Duration::from_secs(2));
    let on = set(json!({ "new-checkout": true }));
    let failure = failed(part.apply(&short, &on, &before(&on, None)).await);
    assert!(failure.what.starts_with("the write was answered well, but the application has"), "{}", failure.what);
}

#[tokio::test]
async fn what_a_service_answers_is_refusal_or_doubt() {
    let case = Case::new(guarded());
    let part = case.flags("");
    let off = set(json!({ "new-checkout": false }));
    for (status, retry) in [(403, Retry::Never), (405, Retry::Never), (429, Retry::Later)] {
        case.service.broken.store(status, Ordering::SeqCst);
        let failure = failed(apply(&*part, &off).await);
        assert_eq!(failure.retry, retry, "{failure:?}");
    }
    for status in [500, 507] {
        case.service.broken.store(status, Ordering::SeqCst);
        assert!(matches!(apply(&*part, &off).await, Outcome::Unknown { .. }), "{status}");
    }
    assert_eq!(part.holds(&cx(), &off, None).await.holds, Holds::Target, "507 was done, and then trouble");

    let gone = case.bench.component("http-flags", &format!("url: {}/x\nflags: [/a]", nobody().await));
    assert!(matches!(survey(&*gone, &[]).await.seen, Seen::Unreachable { .. }), "that is never `off`");
    let none = case
        .bench
        .component("http-flags", &format!("url: {}/nothing\nflags: [/a]\nbearer: {{ file: token }}", case.url));
    let Seen::Unreachable { why } = survey(&*none, &[]).await.seen else { panic!() };
    assert!(why.ends_with("there is no such document"), "{why}");
    let stranger = case.bench.component("http-flags", &format!("url: {}/all\nflags: [/a]", case.url));
    let Seen::Unreachable { why } = survey(&*stranger, &[]).await.seen else { panic!() };
    assert!(why.contains("403: who are you?"), "{why}");
}

#[tokio::test]
async fn a_flag_that_was_not_there_is_not_taken_for_off() {
    let case = Case::new(guarded());
    locked(&case.service.documents).remove("/flags/new-checkout");
    let part = case.flags("");
    let seen = survey(&*part, &[]).await;
    assert_eq!(seen.facts["not there"], "new-checkout");
    let made = proof(apply(&*part, &step("capture", Action::Capture { purpose: CapturePurpose::Protective })).await);
    let good = made.capture.unwrap();
    let id = case.bench.record(9, good.clone());
    proof(apply(&*part, &set(json!({ "new-checkout": true }))).await);
    assert_eq!(case.writes()[0].0, "PUT /flags/new-checkout", "what is not there can only be put");
    let prove = step("prove", Action::Prove { revision: good.revision, capture: Some(id) });
    let failure = failed(apply(&*part, &prove).await);
    assert!(failure.what.starts_with("`new-checkout` was not there then"), "{}", failure.what);
}

#[tokio::test]
async fn only_flags_that_are_named_are_touched() {
    let case = Case::new(guarded());
    let part = case.flags("");
    assert!(part.capabilities().sets);
    let want = Want::Values([("other".to_owned(), json!(true))].into());
    let seen = inventory(survey(&*part, &[]).await);
    let why = part.propose(&Wish { place: place(), want }, &seen).unwrap_err().why;
    assert_eq!(why, "`other` is not among its `flags`");
}

#[test]
fn settings_that_could_not_work_are_refused() {
    use ripcord_adapters::{Adapters, ComponentSettings};
    use ripcord_config::Kinds;
    let mistakes = |yaml: &str| -> Vec<String> {
        let settings = ComponentSettings::HttpFlags(serde_saphyr::from_str(yaml).unwrap());
        Adapters::check_component(&settings).into_iter().map(|mistake| mistake.what).collect()
    };
    assert_eq!(mistakes("url: http://x/flags\nflags: []"), ["no flag is named"]);
    assert_eq!(mistakes("url: http://x/flags\nflags: [a]"), ["`a` is no JSON pointer"]);
    assert_eq!(mistakes("url: http://x/flags\nflags: [/a, /a/b]"), ["`/a/b` is part of `/a`"]);
    assert_eq!(mistakes("url: \"http://x/{flag}\"\nflags: [a, a]"), ["`a` is named twice"]);
    let effects = "url: \"http://x/{flag}\"\nflags: [a]\neffects: { b: { get: http://x, field: /b } }";
    assert_eq!(mistakes(effects), ["`b` is not among `flags`"]);
}
