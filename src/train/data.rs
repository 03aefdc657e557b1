//! What a training learns from: data sets of rows of texts, tokenized once, each different text once.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::graphs::Task;
use super::loss::Loss;
use super::sampling::{Mixing, Sampler, no_duplicates, shuffled};
use crate::artifact::Example;
use crate::model::prompts::Prompts;
use crate::model::tokenizer::{Tokenizer, Tokens};

/// A data set as it was read.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// For messages.
    pub name: String,
    /// Rows, each with its line in the file that it comes from.
    pub rows: Vec<(usize, Example)>,
    /// What it is learnt by.
    pub loss: Loss,
}

impl DataSet {
    /// What a user should know about learning this with its loss, for embeddings of length `dimensions`, of norm 1 if `normalized`.
    pub fn warnings(&self, dimensions: usize, normalized: bool) -> Vec<String> {
        let formula = self.loss.formula();
        let mut warnings = formula.warnings(dimensions, normalized);
        let needs = formula.needs();
        if !needs.labels.are_wanted() && self.rows.iter().any(|(_, example)| !example.labels.is_empty()) {
            let (name, loss) = (&self.name, needs.loss);
            warnings.push(format!(
                "data set `{name}` has labels, which the loss `{loss}` does not look at: it takes every positive for one, whatever its label"
            ));
        }
        warnings
    }
}

/// How data sets become batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Rows a batch; the last one may be smaller.
    pub batch_size: usize,
    /// For every data set; `None` leaves it to each data set's loss.
    pub sampler: Option<Sampler>,
    pub mixing: Mixing,
}

/// The rows of one step, all of one data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of the data set.
    pub set: usize,
    /// Numbers of its rows.
    pub rows: Vec<usize>,
}

/// A batch as the loss takes it.
pub struct Columns<'a> {
    /// The tokens of column `c` of row `i` are `texts[c][i]`.
    pub texts: Vec<Vec<&'a Tokens>>,
    /// `[rows, labels a row]`; empty where the loss wants none.
    pub labels: Vec<f32>,
    /// Where there is a guide: its vectors of each column, `[rows, dimensions]`.
    pub guides: Vec<Vec<f32>>,
}

impl Columns<'_> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.texts.first().map_or(0, Vec::len)
    }

    /// The tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.texts.iter().flatten().map(|text| text.ids.len()).sum()
    }
}

/// The vectors of a guide model, one for each different text.
struct Guide {
    dimensions: usize,
    vectors: Vec<f32>,
    /// Of the texts as queries, where these have a prompt of their own.
    as_queries: Option<Vec<f32>>,
}

/// All data sets, ready to be learnt from.
pub struct Data {
    sets: Vec<Set>,
    /// Every different text once.
    texts: Vec<String>,
    /// Of each text, with the prompt of documents.
    tokens: Vec<Tokens>,
    /// Of each text with the prompt of queries, where that is another one.
    as_queries: Option<Vec<Tokens>>,
    guide: Option<Guide>,
    sampling: Sampling,
}

/// A data set whose texts are numbers.
struct Set {
    name: String,
    loss: Loss,
    rows: usize,
    /// Texts a row.
    width: usize,
    /// `[rows, width]`, into [`Data::texts`].
    texts: Vec<u32>,
    /// Labels a row that the loss looks at.
    labels_width: usize,
    /// `[rows, labels_width]`
    labels: Vec<f32>,
    sampler: Sampler,
}

impl Data {
    /// Checks the data sets against what their losses want, and tokenizes them: the first text of a row as a query, the others as
    /// documents, each with its prompt.
    ///
    /// # Errors
    /// A data set is empty or its rows are not all of one form that its loss can take: names data set and line.
    pub fn new(sets: &[DataSet], tokenizer: &Tokenizer, prompts: &Prompts, sampling: Sampling) -> Result<Self> {
        ensure!(!sets.is_empty(), "there is nothing to learn from");
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut texts: Vec<&str> = Vec::new();
        let sets = sets.iter().map(|set| Set::new(set, &mut numbers, &mut texts, sampling.sampler)).collect::<Result<_>>()?;
        let tokens = tokenizer.encode_prompted(prompts.document(), &texts)?;
        let apart = prompts.query() != prompts.document();
        let as_queries = apart.then(|| tokenizer.encode_prompted(prompts.query(), &texts)).transpose()?;
        let texts = texts.into_iter().map(str::to_owned).collect();
        Ok(Data { sets, texts, tokens, as_queries, guide: None, sampling })
    }

