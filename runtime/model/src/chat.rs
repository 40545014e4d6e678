//! Chat templates: Jinja as transformers runs it.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A model's template, ready to render.
///
/// Templates see no clock: `strftime_now` is not defined, so that those which ask for it politely take their fixed date and a
/// prompt is the same text every day.
#[derive(Clone, Debug)]
pub(crate) struct ChatTemplate {
    source: String,
    /// The parsed template under the name `chat`, or why it cannot be parsed: raw prompts work without it.
    environment: std::result::Result<Environment<'static>, String>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    pub(crate) fn new(source: String, bos_token: Option<String>, eos_token: Option<String>) -> Self {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the delimiters are Jinja's own"));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        let parsed = environment.add_template_owned("chat", source.clone()).map_err(|error| describe(&error));
        ChatTemplate { source, environment: parsed.map(|()| environment), bos_token, eos_token }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation.
    pub(crate) fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let failed = |reason: String| Error::Tokenizer(format!("chat template: {reason}"));
        let environment = self.environment.as_ref().map_err(|reason| failed(reason.clone()))?;
        let template = environment.get_template("chat").map_err(|error| failed(describe(&error)))?;
        // Undefined, not none, where a model has no such token: as transformers passes them.
        let optional = |token: &Option<String>| token.as_ref().map_or(Value::UNDEFINED, Value::from);
        let rendered = template.render(context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            tools => Value::from(()),
            documents => Value::from(()),
            bos_token => optional(&self.bos_token),
            eos_token => optional(&self.eos_token),
        });
        rendered.map_err(|error| failed(describe(&error)))
    }
}

/// What went wrong and where, on one line.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => format!("{detail}{line}"),
        Some(detail) => format!("{}: {detail}{line}", error.kind()),
        None => format!("{}{line}", error.kind()),
    }
}

/// How templates refuse a conversation.
fn raise_exception(message: String) -> std::result::Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`: `", "` and `": "` between items, nothing escaped for HTML.
#[expect(clippy::needless_pass_by_value, reason = "minijinja calls filters with owned arguments")]
fn to_json(value: Value, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let broken = |error: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut out = Vec::new();
    if let Some(indent) = indent {
        let indent = " ".repeat(indent);
        let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(broken)?;
    } else {
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonFormatter)).map_err(broken)?;
    }
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

/// Compact JSON with Python's spaces.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String> {
        let template = ChatTemplate::new(source.into(), Some("<s>".into()), None);
        let messages: Vec<Message> =
            messages.iter().map(|(role, content)| Message { role: (*role).into(), content: (*content).into() }).collect();
        template.render(&messages, true)
    }

    #[test]
    fn blocks_take_their_line_with_them_and_tokens_are_variables() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m['content'].strip() }}]\n    {% endif %}\n{% endfor %}\n{{ eos_token }}!\n";
        assert_eq!(render(source, &[("user", " a "), ("other", "b")]).unwrap(), "<s>\n[a]\n!");
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        let source = "{{ {'a': [1, 2.5, none, true], 'b': '<é>'} | tojson }}{{ [1] | tojson(indent=2) }}";
        assert_eq!(render(source, &[]).unwrap(), "{\"a\": [1, 2.5, null, true], \"b\": \"<é>\"}[\n  1\n]");
    }

    #[test]
    fn template_that_raises_gives_its_message() {
        let error =
            render("{% if messages[0].role != 'user' %}\n{{ raise_exception('user first') }}\n{% endif %}", &[("system", "x")]);
        assert_eq!(error.unwrap_err().to_string(), "tokenizer: chat template: user first (line 2)");
    }

    #[test]
    fn template_that_cannot_be_parsed_is_an_error_when_it_is_used() {
        let error = render("{% if %}", &[]).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer: chat template: syntax error"), "{error}");
    }

    #[test]
    fn template_asking_for_the_date_takes_its_fixed_one() {
        let source = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}";
        assert_eq!(render(source, &[]).unwrap(), "26 Jul 2024");
    }
}
