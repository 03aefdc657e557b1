//! The command line: one file a command. Only this module prints.

mod console;
mod devices;
mod diff;
mod dotenv;
mod encode;
mod gc;
mod graph;
mod init;
mod place;
mod plan;
mod print;
mod remote;
mod reproduce;
mod rm;
mod run;
mod runs;
mod schema;
mod show;
mod stages;
mod sweep;
mod tag;
mod verify;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ColorChoice, Parser, Subcommand};

use crate::pipeline::PipelineError;

/// Fine-tune text-embedding models for retrieval from one YAML pipeline.
#[derive(Parser)]
#[command(name = "retune", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command has.
#[derive(Args)]
struct Global {
    /// The store [default: `.retune` in the project's folder]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where runs are kept [default: `runs` in the project's folder]
    #[arg(long, global = true, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Let paths of pipelines lead into this folder outside of the project; may be repeated. The environment variable
    /// `RETUNE_ALLOW` lists more, as `PATH` does
    #[arg(long, global = true, value_name = "DIR")]
    allow: Vec<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

#[derive(Subcommand)]
enum Command {
    /// Write a pipeline for a folder of documents, which runs at once
    Init(init::Init),
    /// Run a pipeline: what is cached is taken from the store, the rest is computed
    Run(run::Run),
    /// Run a pipeline once for each combination of values, and say which is best
    Sweep(sweep::RunSweep),
    /// Say what a run would do, and why
    Plan(plan::Plan),
    /// List runs: filtered, sorted, with the parameters and metrics you name
    Runs(runs::List),
    /// Show a run: its stages, metrics and tables
    Show(show::Show),
    /// Compare runs: what changed, every metric, and the queries that moved most
    Diff(diff::DiffRuns),
    /// Name a run, or list the names
    Tag(tag::Tag),
    /// Remove runs
    Rm(rm::Remove),
    /// Run the locked pipeline of a run again from nothing, and say whether the bytes are the same
    Reproduce(reproduce::Reproduce),
    /// Push the results of a pipeline that are in the store to its remote
    Push(remote::Push),
    /// Fetch the results of a pipeline that its remote has, without computing any
    Fetch(remote::Fetch),
    /// Read the whole store, and put aside what is damaged
    Verify(verify::Verify),
    /// Remove from the store what is no longer needed
    Gc(gc::Gc),
    /// List the kinds of stage, or explain one
    Stages(stages::Stages),
    /// Print the JSON Schemas that editors complete and check pipelines with
    Schema(schema::PrintSchema),
    /// Say what models can run on here: the processor and GPUs
    Devices(devices::Devices),
    /// Turn lines of text into embeddings with a model directory
    Encode(encode::Encode),
}

/// How a command ends, besides well.
enum Failure {
    /// A stage failed, or something could not be done: exit status 1.
    Failed(anyhow::Error),
    /// A stage failed, and the run has been printed with it already.
    Told,
    /// A metric is worse than allowed: exit status 3.
    Regressed(anyhow::Error),
    /// The call is wrong: exit status 2.
    Call(anyhow::Error),
    /// The pipeline is wrong: exit status 2.
    Pipeline(Box<PipelineError>),
    /// Ctrl-C: exit status 130, as shells have it.
    Interrupted,
    /// Whoever read the output closed it.
    Closed,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Failure::Closed } else { Failure::Failed(error.into()) }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    // Before the `.env` is read: a pipeline may come with one, and must not allow anything to itself.
    let allowed = std::env::var_os("RETUNE_ALLOW").unwrap_or_default();
    cli.global.allow.extend(std::env::split_paths(&allowed).filter(|folder| !folder.as_os_str().is_empty()));
    let style = print::Style::new(cli.global.color);
    dotenv::read(style);
    let global = &cli.global;
    let result = match &cli.command {
        Command::Init(command) => command.call(global, style),
        Command::Run(command) => command.call(global, style),
        Command::Sweep(command) => command.call(global, style),
        Command::Plan(command) => command.call(global, style),
        Command::Runs(command) => command.call(global, style),
        Command::Show(command) => command.call(global, style),
        Command::Diff(command) => command.call(global, style),
        Command::Tag(command) => command.call(global, style),
        Command::Rm(command) => command.call(global, style),
        Command::Reproduce(command) => command.call(global, style),
        Command::Push(command) => command.call(global, style),
        Command::Fetch(command) => command.call(global, style),
        Command::Verify(command) => command.call(global, style),
        Command::Gc(command) => command.call(global, style),
        Command::Stages(command) => command.call(global),
        Command::Schema(command) => command.call(),
        Command::Devices(command) => command.call(global),
        Command::Encode(command) => command.call(global),
    };
    match result {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(1),
        Err(Failure::Interrupted) => ExitCode::from(130),
        Err(Failure::Failed(error)) => {
            print::error(&error, global.json, style);
            ExitCode::from(1)
        }
        Err(Failure::Call(error)) => {
            print::error(&error, global.json, style);
            ExitCode::from(2)
        }
        Err(Failure::Regressed(error)) => {
            // The comparison is on the standard output already, where JSON must stay one value.
            print::error(&error, false, style);
            ExitCode::from(3)
        }
        Err(Failure::Pipeline(error)) => {
            print::pipeline_error(&error, global.json, style);
            ExitCode::from(2)
        }
    }
}
