//! Search by BM25 (Robertson & Zaragoza 2009; k1 = 1.2, b = 0.75) over a corpus in memory, with the crate `bm25`: English stop
//! words and stemming.

use std::path::{Path, PathBuf};

use bm25::{DefaultTokenizer, Embedder, EmbedderBuilder, Language, Scorer};
use plumb_core::Texts;
use plumb_core::services::{ServiceFault, ToolOutputs};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Tool, each_row};

/// Longest query, in bytes.
const QUERY_BYTES: usize = 4096;
/// Most documents of an answer.
const TOP_K: usize = 100;

/// Settings in the recipe.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// JSONL file, a document with `text` on each line.
    corpus: PathBuf,
    /// Documents of an answer.
    #[serde(default = "top_k")]
    top_k: usize,
}

fn top_k() -> usize {
    5
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    query: String,
}

/// Answers `{"query": "..."}` with a JSON list of the best documents, as they stand in the corpus, each with its `score`.
pub struct Search {
    embedder: Embedder<u64>,
    scorer: Scorer<usize, u64>,
    documents: Vec<Map<String, Value>>,
    top_k: usize,
}

impl Search {
    /// Reads and indexes the corpus, whose path starts at `folder`. Errors are for people.
    pub fn open(config: &Config, folder: &Path) -> Result<Self, String> {
        if !(1..=TOP_K).contains(&config.top_k) {
            return Err(format!("`top_k` is {}, it must be between 1 and {TOP_K}", config.top_k));
        }
        let path = folder.join(&config.corpus);
        let text =
            std::fs::read_to_string(&path).map_err(|error| format!("cannot read the corpus `{}`: {error}", path.display()))?;
        let mut documents = Vec::new();
        for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let wrong = |reason: String| format!("the corpus `{}`, line {}: {reason}", path.display(), line + 1);
            let document: Map<String, Value> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            if !document.get("text").is_some_and(Value::is_string) {
                return Err(wrong("it has no `text`".into()));
            }
            documents.push(document);
        }
        Ok(Self::index(documents, config.top_k))
    }

    fn index(documents: Vec<Map<String, Value>>, top_k: usize) -> Self {
        let texts: Vec<&str> = documents.iter().map(text).collect();
        let tokenizer = DefaultTokenizer::new(Language::English);
        let embedder: Embedder<u64> = EmbedderBuilder::with_tokenizer_and_fit_to_corpus(tokenizer, &texts).build();
        let mut scorer = Scorer::new();
        for (number, text) in texts.iter().enumerate() {
            scorer.upsert(&number, embedder.embed(text));
        }
        Search { embedder, scorer, documents, top_k }
    }

    fn search(&self, query: &str) -> Result<String, ServiceFault> {
        if query.len() > QUERY_BYTES {
            return Err(ServiceFault::new("too-long", format!("the query has {} bytes, limit {QUERY_BYTES}", query.len())));
        }
        let mut found = self.scorer.matches(&self.embedder.embed(query));
        // The crate leaves ties in the order of a hash map; here the document that stands first comes first.
        found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        let found = found.iter().take(self.top_k).map(|hit| {
            let mut document = self.documents[hit.id].clone();
            document.insert("score".into(), json!(hit.score));
            Value::Object(document)
        });
        Ok(Value::Array(found.collect()).to_string())
    }
}

fn text(document: &Map<String, Value>) -> &str {
    document.get("text").and_then(Value::as_str).unwrap_or_default()
}

impl Tool for Search {
    fn call(&self, arguments: &Texts) -> ToolOutputs {
        each_row(arguments, |Arguments { query }| self.search(&query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(texts: &[&str], top_k: usize) -> Search {
        let document =
            |(id, text): (usize, &&str)| Map::from_iter([("id".to_owned(), json!(id)), ("text".to_owned(), json!(text))]);
        Search::index(texts.iter().enumerate().map(document).collect(), top_k)
    }

    fn ids(search: &Search, query: &str) -> Vec<u64> {
        let found: Vec<Value> = serde_json::from_str(&search.search(query).unwrap()).unwrap();
        found.iter().map(|document| document["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn search_ranks_documents_by_rare_words_and_ignores_endings() {
        let search = search(&["the cat sat", "a dog and a cat", "volcanoes erupt", "stars"], 10);
        assert_eq!(ids(&search, "volcano"), [2]);
        assert_eq!(ids(&search, "dogs and cats"), [1, 0]);
        assert_eq!(search.search("nothing of that").unwrap(), "[]");
    }

    #[test]
    fn ties_are_in_the_order_of_the_corpus_and_the_list_is_cut() {
        let texts = ["same words"; 50];
        assert_eq!(ids(&search(&texts, 7), "words"), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn corpus_errors_name_the_file_and_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let open = |text: &str, top_k| {
            std::fs::write(folder.path().join("c.jsonl"), text).unwrap();
            Search::open(&Config { corpus: "c.jsonl".into(), top_k }, folder.path()).err()
        };
        assert_eq!(open("{\"text\": \"a\"}\n\n", 5), None);
        assert!(open("{\"text\": \"a\"}\n{\"txt\": \"b\"}", 5).unwrap().contains("line 2: it has no `text`"));
        assert!(open("{\"text\": 1}", 0).unwrap().contains("`top_k` is 0"));
        let missing = Search::open(&Config { corpus: "none.jsonl".into(), top_k: 5 }, folder.path()).err().unwrap();
        assert!(missing.contains("none.jsonl"), "{missing}");
    }
}
