//! A shaper that attacks the host through its state and its answers. A shaper answers for a whole step, so that an attack fails the
//! call; the state must then be what it was.

use plumb_sdk::kv;
use plumb_sdk::shaper::{Batch, Descriptor, Fault, Part, Ragged, Shaped, Shaper, State};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    attack: Attack,
    /// First call, counted from 1 by its own state, in which it attacks.
    #[serde(default)]
    from_call: u64,
}

#[derive(serde::Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Attack {
    /// None: adds the number of calls so far.
    None,
    /// Time: works for some calls, then traps in every one.
    TrapLater,
    /// State: panics while it is saved.
    TrapInSave,
    /// State: a fault while it is saved.
    FaultInSave,
    /// State: never comes back from saving.
    SpinInSave,
    /// State: panics while it is loaded.
    TrapInLoad,
    /// State, and every checkpoint with it: 80 MiB.
    HugeState,
    /// Memory of the host, over the calls of a step: fills `kv` anew in every call.
    KvFlood,
    /// The loss: one value too many.
    TooMany,
    /// The loss: NaN for a row that had a value.
    Nan,
    /// The loss: a value as large as floats go.
    HugeNumber,
    /// The loss: neither values nor token values.
    Nothing,
    /// The loss: token values that end before they begin.
    TokensBackwards,
    /// Other rows: token values of more rows than there are.
    TokensOfOthers,
    /// The metrics: a part that is shorter than the batch.
    ShortPart,
}

struct Hostile {
    config: Config,
    calls: u64,
}

impl Shaper for Hostile {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["value"]).state_version(1);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Hostile { config, calls: 0 })
    }

    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault> {
        self.calls += 1;
        let mut shaped = Shaped::from(batch.f64s("value")?.iter().map(|value| value + self.calls as f64).collect::<Vec<_>>());
        let values = shaped.values.as_mut().expect("set above");
        match self.attack() {
            Attack::TrapLater => panic!("enough of it"),
            Attack::KvFlood => (0..15).for_each(|i| drop(kv::set(&format!("{}-{i}", self.calls), &vec![0; 1 << 20]))),
            Attack::TooMany => values.push(0.0),
            Attack::Nan => values[0] = f64::NAN,
            Attack::HugeNumber => values[0] = f64::MIN,
            Attack::Nothing => shaped.values = None,
            Attack::TokensBackwards => {
                let mut ends = vec![0; batch.rows()];
                ends[0] = 5;
                shaped.token_values = Some(Ragged { values: vec![0.0; 5], ends });
            }
            Attack::TokensOfOthers => {
                shaped.token_values = Some(Ragged { values: Vec::new(), ends: vec![0; 2 * batch.rows()] });
            }
            Attack::ShortPart => shaped.parts = vec![Part::new("short", Vec::new())],
            Attack::None
            | Attack::TrapInSave
            | Attack::FaultInSave
            | Attack::SpinInSave
            | Attack::TrapInLoad
            | Attack::HugeState => {}
        }
        Ok(shaped)
    }
}

impl Hostile {
    fn attack(&self) -> Attack {
        if self.calls >= self.config.from_call { self.config.attack } else { Attack::None }
    }
}

impl State for Hostile {
    fn save(&self) -> Result<Vec<u8>, Fault> {
        match self.attack() {
            Attack::TrapInSave => panic!("no state for you"),
            Attack::FaultInSave => return Err(Fault::new("no-state", "there is none")),
            Attack::SpinInSave => loop {
                std::hint::black_box(self.calls);
            },
            Attack::HugeState => return Ok(vec![1; 80 << 20]),
            _ => {}
        }
        Ok(self.calls.to_le_bytes().to_vec())
    }

    fn load(&mut self, _: u32, bytes: &[u8]) -> Result<(), Fault> {
        self.calls = u64::from_le_bytes(bytes.try_into().map_err(|_| Fault::new("bad-state", "not eight bytes"))?);
        if self.config.attack == Attack::TrapInLoad && self.calls + 1 >= self.config.from_call {
            panic!("no loading");
        }
        Ok(())
    }
}

plumb_sdk::export_stateful_shaper!(Hostile);
