//! The stage `project`: draws texts under both models in two dimensions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ndarray::{Array2, Axis, concatenate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::externals::{computation, embedder};
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Judgements, Kind, Side};
use crate::report::markdown::{one_line, shorten};
use crate::report::pca::{Projection, project};
use crate::report::scatter::{COLORS, Item, Marker, Scatter};
use crate::retrieval::dense::normalized;
use crate::runtime::device::Choice;
use crate::runtime::precision::Precision;

pub const KIND: StageKind = StageKind {
    name: "project",
    version: 3,
    summary: "draws texts under both models in two dimensions",
    inputs: &[
        Port { name: "baseline", kind: Kind::Model, required: true, many: false, doc: "the baseline" },
        Port { name: "tuned", kind: Kind::Model, required: true, many: false, doc: "the fine-tuned model" },
        Port {
            name: "judgements",
            kind: Kind::Judgements,
            required: false,
            many: false,
            doc: "queries and judged passages to draw when `texts` names none",
        },
    ],
    outputs: &[OutputPort {
        name: "plots",
        kind: Kind::File,
        file: "plots",
        doc: "`projection.png`, `projection.svg` and `projection.csv`",
    }],
    declared: None,
    unkeyed: &["device"],
    schema: schema::<Project>,
    configure: configure::<Project>,
};

/// Texts beyond this many get no caption.
const CAPTIONED: usize = 40;
/// Characters of a text in its caption.
const CAPTION: usize = 32;
/// Characters of a label in the legend.
const GROUP: usize = 28;
/// The legend's word for groups that have no colour of their own.
const OTHER: &str = "other";

/// Draws texts as two panels of points, one a model: where each model puts them, seen along the two directions in which the
/// L2-normalised embeddings of both models together vary most (principal components). Both panels have the same axes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Project {
    /// What to draw; without it, the judged passages, grouped by the first folder of their id, and the queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts: Option<Vec<LabelledText>>,
    /// The title over the picture.
    pub title: String,
    /// How exactly matrix products are computed when texts are encoded: with `fp32`, rankings are those of sentence-transformers to the last
    /// digit printed; `bf16` is several times as fast on processors with fast instructions for it (AMX, AVX-512 BF16 of AMD), and `auto` takes it there.
    pub precision: Precision,
    /// Where the models run: `auto` (the first GPU where CUDA can be had, else the processor), `cpu`, `cuda`, `cuda:1`.
    pub device: Choice,
}

/// A text to draw.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelledText {
    /// What is embedded. With at most 40 texts, its beginning is written beside its point, where there is room for it.
    pub text: String,
    /// The group it belongs to: texts with the same label have the same colour, and the legend names it.
    #[serde(default)]
    pub label: String,
}

impl Default for Project {
    fn default() -> Self {
        Project {
            texts: None,
            title: "Embeddings before and after fine-tuning".into(),
            precision: Precision::Fp32,
            device: Choice::default(),
        }
    }
}

/// Something to draw.
#[derive(Clone)]
struct Thing {
    text: String,
    label: String,
    /// For the CSV: `text`, `passage`, `query`.
    kind: &'static str,
}

impl Stage for Project {
    fn check(&self) -> Result<(), ParameterError> {
        let Some(texts) = &self.texts else { return Ok(()) };
        if texts.len() < 2 {
            return Err(ParameterError::new(
                "texts",
                "a picture needs at least two texts; leave `texts` out to draw the judgements",
            ));
        }
        match texts.iter().position(|t| t.text.trim().is_empty()) {
            Some(i) => Err(ParameterError::new(format!("texts[{i}].text"), "the text is empty; write what to embed")),
            None => Ok(()),
        }
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        computation(surroundings, self.precision, self.device)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let things = self.things(context.optional_input("judgements"))?;
        ensure!(things.len() > 1, "there are fewer than two texts to draw; give `texts`, or judgements that judge some passages");
        let [baseline, tuned] = [Side::Baseline, Side::FineTuned].map(|side| self.embed(side, &things, context));
        let [baseline, tuned] = [baseline?, tuned?];
        ensure!(
            baseline.ncols() == tuned.ncols(),
            "the models' vectors have {} and {} dimensions, so they have no axes in common; compare a model with one fine-tuned from it",
            baseline.ncols(),
            tuned.ncols()
        );
        context.cancel.check()?;
        let projection = project(concatenate(Axis(0), &[baseline.view(), tuned.view()])?.view());
        let folder = context.output("plots")?;
        std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        write_csv(&folder.join("projection.csv"), &things, &projection)?;
        self.scatter(&things, &projection).write(&folder.join("projection.png"), &folder.join("projection.svg"))?;
        let held = projection.explained.iter().sum::<f64>() * 100.0;
        Ok(Outcome {
            summary: format!("{} texts; the two axes hold {held:.1}% of the variance", things.len()),
            ..Outcome::default()
        })
    }
}

