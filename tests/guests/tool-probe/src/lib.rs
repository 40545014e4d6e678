//! A tool that does what its arguments say.

use plumb_sdk::tool::{Descriptor, Fault, Tool};

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {
    add: f64,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Arguments {
    Number(f64),
    Do(String),
}

struct Probe {
    add: f64,
}

impl Tool for Probe {
    type Config = Config;
    type Arguments = Arguments;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!();

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Probe { add: config.add })
    }

    fn call(&self, arguments: Arguments) -> Result<String, Fault> {
        match arguments {
            Arguments::Number(number) => Ok((number + self.add).to_string()),
            Arguments::Do(what) if what == "panic" => panic!("the tool panics"),
            Arguments::Do(what) if what == "spin" => loop {
                std::hint::black_box(0);
            },
            Arguments::Do(what) => Err(Fault::new("told-to", what)),
        }
    }
}

plumb_sdk::export_tool!(Probe);
