//! What a server answers, as a pure function of the request and the program's state.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::{Health, HealthReport, metrics};

/// The pages of one server; those that are not given answer 404.
#[derive(Default)]
pub struct Site {
    health: Option<Health>,
    registry: Option<Arc<Registry>>,
    routes: Option<Box<Routes>>,
    questions: Option<Box<Questions>>,
}

type Routes = dyn Fn(&str, Option<&str>) -> Option<Reply> + Send + Sync;

type Questions = dyn Fn(&str, Option<&str>) -> Option<Pending> + Send + Sync;

/// A reply that another task has to be asked for.
pub type Pending = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A program's own answer, sent as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The HTTP status, 200 for an ordinary answer; one that HTTP does not know becomes 500.
    pub status: u16,
    /// The document.
    pub body: Value,
}

impl From<Value> for Reply {
    fn from(body: Value) -> Self {
        Self { status: 200, body }
    }
}

impl Site {
    /// A site without pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `/liveness` and `/readiness`: 200 or 503, with every check in the body.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// Answers `/metrics` in OpenMetrics text.
    #[must_use]
    pub fn metrics(mut self, registry: impl Into<Arc<Registry>>) -> Self {
        self.registry = Some(registry.into());
        self
    }

    /// Answers the program's own paths, given path and query; `None` means not found.
    ///
    /// `routes` runs on the server's task: it answers from a snapshot at hand and never waits.
    #[must_use]
    pub fn routes<F>(mut self, routes: F) -> Self
    where
        F: Fn(&str, Option<&str>) -> Option<Reply> + Send + Sync + 'static,
    {
        self.routes = Some(Box::new(routes));
        self
    }

    /// Answers the program's paths for which another of its tasks has to be asked; `None` means that the
    /// path is none of these.
    #[must_use]
    pub fn questions<F>(mut self, questions: F) -> Self
    where
        F: Fn(&str, Option<&str>) -> Option<Pending> + Send + Sync + 'static,
    {
        self.questions = Some(Box::new(questions));
        self
    }

    pub(super) async fn answer(&self, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
        let asks = *method == Method::GET || *method == Method::HEAD;
        let questions = self.questions.as_ref().filter(|_| asks);
        match questions.and_then(|questions| questions(uri.path(), uri.query())) {
            Some(pending) => reply(pending.await),
            None => self.response(method, uri),
        }
    }

    fn response(&self, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let body = json!({ "error": format!("{method} is not allowed, only GET and HEAD") });
            let mut response = document(StatusCode::METHOD_NOT_ALLOWED, &body);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match (uri.path(), &self.health, &self.registry) {
            ("/liveness", Some(health), _) => verdict(&health.liveness()),
            ("/readiness", Some(health), _) => verdict(&health.readiness()),
            ("/metrics", _, Some(registry)) => exposition(registry),
            (path, _, _) => self.own(path, uri.query()),
        }
    }

    fn own(&self, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
        match self.routes.as_ref().and_then(|routes| routes(path, query)) {
            Some(answer) => reply(answer),
            None => {
                let body = json!({ "error": format!("there is nothing at {path}") });
                document(StatusCode::NOT_FOUND, &body)
            }
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("health", &self.health.is_some())
            .field("metrics", &self.registry.is_some())
            .field("routes", &self.routes.is_some())
            .field("questions", &self.questions.is_some())
            .finish()
    }
}

fn reply(answer: Reply) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    document(status, &answer.body)
}

fn verdict(report: &HealthReport) -> Response<Full<Bytes>> {
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    document(status, &json!(report))
}

fn exposition(registry: &Registry) -> Response<Full<Bytes>> {
    match metrics::text(registry) {
        Ok(text) => respond(StatusCode::OK, OPEN_METRICS, text),
        Err(error) => {
            let body = json!({ "error": format!("encode the metrics: {error}") });
            document(StatusCode::INTERNAL_SERVER_ERROR, &body)
        }
    }
}

fn document(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    respond(status, JSON, format!("{body}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn get(site: &Site, uri: &'static str) -> StatusCode {
        site.response(&Method::GET, &Uri::from_static(uri)).status()
    }

    #[test]
    fn an_empty_site_has_no_pages() {
        for path in ["/", "/liveness", "/readiness", "/metrics", "/routes"] {
            assert_eq!(get(&Site::new(), path), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn only_reading_is_allowed() {
        let site = Site::new().health(Health::new());
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let response = site.response(&method, &Uri::from_static("/liveness"));
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        }
        let head = site.response(&Method::HEAD, &Uri::from_static("/liveness"));
        assert_eq!(head.status(), StatusCode::OK);
    }

    #[test]
    fn health_pages_follow_the_board() {
        let health = Health::new();
        let store = health.register("store", Duration::MAX);
        let site = Site::new().health(health);
        assert_eq!(get(&site, "/liveness"), StatusCode::OK);
        assert_eq!(get(&site, "/readiness"), StatusCode::SERVICE_UNAVAILABLE);
        store.ready(true, "in sync");
        assert_eq!(get(&site, "/readiness?verbose=1"), StatusCode::OK);
    }

    #[test]
    fn own_routes_come_after_the_standing_ones_and_see_path_and_query() {
        let site = Site::new()
            .health(Health::new())
            .routes(|path, query| match path {
                "/liveness" => Some(Reply {
                    status: 418,
                    body: Value::Null,
                }),
                "/echo" => Some(Reply::from(json!(query))),
                "/odd" => Some(Reply {
                    status: 7,
                    body: Value::Null,
                }),
                _ => None,
            });
        assert_eq!(get(&site, "/liveness"), StatusCode::OK);
        assert_eq!(get(&site, "/echo?a=b"), StatusCode::OK);
        assert_eq!(get(&site, "/odd"), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(get(&site, "/else"), StatusCode::NOT_FOUND);
    }
}