impl Project {
    fn things(&self, judgements: Option<&Path>) -> Result<Vec<Thing>> {
        if let Some(texts) = &self.texts {
            let thing = |t: &LabelledText| Thing { text: t.text.clone(), label: one_line(&t.label), kind: "text" };
            return Ok(texts.iter().map(thing).collect());
        }
        let folder = judgements.context("there is nothing to draw: give `texts`, or connect the input `judgements`")?;
        Ok(judged(&Judgements::read(folder, "test")?))
    }

    /// L2-normalised embeddings.
    fn embed(&self, side: Side, things: &[Thing], context: &Context) -> Result<Array2<f64>> {
        let embedder = embedder(context, context.input(side.port())?, self.precision, self.device)?;
        let message = format!("encoding with the {} model", side.name());
        let progress = |n: usize| context.progress(n as u64, things.len() as u64, "texts", message.clone());
        let (queries, others): (Vec<usize>, Vec<usize>) = (0..things.len()).partition(|&i| things[i].kind == "query");
        let texts = |indices: &[usize]| indices.iter().map(|&i| things[i].text.clone()).collect::<Vec<_>>();
        let found = [
            embedder.encode_documents(&texts(&others), context.cancel, &progress)?,
            embedder.encode_queries(&texts(&queries), context.cancel, &|n| progress(others.len() + n))?,
        ];
        let mut vectors = Array2::zeros((things.len(), embedder.dimensions()));
        for (indices, found) in [&others, &queries].into_iter().zip(&found) {
            indices.iter().zip(found.rows()).for_each(|(&i, row)| vectors.row_mut(i).assign(&row));
        }
        let vectors = normalized(vectors.view()).mapv(f64::from);
        ensure!(
            vectors.iter().all(|x| x.is_finite()),
            "vectors of the {} model hold no numbers; its weights are damaged",
            side.name()
        );
        Ok(vectors)
    }

    fn scatter(&self, things: &[Thing], projection: &Projection) -> Scatter {
        let (groups, of) = groups(things);
        let at = |row: usize| (projection.coordinates[[row, 0]], projection.coordinates[[row, 1]]);
        let item = |(i, thing): (usize, &Thing)| Item {
            group: of[i],
            marker: if thing.kind == "query" { Marker::Triangle } else { Marker::Circle },
            caption: if things.len() <= CAPTIONED { shorten(&one_line(&thing.text), CAPTION) } else { String::new() },
            at: [at(i), at(things.len() + i)],
        };
        let mixed = things.iter().any(|t| t.kind == "query");
        let markers = [(Marker::Circle, "passage".to_owned()), (Marker::Triangle, "query".to_owned())];
        Scatter {
            title: self.title.clone(),
            panels: Side::BOTH.map(|side| side.name().to_owned()),
            axes: [0, 1].map(|k| format!("PC {} ({:.1}% of variance)", k + 1, projection.explained[k] * 100.0)),
            groups,
            markers: if mixed { markers.to_vec() } else { Vec::new() },
            items: things.iter().enumerate().map(item).collect(),
        }
    }
}

