//! `plumb serve`: reward plugins behind the HTTP protocols that training frameworks already speak.
//!
//! Reading order: [`access`] (who may ask, and from where), [`protocol`] (requests to rows, outcomes to answers), [`scoring`]
//! (rows to outcomes, on the plugin host's own threads), [`http`] (the server, which only waits) over [`wire`] (HTTP/1.1).

mod access;
mod http;
mod protocol;
mod scoring;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::{Output, stderr_line};
use crate::plugin_log::PluginLog;
use access::Access;
use protocol::Reading;
use scoring::{OnFault, Scorer};

/// Serve reward plugins over HTTP, in the protocols of OpenRLHF, slime and NeMo-Gym.
///
/// POST /get_reward (OpenRLHF), / or /remote_rm (slime), /verify (NeMo-Gym), /v1/score (rows and outcomes, nothing lost);
/// GET /health. Several plugins are summed by their weights.
///
/// A row without a score is never a silent 0: the request fails with status 422 and the reasons, unless `--on-fault value=X` says
/// what such a row is worth; the answer then tells where that happened.
///
/// A token is asked of everyone, as `Authorization: Bearer TOKEN` or as the password in the URL, which clients that know only a
/// URL understand: http://plumb:TOKEN@127.0.0.1:8765/get_reward.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb serve --plugin reward-math-answer --listen 127.0.0.1:8765
  plumb serve --plugin ./style.wasm --weight 0.2 --plugin reward-exact-match --weight 1 --on-fault value=0")]
pub struct ServeArgs {
    /// Name of an installed reward plugin, or path of a .wasm file; several are summed
    #[arg(long = "plugin", value_name = "NAME|PATH", required = true)]
    plugins: Vec<String>,
    /// Configuration of each plugin, a JSON object, in the order of the plugins
    #[arg(long = "config", value_name = "JSON")]
    configs: Vec<String>,
    /// Weight of each plugin in the sum, in the order of the plugins [default: 1 each]
    #[arg(long = "weight", value_name = "W", allow_negative_numbers = true)]
    weights: Vec<f64>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8765")]
    listen: SocketAddr,
    /// What clients must know [default: a new one, printed at start]
    #[arg(long, env = "PLUMB_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Ask nobody for a token; only where other machines cannot connect
    #[arg(long, conflicts_with = "token")]
    no_auth: bool,
    /// What a row without a score is worth: `fail` (nothing, the request fails) or `value=X`
    #[arg(long, value_name = "POLICY", default_value = "fail")]
    on_fault: OnFault,
    /// Column of the plugins that labels and expected answers go to
    #[arg(long, value_name = "NAME", default_value = "answer")]
    label_column: String,
    /// Text cut off the end of OpenRLHF's queries, such as `<|im_end|>`; may be given several times
    #[arg(long, value_name = "TEXT")]
    end_of_text: Vec<String>,
    /// Largest request
    #[arg(long, value_name = "MIB", default_value_t = 16)]
    max_body_mib: usize,
    /// Longest time for a request, in seconds
    #[arg(long, value_name = "S", default_value_t = 120)]
    timeout_s: u64,
    /// Seed of the plugins' random numbers
    #[arg(long, default_value_t)]
    seed: u64,
}

/// Runs the command until Ctrl-C or SIGTERM.
pub fn run(args: &ServeArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let access = Access::new(args.listen, args.token.as_deref(), args.no_auth)?;
    let log = Arc::new(PluginLog::new(output));
    let scorer = Scorer::load(&args.plugins, &args.configs, &args.weights, args.on_fault, args.seed, Arc::clone(&log) as _)?;
    let reading = Reading { label_column: args.label_column.clone(), end_of_text: args.end_of_text.clone() };
    let server = http::Server {
        scorer: Arc::new(scorer),
        reading,
        access,
        body_bytes: args.max_body_mib << 20,
        timeout: Duration::from_secs(args.timeout_s),
        output,
    };
    let listener = TcpListener::bind(args.listen).map_err(|e| {
        Diagnostic::resource("serve.listen", format!("cannot listen on {}", args.listen))
            .because(e.to_string())
            .hint("choose another port with `--listen`; port 0 takes a free one")
    })?;
    let address = listener.local_addr()?;
    let stop = stop_flag(address)?;
    tell(&server, address, output)?;
    server.run(&listener, &stop);
    log.finish();
    Ok(ExitStatus::Success)
}

/// A flag that Ctrl-C and SIGTERM set. The second one ends the process at once.
fn stop_flag(address: SocketAddr) -> Result<Arc<AtomicBool>, Diagnostic> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let handler = move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(ExitStatus::Interrupted.code()));
        }
        // The server waits for connections; this one makes it look at the flag. An unspecified address listens on loopback too.
        let mut own = address;
        if own.ip().is_unspecified() {
            own.set_ip(if own.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
        }
        drop(TcpStream::connect(own));
    };
    ctrlc::set_handler(handler).map_err(|e| Diagnostic::resource("signal", "cannot listen for Ctrl-C").because(e.to_string()))?;
    Ok(flag)
}

/// Says where the server is, on stdout for scripts; and a token that nobody knows yet, on stderr.
fn tell(server: &http::Server, address: SocketAddr, output: Output) -> anyhow::Result<()> {
    let user = match &server.access {
        Access::Generated(token) => {
            stderr_line(&format!("token {token}"));
            format!("plumb:{token}@")
        }
        Access::Given(_) => "plumb:TOKEN@".to_owned(),
        Access::Open => String::new(),
    };
    output.note(format!("plugins {}", server.scorer.names().join(", ")));
    output.note(format!("OpenRLHF --reward.remote_url http://{user}{address}/get_reward"));
    output.note(format!("slime    --rm-type remote_rm --rm-url http://{user}{address}/remote_rm"));
    output.note(format!("NeMo-Gym http://{user}{address}/verify"));
    output.data(if output.json {
        json!({ "type": "listening", "v": 1, "data": { "address": address, "url": format!("http://{address}") } }).to_string()
    } else {
        format!("http://{address}")
    })?;
    Ok(())
}
