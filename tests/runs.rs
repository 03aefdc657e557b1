//! Many runs: chosen, ordered, named, compared, removed; and one made again from its lock.

mod common;

use std::fs;

use common::{LIGHT, Project};
use serde_json::Value;

/// The light pipeline once for every seed; the runs' names.
fn seeds(project: &Project, seeds: &[u32]) -> Vec<String> {
    let run =
        |seed: &u32| project.run(&["--set", &format!("stages.triplets.with.seed={seed}")])["id"].as_str().unwrap().to_owned();
    seeds.iter().map(run).collect()
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect()
}

#[test]
fn runs_are_chosen_and_ordered() {
    let project = Project::new(LIGHT);
    let runs = seeds(&project, &[7, 9, 8]);
    let list = |arguments: &[&str]| project.retune(&[&["runs", "--json"], arguments].concat()).succeeded().json();
    assert_eq!(ids(&list(&["--where", "triplets.seed>=8"])), [&runs[2], &runs[1]]);
    assert_eq!(ids(&list(&["--sort", "-params.seed", "-n", "2"])), [&runs[1], &runs[2]]);
    assert_eq!(ids(&list(&["--where", "status=done", "--where", "stages.triplets.with.seed=7"])), [&runs[0]]);
    assert_eq!(list(&[])[0]["stages"]["triplets"]["fingerprint"]["parameters"]["seed"], 8, "whole records");
    let table = project.retune(&["runs", "--where", "pipeline=light", "--sort", "params.seed", "--columns", "id,params.seed"]);
    let table =
        runs.iter().zip(["FIRST", "SECOND", "THIRD"]).fold(table.succeeded().stdout(), |t, (id, name)| t.replace(id, name));
    let table: Vec<&str> = table.lines().map(str::trim_end).collect();
    assert!(table[1].starts_with("FIRST ") && table[2].starts_with("THIRD ") && table[3].starts_with("SECOND "), "{table:?}");
    assert_eq!(table[4], "`params.seed` is `stages.triplets.with.seed`");
    let csv = project.retune(&["runs", "--csv"]).succeeded().stdout();
    let head = csv.lines().next().unwrap();
    assert_eq!(head, "id,pipeline,status,started,seconds,tag,git,stages.triplets.with.seed");
    assert!(csv.lines().nth(1).unwrap().starts_with(&runs[2]) && csv.lines().nth(1).unwrap().ends_with(",8"), "{csv}");
    let all = project.retune(&["runs", "--csv", "--all"]).succeeded().stdout();
    assert!(all.lines().next().unwrap().contains(",stages.chunks.with.chunk_size,"), "{all}");
    for (arguments, message) in [
        (["--where", "params.sede=7"], "error: no run has `params.sede`: did you mean `seed`?"),
        (["--sort", "metrics.ndcg@10"], "error: no run has `metrics.ndcg@10`: there are no metrics"),
    ] {
        let wrong = project.retune(&[&["runs"], arguments.as_slice()].concat());
        assert_eq!((wrong.status(), wrong.stderr().trim_end()), (2, message));
    }
    let wrong = project.retune(&["runs", "--where", "seed"]);
    assert_eq!(wrong.status(), 2);
    assert!(wrong.stderr().contains("`seed` has no operator"), "{}", wrong.stderr());
}

#[test]
fn a_damaged_record_hides_no_others() {
    let project = Project::new(LIGHT);
    let runs = seeds(&project, &[7, 8]);
    fs::write(project.path(&format!("runs/{}/run.json", runs[1])), "{").unwrap();
    let list = project.retune(&["runs", "--json", "--where", "status=done"]).succeeded();
    assert_eq!(ids(&list.json()), [&runs[0]]);
    assert!(list.stderr().contains("warning:") && list.stderr().contains(&runs[1]), "{}", list.stderr());
}