/// The judged passages, labelled with the first folder of their id, and the queries, labelled as their most relevant passage.
fn judged(judgements: &Judgements) -> Vec<Thing> {
    let named: BTreeSet<&String> = judgements.qrels.values().flat_map(BTreeMap::keys).collect();
    let passages = judgements.corpus.iter().filter(|p| named.contains(&p.id));
    let passages = passages.map(|p| Thing { text: p.embedding_text(), label: folder(&p.id), kind: "passage" });
    let queries = judgements.queries.iter().map(|query| {
        let grades = judgements.qrels.get(&query.id);
        let best = grades.and_then(|grades| grades.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0))));
        Thing { text: query.text.clone(), label: best.map_or_else(String::new, |(id, _)| folder(id)), kind: "query" }
    });
    passages.chain(queries).collect()
}

/// The first folder of a path; empty when it has none.
fn folder(id: &str) -> String {
    id.trim_start_matches(['.', '/']).split_once('/').map_or_else(String::new, |(first, _)| one_line(first))
}

/// The names of the groups and the group of each thing. Groups are in the order in which they first occur; when there are more than
/// colours, the most frequent keep theirs and the others are one.
fn groups(things: &[Thing]) -> (Vec<String>, Vec<usize>) {
    let mut names: Vec<(&str, usize)> = Vec::new();
    for thing in things {
        match names.iter_mut().find(|(name, _)| *name == thing.label) {
            Some((_, count)) => *count += 1,
            None => names.push((&thing.label, 1)),
        }
    }
    let all = names.len();
    if all > COLORS {
        let mut counts: Vec<usize> = (0..all).collect();
        counts.sort_by_key(|&i| (std::cmp::Reverse(names[i].1), i));
        let kept: BTreeSet<usize> = counts.into_iter().take(COLORS).collect();
        names = names.into_iter().enumerate().filter(|(i, _)| kept.contains(i)).map(|(_, name)| name).collect();
    }
    let of = things.iter().map(|t| names.iter().position(|(name, _)| *name == t.label).unwrap_or(COLORS)).collect();
    let shown = |name: &str| if name.is_empty() { "no label".to_owned() } else { shorten(name, GROUP) };
    let mut legend: Vec<String> = names.iter().map(|(name, _)| shown(name)).collect();
    if all > COLORS {
        legend.push(format!("{OTHER} ({})", all - COLORS));
    } else if all == 1 && names.first().is_some_and(|(name, _)| name.is_empty()) {
        legend.clear();
    }
    (legend, of)
}

