//! See `tests/conformance/README.md`: the judge.

use std::ops::Range;

use plumb_sdk::judge::{
    Ask, Batch, Descriptor, Fault, Generated, Judge, MatrixVerdicts, PairVerdicts, Part, Question, RowFault, Sampling, Texts,
    Turn, Verdicts,
};
use plumb_sdk::{kv, log, metrics};

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    form: String,
    model: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { form: "pointwise".to_owned(), model: "judge".to_owned() }
    }
}

struct Conformance(Config);

impl Judge for Conformance {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .config_schema(r#"{"type":"object","properties":{"form":{"type":"string","default":"pointwise"},"model":{"type":"string","default":"judge"}},"required":[],"additionalProperties":false}"#)
        .needs_columns(&["prompt", "completion"])
        .outputs(&["tokens", "logprob", "rank"]);

    fn new(config: Config) -> Result<Self, Fault> {
        if !["pointwise", "pairwise", "listwise", "matrix"].contains(&config.form.as_str()) {
            return Err(Fault::bad_config(format!("no form `{}`", config.form)));
        }
        Ok(Conformance(config))
    }

    fn begin(&self, batch: &Batch) -> Result<Turn, Fault> {
        told_to(batch, "begin")?;
        let questions: Vec<Question> = match self.0.form.as_str() {
            "pointwise" => vec![self.grades(batch)?],
            "pairwise" => self.comparisons(batch)?,
            "listwise" => vec![self.rankings(batch)?],
            _ => self.edges(batch)?,
        };
        if questions.iter().all(|question| question.prompts.is_empty()) {
            let none: Vec<Generated> = questions.iter().map(|_| Generated::default()).collect();
            return self.read(batch, b"first", &none);
        }
        log::debug(&format!("asks {} questions", questions.len()));
        Ok(Turn::Ask(Ask { questions, memo: b"first".to_vec() }))
    }

    fn resume(&self, batch: &Batch, memo: &[u8], answers: &[Generated]) -> Result<Turn, Fault> {
        told_to(batch, "resume")?;
        let texts = answers.iter().flat_map(|answer| answer.text.iter());
        metrics::observe("answer", &texts.map(|text| text.chars().count() as f64).collect::<Vec<_>>());
        self.read(batch, memo, answers)
    }
}

impl Conformance {
    /// A question about each row that has a completion, answered twice.
    fn grades(&self, batch: &Batch) -> Result<Question, Fault> {
        let (prompts, completions) = (batch.text("prompt")?, batch.text("completion")?);
        let sampling = Sampling {
            max_tokens: 8,
            temperature: 0.75,
            top_p: 0.9,
            count: 2,
            seed: batch.step() + 7,
            stop: vec!["\n".into(), "。".into()],
            extra: vec![("style".into(), "brief é".into())],
        };
        let ask = |row| format!("Grade „{}“ for {}: ", completions.get(row), prompts.get(row));
        Ok(Question { model: self.0.model.clone(), prompts: written(batch)?.into_iter().map(ask).collect(), sampling })
    }

    /// A question for each group of two rows or more, about each of its pairs.
    fn comparisons(&self, batch: &Batch) -> Result<Vec<Question>, Fault> {
        let completions = batch.text("completion")?;
        let groups = batch.groups().enumerate().filter(|(_, group)| group.len() > 1);
        let question = |(place, group): (usize, Range<usize>)| Question {
            model: self.0.model.clone(),
            prompts: (upper(&group).iter())
                .map(|&(i, j)| format!("A: {}\nB: {}\nBetter: ", completions.get(i), completions.get(j)))
                .collect(),
            sampling: Sampling { temperature: 1.0, count: 2, seed: place as u64, ..Sampling::greedy(1) },
        };
        Ok(groups.map(question).collect())
    }

    /// A question about each group as a whole.
    fn rankings(&self, batch: &Batch) -> Result<Question, Fault> {
        let completions = batch.text("completion")?;
        let list = |group: Range<usize>| {
            let lines: String = group.clone().map(|row| format!("{}) {}\n", row - group.start, completions.get(row))).collect();
            format!("{lines}Best first: ")
        };
        let prompts = batch.groups().filter(|group| !group.is_empty()).map(list).collect();
        Ok(Question { model: self.0.model.clone(), prompts, sampling: Sampling::greedy(16) })
    }

