//! The server: who asks, how much, how long; then a protocol reads, the scorer scores, the protocol answers.
//!
//! A thread per connection, as all that it does is wait: for bytes, then for the plugin host's workers, on which plugins run.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::access::Access;
use super::protocol::{self, Malformed, Reading, native, nemo_gym, openrlhf, slime};
use super::scoring::{self, Scored, Scorer};
use super::wire::{Broken, Connection, Head};
use crate::diagnostic::printable;
use crate::output::Output;

/// Connections at one time; more are closed at once.
const CONNECTIONS: usize = 1024;
/// Requests that are read and scored at one time; more wait. Bounds memory to this many bodies.
const REQUESTS: usize = 64;
/// Requests without a score that the console tells; more are counted.
const TOLD: u64 = 20;
/// Stack of a connection's thread. serde_json stops at 128 levels.
const STACK_BYTES: usize = 512 << 10;

/// What is served, to whom, within which bounds.
pub struct Server {
    pub scorer: Arc<Scorer>,
    pub reading: Reading,
    pub access: Access,
    /// Largest body of a request.
    pub body_bytes: usize,
    /// Longest time for a request from its head on.
    pub timeout: Duration,
    /// Where requests that could not be scored are told.
    pub output: Output,
}

/// An answer on its way.
struct Answer {
    status: u16,
    body: Value,
    headers: Vec<(&'static str, String)>,
}

/// How many are doing something, and a word when one of them is done.
#[derive(Default)]
struct Count {
    now: Mutex<usize>,
    changed: Condvar,
}

/// One of those that a [`Count`] counts.
struct Place<'a>(&'a Count);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_all();
    }
}

impl Count {
    /// Waits until fewer than `limit` are there, but not past `until`.
    fn enter(&self, limit: usize, until: Instant) -> Option<Place<'_>> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(now, left, |now| *now >= limit);
        let (mut now, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out() || *now < limit).then(|| {
            *now += 1;
            Place(self)
        })
    }

    /// Waits until nobody is there, but not past `until`.
    fn empty(&self, until: Instant) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout_while(now, left, |now| *now > 0));
    }
}

struct Shared {
    server: Server,
    connections: Count,
    requests: Count,
    /// Requests that could not be scored.
    unscored: AtomicU64,
}

impl Server {
    /// Serves until `stop` is set and somebody connects, then finishes the requests under way.
    pub fn run(self, listener: &TcpListener, stop: &AtomicBool) {
        let timeout = self.timeout;
        let (connections, requests) = (Count::default(), Count::default());
        let shared = Arc::new(Shared { server: self, connections, requests, unscored: AtomicU64::new(0) });
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // A connection that broke before it began is nobody's error.
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(&shared);
            let serve = move || {
                if let Some(_place) = shared.connections.enter(CONNECTIONS, Instant::now()) {
                    shared.serve(stream);
                }
            };
            // Without a thread the connection is dropped, and the client tries again.
            drop(std::thread::Builder::new().name("serve".into()).stack_size(STACK_BYTES).spawn(serve));
        }
        shared.requests.empty(Instant::now() + timeout);
        let unscored = shared.unscored.load(Ordering::Relaxed);
        if unscored > TOLD {
            shared.server.output.warn(format!("{} more requests could not be scored", unscored - TOLD));
        }
    }
}

impl Shared {
    /// Answers the requests of a connection, one after the other.
    fn serve(&self, stream: TcpStream) {
        let mut connection = Connection::new(stream);
        loop {
            let (answer, close) = match connection.head() {
                Ok(head) => {
                    let until = Instant::now() + self.server.timeout;
                    let Some(_place) = self.requests.enter(REQUESTS, until) else {
                        let busy = refuse(503, "serve.busy", "too many requests at one time", "try again");
                        drop(connection.answer(busy.status, &busy.headers, &busy.body.to_string(), true));
                        return;
                    };
                    let (answer, read) = self.answer(&head, &mut connection, until);
                    let close = head.close || !read;
                    let sent = connection.answer(answer.status, &answer.headers, &answer.body.to_string(), close);
                    if sent.is_err() || close {
                        return;
                    }
                    continue;
                }
                Err(Broken::Gone) => return,
                Err(Broken::Slow) => (refuse(408, "serve.timeout", "the request did not come", "send it at once"), true),
                Err(Broken::Refused(status, reason)) => {
                    (refuse(status, "serve.request", &reason, "see `plumb serve --help`"), true)
                }
            };
            drop(connection.answer(answer.status, &answer.headers, &answer.body.to_string(), close));
            return;
        }
    }

    /// A request's answer, and whether its body was read to the end.
    fn answer(&self, head: &Head, connection: &mut Connection, until: Instant) -> (Answer, bool) {
        let server = &self.server;
        let empty = head.length.unwrap_or(0) == 0;
        // Says nothing but that the server is there, so that supervisors need no token.
        if (head.method.as_str(), head.path.as_str()) == ("GET", "/health") {
            return (Answer { status: 200, body: json!({"status": "ok"}), headers: Vec::new() }, empty);
        }
        if !server.access.allows(head.authorization.as_deref()) {
            let hint = "send `Authorization: Bearer TOKEN`, or put the token into the URL: http://plumb:TOKEN@ADDRESS/...";
            let mut answer = refuse(401, "serve.token", "the token is missing or wrong", hint);
            answer.headers.push(("WWW-Authenticate", "Basic realm=\"plumb\"".into()));
            return (answer, empty);
        }
        let Some(route) = Route::find(head) else {
            let message = format!("there is no `{} {}`", head.method, head.path);
            return (
                refuse(404, "serve.unknown", &message, "POST /get_reward, /remote_rm, /verify or /v1/score, or GET /health"),
                empty,
            );
        };
        let body = match body(head, connection, server.body_bytes, until) {
            Ok(body) => body,
            Err(answer) => return (answer, false),
        };
        let answer = reply(server, route, &body, until);
        if answer.status >= 422 {
            self.tell(head, &answer);
        }
        (answer, true)
    }