    /// Every different text, in a fixed order: what a guide model embeds.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Of each of [`Data::texts`].
    pub fn tokens(&self) -> &[Tokens] {
        &self.tokens
    }

    /// Gives every text its vector of a guide model, `[texts, dimensions]` in the order of [`Data::texts`]; `as_queries` where the
    /// guide has a prompt for queries.
    pub fn guide(&mut self, dimensions: usize, vectors: Vec<f32>, as_queries: Option<Vec<f32>>) {
        self.guide = Some(Guide { dimensions, vectors, as_queries });
    }

    /// Whether a data set's loss wants a guide model.
    pub fn is_guided(&self) -> bool {
        self.sets.iter().any(|set| set.loss.formula().is_guided())
    }

    /// What graphs are built for, by data set; after [`Data::guide`].
    pub fn tasks(&self) -> Vec<Task> {
        let task = |set: &Set| Task {
            loss: set.loss.clone(),
            columns: set.width,
            labels: set.labels_width,
            guide: self.guide.as_ref().filter(|_| set.loss.formula().is_guided()).map(|guide| guide.dimensions),
        };
        self.sets.iter().map(task).collect()
    }

    /// Rows a batch.
    pub fn batch_size(&self) -> usize {
        self.sampling.batch_size
    }

    /// The number of data sets.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The name of a data set.
    pub fn name(&self, set: usize) -> &str {
        self.sets.get(set).map_or("", |set| &set.name)
    }

    /// Rows of a data set.
    pub fn rows(&self, set: usize) -> usize {
        self.sets.get(set).map_or(0, |set| set.rows)
    }

    /// The batches of an epoch (from 0), in order: a pure function of the data, `seed` and `epoch`.
    pub fn epoch(&self, seed: u64, epoch: usize) -> Vec<Batch> {
        let mut batches: Vec<std::vec::IntoIter<Vec<usize>>> = Vec::with_capacity(self.sets.len());
        for (stream, set) in (0u32..).zip(&self.sets) {
            batches.push(set.batches(self.sampling.batch_size, self.texts.len(), seed, epoch, stream).into_iter());
        }
        let counts: Vec<usize> = batches.iter().map(ExactSizeIterator::len).collect();
        let turns = self.sampling.mixing.turns(&counts, seed, epoch).into_iter();
        turns.filter_map(|set| Some(Batch { set, rows: batches.get_mut(set)?.next()? })).collect()
    }

    /// The batches of each of the first `epochs` epochs. Epochs may differ: how rows that share a text fall into batches depends on their order.
    pub fn batches(&self, seed: u64, epochs: usize) -> Vec<usize> {
        if self.sets.iter().all(|set| set.sampler == Sampler::Shuffled) {
            return vec![self.epoch(seed, 0).len(); epochs];
        }
        (0..epochs).map(|epoch| self.epoch(seed, epoch).len()).collect()
    }

    /// The batch as its loss takes it.
    ///
    /// # Errors
    /// It is no batch of this data.
    pub fn columns(&self, batch: &Batch) -> Result<Columns<'_>> {
        let set = self.sets.get(batch.set).context("the data set of a batch is not there")?;
        let mut columns = Columns { texts: vec![Vec::new(); set.width], labels: Vec::new(), guides: Vec::new() };
        let guide = self.guide.as_ref().filter(|_| set.loss.formula().is_guided());
        if guide.is_some() {
            columns.guides = vec![Vec::new(); set.width];
        }
        for &row in &batch.rows {
            for (c, &text) in set.row(row).context("a row of a batch is not there")?.iter().enumerate() {
                let query = c == 0;
                let tokens = self.as_queries.as_ref().filter(|_| query).unwrap_or(&self.tokens);
                columns.texts[c].push(tokens.get(text as usize).context("a text was not tokenized")?);
                if let Some(guide) = guide {
                    let vectors = guide.as_queries.as_ref().filter(|_| query).unwrap_or(&guide.vectors);
                    columns.guides[c].extend_from_slice(&vectors[range(text as usize, guide.dimensions)]);
                }
            }
            columns.labels.extend_from_slice(&set.labels[range(row, set.labels_width)]);
        }
        Ok(columns)
    }

    /// The texts of a row, for messages.
    pub fn row(&self, set: usize, row: usize) -> Vec<&str> {
        let texts = self.sets.get(set).and_then(|set| set.row(row)).unwrap_or_default();
        texts.iter().filter_map(|&text| self.texts.get(text as usize)).map(String::as_str).collect()
    }
}