    /// Two questions: how far a row is better than one behind it, and the reverse, which another model is asked.
    fn edges(&self, batch: &Batch) -> Result<Vec<Question>, Fault> {
        let completions = batch.text("completion")?;
        let pairs: Vec<(usize, usize)> = batch.groups().flat_map(|group| upper(&group)).collect();
        let ask = |model: &str, pairs: &mut dyn Iterator<Item = (usize, usize)>| Question {
            model: model.to_owned(),
            prompts: pairs.map(|(i, j)| format!("{} over {}: ", completions.get(i), completions.get(j))).collect(),
            sampling: Sampling::greedy(3),
        };
        let reverse = &mut pairs.iter().map(|&(i, j)| (j, i));
        Ok(vec![ask(&self.0.model, &mut pairs.iter().copied()), ask("critic", reverse)])
    }

    /// What the answers of a turn say.
    fn read(&self, batch: &Batch, memo: &[u8], answers: &[Generated]) -> Result<Turn, Fault> {
        let verdicts = match self.0.form.as_str() {
            "pointwise" => match self.graded(batch, memo, &answers[0])? {
                Turn::Done(verdicts) => verdicts,
                ask @ Turn::Ask(_) => return Ok(ask),
            },
            "pairwise" => compared(batch, answers),
            "listwise" => ranked(batch, &answers[0]),
            _ => weighed(batch, answers),
        };
        let judged = match kv::get("judged") {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| Fault::new("bad-kv", "not 8 bytes"))?),
            None => 0,
        };
        kv::set("judged", &(judged + batch.rows() as u64).to_le_bytes())?;
        metrics::count("rows", batch.rows() as u64);
        let fields = [("form", self.0.form.clone()), ("before", judged.to_string())];
        log::write(log::Level::Info, &format!("judged {} rows ✓", batch.rows()), &fields);
        Ok(Turn::Done(verdicts))
    }

    /// Grades, or a second question about the rows of which no answer can be read.
    fn graded(&self, batch: &Batch, memo: &[u8], answer: &Generated) -> Result<Turn, Fault> {
        let mut asked = written(batch)?;
        let mut grades = vec![-1.0; batch.rows()];
        if memo == b"first" {
            for (place, &row) in asked.iter().enumerate() {
                let read: Vec<f64> = (0..2).filter_map(|sample| grade(answer.text.get(2 * place + sample))).collect();
                if !read.is_empty() {
                    grades[row] = read.iter().fold(0.0, |sum, grade| sum + grade) / read.len() as f64;
                }
            }
            let again: Vec<usize> = asked.iter().copied().filter(|&row| grades[row] < 0.0).collect();
            if !again.is_empty() {
                let prompts: Texts = again.iter().map(|row| format!("Row {row}, digits only: ")).collect();
                let question = Question { model: "critic".into(), prompts, sampling: Sampling::greedy(2) };
                let memo = grades.iter().flat_map(|grade: &f64| grade.to_le_bytes()).collect();
                return Ok(Turn::Ask(Ask { questions: vec![question], memo }));
            }
        } else {
            grades = memo.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
            asked.retain(|&row| grades[row] < 0.0);
            for (place, &row) in asked.iter().enumerate() {
                grades[row] = grade(answer.text.get(place)).unwrap_or(-1.0);
            }
        }
        let samples = if memo == b"first" { 2 } else { 1 };
        let (mut tokens, mut logprobs) = (vec![f64::NAN; batch.rows()], vec![f64::NAN; batch.rows()]);
        let mut rationales = vec![String::new(); batch.rows()];
        for (place, &row) in asked.iter().enumerate() {
            let first = place * samples;
            tokens[row] = answer.tokens.get(first).iter().fold(0.0, |sum, &token| sum * 0.5 + f64::from(token));
            logprobs[row] = answer.logprobs.get(first).iter().fold(0.0, |sum, &logprob| sum + f64::from(logprob));
            rationales[row] = format!("{}: {}", answer.finish[first], answer.text.get(first));
        }
        let completions = batch.text("completion")?;
        let fault = |row: usize| {
            let empty = completions.get(row).is_empty();
            if empty { Fault::abstain("∅") } else { Fault::unparseable(format!("row {row} has no grade")).retryable() }
        };
        let faulty = (0..batch.rows()).filter(|&row| grades[row] < 0.0);
        Ok(Turn::Done(Verdicts {
            scores: Some(grades.iter().map(|&grade| if grade < 0.0 { f64::NAN } else { grade }).collect()),
            rationales: Some(rationales.into_iter().collect()),
            parts: vec![Part::new("tokens", tokens), Part::new("logprob", logprobs)],
            faults: faulty.map(|row| RowFault { row: row as u32, fault: fault(row) }).collect(),
            ..Verdicts::default()
        }))
    }
}