#[test]
fn tags_name_runs_and_protect_them() {
    let project = Project::new(LIGHT);
    let runs = seeds(&project, &[7, 8, 9]);
    project.retune(&["tag", &runs[0], "before", "paper"]).succeeded();
    let tags = fs::read_to_string(project.path(&format!("runs/{}/tags.json", runs[0]))).unwrap();
    assert_eq!(serde_json::from_str::<Vec<String>>(&tags).unwrap(), ["before", "paper"]);
    let diff = project.retune(&["diff", "before", "latest"]).succeeded().stdout();
    assert!(diff.contains("triplets  parameter `seed` 7 → 9"), "{diff}");
    let moved = project.retune(&["tag", "latest", "paper"]);
    assert_eq!(moved.status(), 2);
    assert_eq!(moved.stderr(), format!("error: `paper` is a tag of `{}`; `--force` moves it\n", runs[0]));
    project.retune(&["tag", "latest", "paper", "--force"]).succeeded();
    project.retune(&["tag", "before", "old", "--remove", "before"]).succeeded();
    let list = project.retune(&["tag", "--json"]).succeeded().json();
    assert_eq!(list, serde_json::json!({ "old": runs[0], "paper": runs[2] }));
    assert_eq!(project.retune(&["show", "paper", "--json"]).succeeded().json()["tags"][0], "paper");
    assert!(project.retune(&["show", "paper"]).succeeded().stdout().contains("tags          paper"));

    let refused = project.retune(&["rm", &runs[1], "paper"]);
    assert_eq!(refused.status(), 2);
    let message = format!("error: `{}` is tagged `paper`; nothing is removed; `--force` removes it\n", runs[2]);
    assert_eq!(refused.stderr(), message);
    assert_eq!(project.retune(&["rm", "--where", "triplets.seed>0"]).status(), 2);
    assert_eq!(project.runs().len(), 3 + 1, "all runs are there, and the lock of the tags");
    let dry = project.retune(&["rm", "--where", "tag=", "--dry-run"]).succeeded().stdout();
    assert_eq!(dry, format!("would remove {}\n", runs[1]));
    assert_eq!(project.retune(&["rm", "--where", "tag="]).succeeded().stdout(), format!("removed {}\n", runs[1]));
    project.retune(&["rm", "paper", "--force"]).succeeded();
    assert_eq!(ids(&project.retune(&["runs", "--json"]).succeeded().json()), [&runs[0]]);
    // What they yielded is still in the store.
    assert_eq!(project.run(&["--set", "stages.triplets.with.seed=8"])["stages"]["triplets"]["status"], "cached");
}

#[test]
fn several_runs_are_compared_with_the_first() {
    let project = Project::new(LIGHT);
    seeds(&project, &[7, 8, 7]);
    project.retune(&["tag", "latest~2", "base"]).succeeded();
    let table = project.retune(&["diff", "base", "latest~1", "latest"]).succeeded().stdout();
    assert!(table.contains("what differs   base  latest~1  latest\ntriplets.seed  7     8         =\n"), "{table}");
    let json = project.retune(&["diff", "base", "latest~1", "latest", "--json"]).succeeded().json();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(json[0]["stages"][0]["changes"][0]["to"], 8);
    assert_eq!(json[1]["stages"], serde_json::json!([]));
    let csv = project.retune(&["diff", "base", "latest~1", "latest", "--format", "csv"]).succeeded().stdout();
    assert!(csv.starts_with("run,metric,from,to,difference,"), "{csv}");
    let markdown = project.retune(&["diff", "base", "latest~1", "latest", "--format", "markdown"]).succeeded().stdout();
    assert!(markdown.contains("| triplets.seed | 7 | 8 | = |"), "{markdown}");
    let queries = project.retune(&["diff", "base", "latest", "--queries"]);
    assert_eq!(queries.status(), 2);
    assert!(queries.stderr().contains("measured the same queries in the same way"), "{}", queries.stderr());
}

#[test]
fn a_run_is_reproduced_from_its_lock() {
    let project = Project::new(LIGHT);
    let record = project.run(&["--set", "stages.chunks.with.chunk_size=32"]);
    assert_eq!(record["base"], "../../pipelines");
    // The pipeline itself is not needed.
    fs::remove_file(project.path("pipelines/p.yaml")).unwrap();
    let again = project.retune(&["reproduce", "latest"]).succeeded();
    let printed = again.stdout();
    assert!(printed.contains("is as it was") && printed.ends_with("4 of 4 artifacts have the same bytes\n"), "{printed}");
    assert!(again.stderr().contains("chunks    done"), "it computes: {}", again.stderr());
    assert_eq!(project.runs().len(), 1, "the new run is removed");
    let kept = project.retune(&["reproduce", "latest", "--keep", "--json"]).succeeded().json();
    assert_eq!((&kept["same"], &kept["of"]), (&4.into(), &4.into()));
    let folder = kept["kept"].as_str().unwrap();
    let new: Value = serde_json::from_slice(&fs::read(format!("{folder}/run.json")).unwrap()).unwrap();
    assert_eq!(new["stages"]["triplets"]["outputs"], record["stages"]["triplets"]["outputs"]);
    assert_eq!(new["stages"]["triplets"]["status"], "done");
    assert!(fs::read_to_string(format!("{folder}/artifacts/triplets/triplets.jsonl")).unwrap().lines().count() > 0);
    assert_eq!(project.retune(&["reproduce", "latest"]).status(), 0, "a kept run can be reproduced too");
}

