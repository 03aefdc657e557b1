//! The stage `command`: runs any program.

mod code;
mod environment;
mod outcome;
mod outputs;
mod places;
mod process;
mod settings;
mod template;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::environment::Environment;
use self::outputs::Outputs;
use self::places::Places;
use self::process::Ended;
use self::settings::{Pause, Retries};
use self::template::Run;
use super::{Context, External, Outcome, Output, ParameterError, Stage, StageKind, Surroundings, configure, schema};

pub use process::end_all;

pub const KIND: StageKind = StageKind {
    name: "command",
    version: 1,
    summary: "runs any program",
    inputs: &[],
    outputs: &[],
    declared: Some(declared),
    unkeyed: &["timeout", "retries"],
    schema: schema::<Command>,
    configure: configure::<Command>,
};

/// How often a running program looks whether the run was interrupted.
const TICK: Duration = Duration::from_millis(50);

/// Runs any program as a stage. `inputs` has any names and takes any kinds of artifact, and a list of stages where several are to
/// be taken together; `with` declares the outputs. The program sees nothing of the environment but what `env` lets through, and is
/// cached like every stage: it must yield the same when its arguments, files and inputs are the same.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments as a list, started without a shell; or a text that `sh -c` runs. `{inputs.NAME}` and
    /// `{outputs.NAME}` stand for paths: in a list, an argument with an input of several stages is repeated for each of them; in a
    /// text they are quoted words. The paths are in the variables `RETUNE_INPUT_NAME` and `RETUNE_OUTPUT_NAME`, too.
    pub run: Run,
    /// The files of the program: scripts, folders, or globs such as `../scripts/**/*.py`, from the folder of the file that says them. When one of
    /// them changes, the stage runs again.
    #[serde(default)]
    pub files: Vec<String>,
    /// The outputs, by names that `{outputs.NAME}` and other stages (`STAGE.NAME`) use: a kind of artifact, such as `triplets`, whose
    /// format is checked when the program has ended; or `{ file: FILE, kind: KIND }`, without `kind` for any file or folder.
    #[serde(default)]
    pub outputs: Outputs,
    /// The variables that the program sees besides `PATH`, `HOME` and the like: a name lets the variable of retune's own environment
    /// through, and its value is neither stored nor part of the key; `NAME: VALUE` sets it, and the value is both.
    #[serde(default)]
    pub env: Environment,
    /// The folder that the program runs in; without one, the pipeline's. A relative path starts at the folder of the file that says it.
    #[serde(default = "here")]
    pub workdir: String,
    /// The program is ended when it takes longer, for example `90s`, `10m` or `2h 30m`. It is not part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Pause>,
    /// How often a program that fails is started again. It is not part of the key.
    #[serde(default)]
    pub retries: Retries,
}

fn here() -> String {
    ".".into()
}

/// The outputs that parameters declare.
fn declared(parameters: &Value) -> Result<Vec<Output>, ParameterError> {
    let outputs: Outputs = match parameters.get("outputs") {
        Some(outputs) => serde_json::from_value(outputs.clone()).map_err(|e| ParameterError::new("outputs", e.to_string()))?,
        None => Outputs::default(),
    };
    outputs.check()?;
    Ok(outputs.ports())
}

impl Stage for Command {
    fn check(&self) -> Result<(), ParameterError> {
        self.run.check()?;
        self.outputs.check()?;
        self.env.check()?;
        code::check(&self.files)?;
        self.retries.check()?;
        if self.workdir.trim().is_empty() {
            return Err(ParameterError::new("workdir", "the path is empty; `.` is the pipeline's folder"));
        }
        Ok(())
    }

    fn check_inputs(&self, inputs: &[&str]) -> Result<(), ParameterError> {
        let outputs: Vec<&str> = self.outputs.names().collect();
        places::distinct(inputs, "inputs")?;
        self.run.check_placeholders(inputs, &outputs)
    }