    /// Says on the console that a request could not be scored: the client may not show its answer.
    fn tell(&self, head: &Head, answer: &Answer) {
        let error = &answer.body["error"];
        let text = |key: &str| error[key].as_str().unwrap_or_default();
        let first = error["faults"].get(0).map_or_else(String::new, |fault| {
            let said = |key: &str| fault[key].as_str().unwrap_or_default();
            format!("; row {}, `{}`: {}", fault["row"], said("plugin"), said("message"))
        });
        if self.unscored.fetch_add(1, Ordering::Relaxed) < TOLD {
            let line = format!("{} {}: {} ({}){first}", head.path, answer.status, text("message"), text("code"));
            self.server.output.warn(printable(&line));
        }
    }
}

/// A request's body, if it may be as it is.
fn body(head: &Head, connection: &mut Connection, limit: usize, until: Instant) -> Result<Vec<u8>, Answer> {
    let content_type = head.content_type.as_deref().unwrap_or_default();
    if !content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        // A web page can send other types to any address without asking first, this one not.
        let message = "the content type is not application/json";
        return Err(refuse(415, "serve.request", message, "send JSON with its content type"));
    }
    let Some(length) = head.length else {
        return Err(refuse(411, "serve.request", "the request has no length", "send a Content-Length"));
    };
    if length > limit {
        let message = format!("the request is larger than {} MiB", limit >> 20);
        return Err(refuse(413, "serve.too_large", &message, "send fewer rows, or raise `--max-body-mib`"));
    }
    connection
        .body(head, length, until)
        .map_err(|_| refuse(408, "serve.timeout", "the request's body did not come", "send it at once, or raise `--timeout-s`"))
}

/// A protocol, by its path.
#[derive(Clone, Copy)]
enum Route {
    OpenRlhf,
    Slime,
    NemoGym,
    Native,
}

impl Route {
    fn find(head: &Head) -> Option<Self> {
        match (head.method.as_str(), head.path.as_str()) {
            ("POST", "/get_reward") => Some(Route::OpenRlhf),
            ("POST", "/" | "/remote_rm") => Some(Route::Slime),
            ("POST", "/verify") => Some(Route::NemoGym),
            ("POST", "/v1/score") => Some(Route::Native),
            _ => None,
        }
    }

    fn rows(self, request: &Map<String, Value>, reading: &Reading) -> protocol::Rows {
        match self {
            Route::OpenRlhf => openrlhf::rows(request, reading),
            Route::Slime => slime::rows(request, reading),
            Route::NemoGym => nemo_gym::rows(request, reading),
            Route::Native => native::rows(request),
        }
    }

    /// The answer; None when the protocol has no place for a row without a value.
    fn answer(self, request: Map<String, Value>, scorer: &Scorer, scored: &[Scored]) -> Option<Value> {
        match self {
            Route::OpenRlhf => openrlhf::answer(scorer, scored),
            Route::Slime => slime::answer(scored),
            Route::NemoGym => nemo_gym::answer(request, scorer, scored),
            Route::Native => Some(native::answer(scorer, scored)),
        }
    }
}

/// From a body to an answer.
fn reply(server: &Server, route: Route, body: &[u8], until: Instant) -> Answer {
    let request: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(Value::Object(request)) => request,
        Ok(_) => return refuse(400, "serve.request", "the body is not a JSON object", "see `plumb serve --help`"),
        Err(error) => {
            let message = format!("the body is not valid JSON: {error}");
            return refuse(400, "serve.request", &message, "see `plumb serve --help`");
        }
    };
    let rows = match route.rows(&request, &server.reading) {
        Ok(rows) => rows,
        Err(Malformed { message, hint }) => return refuse(400, "serve.request", &message, hint),
    };
    let (send, receive) = mpsc::channel();
    let scorer = Arc::clone(&server.scorer);
    // A thread of its own, so that a request can end while the plugins' own deadlines still run.
    std::thread::spawn(move || drop(send.send(scorer.score(&rows))));
    let scored = match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(Ok(scored)) => scored,
        Ok(Err(error)) => {
            let (code, message) = (format!("plugin.{}", error.fault.code()), format!("{error}: {}", error.fault));
            if error.fault.code() == scoring::COLUMN_TYPE {
                return refuse(422, &code, &message, "send values of the columns' types");
            }
            return refuse(500, &code, &message, "see what the server prints");
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let message = format!("the request took more than {} s", server.timeout.as_secs());
            return refuse(504, "serve.timeout", &message, "send fewer rows, or raise `--timeout-s`");
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            return refuse(500, "internal", "scoring ended without an answer", "this is a bug in plumb: please report it");
        }
    };
    let faults = protocol::faults(&server.scorer, &scored);
    match route.answer(request, &server.scorer, &scored) {
        Some(body) => Answer { status: 200, body, headers: vec![("X-Plumb-Faults", faults.len().to_string())] },
        None => {
            let without = scored.iter().filter(|row| row.value.is_none()).count();
            let body = json!({"error": {
                "code": "reward.no_score",
                "message": format!("{without} of {} rows have no score", scored.len()),
                "faults": faults,
                "hint": "`plumb serve --on-fault value=X` says what such a row is worth; `/v1/score` tells rows apart",
            }});
            Answer { status: 422, body, headers: Vec::new() }
        }
    }
}

fn refuse(status: u16, code: &str, message: &str, hint: &str) -> Answer {
    Answer { status, body: json!({"error": {"code": code, "message": message, "hint": hint}}), headers: Vec::new() }
}