/// The figures behind the picture; `projection` has the baseline's rows before the fine-tuned model's.
fn write_csv(path: &Path, things: &[Thing], projection: &Projection) -> Result<()> {
    let fail = || format!("failed to write {}", path.display());
    let mut writer = csv::Writer::from_path(path).with_context(fail)?;
    writer.write_record(["text", "label", "model", "x", "y", "kind"])?;
    let models = Side::BOTH.iter().flat_map(|side| things.iter().map(move |thing| (side, thing)));
    for ((side, thing), row) in models.zip(projection.coordinates.rows()) {
        let [x, y] = [row[0], row[1]].map(|v| format!("{v:.6}"));
        writer.write_record([thing.text.as_str(), &thing.label, side.name(), &x, &y, thing.kind])?;
    }
    writer.flush().with_context(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Passage, Query};
    use crate::model::testing::minilm;
    use crate::stage::testing::Bench;
    use serde_json::json;

    fn thing(label: &str) -> Thing {
        Thing { text: "t".into(), label: label.into(), kind: "text" }
    }

    #[test]
    fn groups_beyond_the_colours_become_one() {
        let (legend, of) = groups(&[thing("b"), thing("a"), thing("b")]);
        assert_eq!((legend, of), (vec!["b".to_owned(), "a".to_owned()], vec![0, 1, 0]));
        assert_eq!(groups(&[thing(""), thing("")]).0, Vec::<String>::new());
        let many: Vec<Thing> = (0..9).flat_map(|i| vec![thing(&format!("g{i}")); if i == 1 { 1 } else { 2 }]).collect();
        let (legend, of) = groups(&many);
        assert_eq!(legend, ["g0", "g2", "g3", "g4", "g5", "g6", "g7", "other (2)"]);
        assert_eq!(of, [0, 0, 7, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]);
    }

    fn judgements() -> Judgements {
        let passage = |id: &str, text: &str| Passage { id: id.into(), title: String::new(), text: text.into() };
        Judgements {
            corpus: vec![
                passage("db/index.md:0", "An index makes a query fast."),
                passage("pets/cat.md:0", "A cat sleeps <most> of the \u{1} day & night."),
                passage("pets/dog.md:0", "Nobody judged this one."),
            ],
            queries: vec![
                Query { id: "q".into(), text: "slow query?".into() },
                Query { id: "r".into(), text: "tired pet?".into() },
            ],
            qrels: [("q", [("db/index.md:0", 1), ("pets/cat.md:0", 0)]), ("r", [("db/index.md:0", 0), ("pets/cat.md:0", 2)])]
                .map(|(q, g)| (q.to_owned(), g.map(|(p, v)| (p.to_owned(), v)).into()))
                .into(),
        }
    }

    #[test]
    fn judged_passages_and_queries_are_labelled_with_folders() {
        let found: Vec<(String, String, &str)> = judged(&judgements()).into_iter().map(|t| (t.text, t.label, t.kind)).collect();
        let expected = [
            ("An index makes a query fast.", "db", "passage"),
            ("A cat sleeps <most> of the \u{1} day & night.", "pets", "passage"),
            ("slow query?", "db", "query"),
            ("tired pet?", "pets", "query"),
        ];
        assert_eq!(found, expected.map(|(text, label, kind)| (text.to_owned(), label.to_owned(), kind)));
        for (id, expected) in [("./a/b/c.md:1", "a"), ("/a/b", "a"), ("c.md:1", ""), ("", "")] {
            assert_eq!(folder(id), expected);
        }
    }

    #[test]
    fn the_same_model_twice_is_the_same_picture_twice() {
        let bench = Bench::new();
        let path = bench.folder.path().join("judged");
        judgements().write(&path).unwrap();
        let inputs = [("baseline", minilm()), ("tuned", minilm()), ("judgements", path)];
        let outcome = bench.run(&KIND, json!({}), &inputs).unwrap();
        assert!(outcome.summary.starts_with("4 texts; the two axes hold "), "{}", outcome.summary);
        let mut csv = csv::Reader::from_path(bench.folder.path().join("plots/projection.csv")).unwrap();
        assert_eq!(csv.headers().unwrap(), vec!["text", "label", "model", "x", "y", "kind"]);
        let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
        let (baseline, tuned) = rows.split_at(4);
        for (a, b) in baseline.iter().zip(tuned) {
            assert_eq!((&a[0], &a[3], &a[4], &a[2], &b[2]), (&b[0], &b[3], &b[4], "baseline", "fine-tuned"));
        }
        // What belongs together is nearer than what does not, also in two dimensions.
        let at = |row: usize| (rows[row][3].parse::<f64>().unwrap(), rows[row][4].parse::<f64>().unwrap());
        let distance = |a: usize, b: usize| (at(a).0 - at(b).0).hypot(at(a).1 - at(b).1);
        assert!(distance(0, 2) < distance(0, 3) && distance(1, 3) < distance(1, 2));
        let png = std::fs::read(bench.folder.path().join("plots/projection.png")).unwrap();
        assert_eq!(png[16..24], [0, 0, 7, 8, 0, 0, 3, 132], "1800 x 900");
        let svg = bench.read("plots/projection.svg");
        assert!(svg.contains("A cat sleeps &lt;most&gt; of the day &amp;…") && !svg.contains('\u{1}'));
        let before = (png, svg);
        bench.run(&KIND, json!({}), &inputs).unwrap();
        let again = std::fs::read(bench.folder.path().join("plots/projection.png")).unwrap();
        assert!(before == (again, bench.read("plots/projection.svg")), "the picture differs");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let bench = Bench::new();
        let inputs = [("baseline", minilm()), ("tuned", minilm())];
        insta::assert_snapshot!(bench.run(&KIND, json!({}), &inputs).unwrap_err(), @"there is nothing to draw: give `texts`, or connect the input `judgements`");
        let error = configure::<Project>(json!({ "texts": [{ "text": "a" }, { "text": " " }] })).err().unwrap();
        assert_eq!(error.field, "texts[1].text");
        assert!(configure::<Project>(json!({ "texts": [{ "text": "a" }] })).is_err());
    }
}
