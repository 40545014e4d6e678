//! `plumb serve` as its clients meet it: a real server on a free port, spoken to over TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Folder, guest};

const TOKEN: &str = "0123456789abcdef";

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
    _folder: Folder,
}

struct Reply {
    status: u16,
    headers: String,
    body: Value,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let folder = Folder::new();
        let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0", "--json", "--threads", "2"]);
        command.args(args).env("PLUMB_TOKEN", TOKEN).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).expect("the server says where it listens");
        let address = line["data"]["address"].as_str().unwrap().to_owned();
        Server { child, address, _folder: folder }
    }

    fn exact(more: &[&str]) -> Self {
        Self::start(&[&["--plugin", "reward-exact-match", "--config", r#"{"mode": "last-number"}"#], more].concat())
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("Authorization", &format!("Bearer {TOKEN}"))], body.to_string().as_bytes())
    }

    /// One request on a connection of its own.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        let json = [("Content-Type", "application/json")];
        let json = json.iter().filter(|(name, _)| !headers.iter().any(|(other, _)| other == name));
        let all = json.chain(headers.iter().filter(|(_, value)| !value.is_empty()));
        all.for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"\r\n").unwrap();
        stream.write_all(body).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
        Reply { status, headers: headers.to_lowercase(), body }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openrlhf_gets_rewards_scores_and_logs_in_the_order_of_its_queries() {
    let server = Server::exact(&["--end-of-text", "</s>"]);
    let request = json!({"query": ["Q: 2+2=4</s>", "Q: 2+2=5"], "prompts": ["Q: 2+2=", "Q: 2+2="], "labels": ["4", 4]});
    let reply = server.post("/get_reward", &request);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.body["rewards"], json!([1.0, 0.0]));
    assert_eq!(reply.body["scores"], json!([1.0, 0.0]));
    assert_eq!(reply.body["extra_logs"]["reward/reward-exact-match"], json!([1.0, 0.0]));
    let mismatch = server.post("/get_reward", &json!({"query": ["4"], "prompts": ["2+2="], "labels": ["4"]}));
    assert_eq!((mismatch.status, &mismatch.body["error"]["code"]), (400, &json!("serve.request")));
}

