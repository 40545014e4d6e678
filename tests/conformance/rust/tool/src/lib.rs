//! See `tests/conformance/README.md`: the tool.

use plumb_sdk::log;
use plumb_sdk::tool::{Descriptor, Fault, Tool};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { prefix: ">".to_owned() }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    text: String,
    times: u32,
}

struct Conformance(Config);

impl Tool for Conformance {
    type Config = Config;
    type Arguments = Arguments;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().config_schema(
        r#"{"type":"object","properties":{"prefix":{"type":"string","default":">"}},"required":[],"additionalProperties":false}"#,
    );

    fn new(config: Config) -> Result<Self, Fault> {
        if config.prefix.is_empty() {
            return Err(Fault::bad_config("`prefix` must not be empty"));
        }
        Ok(Conformance(config))
    }

    fn call(&self, Arguments { text, times }: Arguments) -> Result<String, Fault> {
        if text.is_empty() {
            return Err(Fault::new("nothing", "∅").retryable());
        }
        assert!(!text.contains("PANIC"), "the text says PANIC");
        log::write(log::Level::Info, "repeats", &[("text", text.clone())]);
        Ok(format!("{}{} {}", self.0.prefix, text.repeat(times as usize), text.chars().count()))
    }
}

plumb_sdk::export_tool!(Conformance);
