//! Tool plugin: finds the JSON in a text, a model's answer for one, and gives the value at a pointer.

pub mod logic;

use logic::JsonTool;

plumb_sdk::export_tool!(JsonTool);