impl Set {
    fn new<'t>(
        set: &'t DataSet,
        numbers: &mut HashMap<&'t str, u32>,
        all: &mut Vec<&'t str>,
        sampler: Option<Sampler>,
    ) -> Result<Self> {
        let (name, needs) = (&set.name, set.loss.formula().needs());
        let Some((first_line, first)) = set.rows.first() else {
            bail!("data set `{name}` is empty; there is nothing to learn from")
        };
        let (width, labels) = (first.texts().count(), first.labels.len());
        let mut new = Set {
            name: name.clone(),
            loss: set.loss.clone(),
            rows: set.rows.len(),
            width,
            texts: Vec::with_capacity(set.rows.len() * width),
            labels_width: if needs.labels.are_wanted() { labels } else { 0 },
            labels: Vec::new(),
            sampler: sampler.unwrap_or(needs.sampler),
        };
        for (line, example) in &set.rows {
            let here = || format!("data set `{name}`, line {line}");
            needs.check(example).map_err(|problem| anyhow::anyhow!("{}: {problem}", here()))?;
            let (texts, marks) = (example.texts().count(), example.labels.len());
            ensure!(
                texts == width && (marks == labels || new.labels_width == 0),
                "{}: the row has {texts} texts and {marks} labels, but line {first_line} has {width} and {labels}; make all rows of a data set alike, \
                 or make it two data sets",
                here()
            );
            for text in example.texts() {
                let next = u32::try_from(all.len()).with_context(|| format!("{}: there are too many texts", here()))?;
                let number = *numbers.entry(text).or_insert(next);
                if number == next {
                    all.push(text);
                }
                new.texts.push(number);
            }
            if new.labels_width > 0 {
                new.labels.extend(example.labels.iter().map(|&label| label as f32));
            }
        }
        Ok(new)
    }

    fn row(&self, row: usize) -> Option<&[u32]> {
        self.texts.get(range(row, self.width))
    }

    fn batches(&self, batch_size: usize, texts: usize, seed: u64, epoch: usize, stream: u32) -> Vec<Vec<usize>> {
        match self.sampler {
            Sampler::Shuffled => shuffled(self.rows, batch_size, seed, epoch, stream),
            Sampler::NoDuplicates => {
                no_duplicates(self.rows, |row| self.row(row).unwrap_or_default(), texts, batch_size, seed, epoch, stream)
            }
        }
    }
}

