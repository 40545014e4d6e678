//! Reward plugin: does the completion's final answer equal the reference answer, mathematically?
//!
//! The text is searched for its answer ([`extract`]), the answer's LaTeX is tidied ([`clean`]) and read ([`lex`], [`parse`]) into
//! an expression or a collection of them ([`expr`]), and two answers are compared ([`compare`]) exactly where that is possible
//! ([`exact`]) and by value elsewhere ([`numeric`]). All of it is bounded: in length, nesting, terms and the size of numbers.

pub mod clean;
pub mod compare;
pub mod exact;
pub mod expr;
pub mod extract;
pub mod lex;
pub mod number;
pub mod numeric;
pub mod parse;
pub mod plugin;
pub mod sets;

plumb_sdk::export_reward!(plugin::MathAnswer);
