//! What a recipe's types cannot say: ranges, files, and keys that exclude or need each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plumb_core::recipe::{Eval, FaultPolicy, ModelSource, Optimizer, PluginUse, RandomModel, Recipe, Stage};
use plumb_train::objective::registry;

use crate::diagnostic::{Diagnostic, did_you_mean};

/// Checks a recipe whose relative paths start at `folder`.
pub fn recipe(recipe: &Recipe, folder: &Path) -> Result<(), Diagnostic> {
    require(
        is_plain_name(&recipe.name),
        "name",
        "must be letters, digits, `-`, `_` or `.`, since the run's folder is called by it",
    )?;
    model(&recipe.model, folder)?;
    require(!recipe.stages.is_empty(), "stages", "there must be at least one")?;
    let mut names = BTreeSet::new();
    for one in &recipe.stages {
        require(!one.name.is_empty(), "stages", "each stage needs a name")?;
        require(names.insert(&one.name), &format!("stages.{}", one.name), "two stages have this name")?;
        stage(one, folder)?;
        plugin_uses(one).try_for_each(|(list, plugin)| grants(list, plugin, one, recipe))?;
    }
    Ok(())
}

/// Every plugin of a stage, with the name of the list it stands in.
fn plugin_uses(stage: &Stage) -> impl Iterator<Item = (&'static str, &PluginUse)> {
    let rewards = stage.rewards.iter().map(|reward| ("rewards", &reward.plugin));
    let judges = stage.judges.iter().map(|judge| ("judges", &judge.plugin));
    let shapers = stage.shapers.iter().map(|shaper| ("shapers", &shaper.plugin));
    let filters = stage.filters.iter().map(|filter| ("filters", &filter.plugin));
    let swaps = stage.swaps.iter().map(|swap| ("swaps", &swap.plugin));
    let eval = stage.eval.iter().map(|eval| ("eval", &eval.reward));
    rewards.chain(judges).chain(shapers).chain(filters).chain(swaps).chain(eval)
}

/// What a plugin is granted must be there.
fn grants(list: &str, plugin: &PluginUse, stage: &Stage, recipe: &Recipe) -> Result<(), Diagnostic> {
    let name = plugin.name.as_ref().unwrap_or(&plugin.plugin);
    let models = || ["policy", "reference"].into_iter().chain(recipe.models.keys().map(String::as_str));
    let tools = || recipe.tools.keys().map(String::as_str);
    let check = |what: &str, granted: &[String], there: Vec<&str>| {
        let Some(unknown) = granted.iter().find(|name| !there.contains(&name.as_str())) else { return Ok(()) };
        let list_there = there.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let error = Diagnostic::usage("recipe.value", format!("there is no {what} `{unknown}`"))
            .at(format!("stages.{}.{list}.{name}.grants.{what}s", stage.name))
            .because(if there.is_empty() { format!("the recipe has no `[{what}s]`") } else { format!("there are {list_there}") });
        Err(error.hint(did_you_mean(unknown, there).unwrap_or_else(|| format!("add `[{what}s.{unknown}]` to the recipe"))))
    };
    check("model", &plugin.grants.models, models().collect())?;
    check("tool", &plugin.grants.tools, tools().collect())
}

fn model(source: &ModelSource, folder: &Path) -> Result<(), Diagnostic> {
    match (&source.path, &source.random) {
        (Some(path), None) => exists(path, folder, "model.path").map_err(|e| {
            e.hint("give a Hugging Face folder or a .gguf file; `cargo xtask model` fetches the one of the example recipes")
        }),
        (None, Some(random)) => random_model(random),
        _ => require(false, "model", "exactly one of `path` and `random` must be there"),
    }
}

fn random_model(model: &RandomModel) -> Result<(), Diagnostic> {
    let characters: BTreeSet<char> = model.alphabet.chars().collect();
    require(!model.alphabet.is_empty(), "model.random.alphabet", "must have at least one character")?;
    require(characters.len() == model.alphabet.chars().count(), "model.random.alphabet", "has a character twice")?;
    let key_value_heads = model.num_key_value_heads.unwrap_or(model.num_attention_heads);
    for (key, value) in [
        ("hidden_size", model.hidden_size),
        ("intermediate_size", model.intermediate_size),
        ("num_hidden_layers", model.num_hidden_layers),
        ("num_attention_heads", model.num_attention_heads),
        ("num_key_value_heads", key_value_heads),
        ("max_position_embeddings", model.max_position_embeddings),
    ] {
        require(value > 0, &format!("model.random.{key}"), "must be at least 1")?;
    }
    let heads = model.num_attention_heads;
    require(
        model.hidden_size.is_multiple_of(2 * heads),
        "model.random.hidden_size",
        "must be an even multiple of `num_attention_heads`",
    )?;
    require(heads.is_multiple_of(key_value_heads), "model.random.num_key_value_heads", "must divide `num_attention_heads`")?;
    require(non_negative(model.initializer_range), "model.random.initializer_range", "must be a finite number, 0 or more")
}