/// Where row `row` of a matrix lies.
fn range(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::prompts::OtherPrompts;
    use crate::model::testing::minilm;
    use crate::train::loss::contrastive::Contrastive;
    use crate::train::loss::mnrl::Mnrl;

    fn set(name: &str, loss: Loss, rows: &[&str]) -> DataSet {
        let rows = rows.iter().enumerate().map(|(i, row)| (i + 1, serde_json::from_str(row).unwrap())).collect();
        DataSet { name: name.into(), rows, loss }
    }

    #[test]
    fn the_first_column_has_the_prompt_of_queries() {
        let pairs =
            set("pairs", Loss::Mnrl(Mnrl::default()), &[r#"{"anchor":"a","positive":"p"}"#, r#"{"anchor":"p","positive":"a"}"#]);
        let tokenizer = Tokenizer::open(&minilm(), 16).unwrap();
        let other = OtherPrompts { query: Some("query: ".into()), document: Some("passage: ".into()), passage: None };
        let prompts = Prompts::default().replaced(&other);
        let data =
            Data::new(&[pairs], &tokenizer, &prompts, Sampling { batch_size: 2, sampler: None, mixing: Mixing::Proportional })
                .unwrap();
        let columns = data.columns(&Batch { set: 0, rows: vec![0, 1] }).unwrap();
        let expected = tokenizer.encode(&["query: a", "query: p", "passage: p", "passage: a"]).unwrap();
        let found: Vec<&[i64]> = columns.texts.iter().flatten().map(|t| t.ids.as_slice()).collect();
        assert_eq!(found, expected.iter().map(|t| t.ids.as_slice()).collect::<Vec<_>>());
    }

    fn data(sets: &[DataSet], batch_size: usize) -> Result<Data> {
        let tokenizer = Tokenizer::open(&minilm(), 16)?;
        Data::new(sets, &tokenizer, &Prompts::default(), Sampling { batch_size, sampler: None, mixing: Mixing::Proportional })
    }

    #[test]
    fn batches_hold_the_columns_of_their_rows() {
        let pairs =
            set("pairs", Loss::Mnrl(Mnrl::default()), &[r#"{"anchor":"a","positive":"p"}"#, r#"{"anchor":"a","positive":"q"}"#]);
        let graded = set(
            "graded",
            Loss::Contrastive(Contrastive::default()),
            &[
                r#"{"anchor":"p","positive":"x y","label":1}"#,
                r#"{"anchor":"q","positive":"a","label":0}"#,
                r#"{"anchor":"r","positive":"a","label":1}"#,
            ],
        );
        let data = data(&[pairs, graded], 4).unwrap();
        assert_eq!(data.texts(), ["a", "p", "q", "x y", "r"]);
        let epoch = data.epoch(1, 0);
        // The pairs share a text, and so have a batch each; the labelled rows have one together.
        assert_eq!((epoch.len(), data.batches(1, 3)), (3, vec![3; 3]));
        let all: Vec<(usize, usize)> = epoch.iter().flat_map(|batch| batch.rows.iter().map(|&row| (batch.set, row))).collect();
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
        let columns = data.columns(&Batch { set: 1, rows: vec![2, 0] }).unwrap();
        assert_eq!((columns.rows(), columns.tokens(), columns.labels), (2, 13, vec![1.0, 1.0]));
        assert_eq!(columns.texts[1][0], &data.tokens()[0]);
        assert_eq!(columns.texts[1][1], &data.tokens()[3]);
        assert_eq!(data.row(1, 1), ["q", "a"]);
        assert!(data.columns(&Batch { set: 0, rows: vec![0] }).unwrap().labels.is_empty());
    }

    #[test]
    fn rows_that_do_not_fit_the_loss_are_refused() {
        let error = |loss: &str, rows: &[&str]| {
            let loss: Loss = serde_json::from_str(loss).unwrap();
            format!("{:#}", data(&[set("mine", loss, rows)], 4).map(drop).unwrap_err())
        };
        let (pair, triplet) = (r#"{"anchor":"a","positive":"p"}"#, r#"{"anchor":"a","positive":"p","negative":"n"}"#);
        let labelled = |label: &str| pair.replace('}', &format!(",{label}}}"));
        insta::assert_snapshot!(error(r#"{"name":"triplet"}"#, &[triplet, pair]), @"data set `mine`, line 2: the row has 2 texts, but the loss `triplet` wants an anchor, a positive and a negative");
        insta::assert_snapshot!(error(r#"{"name":"mnrl"}"#, &[pair, triplet]), @"data set `mine`, line 2: the row has 3 texts and 0 labels, but line 1 has 2 and 0; make all rows of a data set alike, or make it two data sets");
        insta::assert_snapshot!(error(r#"{"name":"contrastive"}"#, &[triplet]), @"data set `mine`, line 1: the row has 3 texts, but the loss `contrastive` wants an anchor, a positive and no negative");
        insta::assert_snapshot!(error(r#"{"name":"contrastive"}"#, &[pair]), @"data set `mine`, line 1: the row has 0 labels, but the loss `contrastive` wants a `label` that is 0 or 1");
        insta::assert_snapshot!(error(r#"{"name":"contrastive"}"#, &[&labelled(r#""label":1"#), &labelled(r#""label":0.5"#)]), @"data set `mine`, line 2: the label 0.5 does not fit: the loss `contrastive` wants a `label` that is 0 or 1");
        insta::assert_snapshot!(error(r#"{"name":"cosent"}"#, &[&labelled(r#""scores":[1,2]"#)]), @"data set `mine`, line 1: the row has 2 labels, but the loss `cosent` wants a `label` that says how similar the texts are");
        insta::assert_snapshot!(error(r#"{"name":"margin_mse"}"#, &[triplet]), @"data set `mine`, line 1: the row has 0 labels, but the loss `margin_mse` wants a `label` (positive's score less the negative's) or `scores`: a margin for each negative, or a score for each text but the anchor");
        insta::assert_snapshot!(error(r#"{"name":"distill_kl"}"#, &[&triplet.replace('}', r#","scores":[1]}"#)]), @"data set `mine`, line 1: the row has 1 labels, but the loss `distill_kl` wants `scores`: one for each text but the anchor");
        insta::assert_snapshot!(error(r#"{"name":"mnrl"}"#, &[]), @"data set `mine` is empty; there is nothing to learn from");
    }
}
