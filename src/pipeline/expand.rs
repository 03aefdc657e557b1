//! The stages of a pipeline and of the definitions that it uses, each at its place: `OUTER/INNER` is the stage `INNER` of the
//! definition that the stage `OUTER` uses.

use std::collections::HashMap;

use super::definition::Definition;
use super::document::{LONGEST_NAME, MOST_STAGES, Stage};
use super::library::{self, Library};
use super::link::is_path;
use super::problem::{Problem, Problems, Span};
use super::words::did_you_mean;
use super::yaml::Yaml;
use crate::stage::{Output, StageKind, registry};

/// How deep definitions may use definitions.
const DEEPEST: usize = 8;

/// Every use of a file, and every stage in it.
#[derive(Default)]
pub(super) struct Expanded<'a> {
    /// The pipeline first.
    pub scopes: Vec<Scope<'a>>,
    /// In the order of the files; what is inside of a stage comes right after it.
    pub members: Vec<Member<'a>>,
}

/// The stages that can name each other: those of the pipeline, or those of a definition where one stage uses it.
#[derive(Default)]
pub(super) struct Scope<'a> {
    /// The stage that uses the definition, and the definition; nothing for the pipeline.
    pub user: Option<(usize, &'a Definition<'a>)>,
    /// The `uses` that lead here, innermost first.
    pub used: Vec<Span>,
    /// Members by the names that their file gives them, in its order.
    pub names: Vec<&'a str>,
    pub by_name: HashMap<&'a str, usize>,
}

/// A stage where it is.
pub(super) struct Member<'a> {
    /// With its id in full.
    pub stage: Stage<'a>,
    /// The scope that it belongs to.
    pub scope: usize,
    pub body: Body<'a>,
    /// What it yields, if it is a node; nothing where that is not known, which is a problem already or becomes one when its parameters
    /// are read.
    pub outputs: Option<Vec<Output>>,
}

impl Member<'_> {
    /// What stands in its `uses`.
    pub fn uses(&self) -> &str {
        self.stage.uses.map_or("", |(uses, _)| uses)
    }
}

/// What a stage uses.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    /// It is a node of the pipeline.
    Kind(&'static StageKind),
    /// It stands for the members of a scope.
    Definition(&'a Definition<'a>, usize),
    /// Something that is not there or cannot be read, which is a problem already.
    Unknown,
}

/// Puts the stages of definitions in the place of the stages that use them.
pub(super) fn expand<'a>(
    stages: &'a [Stage<'a>],
    library: &'a Library,
    definitions: &'a [Option<Definition<'a>>],
    problems: &mut Problems,
) -> Expanded<'a> {
    let mut expander = Expander { library, definitions, expanded: Expanded::default(), is_full: false };
    expander.scope(stages, Scope::default(), problems);
    problems.within(&[]);
    expander.expanded
}

struct Expander<'a> {
    library: &'a Library,
    definitions: &'a [Option<Definition<'a>>],
    expanded: Expanded<'a>,
    /// There are more stages than a pipeline may have.
    is_full: bool,
}

impl<'a> Expander<'a> {
    /// Adds the stages of a file; the number of their scope.
    fn scope(&mut self, stages: &'a [Stage<'a>], scope: Scope<'a>, problems: &mut Problems) -> usize {
        let outer = scope.user.and_then(|(user, _)| self.expanded.members.get(user));
        let prefix = outer.map(|member| format!("{}/", member.stage.id)).unwrap_or_default();
        let is_frozen = outer.is_some_and(|member| member.stage.freeze);
        let (number, used) = (self.expanded.scopes.len(), scope.used.clone());
        self.expanded.scopes.push(scope);
        for stage in stages {
            problems.within(&used);
            if self.is_full || self.is_too_many(stage, problems) {
                break;
            }
            let index = self.expanded.members.len();
            if let Some(scope) = self.expanded.scopes.get_mut(number) {
                scope.names.push(&stage.id);
                scope.by_name.insert(&stage.id, index);
            }
            let id = format!("{prefix}{}", stage.id);
            if !prefix.is_empty() && id.len() > LONGEST_NAME {
                let message = format!("the name `{id}` is longer than {LONGEST_NAME} characters");
                problems.push(Problem::at(stage.id_span, message).help("shorten one of its parts".to_owned()));
            }
            self.expanded.members.push(Member {
                stage: Stage { id, freeze: stage.freeze || is_frozen, ..stage.clone() },
                scope: number,
                body: Body::Unknown,
                outputs: None,
            });
            let body = self.body(index, stage, &used, problems);
            let outputs = if let Body::Kind(kind) = body { outputs(kind, stage, problems) } else { None };
            if let Some(member) = self.expanded.members.get_mut(index) {
                (member.body, member.outputs) = (body, outputs);
            }
        }
        number
    }

    fn is_too_many(&mut self, stage: &Stage, problems: &mut Problems) -> bool {
        self.is_full = self.expanded.members.len() >= MOST_STAGES;
        if self.is_full {
            let message = format!("with what its definitions hold, the pipeline has more than {MOST_STAGES} stages");
            problems.push(Problem::at(stage.id_span, message).help("split it into several pipelines".to_owned()));
        }
        self.is_full
    }

    /// What a stage uses, with all that is inside.
    fn body(&mut self, index: usize, stage: &'a Stage<'a>, used: &[Span], problems: &mut Problems) -> Body<'a> {
        let Some((uses, span)) = stage.uses else { return Body::Unknown };
        if !is_path(uses) {
            return kind(uses, span, problems).map_or(Body::Unknown, Body::Kind);
        }
        let Some(file) = self.library.find(uses, span) else { return Body::Unknown };
        let Some(Some(definition)) = self.definitions.get(file) else { return Body::Unknown };
        if used.len() >= DEEPEST {
            let message = format!("definitions use definitions more than {DEEPEST} deep");
            problems.push(Problem::at(span, message).help("put some of them side by side".to_owned()));
            return Body::Unknown;
        }
        let inside = Scope { user: Some((index, definition)), used: library::within(span, used), ..Scope::default() };
        Body::Definition(definition, self.scope(&definition.stages, inside, problems))
    }
}

/// What a node yields. Outputs that the user declares are needed before references can be resolved.
fn outputs(kind: &StageKind, stage: &Stage, problems: &mut Problems) -> Option<Vec<Output>> {
    let with = stage.with.map(|(_, yaml)| yaml).filter(|_| kind.declared.is_some());
    if let Some(span) = with.and_then(|with| with.entry("outputs")?.value.find("${")) {
        let message = "what a stage yields must be known before references are resolved";
        problems.push(Problem::at(problems.narrow(span, "${"), message).help("write it without `${…}`".to_owned()));
        return None;
    }
    kind.yields(&with.map(Yaml::plain).unwrap_or_default()).ok()
}

/// The kind that a word names.
fn kind(name: &str, span: Span, problems: &mut Problems) -> Option<&'static StageKind> {
    let kind = registry::find(name);
    if kind.is_none() {
        let names: Vec<&str> = registry::KINDS.iter().map(|kind| kind.name).collect();
        let help = if super::file::is_yaml(name) {
            format!("name a file with `./` or `../` first: `./{name}`")
        } else {
            did_you_mean(name, "kinds of stage", &names)
        };
        problems.push(Problem::at(span, format!("there is no kind of stage `{name}`")).help(help));
    }
    kind
}