fn stage(stage: &Stage, folder: &Path) -> Result<(), Diagnostic> {
    let key = |rest: &str| format!("stages.{}.{rest}", stage.name);
    require(!stage.data.train.is_empty(), &key("data.train"), "must name at least one file")?;
    stage.data.train.iter().try_for_each(|path| exists(path, folder, &key("data.train")))?;
    optimizer(&stage.optimizer, &key)?;
    registry::check(stage).map_err(|flaw| Diagnostic::usage("recipe.value", flaw.rule).at(key(&flaw.key)))?;
    plugins_of(stage, &key)?;
    stage.eval.iter().try_for_each(|eval| evaluation(eval, stage, folder, &key))
}

fn optimizer(optimizer: &Optimizer, key: &dyn Fn(&str) -> String) -> Result<(), Diagnostic> {
    for (name, value) in [
        ("learning_rate", optimizer.learning_rate),
        ("weight_decay", optimizer.weight_decay),
        ("max_grad_norm", optimizer.max_grad_norm),
    ] {
        require(non_negative(value), &key(&format!("optimizer.{name}")), "must be a finite number, 0 or more")?;
    }
    for (name, value) in [("adam_beta1", optimizer.adam_beta1), ("adam_beta2", optimizer.adam_beta2)] {
        require((0.0..1.0).contains(&value), &key(&format!("optimizer.{name}")), "must be at least 0 and below 1")?;
    }
    require(optimizer.adam_epsilon > 0.0, &key("optimizer.adam_epsilon"), "must be above 0")?;
    require(optimizer.gradient_accumulation_steps > 0, &key("optimizer.gradient_accumulation_steps"), "must be at least 1")
}

/// Names, weights and substitutes of what scores completions.
fn plugins_of(stage: &Stage, key: &dyn Fn(&str) -> String) -> Result<(), Diagnostic> {
    let mut names = BTreeSet::new();
    for reward in &stage.rewards {
        let name = reward.plugin.name.as_ref().unwrap_or(&reward.plugin.plugin);
        require(
            names.insert(name),
            &key(&format!("rewards.{name}")),
            "two rewards have this name; give one of them another `name`",
        )?;
    }
    let rewards = stage.rewards.iter().map(|reward| ("rewards", &reward.plugin, reward.weight, reward.on_fault));
    let judges = stage.judges.iter().map(|judge| ("judges", &judge.plugin, judge.weight, judge.on_fault));
    for (list, plugin, weight, on_fault) in rewards.chain(judges) {
        let name = plugin.name.as_ref().unwrap_or(&plugin.plugin);
        require(weight.is_finite(), &key(&format!("{list}.{name}.weight")), "must be finite")?;
        if let FaultPolicy::Value(value) = on_fault {
            require(value.is_finite(), &key(&format!("{list}.{name}.on_fault.value")), "must be finite")?;
        }
    }
    Ok(())
}

fn evaluation(eval: &Eval, stage: &Stage, folder: &Path, key: &dyn Fn(&str) -> String) -> Result<(), Diagnostic> {
    eval.files.iter().try_for_each(|path| exists(path, folder, &key("eval.files")))?;
    require(
        !eval.files.is_empty() || stage.data.holdout > 0,
        &key("eval.files"),
        "there is nothing to evaluate on: name files, or set `data.holdout`",
    )?;
    require(eval.success_at.is_finite(), &key("eval.success_at"), "must be finite")?;
    require(
        eval.temperature >= 0.0 && eval.temperature.is_finite(),
        &key("eval.temperature"),
        "must be a finite number, 0 or more",
    )?;
    require(eval.max_completion_length != Some(0), &key("eval.max_completion_length"), "must be at least 1")
}

fn exists(path: &PathBuf, folder: &Path, key: &str) -> Result<(), Diagnostic> {
    let full = folder.join(path);
    if full.exists() {
        return Ok(());
    }
    Err(Diagnostic::usage("recipe.path", format!("there is no `{}`", full.display())).at(key))
}

fn require(holds: bool, key: &str, rule: &str) -> Result<(), Diagnostic> {
    if holds { Ok(()) } else { Err(Diagnostic::usage("recipe.value", rule).at(key)) }
}

