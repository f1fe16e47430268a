//! What the shop answers over HTTP.
//!
//! Around every route, from outside in: the answer is counted, the door is looked at, a bad release may dawdle.
use super::{
    EnvFile, Release, ShopError,
    fault::{Checkout, Mischief},
    flags::FlagFile,
    log::Log,
    maintenance::{Maintenance, Token},
    metrics::Metrics,
    orders::{NewOrder, Orders, OrdersError},
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Less than anybody's patience with a health check, more than the wait for a lock.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);
/// Longer than a slow release takes for a request.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
const CLOSED_PAGE: &str = "<!doctype html>\n<title>The shop is closed</title>\n<h1>Back in a moment</h1>\n";

/// All that a request can reach.
pub(super) struct Shop {
    pub release: Release,
    pub page: String,
    pub env: EnvFile,
    pub token: Token,
    pub flags: FlagFile,
    pub orders: Orders,
    pub metrics: Metrics,
    pub log: Arc<Log>,
    pub maintenance: Maintenance,
    pub mischief: Mischief,
}

type TheShop = State<Arc<Shop>>;

pub(super) fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/orders", post(take_order).get(list_orders))
        .route("/orders/{id}", get(show_order))
        .route("/api/health", get(health))
        .route("/api/flags", get(flags))
        .route("/api/config", get(config))
        .route("/metrics", get(metrics))
        .route("/admin/maintenance", get(maintenance))
        .route("/admin/maintenance/enable", post(enable))
        .route("/admin/maintenance/disable", post(disable))
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(middleware::from_fn_with_state(shop.clone(), door))
        .layer(middleware::from_fn_with_state(shop.clone(), count))
        .with_state(shop)
}

/// An answer that is not a success: what the customer reads, and what the log says beyond that.
struct Refusal {
    status: StatusCode,
    error: String,
    logged: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), logged: None }
    }

    fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a bearer token is needed")
    }

    fn broken(error: &str, why: impl ToString) -> Self {
        Self { logged: Some(why.to_string()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, error) }
    }
}

impl From<OrdersError> for Refusal {
    fn from(error: OrdersError) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::broken("orders are not available", error) }
    }
}

/// Travels with an answer to the log, not to the customer.
#[derive(Clone)]
struct Logged(String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"error": self.error}))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(why) = self.logged {
            response.extensions_mut().insert(Logged(why));
        }
        response
    }
}

async fn count(State(shop): TheShop, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (status, took) = (response.status(), started.elapsed());
    shop.metrics.answered(&route, method, status.as_u16(), took);
    // A 503 of the closed door is no error; it carries nothing to log.
    if let Some(Logged(why)) = response.extensions().get() {
        shop.log.error(&format!("{method} {route} {} in {} ms: {why}", status.as_u16(), took.as_millis()));
    }
    response
}

/// A label's values must be few, and a client may invent methods.
fn known_method(method: &Method) -> &'static str {
    ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| method.as_str() == *known)
        .unwrap_or("OTHER")
}

async fn door(State(shop): TheShop, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/api/health" || path == "/metrics" || path.starts_with("/admin/") {
        return next.run(request).await;
    }
    let internal = request.headers().get("x-internal").is_some_and(|offered| shop.token.is(offered.as_bytes()));
    let visit = if internal { None } else { shop.maintenance.admit() };
    if visit.is_none() && !internal {
        let headers = [(header::RETRY_AFTER, "5"), (header::CACHE_CONTROL, "no-store")];
        return (StatusCode::SERVICE_UNAVAILABLE, headers, Html(CLOSED_PAGE)).into_response();
    }
    if let Some(delay) = shop.mischief.delay() {
        tokio::time::sleep(delay).await;
    }
    let response = next.run(request).await;
    drop(visit);
    response
}

async fn page(State(shop): TheShop) -> Html<String> {
    Html(shop.page.clone())
}

