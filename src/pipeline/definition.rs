//! A stage definition's structure: its ports, its parameters, and the stages inside, before any name is resolved.

use serde_json::{Map, Value};

use super::declaration::{self, Param};
use super::document::{self, Edge, Stage, known_keys, mapping, text, word};
use super::interpolate::{Names, literal};
use super::problem::{Problem, Problems, Span};
use super::selector;
use super::words::{did_you_mean, nearest};
use super::yaml::{Content, Entry, Yaml};
use crate::artifact::Kind;
use crate::stage::{self, registry};

/// The keys of a definition.
const KEYS: &[&str] = &["description", "inputs", "params", "outputs", "stages"];
/// How the stages of a definition name its inputs; no stage can have this name.
pub(super) const INPUTS: &str = "inputs";
const MINIMAL: &str = "a minimal definition is\n\ninputs: { model: model }\noutputs: { model: tuned }\nstages:\n  tuned:\n    \
                       uses: train\n    inputs: { model: inputs.model, … }";

/// A file that `uses` can name.
pub(super) struct Definition<'a> {
    pub inputs: Vec<Port<'a>>,
    pub params: Vec<Param<'a>>,
    pub outputs: Vec<Edge<'a>>,
    pub stages: Vec<Stage<'a>>,
}

/// An input of a stage, whatever the stage uses.
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    pub name: &'a str,
    /// Nothing where any kind will do.
    pub kind: Option<Kind>,
    pub required: bool,
    pub many: bool,
    pub doc: &'a str,
}

impl<'a> Port<'a> {
    /// The input of a stage whose user declares its inputs by connecting them.
    pub fn declared(edge: &Edge<'a>) -> Self {
        let many = edge.is_several || edge.sources.iter().any(|source| selector::is_several(source.name));
        Port { name: edge.port, kind: None, required: true, many, doc: "" }
    }
}

impl From<&stage::Port> for Port<'static> {
    fn from(port: &stage::Port) -> Self {
        Port { name: port.name, kind: Some(port.kind), required: port.required, many: port.many, doc: port.doc }
    }
}

/// Reads the structure; nothing when anything is wrong with it.
pub(super) fn read<'a>(root: &'a Yaml, problems: &mut Problems) -> Option<Definition<'a>> {
    let before = problems.len();
    if root.is_null() {
        problems.push(Problem::at(root.span, "the definition is empty").help(MINIMAL.to_owned()));
        return None;
    }
    let entries = mapping(root, "a definition", root.span, problems)?;
    known_keys(entries, KEYS, "keys of a definition", problems);
    if let Some(entry) = root.entry("description") {
        text(&entry.value, "description", problems);
    }
    let definition = Definition {
        inputs: root.entry(INPUTS).map_or_else(Vec::new, |e| inputs(e, problems)),
        params: root.entry("params").map_or_else(Vec::new, |e| declaration::params(e, problems)),
        outputs: root.entry("outputs").map_or_else(Vec::new, |e| outputs(e, problems)),
        stages: root.entry("stages").map_or_else(Vec::new, |e| document::stages(e, MINIMAL, problems)),
    };
    if root.entry("stages").is_none() {
        problems.push(Problem::at(root.span, "the definition has no `stages`").help(MINIMAL.to_owned()));
    }
    if let Some(stage) = definition.stages.iter().find(|stage| stage.id == INPUTS) {
        let message = format!("`{INPUTS}` cannot be the name of a stage here: it names the inputs of the definition");
        problems.push(Problem::at(stage.id_span, message).help("rename the stage".to_owned()));
    }
    (problems.len() == before).then_some(definition)
}

/// The kinds of artifact that some stage takes or yields.
pub(super) fn kinds() -> Vec<Kind> {
    let ports = |kind: &&stage::StageKind| {
        let inputs = kind.inputs.iter().map(|port| port.kind);
        inputs.chain(kind.outputs.iter().map(|port| port.kind)).collect::<Vec<_>>()
    };
    let mut kinds: Vec<Kind> = registry::KINDS.iter().flat_map(ports).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// `NAME: KIND` or `NAME: { kind: KIND, description: …, optional: … }`.
fn inputs<'a>(entry: &'a Entry, problems: &mut Problems) -> Vec<Port<'a>> {
    let entries = mapping(&entry.value, "`inputs`", entry.key_span, problems).unwrap_or(&[]);
    let mut inputs = Vec::new();
    for Entry { key, key_span, value } in entries {
        document::id(key, *key_span, "an input's name", problems);
        let fields = match &value.content {
            Content::Mapping(fields) => fields.as_slice(),
            _ => &[],
        };
        known_keys(fields, &["kind", "description", "optional", "many"], "keys of an input", problems);
        let kind = match (&value.content, value.entry("kind")) {
            (Content::Mapping(_), Some(entry)) => Some(&entry.value),
            (Content::Mapping(_), None) => None,
            _ => Some(value).filter(|value| !value.is_null()),
        };
        let Some(kind) = kind else {
            let message = format!("input `{key}` does not say of which kind it is");
            problems.push(Problem::at(*key_span, message).help(format!("write `{key}: KIND`, for example `{key}: model`")));
            continue;
        };
        let doc = value.entry("description").and_then(|e| text(&e.value, "description", problems)).unwrap_or_default();
        let required = !value.entry("optional").is_some_and(|e| boolean(e, problems));
        let many = value.entry("many").is_some_and(|e| boolean(e, problems));
        inputs.extend(self::kind(kind, problems).map(|kind| Port { name: key, kind: Some(kind), required, many, doc }));
    }
    inputs
}