/// The share of a pair's two votes; a pair without a vote that can be read has no verdict.
fn compared(batch: &Batch, answers: &[Generated]) -> Verdicts {
    let mut pairs = PairVerdicts::default();
    for (group, answer) in batch.groups().filter(|group| group.len() > 1).zip(answers) {
        for (place, (i, j)) in upper(&group).into_iter().enumerate() {
            let votes: Vec<f64> = (0..2).filter_map(|sample| vote(answer.text.get(2 * place + sample))).collect();
            if votes.is_empty() {
                metrics::count("unreadable", 1);
                continue;
            }
            pairs.first.push(i as u32);
            pairs.second.push(j as u32);
            pairs.probability.push(votes.iter().fold(0.0, |sum, vote| sum + vote) / votes.len() as f64);
        }
    }
    Verdicts { pairs: Some(pairs), ..Verdicts::default() }
}

/// 1 for the best of a group and 0 for its last.
fn ranked(batch: &Batch, answer: &Generated) -> Verdicts {
    let (mut scores, mut ranks) = (vec![0.0; batch.rows()], vec![f64::NAN; batch.rows()]);
    let (mut rationales, mut faults) = (vec![""; batch.rows()], Vec::new());
    for (place, group) in batch.groups().filter(|group| !group.is_empty()).enumerate() {
        let order = ranking(answer.text.get(place), group.len());
        for row in group.clone() {
            rationales[row] = answer.text.get(place);
            match order.iter().position(|&best| best == row - group.start) {
                Some(rank) => {
                    ranks[row] = rank as f64;
                    scores[row] = 1.0 - if group.len() > 1 { rank as f64 / (group.len() - 1) as f64 } else { 0.0 };
                }
                None => {
                    let fault = Fault::unparseable(format!("group {place} has no ranking"));
                    faults.push(RowFault { row: row as u32, fault });
                }
            }
        }
    }
    let rationales = Some(rationales.into_iter().collect());
    Verdicts { scores: Some(scores), rationales, parts: vec![Part::new("rank", ranks)], faults, ..Verdicts::default() }
}

/// Half the difference of the two answers about a pair, where both can be read.
fn weighed(batch: &Batch, answers: &[Generated]) -> Verdicts {
    let mut matrices = MatrixVerdicts::default();
    let mut before = 0;
    for group in batch.groups() {
        let (n, start) = (group.len(), matrices.values.len());
        matrices.values.resize(start + n * n, 0.0);
        matrices.readable.resize(start + n * n, true);
        for (place, (i, j)) in upper(&(0..n)).into_iter().enumerate() {
            let (ij, ji) = (start + i * n + j, start + j * n + i);
            match (grade(answers[0].text.get(before + place)), grade(answers[1].text.get(before + place))) {
                (Some(over), Some(under)) => {
                    matrices.values[ij] = (over - under) / 2.0;
                    matrices.values[ji] = (under - over) / 2.0;
                }
                _ => (matrices.readable[ij], matrices.readable[ji]) = (false, false),
            }
        }
        before += upper(&group).len();
    }
    Verdicts { matrices: Some(matrices), ..Verdicts::default() }
}

/// Fails or breaks if the batch says so of this export.
fn told_to(batch: &Batch, export: &str) -> Result<(), Fault> {
    match batch.attr("fail") {
        Some(how) if how == format!("{export}: fault") => Err(Fault::new("told-to", format!("step {}", batch.step()))),
        Some(how) if how == format!("{export}: panic") => panic!("told to"),
        _ => Ok(()),
    }
}

/// Rows that have a completion.
fn written(batch: &Batch) -> Result<Vec<usize>, Fault> {
    let completions = batch.text("completion")?;
    Ok((0..batch.rows()).filter(|&row| !completions.get(row).is_empty()).collect())
}

/// The pairs of a group, each once.
fn upper(group: &Range<usize>) -> Vec<(usize, usize)> {
    group.clone().flat_map(|i| (i + 1..group.end).map(move |j| (i, j))).collect()
}

/// The digits that a text begins with, three at most, in tenths.
fn grade(text: &str) -> Option<f64> {
    let digits: String = text.trim_start_matches(' ').chars().take(3).take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().ok().map(|grade| f64::from(grade) / 10.0)
}

/// 1 for A, 0 for B and 0.5 for a tie.
fn vote(text: &str) -> Option<f64> {
    match text.trim_start_matches(' ').chars().next() {
        Some('A') => Some(1.0),
        Some('B') => Some(0.0),
        Some('=') => Some(0.5),
        _ => None,
    }
}

/// `1 > 0 > 2` as places; empty unless it names each of `n` rows once.
fn ranking(text: &str, n: usize) -> Vec<usize> {
    let order: Vec<Option<usize>> = text.split('>').map(|place| place.trim_matches(' ').parse().ok()).collect();
    let complete = order.len() == n && (0..n).all(|row| order.contains(&Some(row)));
    if complete { order.into_iter().flatten().collect() } else { Vec::new() }
}

plumb_sdk::export_judge!(Conformance);