    fn paths(&self) -> Vec<(String, String)> {
        let files = self.files.iter().enumerate().map(|(at, path)| (format!("files[{at}]"), path.clone()));
        std::iter::once(("workdir".to_owned(), self.workdir.clone())).chain(files).collect()
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        code::externals(&self.files, surroundings)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let before = places::Stamps::of(&context.inputs)?;
        let mut attempt = 0;
        let outcome = loop {
            let ended = self.attempt(attempt, context);
            before.check(&context.inputs)?;
            let error = match ended {
                Ok(outcome) => break outcome,
                Err(Failed::Finally(error)) => return Err(error),
                Err(Failed::Perhaps(error, said)) if attempt >= self.retries.times => bail!("{error:#}{said}"),
                Err(Failed::Perhaps(error, _)) => error,
            };
            let wait = self.retries.pause(attempt);
            attempt += 1;
            let all = self.retries.times + 1;
            context.reporter.warn(&format!("attempt {attempt} of {all} failed: {error:#}; the next one is in {wait:?}"));
            pause(wait, context)?;
        };
        Ok(outcome)
    }
}

/// Why an attempt failed.
enum Failed {
    /// Another attempt would fail as well.
    Finally(anyhow::Error),
    /// Another one may not. With the last lines of the program, where they are to be told.
    Perhaps(anyhow::Error, String),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Failed::Finally(error)
    }
}

impl Command {
    /// Runs the program once, in folders of its own.
    fn attempt(&self, number: u32, context: &Context) -> Result<Outcome, Failed> {
        let folder = context.scratch.join(number.to_string());
        let places = Places::make(&folder, &context.inputs, &self.outputs)?;
        let mut command = self.command(&places, context)?;
        self.env.apply(&mut command);
        places.announce(&mut command);
        let secrets = self.env.secrets();
        let mut tail = process::Tail::default();
        let scrub = |text: &str| secrets.iter().fold(text.to_owned(), |text, secret| secret.scrub(&text));
        let mut line = |line: &str| {
            let line = scrub(line);
            context.reporter.log(&line);
            tail.push(line);
        };
        let timeout = self.timeout.as_ref().map(Pause::duration);
        let ended = process::run(&mut command, timeout, context.cancel, &mut line);
        let ended = ended.with_context(|| format!("`{}` cannot be started; install it, or correct `run`", self.run.program()))?;
        let shown = self.run.shown();
        let failed = |how: String| Err(Failed::Perhaps(anyhow!("`{shown}` {how}"), tail.told()));
        match ended {
            Ended::Cancelled => return Err(Failed::Finally(crate::cancel::Cancelled.into())),
            Ended::TimedOut => {
                let limit = self.timeout.as_ref().map_or("", Pause::text);
                return failed(format!("ran longer than `timeout: {limit}` and was ended"));
            }
            Ended::Exited(status) if !status.success() => return failed(process::describe(status)),
            Ended::Exited(_) => {}
        }
        let yielded = || -> Result<Outcome> {
            let metrics = self.outputs.check_written(&places)?;
            let mut outcome = outcome::read(&places.outcome, &secrets)?;
            metrics.into_iter().for_each(|(name, value)| {
                outcome.metrics.entry(name).or_insert(value);
            });
            self.outputs.hand_over(&places, context)?;
            Ok(outcome)
        };
        let mut outcome = yielded().map_err(|error| {
            // A message may quote what the program wrote.
            let message = scrub(&format!("`{shown}` ended well, but {error:#}"));
            Failed::Perhaps(anyhow!(message), String::new())
        })?;
        outcome.warnings.extend(code::not_declared(&self.run, &self.files, &self.workdir, context));
        Ok(outcome)
    }

    /// The program with its arguments, where it is to run.
    fn command(&self, places: &Places, context: &Context) -> Result<std::process::Command> {
        let workdir = absolute(context.path(&self.workdir)?)?;
        if !workdir.is_dir() {
            bail!("`workdir` must be a folder, and there is none at `{}`", workdir.display());
        }
        let words = self.run.words(places)?;
        let (program, arguments) = words.split_first().context("`run` is empty")?;
        // A relative path means the program as the program's own folder sees it.
        let is_path = program.contains('/') && !std::path::Path::new(program).is_absolute();
        let program = if is_path { workdir.join(program) } else { program.into() };
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(workdir);
        Ok(command)
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("`{}` cannot be resolved", path.display()))
}

/// Waits, unless the run is interrupted.
fn pause(wait: Duration, context: &Context) -> Result<()> {
    let started = Instant::now();
    while let Some(left) = wait.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        context.cancel.check()?;
        std::thread::sleep(left.min(TICK));
    }
    Ok(())
}
