//! Errors as people and scripts read them: what, why, where, and the next step.
//!
//! Libraries return typed errors; here, and only here, they get a stable code, an exit status and a hint.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use crate::exit::ExitStatus;
use crate::output::{Output, stderr_line};

/// One error, ready to be shown.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Stable name for scripts: `recipe.unknown_key`, `plugin.out_of_fuel`, ...
    pub code: String,
    /// How the program ends.
    pub exit: ExitStatus,
    /// What went wrong.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// File, line or key.
    pub place: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Diagnostic {}

impl Diagnostic {
    /// An error in what the user wrote.
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, ExitStatus::Usage, message)
    }

    /// An error with a file, a model or a device.
    pub fn resource(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, ExitStatus::Resource, message)
    }

    /// An error with all its parts.
    pub fn new(code: &str, exit: ExitStatus, message: impl Into<String>) -> Self {
        Diagnostic { code: code.into(), exit, message: message.into(), causes: Vec::new(), place: None, hint: None }
    }

    /// A system error about a file.
    pub fn io(action: &str, path: &Path, source: &io::Error) -> Self {
        let mut error = Self::resource("file.io", format!("cannot {action} `{}`", path.display())).because(source.to_string());
        if source.kind() == io::ErrorKind::NotFound {
            error.code = "file.not_found".into();
        }
        error
    }

    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writes the error to stderr.
    pub fn emit(&self, output: Output) {
        if output.json {
            let data = serde_json::json!({
                "code": self.code, "message": self.message, "causes": self.causes, "where": self.place, "hint": self.hint,
                "exit": self.exit.code(),
            });
            stderr_line(&serde_json::json!({ "type": "error", "v": 1, "data": data }).to_string());
            return;
        }
        let (red, cyan, off) = if output.color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        stderr_line(&format!("{red}error{off}: {}", printable(&self.message)));
        self.causes.iter().for_each(|cause| stderr_line(&format!("  cause: {}", printable(cause))));
        if let Some(place) = &self.place {
            stderr_line(&format!("  where: {place}"));
        }
        if let Some(hint) = &self.hint {
            stderr_line(&format!("\n{cyan}hint{off}: {hint}"));
        }
    }
}

/// Text for a terminal. Messages may hold what a plugin or a model wrote, so that control characters besides line breaks are written
/// out.
pub fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(plain).collect()
}

/// Whether an error is only that the reader of our output went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

impl From<anyhow::Error> for Diagnostic {
    fn from(error: anyhow::Error) -> Self {
        if let Some(found) = error.chain().find_map(|cause| cause.downcast_ref::<Diagnostic>()) {
            return found.clone();
        }
        let mut kinds: Vec<Kind> = error.chain().filter_map(classify).collect();
        // The innermost known error says most; but that a checkpoint failed matters more than which of its writes did.
        let at = kinds.iter().position(|kind| kind.code == "run.checkpoint").or(kinds.len().checked_sub(1));
        let kind = at.map_or_else(|| Kind::new("error", ExitStatus::Resource), |at| kinds.swap_remove(at));
        let mut causes: Vec<String> = Vec::new();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            // Transparent wrappers repeat the words of what they wrap.
            if causes.last().unwrap_or(&error.to_string()) != &cause {
                causes.push(cause);
            }
        }
        Diagnostic { code: kind.code, exit: kind.exit, message: error.to_string(), causes, place: None, hint: kind.hint }
    }
}

/// How to go on with a recipe that was changed: `--resume` takes only the one that a run was started with.
const NEW_RUN: &str = "a changed recipe is a new run, which goes on with `model.path = \"RUN/checkpoints/step-N/model\"`";

/// What a library's error means to the user.
struct Kind {
    code: String,
    exit: ExitStatus,
    hint: Option<String>,
}