async fn take_order(State(shop): TheShop, Json(order): Json<NewOrder>) -> Result<Response, Refusal> {
    let (flags, _) = shop.flags.look(|complaint| shop.log.error(&complaint));
    let total = order
        .price(flags.max_quantity, flags.free_shipping)
        .map_err(|why| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why))?;
    let damage = match shop.mischief.checkout() {
        Checkout::Works => None,
        Checkout::Damages(damage) => Some(damage),
        Checkout::Fails => return Err(Refusal::broken("checkout failed", "checkout failed: no payment session")),
    };
    let id = shop.orders.take(order, total, damage).await?;
    shop.metrics.order_taken();
    let location = [(header::LOCATION, format!("/orders/{id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({"id": id, "total_cents": total}))).into_response())
}

async fn show_order(State(shop): TheShop, Path(id): Path<i64>) -> Result<Response, Refusal> {
    match shop.orders.find(id).await? {
        Some(order) => Ok(Json(order).into_response()),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("no order {id}"))),
    }
}

#[derive(Deserialize)]
struct Listing {
    limit: Option<u32>,
}

async fn list_orders(State(shop): TheShop, Query(Listing { limit }): Query<Listing>) -> Result<Response, Refusal> {
    Ok(Json(shop.orders.newest(limit.unwrap_or(20).min(500)).await?).into_response())
}

async fn health(State(shop): TheShop) -> Response {
    let trouble = match tokio::time::timeout(HEALTH_WITHIN, shop.orders.check()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("the database did not answer within {} s", HEALTH_WITHIN.as_secs())),
    };
    let (status, word) = match &trouble {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    let now = jiff::Timestamp::now().to_string();
    let body = json!({"status": word, "version": shop.release.version, "timestamp": now});
    let mut response = (status, Json(body)).into_response();
    if let Some(why) = trouble {
        response.extensions_mut().insert(Logged(why));
    }
    response
}

async fn flags(State(shop): TheShop) -> Json<Value> {
    Json(shop.flags.look(|complaint| shop.log.error(&complaint)).1)
}

/// The configuration in force in this process: names, and values of toggles only.
async fn config(State(shop): TheShop) -> Json<Value> {
    Json(json!({"keys": shop.env.keys().collect::<Vec<_>>(), "toggles": shop.env.toggles()}))
}

async fn metrics(State(shop): TheShop) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shop.metrics.text(shop.maintenance.is_enabled())).into_response()
}

async fn maintenance(State(shop): TheShop, headers: HeaderMap) -> Result<Response, Refusal> {
    authorize(&shop, &headers)?;
    Ok(door_state(&shop))
}

/// Answers when nobody is inside any more, or after five seconds with the number of those who are.
async fn enable(State(shop): TheShop, headers: HeaderMap) -> Result<Response, Refusal> {
    authorize(&shop, &headers)?;
    shop.maintenance.enable().map_err(cannot_change)?;
    if shop.maintenance.emptied(DRAIN_WITHIN).await {
        // A customer who hung up is outside, but the order may still be in the queue. Whether the database works is
        // not the question here.
        let _ = tokio::time::timeout(DRAIN_WITHIN, shop.orders.check()).await;
    }
    shop.log.info(&format!("maintenance on, {} still inside", shop.maintenance.inside()));
    Ok(door_state(&shop))
}

async fn disable(State(shop): TheShop, headers: HeaderMap) -> Result<Response, Refusal> {
    authorize(&shop, &headers)?;
    shop.maintenance.disable().map_err(cannot_change)?;
    shop.log.info("maintenance off");
    Ok(door_state(&shop))
}

fn door_state(shop: &Shop) -> Response {
    let (enabled, inside) = (shop.maintenance.is_enabled(), shop.maintenance.inside());
    Json(json!({"enabled": enabled, "inside": inside})).into_response()
}

fn authorize(shop: &Shop, headers: &HeaderMap) -> Result<(), Refusal> {
    let offered = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if offered.is_some_and(|token| shop.token.is(token)) { Ok(()) } else { Err(Refusal::unauthorized()) }
}

fn cannot_change(error: ShopError) -> Refusal {
    Refusal::broken("maintenance could not be changed", error)
}
