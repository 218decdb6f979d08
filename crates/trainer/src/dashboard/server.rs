//! What a browser is answered.
//!
//! Only this machine can ask. A page of a stranger cannot, whatever name its address was given: the server
//! answers to its own names alone, and lets no other page read its answers.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::dashboard::catalogue::{Catalogue, CataloguedRun};
use crate::dashboard::curves::{CurveCache, MOST_RUNS, RunCharts, side_by_side};
use crate::dashboard::details::Details;
use crate::dashboard::log_tail::{self, Place};
use crate::dashboard::page;
use crate::dashboard::run_files::RunFiles;
use crate::error::Error;

/// The port that is tried first: TensorBoard's own is the one before.
pub const FIRST_PORT: u16 = 6007;

/// Ports that are tried from there on.
const PORTS: u16 = 20;

/// How long a request may still take when the server is to end.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Threads that read files.
const READERS: usize = 2;

/// Lets no page of another origin embed an answer.
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What requests are answered from.
#[derive(Debug)]
pub struct Dashboard {
    dir: PathBuf,
    catalogue: Mutex<Catalogue>,
    curves: Mutex<CurveCache>,
}

impl Dashboard {
    /// Of the runs in `dir`.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn new(dir: &Path) -> Result<Dashboard, Error> {
        Ok(Dashboard {
            dir: dir.to_owned(),
            catalogue: Mutex::new(Catalogue::new(dir)?),
            curves: Mutex::default(),
        })
    }

    /// The list of runs as it is now.
    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        let mut catalogue = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        catalogue.refresh_if_due();
        catalogue
    }

    fn run(&self, id: &str) -> Result<CataloguedRun, Refusal> {
        let run = self.catalogue().run(id).cloned();
        run.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("there is no run {id} now")))
    }

    fn charts(&self, ids: &[&str]) -> Result<Value, Refusal> {
        if ids.len() > MOST_RUNS {
            let text = format!("{} runs are asked for; at most {MOST_RUNS} are drawn", ids.len());
            return Err(Refusal(StatusCode::BAD_REQUEST, text));
        }
        let mut runs = Vec::new();
        for id in ids {
            // A run that went away leaves the others as they are.
            runs.push(match self.run(id) {
                Ok(run) => self.charts_of(&run),
                Err(Refusal(_, reason)) => Err(reason),
            });
        }
        let reasons: Vec<Option<&String>> = runs.iter().map(|run| run.as_ref().err()).collect();
        Ok(json!({ "runs": ids, "reasons": reasons, "charts": side_by_side(&runs) }))
    }

    fn charts_of(&self, run: &CataloguedRun) -> RunCharts {
        let look = run.look.as_ref().map_err(Clone::clone)?;
        let mut curves = self.curves.lock().unwrap_or_else(PoisonError::into_inner);
        curves.of(&run.folder, &look.files)
    }

    fn log(&self, id: &str, place: Option<Place>) -> Result<log_tail::LogPart, Refusal> {
        let run = self.run(id)?;
        let refusal = |reason: String| Refusal(StatusCode::INTERNAL_SERVER_ERROR, reason);
        // The length of the log is that of this moment, not of the last look at all runs.
        let files = RunFiles::look(self.catalogue().root(), &run.folder).map_err(refusal)?;
        let path = run.folder.log();
        log_tail::read(&path, files.log, place)
            .map_err(|error| refusal(format!("train.log cannot be read: {error}")))
    }
}

/// Why a request gets no answer.
struct Refusal(StatusCode, String);

type Parameters = Query<Vec<(String, String)>>;

fn values<'a>(parameters: &'a Parameters, name: &str) -> Vec<&'a str> {
    let named = parameters.iter().filter(|(key, _)| key == name);
    named.map(|(_, value)| value.as_str()).collect()
}

fn the_run(parameters: &Parameters) -> Result<&str, Refusal> {
    match values(parameters, "run").as_slice() {
        [run] => Ok(run),
        _ => Err(Refusal(StatusCode::BAD_REQUEST, "expected one parameter: run".to_owned())),
    }
}