#[test]
fn what_cannot_be_reproduced_is_named() {
    let project = Project::new(LIGHT);
    let id = project.run(&[])["id"].as_str().unwrap().to_owned();
    project.write("docs/docker.md", "# Docker\n\nA volume keeps data when the container is removed.\n");
    let changed = project.retune(&["reproduce", &id]);
    assert_eq!(changed.status(), 1);
    let printed = changed.stdout();
    assert!(printed.contains(&format!("not as it was in `{id}`:\n  docs  file `../docs/docker.md` changed\n")), "{printed}");
    assert!(printed.contains("differs  file `../docs/docker.md` changed"), "{printed}");
    assert!(printed.contains("differs  input `documents` changed") && printed.contains("0 of 4 artifacts"), "{printed}");

    let lock = project.path(&format!("runs/{id}/pipeline.lock.yaml"));
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, text.replace("negatives: 2", "negatives: 1")).unwrap();
    let tampered = project.retune(&["reproduce", &id, "--json"]);
    assert_eq!(tampered.status(), 1);
    assert_eq!(tampered.json()["stages"][1]["changes"][0]["name"], "negatives");
    assert_eq!(
        tampered.json()["artifacts"][2]["files"],
        serde_json::json!(["corpus.jsonl", "qrels/test.tsv"]),
        "of the judgements"
    );
    let printed = project.retune(&["reproduce", &id]).stdout();
    assert!(
        printed.contains("triplets  parameter `negatives` 2 → 1\n`pipeline.lock.yaml` is not what the run recorded"),
        "{printed}"
    );
    fs::write(&lock, text.replace("seed: 7", "sede: 7")).unwrap();
    let broken = project.retune(&["reproduce", &id]);
    assert_eq!(broken.status(), 2);
    assert!(
        broken.stderr().contains("pipeline.lock.yaml") && broken.stderr().contains("did you mean `seed`?"),
        "{}",
        broken.stderr()
    );

    fs::write(&lock, text).unwrap();
    // A stage that fails now: its artifact, and that of what comes after it, is not made.
    project.write("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"x\", \"keywords\": [\"nowhere to be found\"]}\n");
    let failing = project.retune(&["reproduce", &id, "--json"]);
    let verdicts: Vec<String> =
        failing.json()["artifacts"].as_array().unwrap().iter().map(|a| format!("{} {}", a["stage"], a["verdict"])).collect();
    assert_eq!(
        (failing.status(), verdicts.join(", ").replace('"', "")),
        (1, "docs differs, chunks differs, judged not_made, triplets not_made".into())
    );

    fs::rename(project.path("queries.jsonl"), project.path("elsewhere.jsonl")).unwrap();
    let gone = project.retune(&["reproduce", &id]);
    assert_eq!(gone.status(), 2);
    assert!(
        gone.stderr().contains("stage `judged`") && gone.stderr().contains("`--base DIR` names another folder"),
        "{}",
        gone.stderr()
    );
    fs::rename(project.path("pipelines"), project.path("moved")).unwrap();
    let gone = project.retune(&["reproduce", &id]);
    assert_eq!(gone.status(), 2);
    assert!(gone.stderr().contains("/pipelines`, which is gone; `--base DIR`"), "{}", gone.stderr());
    fs::rename(project.path("elsewhere.jsonl"), project.path("queries.jsonl")).unwrap();
    assert_eq!(project.retune(&["reproduce", &id, "--base", "moved"]).status(), 1, "it runs again, with what changed");
}

/// A guard that has nothing to look at must not let everything through.
#[test]
fn a_metric_that_is_gone_breaks_its_bound() {
    let project = Project::new(LIGHT);
    let score = |stage: &str| {
        let run = r#"echo > {outputs.o}; echo '{ "metrics": { "score": 0.5 } }' > "$RETUNE_OUTCOME""#;
        format!(
            "name: scores\nstages:\n  {stage}:\n    uses: command\n    with:\n      run: {}\n      outputs: {{ o: file }}\n",
            serde_json::to_string(run).unwrap()
        )
    };
    let runs = ["a", "b"].map(|stage| {
        project.write("pipelines/p.yaml", score(stage));
        project.run(&[])["id"].as_str().unwrap().to_owned()
    });
    let ended = |bound: &str| project.retune(&["diff", &runs[0], &runs[1], "--fail-if", bound]);
    assert_eq!(ended("a.score<-0.1").status(), 3);
    assert_eq!(ended("a.score<-0.1").stderr(), format!("error: `{}` has no a.score\n", runs[1]));
    assert_eq!([ended("b.score<-0.1").status(), ended("c.score<-0.1").status()], [0, 2]);
}