fn kind(value: &Yaml, problems: &mut Problems) -> Option<Kind> {
    let (name, kinds) = (word(value, "kind", problems)?, kinds());
    let kind = kinds.iter().find(|kind| kind.name() == name).copied();
    if kind.is_none() {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let message = format!("there is no kind of artifact `{name}`");
        problems.push(Problem::at(value.span, message).help(did_you_mean(name, "kinds of artifact", &names)));
    }
    kind
}

fn boolean(entry: &Entry, problems: &mut Problems) -> bool {
    if let Content::Scalar { value: Value::Bool(value), .. } = entry.value.content {
        return value;
    }
    let message = format!("`{}` must be `true` or `false`, not {}", entry.key, entry.value.describe());
    problems.push(Problem::at(entry.value.span, message));
    false
}

fn outputs<'a>(entry: &'a Entry, problems: &mut Problems) -> Vec<Edge<'a>> {
    let outputs = document::edges(entry, "output", problems);
    for output in &outputs {
        document::id(output.port, output.port_span, "an output's name", problems);
        if let Some(second) = output.several() {
            let message = format!("output `{}` must name one stage alone", output.port);
            problems.push(Problem::at(second.span, message).help(format!("write `{}: STAGE`", output.port)));
        }
    }
    outputs
}

impl Definition<'_> {
    /// Whether the stage that uses this definition gives what must be given, and nothing else.
    pub fn check(&self, stage: &Stage, problems: &mut Problems) -> bool {
        let before = problems.len();
        let names: Vec<&str> = self.params.iter().map(Param::name).collect();
        let given = match stage.with.map(|(_, yaml)| &yaml.content) {
            Some(Content::Mapping(entries)) => entries.as_slice(),
            _ => &[],
        };
        let mut meant = Vec::new();
        for entry in given.iter().filter(|entry| !names.contains(&entry.key.as_str())) {
            meant.extend(nearest(&entry.key, &names));
            let message = format!("unknown parameter `{}` of stage `{}`", entry.key, stage.id);
            let what = format!("parameters of `{}`", stage.uses.map_or("", |(uses, _)| uses));
            problems.push(Problem::at(entry.key_span, message).help(did_you_mean(&entry.key, &what, &names)));
        }
        for name in self.params.iter().filter(|param| param.default.is_none()).map(Param::name) {
            if !given.iter().any(|entry| entry.key == name) && !meant.contains(&name) {
                problems.push(missing(name, stage));
            }
        }
        problems.len() == before
    }

    /// The parameters that can be given.
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(Param::name)
    }

    /// What `${params.…}` refers to in the definition, when the stage that uses it has these values in its `with:`, which has these
    /// `names`. Nothing when a value does not fit what is declared.
    pub fn params(
        &self,
        stage: &Stage,
        mut with: Map<String, Value>,
        names: &Names,
        problems: &mut Problems,
    ) -> Option<Vec<Entry>> {
        let before = problems.len();
        let mut entries = Vec::new();
        for param in &self.params {
            let given = stage.with.and_then(|(_, yaml)| yaml.entry(param.name()));
            match (with.remove(param.name()), given, param.default) {
                (Some(value), Some(Entry { key, key_span, value: yaml }), _) => {
                    if let Err((message, help)) = param.check(&value) {
                        let place = if matches!(yaml.content, Content::Scalar { .. }) { yaml.span } else { *key_span };
                        let problem = Problem::at(place, format!("{message}, in stage `{}`", stage.id)).help(help);
                        problems.push(problem.also(param.entry.key_span, "declared"));
                    }
                    entries.push(Entry { key: key.clone(), key_span: *key_span, value: literal(value, yaml, names) });
                }
                (_, _, Some(default)) => {
                    let Entry { key, key_span, .. } = param.entry;
                    entries.push(Entry { key: key.clone(), key_span: *key_span, value: default.clone() });
                }
                _ => {}
            }
        }
        (problems.len() == before).then_some(entries)
    }

    /// Whether the defaults that refer to other parameters fit what is declared.
    pub fn check_defaults(
        &self,
        given: &[Entry],
        mut resolve: impl FnMut(&Yaml, &mut Problems) -> Option<Value>,
        problems: &mut Problems,
    ) {
        for param in &self.params {
            let Some(default) = param.default else { continue };
            let is_taken = given.iter().any(|entry| entry.key == param.name() && entry.value.span == default.span);
            if !is_taken || !declaration::has_references(default) {
                continue;
            }
            if let Some(value) = resolve(default, problems)
                && let Err((message, help)) = param.check(&value)
            {
                problems.push(Problem::at(default.span, message).help(help));
            }
        }
    }
}

fn missing(name: &str, stage: &Stage) -> Problem {
    let place: Option<Span> = stage.with.map(|(key, _)| key).or(stage.uses.map(|(_, span)| span));
    let help = if stage.with.is_some() { format!("add `{name}: …`") } else { format!("add `with: {{ {name}: … }}`") };
    let message = format!("the parameter `{name}` of stage `{}` is missing", stage.id);
    Problem::at(place.unwrap_or(stage.id_span), message).help(help)
}