fn non_negative(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recipe over files that exist, with changes.
    fn checked(sets: &[&str]) -> Result<(), Diagnostic> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rows.jsonl"), "").unwrap();
        let text = r#"
            name = "test"
            [model.random]
            alphabet = "01"
            hidden_size = 8
            intermediate_size = 8
            num_hidden_layers = 1
            num_attention_heads = 2
            [[stages]]
            name = "sft"
            algorithm = "sft"
            max_steps = 1
            data.train = ["rows.jsonl"]
            [[stages]]
            name = "rl"
            algorithm = "grpo"
            max_steps = 1
            data.train = ["rows.jsonl"]
            rewards = [{ plugin = "a" }]
            [[stages]]
            name = "pairs"
            algorithm = "dpo"
            max_steps = 1
            data.train = ["rows.jsonl"]
            [[stages]]
            name = "rm"
            algorithm = "reward-model"
            max_steps = 1
            data.train = ["rows.jsonl"]
        "#;
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        recipe(&crate::recipe_file::parse(text, &sets)?, folder.path())
    }

    #[test]
    fn sound_recipe_passes() {
        checked(&[]).unwrap();
        checked(&["stages.rl.eval={ files = [\"rows.jsonl\"], reward = { plugin = \"a\" } }"]).unwrap();
    }

    #[test]
    fn grants_of_what_is_there_pass_and_others_say_what_there_is() {
        checked(&["stages.rl.rewards.a.grants={ models = [\"policy\", \"reference\"] }"]).unwrap();
        let tools = "tools={ calculator = { builtin = \"calculator\" } }";
        checked(&[tools, "stages.rl.rewards.a.grants={ tools = [\"calculator\"] }"]).unwrap();
        let error = checked(&[tools, "stages.rl.rewards.a.grants={ tools = [\"calculater\"] }"]).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `calculator`?"));
        let error = checked(&["stages.rl.rewards.a.grants={ models = [\"judge\"] }"]).unwrap_err();
        assert_eq!(error.causes, ["there are `policy`, `reference`"]);
        assert_eq!(error.hint.as_deref(), Some("add `[models.judge]` to the recipe"));
    }

    #[test]
    fn each_rule_names_the_key_that_breaks_it() {
        for (set, key) in [
            ("name=../up", "name"),
            ("model.path=rows.jsonl", "model"),
            ("model.random.alphabet=00", "model.random.alphabet"),
            ("model.random.hidden_size=9", "model.random.hidden_size"),
            ("stages.sft.name=rl", "stages.rl"),
            ("stages.rl.data.train=[\"none.jsonl\"]", "stages.rl.data.train"),
            ("stages.rl.data.train=[]", "stages.rl.data.train"),
            ("stages.rl.rollout.num_generations=1", "stages.rl.rollout.num_generations"),
            ("stages.rl.rollout.temperature=0", "stages.rl.rollout.temperature"),
            ("stages.rl.rollout.top_p=1.5", "stages.rl.rollout.top_p"),
            ("stages.rl.rewards=[]", "stages.rl.rewards"),
            ("stages.rl.rewards=[{ plugin = \"a\" }, { plugin = \"a\" }]", "stages.rl.rewards.a"),
            ("stages.rl.rewards.a.weight=inf", "stages.rl.rewards.a.weight"),
            ("stages.rl.judges=[{ plugin = \"j\", weight = inf }]", "stages.rl.judges.j.weight"),
            ("stages.rl.judges=[{ plugin = \"j\", on_fault = { value = nan } }]", "stages.rl.judges.j.on_fault.value"),
            ("stages.rl.optimizer.adam_beta2=1.0", "stages.rl.optimizer.adam_beta2"),
            ("stages.rl.optimizer.learning_rate=nan", "stages.rl.optimizer.learning_rate"),
            ("stages.sft.rewards=[{ plugin = \"a\" }]", "stages.sft.rewards"),
            ("stages.pairs.dpo.batch_size=0", "stages.pairs.dpo.batch_size"),
            ("stages.pairs.dpo.beta=0", "stages.pairs.dpo.beta"),
            ("stages.pairs.dpo.label_smoothing=0.5", "stages.pairs.dpo.label_smoothing"),
            ("stages.pairs.dpo.loss_type=exo_pair", "stages.pairs.dpo.label_smoothing"),
            ("stages.pairs.dpo={ loss_type = \"aot\", batch_size = 1 }", "stages.pairs.dpo.batch_size"),
            ("stages.pairs.dpo.ld_alpha=2", "stages.pairs.dpo.ld_alpha"),
            ("stages.pairs.dpo.discopop_tau=0", "stages.pairs.dpo.discopop_tau"),
            ("stages.rm.reward_model.batch_size=0", "stages.rm.reward_model.batch_size"),
            ("stages.rm.reward_model.center_rewards_coefficient=-1", "stages.rm.reward_model.center_rewards_coefficient"),
            ("stages.rm.eval={ files = [\"rows.jsonl\"], reward = { plugin = \"a\" } }", "stages.rm.eval"),
            ("stages.pairs.rewards=[{ plugin = \"a\" }]", "stages.pairs.rewards"),
            ("stages.rl.eval={ reward = { plugin = \"a\" } }", "stages.rl.eval.files"),
            ("stages.rl.grpo.importance_sampling_clip_max=0", "stages.rl.grpo.importance_sampling_clip_max"),
            ("stages.rl.rewards.a.grants={ models = [\"grader\"] }", "stages.rl.rewards.a.grants.models"),
            ("stages.rl.judges=[{ plugin = \"j\", grants = { tools = [\"t\"] } }]", "stages.rl.judges.j.grants.tools"),
        ] {
            let error = checked(&[set]).map_or_else(|e| e, |()| panic!("`{set}` must be refused"));
            assert_eq!(error.place.as_deref(), Some(key), "{set}: {error:?}");
        }
    }
}
