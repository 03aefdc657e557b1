//! A first pipeline for a folder of documents: what is written, what it does, and what is refused.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::{Project, files};
use serde_json::Value;

/// A folder with nothing but documents.
fn project() -> Project {
    let project = Project::new("");
    fs::remove_dir_all(project.path("pipelines")).unwrap();
    fs::remove_file(project.path("queries.jsonl")).unwrap();
    project
}

fn queries(project: &Project, split: &str) -> Vec<Value> {
    let text = fs::read_to_string(project.path(&format!("queries/guide/{split}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_written_runs_at_once() {
    let project = project();
    let made = project.retune(&["init", "--name", "guide"]).succeeded();
    insta::assert_snapshot!(made.stdout(), @r"
    wrote
    schemas/pipeline.schema.json  for editors: they complete and check the pipeline
    schemas/stage.schema.json     for editors: they complete and check the pipeline
    schemas/run.schema.json       for editors: they complete and check the pipeline
    schemas/sweep.schema.json     for editors: they complete and check the pipeline
    queries/guide/train.jsonl     queries to train with
    queries/guide/dev.jsonl       queries to choose the best checkpoint by
    queries/guide/test.jsonl      queries to measure with
    queries/guide/README.md       how to write queries
    .gitignore                    keeps the store and the runs out of git
    pipelines/guide.yaml          the pipeline

    3 documents, 3 chunks; 2 queries to train with, 2 to choose by, 1 to measure with
    note: the queries are made from headings and first sentences of the documents. They show that everything works, and flatter
    every figure: replace them with real ones, as the README beside them says

    next:
      retune run pipelines/guide.yaml
    ");
    insta::assert_snapshot!(files(&project.path("")).join("\n"), @r"
    .gitignore
    docs/bert.md
    docs/docker.md
    docs/rest.txt
    pipelines/guide.yaml
    queries/guide/README.md
    queries/guide/dev.jsonl
    queries/guide/test.jsonl
    queries/guide/train.jsonl
    schemas/pipeline.schema.json
    schemas/run.schema.json
    schemas/stage.schema.json
    schemas/sweep.schema.json
    ");
    let plan = project.retune(&["plan", "pipelines/guide.yaml", "--json"]).succeeded().json();
    assert_eq!(plan["stages"].as_array().unwrap().len(), 11);
    // The schema that the pipeline's first line names is there.
    let text = fs::read_to_string(project.path("pipelines/guide.yaml")).unwrap();
    let schema = text.lines().next().unwrap().split("$schema=").nth(1).unwrap();
    assert!(project.path("pipelines").join(schema).is_file());

    let run = project.retune(&["run", "pipelines/guide.yaml", "--set", "params.epochs=1"]).succeeded();
    for word in ["ndcg@10", "baseline", "fine-tuned", "improvement"] {
        assert!(run.stdout().contains(word), "{}", run.stdout());
    }
}

#[test]
fn no_query_and_no_passage_is_in_two_splits() {
    let project = project();
    project.retune(&["init", "--name", "guide", "--docs", "docs"]).succeeded();
    project.retune(&["run", "pipelines/guide.yaml", "--only", "docs", "--only", "chunks", "--json"]).succeeded();
    for split in ["train", "dev", "test"] {
        project.retune(&["run", "pipelines/guide.yaml", "--only", &format!("{split}-queries")]).succeeded();
    }
    let (mut texts, mut chunks) = (BTreeSet::new(), BTreeMap::new());
    for (split, run) in ["train", "dev", "test"].iter().zip(project.runs().iter().skip(1)) {
        for query in queries(&project, split) {
            assert!(texts.insert(query["text"].as_str().unwrap().to_lowercase()), "{query}");
        }
        let qrels = run.join(format!("artifacts/{split}-queries/judgements/qrels/test.tsv"));
        for line in fs::read_to_string(qrels).unwrap().lines().skip(1) {
            let chunk = line.split('\t').nth(1).unwrap().to_owned();
            let other = chunks.insert(chunk.clone(), *split);
            assert!(other.is_none_or(|other| other == *split), "{chunk} answers queries of {split} and {other:?}");
        }
    }
    assert!(texts.len() >= 3 && chunks.len() >= 3);
    // The same documents give the same files.
    let before: Vec<Value> = queries(&project, "train");
    project.retune(&["init", "--name", "guide", "--docs", "docs", "--force"]).succeeded();
    assert_eq!(queries(&project, "train"), before);
}

#[test]
fn nothing_is_overwritten_unless_that_is_wanted() {
    let project = project();
    project.retune(&["init", "--name", "guide"]).succeeded();
    assert!(project.retune(&["init", "--name", "guide"]).succeeded().stdout().contains("everything is there already"));
    project.write("pipelines/guide.yaml", "mine");
    let refused = project.retune(&["init", "--name", "guide"]);
    assert_eq!(refused.status(), 2);
    insta::assert_snapshot!(project.anonymous(&refused.stderr()), @"error: `PROJECT/pipelines/guide.yaml` would be replaced; keep it with another `--name`, or replace it with `--force`");
    assert_eq!(fs::read_to_string(project.path("pipelines/guide.yaml")).unwrap(), "mine");
    project.retune(&["init", "--name", "guide", "--force"]).succeeded();
    project.retune(&["plan", "pipelines/guide.yaml"]).succeeded();
}

#[test]
fn folders_that_are_not_as_they_should_be() {
    let project = project();
    let init = |arguments: &[&str]| {
        let ended = project.retune(&[&["init", "--name", "guide", "--force"], arguments].concat());
        (ended.status(), project.anonymous(&(ended.stdout() + &ended.stderr())))
    };
    let refused = |arguments: &[&str]| {
        let (status, text) = init(arguments);
        assert_eq!(status, 2, "{text}");
        text
    };
    fs::create_dir(project.path("empty")).unwrap();
    project.write("one/only.md", "# One\n\nToo short.\n");
    project.write("kinds/a.docx", "x");
    project.write("some.jsonl", "{\"_id\": \"q1\", \"text\": \"x\", \"keywords\": [\"docker\"]}\n");
    let messages = [
        refused(&["--docs", "nowhere"]),
        refused(&["--docs", "empty"]),
        refused(&["--docs", "kinds"]),
        refused(&["--docs", "one"]),
        refused(&["--queries", "some.jsonl"]),
    ];
    insta::assert_snapshot!(messages.join(""), @r"
    error: there are no documents at `nowhere`; correct `--docs`
    error: the corpus is empty: `PROJECT/empty` selects none of the 0 files there; files that can be read end in `.md`, `.markdown`, `.txt`, `.html`, `.htm`, `.pdf`, `.json`, `.jsonl`, `.csv`
    error: the corpus is empty: `PROJECT/kinds` selects none of the 1 files there; files that can be read end in `.md`, `.markdown`, `.txt`, `.html`, `.htm`, `.pdf`, `.json`, `.jsonl`, `.csv`
    error: there is too little text to make queries from: 0 passages that a heading or a sentence asks for, and at least three are needed; add documents, or give judged queries with `--queries FILE`
    error: `some.jsonl` holds 1 queries; at least three are needed: one to train with, one to choose by, one to measure with
    ");
    let named = project.retune(&["init", "--name", "../x"]);
    insta::assert_snapshot!(named.stderr(), @"error: `../x` cannot be the name of a pipeline; use up to 64 letters, digits, `.`, `_` and `-`");
    assert!(!project.path("pipelines").exists() && !project.path("schemas").exists());

    // One document is enough when it holds something; a file that cannot be read is left out, in the pipeline too.
    let paragraphs: Vec<String> = (1..=9)
        .map(|i| {
            format!("Engine number {i} has a red lamp on top. It lights when pressure {i} is above the limit of the boiler.\n\n")
        })
        .collect();
    project.write("one/only.md", paragraphs.concat());
    project.write("one/broken.txt", b"\xff\xfe");
    let (status, text) = init(&["--docs", "one"]);
    assert!(status == 0 && text.contains("they cannot be read: 1"), "{text}");
    let pipeline = fs::read_to_string(project.path("pipelines/guide.yaml")).unwrap();
    assert!(pipeline.contains("with: { path: ../one, on_error: skip }"), "{pipeline}");
    project.retune(&["run", "pipelines/guide.yaml", "--only", "docs"]).succeeded();

    // Documents in the project itself: what retune writes is not among them.
    let (status, text) = init(&["--docs", "."]);
    assert_eq!(status, 0, "{text}");
    let run = project.retune(&["run", "pipelines/guide.yaml", "--only", "docs", "--json"]).succeeded().json();
    let path = project.path("runs").join(run["id"].as_str().unwrap()).join("artifacts/docs/documents.jsonl");
    let documents = fs::read_to_string(path).unwrap();
    assert!(documents.contains("docs/docker.md") && !documents.contains("queries/guide"), "{documents}");
}

#[test]
fn judged_queries_are_dealt_out() {
    let project = project();
    let lines: Vec<String> = (0..10)
        .map(|i| format!("{{\"_id\": \"q{i}\", \"text\": \"question {i}\", \"keywords\": [\"docker\", \"429\"]}}\n"))
        .collect();
    project.write("mine.jsonl", lines.concat());
    let made = project.retune(&["init", "--name", "guide", "--queries", "mine.jsonl", "--json"]).succeeded().json();
    assert_eq!(made["queries"].to_string(), "[6,2,2]");
    assert_eq!(made["made_up"], false);
    assert_eq!(queries(&project, "dev")[0].to_string(), r#"{"_id":"q1","keywords":["docker","429"],"text":"question 1"}"#);
    assert!(Path::new(made["pipeline"].as_str().unwrap()).is_file());
    project.write("mine.jsonl", lines.concat().replace("\"docker\", \"429\"", "\"zzz\""));
    let refused = project.retune(&["init", "--name", "other", "--queries", "mine.jsonl"]);
    insta::assert_snapshot!(refused.stderr(), @"error: mine.jsonl:1: no chunk answers query `q0`; correct what it says of its answers, or remove it");
}

#[test]
fn a_thousand_documents_give_a_bounded_number_of_queries() {
    let project = project();
    for i in 0..1000 {
        let text = format!(
            "# Engine {i} of the works\n\nThe lamp of engine {i} is red when the boiler is hot.\n\n## Repairs of engine {i}\n\nCall the fitter with number {i} before noon.\n"
        );
        project.write(&format!("docs/works/{i:04}.md"), text);
    }
    let made = project.retune(&["init", "--name", "guide", "--json"]).succeeded().json();
    let counts: Vec<u64> = made["queries"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert!(counts.iter().sum::<u64>() <= 500 && counts.iter().all(|&n| n >= 50), "{counts:?}");
    // They are from all of the documents, not from the first ones.
    assert!(queries(&project, "train").iter().any(|q| q.to_string().contains("works/09")));
}