/// The routes. All of them read.
fn router(dashboard: Arc<Dashboard>) -> Router {
    let page = |State(dashboard): State<Arc<Dashboard>>| async move {
        let html = page::document(&dashboard.dir);
        ([(CONTENT_TYPE, "text/html; charset=utf-8")], html)
    };
    let runs = |State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap| {
        answer(headers, move || Ok(dashboard.catalogue().rows()))
    };
    let charts =
        |State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, query: Parameters| {
            answer(headers, move || dashboard.charts(&values(&query, "run")))
        };
    let run = |State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, query: Parameters| {
        answer(headers, move || {
            let id = the_run(&query)?;
            Ok(Details::of(id, &dashboard.run(id)?))
        })
    };
    let log = |State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, query: Parameters| {
        answer(headers, move || {
            let number = |name| values(&query, name).first().and_then(|text| text.parse().ok());
            let place = number("file").zip(number("from"));
            dashboard.log(the_run(&query)?, place.map(|(file, from)| Place { file, from }))
        })
    };
    Router::new()
        .route("/", get(page))
        .route("/api/runs", get(runs))
        .route("/api/charts", get(charts))
        .route("/api/run", get(run))
        .route("/api/log", get(log))
        .layer(middleware::from_fn(guard))
        .with_state(dashboard)
}

/// Does the reading on a thread of its own, and gives its result as JSON; without a body if the browser has it.
async fn answer<T: Serialize + 'static>(
    headers: HeaderMap,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Response {
    let read = tokio::task::spawn_blocking(move || {
        let value = work()?;
        serde_json::to_vec(&value)
            .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    });
    let body = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(Refusal(status, reason))) => return (status, reason).into_response(),
        Err(error) => {
            let text = format!("reading the runs failed: {error}");
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response();
    }
    ([(CONTENT_TYPE, "application/json".to_owned()), (ETAG, tag)], body).into_response()
}

/// Lets requests to the server's own names in, and puts on every answer what keeps other pages out.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = match is_own_name(request.headers().get(HOST)) {
        true => next.run(request).await,
        false => {
            let text = "this server answers to 127.0.0.1 and localhost only";
            (StatusCode::FORBIDDEN, text).into_response()
        }
    };
    let headers = response.headers_mut();
    // What the page may do, it says itself; here is what only a header can.
    let policy = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'";
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CORP, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a request is to this machine by a name that nobody else can give an address. A stranger's name
/// that leads here for an instant (DNS rebinding) would let the stranger's page read the answers. The port may be
/// any: that of a tunnel is another.
fn is_own_name(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

/// A listener on this machine's own address alone.
///
/// # Errors
/// The port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listener on the first free port from [`FIRST_PORT`] on.
///
/// # Errors
/// None is free.
pub fn listen_anywhere() -> io::Result<TcpListener> {
    let last = FIRST_PORT + PORTS - 1;
    let mut reason = String::new();
    for port in FIRST_PORT..=last {
        match listen(port) {
            Ok(listener) => return Ok(listener),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(io::Error::other(format!("no port from {FIRST_PORT} to {last} can be had ({reason})")))
}

/// Answers requests until `stop` is over.
///
/// # Errors
/// The system refuses what a server needs.
pub fn serve(
    listener: TcpListener,
    dashboard: Dashboard,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(READERS)
        .build()?;
    let served = runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(listener, router(Arc::new(dashboard)));
        let server = server.with_graceful_shutdown(async move {
            let _ = ended.await;
        });
        let server = tokio::spawn(server.into_future());
        stop.await;
        // Requests that are under way get their answers, if they are not long.
        let _ = end.send(());
        match tokio::time::timeout(LAST_REQUESTS, server).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Ok(()),
        }
    });
    runtime.shutdown_timeout(LAST_REQUESTS);
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_names_are_not_its_own() {
        let table = [
            ("127.0.0.1:6007", true),
            ("localhost:8080", true),
            ("localhost", true),
            ("[::1]:6007", true),
            ("[::1]", true),
            ("evil.example:6007", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:6007", false),
            ("0.0.0.0:6007", false),
            ("localhost:80:90", false),
            ("localhost@evil.example", false),
            ("", false),
        ];
        for (host, is_own) in table {
            let value = HeaderValue::from_str(host).unwrap();
            assert_eq!(is_own_name(Some(&value)), is_own, "{host}");
        }
        assert!(!is_own_name(None));
    }
}