impl Kind {
    fn new(code: &str, exit: ExitStatus) -> Self {
        Kind { code: code.into(), exit, hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What is known here of one error of a chain.
fn classify(error: &(dyn StdError + 'static)) -> Option<Kind> {
    if let Some(error) = error.downcast_ref::<plumb_model::Error>() {
        return Some(model(error));
    }
    if let Some(error) = error.downcast_ref::<plumb_train::run::Error>() {
        return Some(run(error));
    }
    if let Some(error) = error.downcast_ref::<plumb_core::PluginError>() {
        return Some(plugin(error));
    }
    if let Some(error) = error.downcast_ref::<plumb_host::Error>() {
        return Some(host(error));
    }
    if let Some(error) = error.downcast_ref::<plumb_train::Error>() {
        return Some(train(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return (error.kind() == io::ErrorKind::StorageFull)
            .then(|| Kind::new("file.disk_full", ExitStatus::Resource).hint("free some space and go on with `--resume`"));
    }
    None
}

fn model(error: &plumb_model::Error) -> Kind {
    use plumb_model::Error;
    let kind = |code| Kind::new(code, ExitStatus::Resource);
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => kind("model.not_found")
            .hint("give a Hugging Face folder (config.json, model.safetensors, tokenizer.json) or a .gguf file"),
        Error::Io { .. } => kind("model.io"),
        Error::Malformed { .. } => kind("model.malformed").hint("the file may be cut short: fetch it again and compare its size"),
        Error::Unsupported { .. } => kind("model.unsupported"),
        Error::Shape { .. } => kind("model.shape").hint("config.json and the weights do not belong together"),
        Error::Tokenizer(_) => kind("model.tokenizer"),
        Error::Memory { .. } => kind("memory.rollout")
            .hint("set `max_batch` or `max_completion_length` lower: `--max-batch`, or `rollout.max_batch` in a recipe"),
        Error::TooLong { .. } => kind("model.too_long").hint("shorten the prompt, or set `max_completion_length` lower"),
        Error::NonFinite { .. } => kind("model.non_finite"),
        Error::Request(_) => Kind::new("usage.value", ExitStatus::Usage),
        _ => kind("model.error"),
    }
}

fn run(error: &plumb_train::run::Error) -> Kind {
    use plumb_train::run::Error;
    match error {
        Error::NotEmpty { resumable: true, .. } => Kind::new("run.exists", ExitStatus::Usage)
            .hint("go on with it by `--resume`, or choose another folder with `--run-dir`"),
        Error::NotEmpty { .. } => Kind::new("run.not_empty", ExitStatus::Usage).hint("choose another folder with `--run-dir`"),
        Error::NotARun { .. } => {
            Kind::new("run.not_found", ExitStatus::Usage).hint("start one with `plumb train RECIPE --run-dir DIR`")
        }
        Error::RecipeChanged { .. } => Kind::new("run.recipe_changed", ExitStatus::Usage)
            .hint("resume with the recipe and the `--set` of the first start, or start a new run in another folder"),
        Error::InputChanged { .. } => Kind::new("run.input_changed", ExitStatus::Usage)
            .hint("put the old file back, or start a new run with `model.path = \"RUN/checkpoints/step-N/model\"`"),
        Error::NotTraining { .. } => Kind::new("run.not_training", ExitStatus::Usage)
            .hint("start or continue it with `plumb train RECIPE --run-dir RUN`, with `--resume` if it has begun"),
        Error::InUse { .. } => {
            Kind::new("run.in_use", ExitStatus::Usage).hint("wait for it, stop it, or choose another folder with `--run-dir`")
        }
        Error::BrokenLine { .. } | Error::Malformed { .. } => Kind::new("run.malformed", ExitStatus::Resource),
        Error::Checkpoint { .. } => {
            Kind::new("run.checkpoint", ExitStatus::Resource).hint("the checkpoint before it is whole: go on with `--resume`")
        }
        _ => Kind::new("run.io", ExitStatus::Resource),
    }
}

fn train(error: &plumb_train::Error) -> Kind {
    use plumb_train::Error;
    match error {
        Error::Io { .. } => Kind::new("data.io", ExitStatus::Resource),
        Error::Row { .. } => Kind::new("data.broken_row", ExitStatus::Resource),
        Error::DataFile { .. } => Kind::new("data.file", ExitStatus::Resource),
        Error::TooFewRows { .. } => Kind::new("data.too_few_rows", ExitStatus::Usage)
            .hint("add rows, or lower `rollout.prompts_per_step`, `sft.batch_size` or `data.holdout`"),
        Error::Recipe { .. } => Kind::new("recipe.value", ExitStatus::Usage),
        Error::LoadPlugin { .. } | Error::Plugin { .. } => Kind::new("plugin.error", ExitStatus::Plugin),
        Error::FaultAborts { code, .. } => Kind::new(&format!("plugin.{code}"), ExitStatus::Plugin)
            .hint(format!("`on_fault = \"drop-group\"`, `\"drop-row\"` or `{{ value = ... }}` lets a run go on; {NEW_RUN}")),
        Error::CircuitOpen { plugin, .. } => Kind::new("plugin.circuit_open", ExitStatus::Plugin).hint(format!(
            "its rows are cases for `plumb plugin test` in RUN/poison; leave a mended one for the stopped run with `plumb run swap RUN \
             --replace {plugin}=FIXED.wasm`, and go on with `--resume`"
        )),
        Error::Answer { .. } => Kind::new("plugin.answer", ExitStatus::Plugin),
        Error::MissingGeneration { plugin, .. } => Kind::new("run.missing_plugin", ExitStatus::Usage)
            .hint(format!("put the component with that digest into the run, as `RUN/plugins/{}.wasm`", plugin.digest)),
        Error::NoSteps { stages, .. } => {
            let spans = stages.iter().map(|span| format!("`{}` has steps {}..{}", span.name, span.first, span.last));
            Kind::new("run.no_steps", ExitStatus::Usage).hint(format!("stage {}", spans.collect::<Vec<_>>().join(", ")))
        }
        Error::UnknownValue { name, known } => {
            let names = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let near = did_you_mean(name, known.iter().map(String::as_str)).map_or_else(String::new, |near| format!("; {near}"));
            Kind::new("run.unknown_value", ExitStatus::Usage).hint(format!("there are {names}{near}"))
        }
        Error::Diverged { .. } => Kind::new("train.diverged", ExitStatus::Resource)
            .hint(format!("lower `optimizer.learning_rate` or `optimizer.max_grad_norm`; {NEW_RUN}")),
        Error::Interrupted { .. } => Kind::new("train.interrupted", ExitStatus::Interrupted),
        // Transparent: the inner error is not in the chain.
        Error::Model(inner) => model(inner),
        Error::Run(inner) => run(inner),
        _ => Kind::new("train.error", ExitStatus::Resource),
    }
}

fn host(error: &plumb_host::Error) -> Kind {
    use plumb_host::Error;
    let kind = Kind::new(&error.code(), ExitStatus::Plugin);
    match error {
        Error::Read { .. } | Error::Host { .. } => Kind { exit: ExitStatus::Resource, ..kind },
        Error::Config { .. } => Kind { exit: ExitStatus::Usage, ..kind }
            .hint("see what it accepts: `plumb plugin check PLUGIN` prints the schema of its configuration"),
        Error::WrongKind { expected, .. } => Kind { exit: ExitStatus::Usage, ..kind }
            .hint(format!("choose a {expected} plugin; names begin with the kind: `{expected}-...`")),
        Error::Tool { .. } => Kind { exit: ExitStatus::Usage, ..kind }
            .hint("a tool is `{ builtin = \"calculator\" }`, `{ builtin = \"search\", config = { corpus = \"FILE.jsonl\" } }` or `{ plugin = \"NAME\" }`"),
        Error::WitVersion { .. } => kind.hint("build the plugin again with this version's SDK"),
        _ => kind,
    }
}

fn plugin(error: &plumb_core::PluginError) -> Kind {
    use plumb_core::PluginFault;
    let name = &error.plugin.name;
    let kind = Kind::new(&format!("plugin.{}", error.fault.code()), ExitStatus::Plugin);
    match &error.fault {
        PluginFault::OutOfFuel { rows: 0, .. } => kind.hint(raise("fuel", name)),
        PluginFault::OutOfFuel { .. } => {
            kind.hint(format!("{}, or `fuel_per_row`; `plumb plugin bench` measures what a row takes", raise("fuel", name)))
        }
        PluginFault::OutOfMemory { .. } => kind.hint(raise("memory_mib", name)),
        PluginFault::DeadlineMissed { .. } => kind.hint(raise("deadline_ms", name)),
        PluginFault::Trap { .. }
        | PluginFault::WrongCount { .. }
        | PluginFault::NonFinite { .. }
        | PluginFault::BadOutput { .. } => kind.hint("this is a bug in the plugin: run its cases with `plumb plugin test`"),
        PluginFault::Host { .. } => Kind { exit: ExitStatus::Bug, ..kind },
        _ => kind,
    }
}

/// What to do about a limit of a plugin that is too small.
pub fn raise(limit: &str, plugin: &str) -> String {
    format!("raise `{limit}` of `{plugin}`: `[limits]` in its plugin.toml, or `limits` in the recipe of a run")
}

/// `; did you mean ...?` for a name that is not among the known ones, or nothing when none is near.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// The known name nearest to `name`, if it is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1))).map(|(_, known)| known)
}