#[test]
fn empty_batch_has_no_rewards_and_rows_without_columns_are_told_apart_from_a_broken_server() {
    let server = Server::exact(&[]);
    let reply = server.post("/get_reward", &json!({"query": [], "prompts": [], "labels": []}));
    assert_eq!((reply.status, &reply.body["rewards"]), (200, &json!([])), "{}", reply.body);
    let reply = server.post("/v1/score", &json!({"rows": [{"prompt": "p", "x": "1"}]}));
    let told = reply.body["rows"][0]["plugins"]["reward-exact-match"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(reply.status == 200 && told.ends_with("the row has `prompt`, `x`"), "{}", reply.body);
}

#[test]
fn slime_gets_a_bare_number() {
    let server = Server::exact(&[]);
    for path in ["/", "/remote_rm"] {
        let reply = server.post(path, &json!({"prompt": "2+2", "response": "it is 4", "label": "4"}));
        assert_eq!((reply.status, reply.body), (200, json!(1.0)));
    }
}

#[test]
fn nemo_gym_gets_its_request_back_with_a_reward() {
    let server = Server::exact(&[]);
    let request = json!({
        "responses_create_params": {"input": [{"role": "user", "content": "2+2?"}]},
        "response": {"id": "r", "output": [{"type": "message", "content": [{"type": "output_text", "text": "4"}]}]},
        "expected_answer": "4", "task": "sums",
    });
    let reply = server.post("/verify", &request);
    assert_eq!((reply.status, &reply.body["reward"]), (200, &json!(1.0)));
    for (name, value) in request.as_object().unwrap() {
        assert_eq!(&reply.body[name], value, "{name}");
    }
    assert_eq!(reply.body.get("mask_sample"), None);
}

#[test]
fn row_without_a_score_fails_the_request_and_is_never_zero() {
    let server = Server::exact(&[]);
    // The plugin abstains from empty answers, and a row without an answer column cannot be scored at all.
    for (label, code) in [(json!(""), "abstain"), (json!(null), "missing-column")] {
        let reply = server.post("/remote_rm", &json!({"response": "4", "label": label}));
        assert_eq!((reply.status, &reply.body["error"]["code"]), (422, &json!("reward.no_score")));
        assert_eq!(reply.body["error"]["faults"][0]["code"], code);
        assert!(reply.body["error"]["hint"].as_str().unwrap().contains("--on-fault"), "{}", reply.body);
    }
    let rows = json!({"rows": [{"completion": "4", "answer": "4"}, {"completion": "4", "answer": ""}, {"answer": "4"}]});
    let reply = server.post("/v1/score", &rows);
    let rows = reply.body["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| &row["status"]).collect::<Vec<_>>(), ["scored", "abstained", "failed"]);
    assert_eq!(rows.iter().map(|row| row["value"].clone()).collect::<Vec<_>>(), [json!(1.0), json!(null), json!(null)]);
    assert_eq!(rows[1]["plugins"]["reward-exact-match"]["code"], "abstain");
    assert!(reply.headers.contains("x-plumb-faults: 2"), "{}", reply.headers);
}

#[test]
fn value_for_faults_is_the_users_and_is_told_in_every_protocol() {
    let server = Server::exact(&["--on-fault", "value=-0.5"]);
    let slime = server.post("/remote_rm", &json!({"response": "4", "label": ""}));
    assert_eq!((slime.status, slime.body), (200, json!(-0.5)));
    assert!(slime.headers.contains("x-plumb-faults: 1"), "{}", slime.headers);
    let openrlhf = server.post("/get_reward", &json!({"query": ["4", "4"], "labels": ["", "4"]})).body;
    assert_eq!((&openrlhf["rewards"], &openrlhf["extra_logs"]["faults"]), (&json!([-0.5, 1.0]), &json!([1, 0])));
    let request = json!({"response": {"output": [{"type": "message", "content": "4"}]}, "expected_answer": ""});
    let nemo_gym = server.post("/verify", &request).body;
    assert_eq!((&nemo_gym["reward"], &nemo_gym["mask_sample"]), (&json!(-0.5), &json!(true)));
    assert!(nemo_gym["failure_reason"].as_str().unwrap().contains("abstain"), "{nemo_gym}");
    let native = server.post("/v1/score", &json!({"rows": [{"completion": "4", "answer": ""}]})).body;
    assert_eq!((&native["rows"][0]["substituted"], &native["rows"][0]["status"]), (&json!(true), &json!("abstained")));
}

#[test]
fn several_plugins_are_summed_by_their_weights() {
    let guest = guest("reward-misbehaves");
    let (good, number) = (r#"{"mode": "good"}"#, r#"{"mode": "last-number"}"#);
    let server = Server::start(&[
        "--plugin",
        "reward-exact-match",
        "--config",
        number,
        "--weight",
        "2",
        "--plugin",
        &guest,
        "--config",
        good,
        "--weight",
        "-0.25",
    ]);
    // A match, and two bytes of length.
    let reply = server.post("/remote_rm", &json!({"response": "42", "label": "42"}));
    assert_eq!((reply.status, reply.body), (200, json!(1.5)));
}

#[test]
fn failing_plugin_costs_its_rows_and_leaves_the_server_up() {
    let guest = guest("reward-misbehaves");
    let server = Server::start(&["--plugin", &guest, "--config", r#"{"mode": "poison-trap"}"#]);
    let rows = json!({"rows": [{"completion": "abc"}, {"completion": "POISON"}, {"completion": "defg"}]});
    let first = server.post("/v1/score", &rows).body;
    assert_eq!(first["rows"][1]["plugins"]["reward-misbehaves"]["code"], "trap");
    assert_eq!((&first["rows"][0]["value"], &first["rows"][2]["value"]), (&json!(3.0), &json!(4.0)));
    assert_eq!(server.post("/v1/score", &rows).body, first);
    let reply = server.post("/get_reward", &json!({"query": ["POISON"]}));
    assert_eq!((reply.status, &reply.body["error"]["faults"][0]["code"]), (422, &json!("trap")));
}

#[test]
fn what_calls_leave_in_kv_never_reaches_another_request() {
    let guest = guest("reward-misbehaves");
    let server = Server::start(&["--plugin", &guest, "--config", r#"{"mode": "kv-count"}"#]);
    let first = server.post("/v1/score", &json!({"rows": [{"completion": "a"}]})).body;
    let second = server.post("/v1/score", &json!({"rows": [{"completion": "a"}]})).body;
    assert_eq!(first, second);
}

#[test]
fn concurrent_requests_get_their_own_answers() {
    let server = Server::exact(&[]);
    std::thread::scope(|scope| {
        for i in 0..32 {
            let server = &server;
            scope.spawn(move || {
                let label = if i % 3 == 0 { i } else { i + 1 };
                let reply = server.post("/remote_rm", &json!({"response": format!("{i}"), "label": label}));
                assert_eq!((reply.status, reply.body), (200, json!(f64::from(u8::from(i % 3 == 0)))));
            });
        }
    });
}

#[test]
fn connection_that_stays_open_is_answered_in_order() {
    let server = Server::exact(&[]);
    let request = |response: &str| {
        let body = json!({"response": response, "label": "4"}).to_string();
        let head = "POST /remote_rm HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n";
        format!("{head}Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all((request("4") + &request("5")).as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let bodies: Vec<&str> =
        text.split("HTTP/1.1 200 OK").skip(1).map(|answer| answer.rsplit("\r\n\r\n").next().unwrap()).collect();
    assert_eq!(bodies, ["1.0", "0.0"]);
}

#[test]
fn token_is_asked_of_everyone_but_for_health() {
    let server = Server::exact(&[]);
    let body = json!({"response": "4", "label": "4"}).to_string();
    for headers in [&[][..], &[("Authorization", "Bearer 0123456789abcdee")], &[("Authorization", "Basic OjA=")]] {
        for path in ["/remote_rm", "/get_reward", "/verify", "/v1/score"] {
            let reply = server.send("POST", path, headers, body.as_bytes());
            assert_eq!((reply.status, &reply.body["error"]["code"]), (401, &json!("serve.token")));
        }
    }
    // `http://x:TOKEN@...`, as clients send it.
    let basic = "Basic eDowMTIzNDU2Nzg5YWJjZGVm";
    assert_eq!(server.send("POST", "/remote_rm", &[("Authorization", basic)], body.as_bytes()).status, 200);
    assert_eq!(server.send("GET", "/health", &[], b"").body, json!({"status": "ok"}));
}

#[test]
fn bad_requests_are_refused_with_the_reason() {
    let server = Server::exact(&["--max-body-mib", "1"]);
    let auth = format!("Bearer {TOKEN}");
    let auth = ("Authorization", auth.as_str());
    let broken = server.send("POST", "/remote_rm", &[auth], b"{\"response\": ");
    assert_eq!(broken.status, 400);
    assert!(broken.body["error"]["message"].as_str().unwrap().contains("not valid JSON"), "{}", broken.body);
    assert_eq!(server.send("POST", "/remote_rm", &[auth], b"[1]").status, 400);
    // Refused by its length, before a byte of it is read.
    let huge = server.send("POST", "/remote_rm", &[auth, ("Content-Length", "1073741824")], b"");
    assert_eq!((huge.status, &huge.body["error"]["code"]), (413, &json!("serve.too_large")));
    let chunked = server.send(
        "POST",
        "/remote_rm",
        &[auth, ("Transfer-Encoding", "chunked"), ("Content-Length", "")],
        b"2\r\n{}\r\n0\r\n\r\n",
    );
    assert_eq!(chunked.status, 411, "{}", chunked.body);
    let unknown = server.send("GET", "/remote_rm", &[auth], b"");
    assert_eq!((unknown.status, &unknown.body["error"]["code"]), (404, &json!("serve.unknown")));
    let page = server.send("POST", "/remote_rm", &[auth, ("Content-Type", "text/plain")], b"{}");
    assert_eq!(page.status, 415);
}

#[test]
fn server_refuses_to_be_open_to_other_machines() {
    let folder = Folder::new();
    let serve = ["--json", "serve", "--plugin", "reward-exact-match", "--listen", "0.0.0.0:0"];
    let done = folder.plumb(&serve);
    assert_eq!((done.code, done.error()["code"].as_str()), (Some(2), Some("serve.open")));
    let done = folder.plumb(&[&serve[..], &["--no-auth"]].concat());
    assert_eq!((done.code, done.error()["code"].as_str()), (Some(2), Some("serve.open")));
    let done = folder.plumb(&["--json", "serve", "--plugin", "reward-exact-match", "--config", "{}", "--config", "{}"]);
    assert_eq!(done.code, Some(2), "{done:?}");
}

#[cfg(unix)]
#[test]
fn interrupted_server_answers_what_it_has_and_ends_well() {
    let mut server = Server::exact(&[]);
    assert_eq!(server.post("/remote_rm", &json!({"response": "4", "label": "4"})).status, 200);
    let interrupted = std::process::Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
