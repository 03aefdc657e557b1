//! Pipelines that somebody else wrote: where they may read.

mod common;

use std::fs;

use common::{Ended, LIGHT, Project};
use serde_json::Value;

/// A project in the folder `project` of another one, whose pipeline reads documents and queries outside of it.
fn outside() -> Project {
    let project = Project::new("");
    project.write("project/pipelines/p.yaml", LIGHT.replace("../docs", "../../docs").replace("../queries", "../../queries"));
    fs::create_dir(project.path("project/.git")).unwrap();
    project
}

/// What is said to a pipeline that reads where it must not; the call asks for JSON.
fn refused(project: &Project, ended: &Ended) -> String {
    assert_eq!(ended.status(), 2, "{}\n{}", ended.stdout(), ended.stderr());
    assert!(!project.path("project/runs").exists());
    let line = |report: &Value| {
        let [file, message, help] = ["file", "message", "help"].map(|key| report[key].as_str().unwrap());
        format!("{file}:{}:{}: {message}; {help}", report["line"], report["column"])
    };
    let lines: Vec<String> = ended.json()["errors"].as_array().unwrap().iter().map(line).collect();
    let real = fs::canonicalize(project.path("")).unwrap();
    project.anonymous(&lines.join("\n")).replace(&*real.to_string_lossy(), "PROJECT")
}

#[test]
fn paths_out_of_the_project_need_the_callers_word() {
    let project = outside();
    let plan = ["plan", "project/pipelines/p.yaml", "--json"];
    insta::assert_snapshot!(refused(&project, &project.retune(&plan)), @"
    project/pipelines/p.yaml:3:37: `../../docs` leads out of the project, to `PROJECT/docs`; the project is `PROJECT/project`; allow more with `--allow PROJECT/docs`, or in the environment variable `RETUNE_ALLOW`
    project/pipelines/p.yaml:5:71: `../../queries.jsonl` leads out of the project, to `PROJECT/queries.jsonl`; the project is `PROJECT/project`; allow more with `--allow PROJECT`, or in the environment variable `RETUNE_ALLOW`
    ");
    // Half of it is allowed.
    let ended = project.retune(&["plan", "project/pipelines/p.yaml", "--json", "--allow", "docs"]);
    assert_eq!(refused(&project, &ended).lines().count(), 1);
    project.retune(&["run", "project/pipelines/p.yaml", "--allow", "docs", "--allow", "queries.jsonl"]).succeeded();
    let list = std::env::join_paths(["", "docs", "queries.jsonl"]).unwrap();
    Ended(project.command(&plan).env("RETUNE_ALLOW", list).output().unwrap()).succeeded();
}

#[test]
fn a_pipeline_cannot_allow_anything_to_itself() {
    let project = outside();
    project.write(".env", "RETUNE_ALLOW=/\n");
    project.write("project/.env", "RETUNE_ALLOW=/\n");
    refused(&project, &project.retune(&["run", "project/pipelines/p.yaml", "--json"]));
    let mut command = project.command(&["run", "pipelines/p.yaml", "--json"]);
    refused(&project, &Ended(command.current_dir(project.path("project")).output().unwrap()));
}

/// Links come with an archive or a repository just as the pipeline does.
#[test]
#[cfg(unix)]
fn links_out_of_the_project_are_not_read() {
    use std::os::unix::fs::symlink;
    let project = Project::new(LIGHT);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret.md"), "# Secret\n\nThe word is mum.\n").unwrap();
    symlink(elsewhere.path().join("secret.md"), project.path("docs/link.md")).unwrap();
    symlink(elsewhere.path(), project.path("docs/folder")).unwrap();
    symlink("bert.md", project.path("docs/inside.md")).unwrap();
    let shown = |ended: &Ended| {
        let text = project.anonymous(&ended.stderr());
        let text = text.replace(&*fs::canonicalize(elsewhere.path()).unwrap().to_string_lossy(), "ELSEWHERE");
        text.replace(&*fs::canonicalize(project.path("")).unwrap().to_string_lossy(), "PROJECT")
    };
    let ended = project.retune(&["run", "pipelines/p.yaml"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(shown(&ended), @"error: stage `docs`: `../docs/folder` cannot be read: `pipelines/../docs/folder` leads out of the project, to `ELSEWHERE`; the project is `PROJECT`; allow more with `--allow ELSEWHERE`, or in the environment variable `RETUNE_ALLOW`; mend it, or set `on_error: skip`");
    // Left out, excluded, or allowed.
    for (set, documents) in [("on_error=skip", 4), ("exclude=[link.md, folder]", 4), ("exclude=['link*', 'folder/**']", 4)] {
        let record = project.run(&["--set", &format!("stages.docs.with.{set}")]);
        assert_eq!(record["stages"]["docs"]["outcome"]["summary"], format!("{documents} documents from {documents} files"));
    }
    let record = project.run(&["--allow", &elsewhere.path().to_string_lossy()]);
    assert_eq!(record["stages"]["docs"]["outcome"]["summary"], "6 documents from 6 files");
}
