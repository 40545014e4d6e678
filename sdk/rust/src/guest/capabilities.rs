//! The capabilities `models` and `tools`, with the SDK's types. What a plugin does not call, its component does not import.

use super::base::plumb::align::types;
use crate::batch::{Ragged, Texts};
use crate::descriptor::Part;
use crate::fault::Fault;
use crate::models::{Embeddings, Generated, Sampling};

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package plumb:sdk; world capabilities { import plumb:align/models@0.1.1; import plumb:align/tools@0.1.1; }",
        world: "plumb:sdk/capabilities",
        with: { "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types, "plumb:align/models@0.1.1": generate, "plumb:align/tools@0.1.1": generate },
    });
}

use bindings::plumb::align::{models, tools};

fn sent(texts: &Texts) -> types::Texts {
    texts.clone().into()
}

pub fn generate(model: &str, prompts: &Texts, sampling: &Sampling) -> Result<Generated, Fault> {
    Ok(models::generate(model, &sent(prompts), &sampling.clone().into())?.into())
}

pub fn logprobs(model: &str, prompts: &Texts, continuations: &Texts) -> Result<Ragged<f32>, Fault> {
    Ok(models::logprobs(model, &sent(prompts), &sent(continuations))?.into())
}

pub fn token_logprobs(model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, Fault> {
    Ok(models::token_logprobs(model, &sent(prompts), &tokens.clone().into())?.into())
}

pub fn choice_logprobs(model: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, Fault> {
    Ok(models::choice_logprobs(model, &sent(prompts), choices)?)
}

pub fn score(model: &str, prompts: &Texts, continuations: &Texts) -> Result<Vec<Part>, Fault> {
    let heads = models::score(model, &sent(prompts), &sent(continuations))?;
    Ok(heads.into_iter().map(|head| Part { name: head.name, values: head.values }).collect())
}

pub fn embed(model: &str, inputs: &Texts) -> Result<Embeddings, Fault> {
    let (width, values) = models::embed(model, &sent(inputs))?;
    Ok(Embeddings { width: width as usize, values })
}

pub fn call_tool(tool: &str, arguments: &Texts) -> Result<Vec<Result<String, Fault>>, Fault> {
    let tools::ToolResults { output, faults } = tools::call(tool, &sent(arguments))?;
    let output = Texts::from(output);
    let mut answers: Vec<Result<String, Fault>> = output.iter().map(|text| Ok(text.to_owned())).collect();
    for types::RowFault { row, fault } in faults {
        answers[row as usize] = Err(fault.into());
    }
    Ok(answers)
}
