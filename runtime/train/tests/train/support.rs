use std::path::Path;
use std::sync::{Arc, Mutex};

use plumb_core::recipe::{PluginUse, Recipe};
use plumb_core::services::Generated;
use plumb_core::{
    Batch, Column, Decision, Filter, Judge, Outcome, Pending, Plugin, PluginError, PluginId, PluginKind, RewardFn, Rewards,
    RowFault, Shaped, Shaper, Turn,
};
use plumb_train::run::{MetricSet, read_metrics};
use plumb_train::{LoadError, Observer, PluginFactory, Summary, TrainRequest, train};

pub type Score = Arc<dyn Fn(&Batch) -> Result<Rewards, PluginError> + Send + Sync>;
pub type Shape = Arc<dyn Fn(&Batch, &mut f64) -> Shaped + Send + Sync>;
/// A judge's turn; on later turns with its memo and the answers.
pub type Sit = Arc<dyn Fn(&Batch, Option<(&[u8], &[Generated])>) -> Turn + Send + Sync>;
pub type Select = Arc<dyn Fn(&Batch) -> Decision + Send + Sync>;

/// A plugin made of a closure, with a number as its state.
pub struct Closure<F> {
    id: PluginId,
    call: F,
    state: Mutex<f64>,
}

impl<F> Closure<F> {
    pub fn new(kind: PluginKind, name: &str, call: F) -> Arc<Self> {
        let id = PluginId { name: name.into(), kind, digest: "native".into() };
        Arc::new(Closure { id, call, state: Mutex::new(0.0) })
    }
}

impl<F: Send + Sync> Plugin for Closure<F> {
    fn id(&self) -> &PluginId {
        &self.id
    }

    fn save_state(&self) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(Some(self.state.lock().unwrap().to_le_bytes().to_vec()))
    }

    fn load_state(&self, state: &[u8]) -> Result<(), PluginError> {
        *self.state.lock().unwrap() = f64::from_le_bytes(state.try_into().unwrap());
        Ok(())
    }
}

impl RewardFn for Closure<Score> {
    fn submit(&self, batch: Batch) -> Pending<Result<Rewards, PluginError>> {
        let call = self.call.clone();
        let worker = std::thread::spawn(move || call(&batch));
        Pending::new(move || worker.join().unwrap())
    }
}

impl Shaper for Closure<Shape> {
    fn shape(&self, batch: &Batch) -> Result<Shaped, PluginError> {
        Ok((self.call)(batch, &mut self.state.lock().unwrap()))
    }
}

impl Filter for Closure<Select> {
    fn select(&self, batch: &Batch) -> Result<Decision, PluginError> {
        Ok((self.call)(batch))
    }
}

impl Judge for Closure<Sit> {
    fn begin(&self, batch: &Arc<Batch>) -> Result<Turn, PluginError> {
        Ok((self.call)(batch, None))
    }

    fn resume(&self, batch: &Arc<Batch>, memo: &[u8], answers: &[Generated]) -> Result<Turn, PluginError> {
        Ok((self.call)(batch, Some((memo, answers))))
    }
}

/// A reward per row from the completion's text.
pub fn by_text(name: &str, value: impl Fn(&str) -> f64 + Send + Sync + 'static) -> Arc<Closure<Score>> {
    let score: Score = Arc::new(move |batch| {
        let Some(Column::Text(texts)) = batch.column("completion") else { panic!("every batch has completions") };
        let outcomes = (0..texts.len()).map(|row| Outcome::Scored(value(texts.get(row).unwrap()))).collect();
        Ok(Rewards { outcomes, ..Rewards::default() })
    });
    Closure::new(PluginKind::Reward, name, score)
}

/// 1 where the completion is what the column of the data has, as the shipped plugin of that name without settings.
fn exact_match(column: &str) -> Arc<Closure<Score>> {
    let column = column.to_owned();
    let score: Score = Arc::new(move |batch| {
        let (Some(Column::Text(texts)), Some(Column::Text(answers))) = (batch.column("completion"), batch.column(&column)) else {
            panic!("completions and answers are texts")
        };
        let right = |row| if texts.get(row).unwrap() == answers.get(row).unwrap() { 1.0 } else { 0.0 };
        Ok(Rewards { outcomes: (0..texts.len()).map(|row| Outcome::Scored(right(row))).collect(), ..Rewards::default() })
    });
    Closure::new(PluginKind::Reward, "reward-exact-match", score)
}

