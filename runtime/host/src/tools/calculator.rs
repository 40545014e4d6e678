//! Arithmetic by the crate `fend-core`: arbitrary precision, units, no variables between calls, no clock and no dice.

use std::sync::atomic::{AtomicU32, Ordering};

use fend_core::{Context, Interrupt};
use plumb_core::Texts;
use plumb_core::services::{ServiceFault, ToolOutputs};
use serde::Deserialize;

use super::{Tool, each_row};

/// Longest expression, in bytes. It bounds how deep parentheses nest too, and with them the stack.
const EXPRESSION_BYTES: usize = 512;
/// Stack of a calculation. The parser descends some twenty functions per parenthesis; 512 of them fit many times.
const STACK_BYTES: usize = 256 << 20;
/// Marks of definitions (`x: x + 1`, `\x.x`, `x => x`, `x = 1`). Functions may call themselves, each call deeper in the stack, and
/// arithmetic does without.
const DEFINITIONS: [char; 3] = [':', '\\', '='];
/// Marks of shifts (`1 << 10^9`): the library shifts word by word without asking whether to go on, and `*` and `^` do the same.
const SHIFTS: [&str; 4] = ["<<", ">>", "lsh", "rsh"];
/// Longest result, in bytes.
const RESULT_BYTES: usize = 4096;
/// Times that a calculation may ask whether to go on. It is a count and no clock, so that it ends the same calculations everywhere.
const STEPS: u32 = 20_000;

/// It has no settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Evaluates `{"expression": "2 + 3 * 4"}`.
pub struct Calculator;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    expression: String,
}

impl Tool for Calculator {
    fn call(&self, arguments: &Texts) -> ToolOutputs {
        // A thread of its own, for its stack; an overflow would end the whole process.
        std::thread::scope(|scope| {
            let calculate = || each_row(arguments, |Arguments { expression }| evaluate(&expression));
            let thread = std::thread::Builder::new().name("plumb-calculator".into()).stack_size(STACK_BYTES);
            let outputs = thread.spawn_scoped(scope, calculate).map(std::thread::ScopedJoinHandle::join);
            let fault = |why: &str| vec![Err(ServiceFault::new("unavailable", why)); arguments.len()];
            match outputs {
                Ok(Ok(outputs)) => outputs,
                Ok(Err(_)) => fault("the calculator panicked"),
                Err(_) => fault("the system has no thread for the calculator"),
            }
        })
    }
}

fn evaluate(expression: &str) -> Result<String, ServiceFault> {
    let fault = |code: &str, message: String| Err(ServiceFault::new(code, message));
    if expression.len() > EXPRESSION_BYTES {
        return fault("too-long", format!("the expression has {} bytes, limit {EXPRESSION_BYTES}", expression.len()));
    }
    if let Some(mark) = expression.chars().find(|c| DEFINITIONS.contains(c)) {
        return fault("bad-expression", format!("`{mark}` defines something; give an expression alone"));
    }
    if let Some(mark) = SHIFTS.iter().find(|mark| expression.contains(**mark)) {
        return fault("bad-expression", format!("`{mark}` shifts; multiply by, or divide by, a power of 2"));
    }
    let steps = Steps(AtomicU32::new(0));
    match fend_core::evaluate_with_interrupt(expression, &mut Context::new(), &steps) {
        Ok(result) if result.get_main_result().len() > RESULT_BYTES => {
            fault("too-long", format!("the result has {} bytes, limit {RESULT_BYTES}", result.get_main_result().len()))
        }
        Ok(result) => Ok(result.get_main_result().to_owned()),
        Err(_) if steps.0.load(Ordering::Relaxed) >= STEPS => fault("budget", format!("took more than {STEPS} steps")),
        Err(message) => fault("bad-expression", message),
    }
}

/// Counts the steps of a calculation.
struct Steps(AtomicU32);

impl Interrupt for Steps {
    fn should_interrupt(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) >= STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(expression: &str) -> String {
        evaluate(expression).unwrap_err().code
    }

    #[test]
    fn calculator_is_exact_and_answers_row_by_row() {
        let arguments: Texts =
            [r#"{"expression": "2 + 3 * 4"}"#, r#"{"expression": "0.1 + 0.2"}"#, "{}", r#"{"expression": "1 +"}"#]
                .iter()
                .collect();
        let outputs = Calculator.call(&arguments);
        assert_eq!(outputs[0].as_deref(), Ok("14"));
        assert_eq!(outputs[1].as_deref(), Ok("0.3"));
        assert_eq!(outputs[2].as_ref().unwrap_err().code, "bad-arguments");
        assert_eq!(outputs[3].as_ref().unwrap_err().code, "bad-expression");
        assert_eq!(evaluate("2^200").unwrap(), "1606938044258990275541962092341162602522202993782792835301376");
    }

    #[test]
    fn calculations_without_end_are_stopped_by_count() {
        assert_eq!(code("100000!"), "budget");
        assert_eq!(code("(f: f f) (f: f f)"), "bad-expression");
        assert_eq!(code("9^9^9^9^9"), "budget");
        assert_eq!(code("1 << 1000000000000"), "bad-expression");
        assert_eq!(code(&"1".repeat(EXPRESSION_BYTES + 1)), "too-long");
    }

    #[test]
    fn deep_expressions_fit_the_stack() {
        let nested = |open: &str, close: &str, n| format!("{}1{}", open.repeat(n), close.repeat(n));
        let deep = [
            "(".repeat(EXPRESSION_BYTES),
            "-".repeat(EXPRESSION_BYTES),
            nested("(", ")", 255),
            nested("-(", ")", 170),
            format!("2{}", "^2".repeat(200)),
            "sqrt ".repeat(100),
        ];
        let arguments: Texts = deep.iter().map(|one| serde_json::json!({ "expression": one }).to_string()).collect();
        let outputs = Calculator.call(&arguments);
        assert_eq!(outputs.len(), deep.len());
        assert_eq!(outputs[2].as_deref(), Ok("1"));
    }

    #[test]
    fn clock_and_dice_are_not_there() {
        assert!(evaluate("roll d6").is_err() && evaluate("today").is_err());
    }
}
