//! Where the paths of a pipeline start, and that they do not lead out of the project.

use std::fs;

use super::definitions::Folder;
use super::*;

/// Reads a folder that the caller names, and one of its own.
const READ: &str = "\
params: { path: {}, rules: { default: ./rules.jsonl } }
outputs: { documents: given }
stages:
  given: { uses: load, with: { path: \"${params.path}\" } }
  own: { uses: load, with: { path: ./docs } }
  chunks: { uses: chunk, inputs: { documents: own } }
  mined: { uses: mine, inputs: { chunks: chunks }, with: { rules: \"${params.rules}\" } }
";

#[test]
fn paths_start_at_the_folder_of_the_file_that_says_them() {
    let folder = Folder::new(&[
        (
            "pipelines/a.yaml",
            "extends: ../shared/deep/base.yaml
params: { mine: ../mine }
env: { HERE: { default: here } }
stages:
  read: { uses: ../stages/read.yaml, with: { path: \"${params.theirs}/x\" } }
  again: { uses: ../stages/read.yaml, with: { path: \"${params.mine}\", rules: \"${params.absolute}\" } }
  replaced: { with: { path: own } }
",
        ),
        (
            "shared/deep/base.yaml",
            "params: { theirs: ../data, mine: overridden, absolute: /rules.jsonl }
stages:
  docs: { uses: load, with: { path: docs/ } }
  through: { uses: load, with: { path: \"${params.mine}\" } }
  into: { uses: load, with: { path: \"./${params.mine}\" } }
  up: { uses: load, with: { path: ../.. } }
  replaced: { uses: load, with: { path: theirs } }
  model: { uses: model, with: { source: [all-MiniLM-L6-v2, \"hf:a/b\", ./model] } }
",
        ),
        ("stages/read.yaml", READ),
    ]);
    let pipeline = folder.load(&["stages.into.with.path=set"]).unwrap();
    let paths: Vec<String> = pipeline
        .stages
        .iter()
        .flat_map(|node| node.configured.stage.paths().into_iter().map(|(field, path)| format!("{} {field}: {path}", node.id)))
        .collect();
    insta::assert_snapshot!(paths.join("\n"), @"
    docs path: ../shared/deep/docs
    through path: ../mine
    into path: set
    up path: ..
    replaced path: own
    model source[2]: ../shared/deep/model
    read/given path: ../shared/data/x
    read/own path: ../stages/docs
    read/mined rules: ../stages/rules.jsonl
    again/given path: ../mine
    again/own path: ../stages/docs
    again/mined rules: /rules.jsonl
    ");
    // What is written out is relative to the pipeline's folder, and reads as the same.
    let again = parse(&pipeline.resolved(), &folder.0.path().join("pipelines/lock.yaml"), &[], &Allowed::anywhere()).unwrap();
    assert_eq!(super::definitions::content(&again), super::definitions::content(&pipeline));
}

#[test]
fn paths_that_lead_out_of_the_project_are_shown_where_they_stand() {
    let mut folder = Folder::new(&[
        (
            "project/pipelines/a.yaml",
            "extends: ../../base.yaml
stages: {}
",
        ),
        (
            "project/pipelines/b.yaml",
            "params: { there: ../../elsewhere, fine: ../data/../x }
stages:
  a: { uses: load, with: { path: \"${params.there}\" } }
  b: { uses: judge, with: { beir: /etc } }
  c: { uses: judge, with: { queries: \"${params.fine}/../../../y.jsonl\" } }
  d: { uses: model, with: { source: [all-MiniLM-L6-v2, ../../elsewhere/model, ../data] } }
  e: { uses: ../../stages/x.yaml }
  f: { uses: ../stages/read.yaml, with: { path: \"${params.there}/f\", rules: ../data } }
  g: { uses: load, with: { path: \"${params.fine}\" } }
",
        ),
        ("base.yaml", "stages: { base: { uses: model, with: { source: x } } }"),
        ("stages/x.yaml", "stages: { base: { uses: model, with: { source: x } } }"),
        ("elsewhere/x", ""),
        ("project/data/x", ""),
        ("project/stages/read.yaml", &READ.replace("./docs", "../../secret")),
    ]);
    folder.1 = Allowed::only(&folder.0.path().join("project"), []);
    let shown = |folder: &Folder, name: &str| {
        let error = load(&folder.0.path().join(name), &[], &folder.1).err().unwrap();
        let help = error.reports().into_iter().filter_map(|report| report.help).next().unwrap_or_default();
        let real = fs::canonicalize(folder.0.path()).unwrap();
        let text = format!("{error}\nhelp: {help}").replace(&*folder.0.path().to_string_lossy(), "TOP");
        text.replace(&*real.to_string_lossy(), "TOP").replace(&*real.parent().unwrap().to_string_lossy(), "ABOVE")
    };
    insta::assert_snapshot!(shown(&folder, "project/pipelines/a.yaml"), @"
    TOP/project/pipelines/a.yaml:1:10: `../../base.yaml` leads out of the project, to `TOP/base.yaml`
    help: the project is `TOP/project`; allow more with `--allow TOP`, or in the environment variable `RETUNE_ALLOW`
    ");
    insta::assert_snapshot!(shown(&folder, "project/pipelines/b.yaml"), @"
    TOP/project/pipelines/b.yaml:1:18: `../../elsewhere` leads out of the project, to `TOP/elsewhere`
    TOP/project/pipelines/b.yaml:1:18: `../../elsewhere/f` leads out of the project, to `TOP/elsewhere/f`, used at TOP/project/pipelines/b.yaml:8:14
    TOP/project/pipelines/b.yaml:4:35: `/etc` leads out of the project, to `/etc`
    TOP/project/pipelines/b.yaml:5:38: `../data/../x/../../../y.jsonl` leads out of the project, to `ABOVE/y.jsonl`
    TOP/project/pipelines/b.yaml:6:56: `../../elsewhere/model` leads out of the project, to `TOP/elsewhere/model`
    TOP/project/pipelines/b.yaml:7:14: `../../stages/x.yaml` leads out of the project, to `TOP/stages/x.yaml`
    TOP/project/stages/read.yaml:5:36: `../../secret` leads out of the project, to `TOP/secret`, used at TOP/project/pipelines/b.yaml:8:14
    help: the project is `TOP/project`; allow more with `--allow TOP/elsewhere`, or in the environment variable `RETUNE_ALLOW`
    ");
    // What is allowed is read.
    folder.1 =
        Allowed::only(&folder.0.path().join("project"), [folder.0.path().to_owned(), folder.0.path().join(".."), "/etc".into()]);
    assert!(load(&folder.0.path().join("project/pipelines/a.yaml"), &[], &folder.1).is_ok());
    let load = load(&folder.0.path().join("project/pipelines/b.yaml"), &[], &folder.1);
    assert!(load.is_ok(), "{}", load.err().unwrap());
}

#[test]
fn what_files_make_together_is_bounded() {
    let wide = |name: &str| {
        let list = "[0,1,2,3,4,5,6,7,8,9]";
        let lines: String = (0..12_500).map(|i| format!("  {name}{i}: {{ default: {list} }}\n")).collect();
        format!("params:\n{lines}stages: {{ base: {{ uses: model, with: {{ source: x }} }} }}\n")
    };
    let stages: String = (0..5).map(|i| format!("  s{i}: {{ uses: ./d{i}.yaml }}\n")).collect();
    let pipeline = format!("extends: ./base.yaml\nstages:\n{stages}");
    let mut files = vec![("pipelines/a.yaml".to_owned(), pipeline)];
    files.extend((0..5).map(|i| (format!("pipelines/d{i}.yaml"), wide("p"))));
    files.push(("pipelines/base.yaml".into(), "params: { x: &a [1], y: *a }".into()));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    insta::assert_snapshot!(Folder::new(&files).lines(), @r"
    pipelines/d2.yaml:10711:33: there are more than 500000 keys and values, aliases expanded, used at pipelines/a.yaml:5:15
    pipelines/d3.yaml:1:1: there are more than 500000 keys and values, aliases expanded, used at pipelines/a.yaml:6:15
    pipelines/d4.yaml:1:1: there are more than 500000 keys and values, aliases expanded, used at pipelines/a.yaml:7:15
    ");
    // Anchors around anchors are kept once each.
    let nested: String = (0..90).map(|i| format!("&a{i} [")).collect();
    let bomb = format!("params: {{ x: {nested}{}1{} }}\nstages: {{}}\n", "1,".repeat(100_000), "]".repeat(90));
    insta::assert_snapshot!(Folder::new(&[("pipelines/a.yaml", "extends: ./b.yaml"), ("pipelines/b.yaml", &bomb)]).lines(), @"pipelines/b.yaml:1:520: there are more than 500000 keys and values, aliases expanded, extended at pipelines/a.yaml:1:10");
}