/// Share of a text's characters that are `wanted`; 0 of an empty text.
pub fn share_of(wanted: char) -> impl Fn(&str) -> f64 + Send + Sync {
    move |text| text.chars().filter(|c| *c == wanted).count() as f64 / text.chars().count().max(1) as f64
}

pub fn numbers<'a>(batch: &'a Batch, column: &str) -> &'a [f64] {
    let Some(Column::F64(values)) = batch.column(column) else { panic!("no column `{column}`") };
    values
}

pub fn fault(code: &str) -> RowFault {
    RowFault { code: code.into(), message: String::new() }
}

/// The plugins that the recipes of these tests name.
#[derive(Clone, Default)]
pub struct Closures {
    pub select: Option<Select>,
    pub sit: Option<Sit>,
}

impl PluginFactory for Closures {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        if plugin.plugin == "reward-exact-match" {
            return Ok(exact_match(plugin.config["column"].as_str().unwrap()));
        }
        match plugin.plugin.strip_prefix("share-of-") {
            Some(wanted) => Ok(by_text(&plugin.plugin, share_of(wanted.chars().next().unwrap()))),
            None => Err(format!("no reward is named `{}`", plugin.plugin).into()),
        }
    }

    /// Subtracts a running mean: what it answers depends on all it saw before.
    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        Ok(Closure::new(PluginKind::Judge, &plugin.plugin, self.sit.clone().unwrap()))
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        let shape: Shape = Arc::new(|batch, mean| {
            let values = numbers(batch, "value");
            *mean = 0.9 * *mean + 0.1 * values.iter().sum::<f64>() / values.len() as f64;
            Shaped { values: Some(values.iter().map(|value| value * (1.0 - *mean)).collect()), ..Shaped::default() }
        });
        Ok(Closure::new(PluginKind::Shaper, &plugin.plugin, shape))
    }

    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        Ok(Closure::new(PluginKind::Filter, &plugin.plugin, self.select.clone().unwrap()))
    }
}

/// A recipe over a tiny model and prompts of two letters, written to `folder`.
pub fn recipe(folder: &Path, stages: &str) -> Recipe {
    let letters = ["a", "b", "c", "d"];
    let pairs = letters.iter().flat_map(|x| letters.iter().map(move |y| format!("{x}{y}")));
    let lines = pairs.map(|prompt| format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{prompt}{prompt}\"}}\n"));
    std::fs::write(folder.join("data.jsonl"), lines.collect::<String>()).unwrap();
    let model = "name = 'test'\nseed = 3\n[model.random]\nalphabet = 'abcd'\nhidden_size = 16\nintermediate_size = 32\n\
                 num_hidden_layers = 2\nnum_attention_heads = 2\nmax_position_embeddings = 16\ninitializer_range = 0.1\n";
    toml::from_str(&format!("{model}{stages}")).unwrap()
}

pub fn request(recipe: &Recipe, folder: &Path, run: &str, resume: bool) -> TrainRequest {
    let (recipe_dir, run_dir) = (folder.to_owned(), folder.join(run));
    TrainRequest { recipe: recipe.clone(), recipe_dir, run_dir, resume, models: Arc::default(), interrupt: Arc::default() }
}

pub fn run(recipe: &Recipe, folder: &Path, name: &str, plugins: &Closures, observer: &mut dyn Observer) -> Summary {
    train(&request(recipe, folder, name, false), plugins, observer).unwrap()
}

/// The run's metrics without what the clock said.
pub fn timeless_metrics(run_dir: &Path) -> Vec<MetricSet> {
    let metrics = read_metrics(run_dir).unwrap();
    let timeless = |set: MetricSet| {
        let mut out = MetricSet::new(&set.stage, set.step);
        set.iter().filter(|(name, _)| !name.starts_with("time/")).for_each(|(name, value)| out.set(name, value));
        out
    };
    metrics.into_iter().map(timeless).collect()
}
