//! The stages as a graph: who feeds whom, and by which output.

use std::collections::HashSet;

use super::definition::{Definition, INPUTS, Port};
use super::document;
use super::expand::{Body, Expanded, Member, Scope};
use super::order;
use super::problem::{Problem, Problems, Span};
use super::selector;
use super::words::{did_you_mean, list, nearest};
use crate::artifact::Kind;
use crate::stage::{self, registry};

/// What feeds each member, in the order of its ports.
pub(super) fn feeds<'a>(expanded: &'a Expanded<'a>, problems: &mut Problems) -> Vec<Vec<Feed<'a>>> {
    let count = expanded.members.len();
    let (outputs, inputs, feeds) = (vec![Vec::new(); count], vec![Vec::new(); count], vec![Vec::new(); count]);
    let mut wiring = Wiring { expanded, outputs, inputs, feeds, needs: Vec::new() };
    // What is inside of a stage comes after it, and says what it yields.
    for (index, member) in expanded.members.iter().enumerate().rev() {
        let outputs = wiring.yielded(index, member, problems);
        if let Some(place) = wiring.outputs.get_mut(index) {
            *place = outputs;
        }
    }
    // What feeds a stage feeds what is inside of it.
    for (index, member) in expanded.members.iter().enumerate() {
        let inputs = wiring.connected(index, member, problems);
        if let Some(place) = wiring.inputs.get_mut(index) {
            *place = inputs;
        }
    }
    order::circles(expanded, &wiring.needs, problems);
    problems.within(&[]);
    wiring.feeds
}

/// What feeds an input, as the file says it.
#[derive(Clone, Copy)]
pub(super) struct Feed<'a> {
    pub port: &'a str,
    /// For a port that takes many.
    pub label: Option<&'a str>,
    /// It is the only source that is written.
    pub is_alone: bool,
    pub from: Origin<'a>,
    pub span: Span,
}

/// Where an input comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A stage of the same file.
    Stage {
        member: usize,
        /// What stands in brackets behind its name: which of its combinations are meant.
        selector: Option<&'a str>,
        /// The node that yields it, the stage itself or one inside of it; and the output there.
        node: usize,
        output: &'a str,
    },
    /// An input of the definition, which may take many.
    Input { name: &'a str, is_many: bool },
}

/// An output of a node; of a definition, under the name that the definition gives it.
#[derive(Clone, Copy)]
struct Output<'a> {
    name: &'a str,
    kind: Kind,
    /// The member that yields it, and the name of the port there.
    node: usize,
    port: &'a str,
}

/// What feeds an input, and where the pipeline (or else the definition that has both stages) says so.
#[derive(Clone, Copy)]
struct Input<'a> {
    port: &'a str,
    output: Output<'a>,
    span: Span,
}

/// What a source names.
struct Named<'a> {
    /// Without brackets.
    id: &'a str,
    member: usize,
    selector: Option<&'a str>,
    output: Option<&'a str>,
}

struct Wiring<'a> {
    expanded: &'a Expanded<'a>,
    /// By member.
    outputs: Vec<Vec<Output<'a>>>,
    /// By member, with what feeds an input of the definition in the place of that.
    inputs: Vec<Vec<Input<'a>>>,
    /// By member.
    feeds: Vec<Vec<Feed<'a>>>,
    /// From a node to the node that it feeds.
    needs: Vec<(usize, usize, Span)>,
}

impl<'a> Wiring<'a> {
    /// What a member yields.
    fn yielded(&self, index: usize, member: &'a Member<'a>, problems: &mut Problems) -> Vec<Output<'a>> {
        match member.body {
            Body::Kind(_) => {
                let output =
                    |port: &'a stage::Output| Output { name: &port.name, kind: port.kind, node: index, port: &port.name };
                member.outputs.iter().flatten().map(output).collect()
            }
            Body::Definition(definition, inside) => {
                let Some(scope) = self.expanded.scopes.get(inside) else { return Vec::new() };
                problems.within(&scope.used);
                definition.outputs.iter().filter_map(|output| self.passed_on(output, scope, problems)).collect()
            }
            Body::Unknown => Vec::new(),
        }
    }

    /// The output of an inner stage that is an output of the definition.
    fn passed_on(&self, output: &document::Edge<'a>, scope: &'a Scope<'a>, problems: &mut Problems) -> Option<Output<'a>> {
        let document::Source { name: source, span, .. } = *output.sources.first()?;
        let Named { id, member: from, selector, output: name } = self.named(source, span, scope, problems)?;
        if selector.is_some() {
            let message = format!("output `{}` must name all combinations of a stage", output.port);
            problems.push(Problem::at(span, message).help(format!("write `{id}`; combinations are chosen by who uses it")));
            return None;
        }
        let outputs = self.known_outputs(from)?;
        match self.of_any_kind(name, outputs, from, id) {
            Ok(found) => Some(Output { name: output.port, ..found }),
            Err((message, help)) => {
                problems.push(Problem::at(span, message).help(help));
                None
            }
        }
    }

    /// What feeds the inputs of a member.
    fn connected(&mut self, index: usize, member: &'a Member<'a>, problems: &mut Problems) -> Vec<Input<'a>> {
        let ports: Vec<Port<'a>> = match member.body {
            Body::Kind(kind) if kind.declared.is_some() => member.stage.inputs.iter().map(Port::declared).collect(),
            Body::Kind(kind) => kind.inputs.iter().map(Port::from).collect(),
            Body::Definition(definition, _) => definition.inputs.clone(),
            Body::Unknown => return Vec::new(),
        };
        let Some(scope) = self.expanded.scopes.get(member.scope) else { return Vec::new() };
        problems.within(&scope.used);
        let stage = &member.stage;
        if matches!(member.body, Body::Kind(kind) if kind.declared.is_some()) {
            stage.inputs.iter().for_each(|input| document::id(input.port, input.port_span, "an input's name", problems));
        }
        let (names, uses) = (ports.iter().map(|port| port.name).collect::<Vec<_>>(), member.uses());
        let mut meant = Vec::new();
        for input in stage.inputs.iter().filter(|input| !names.contains(&input.port)) {
            meant.extend(nearest(input.port, &names));
            let message = format!("`{uses}` has no input `{}`", input.port);
            let help = did_you_mean(input.port, &format!("inputs of `{uses}`"), &names);
            problems.push(Problem::at(input.port_span, message).help(help));
        }
        let mut inputs = Vec::new();
        for port in &ports {
            match stage.inputs.iter().find(|input| input.port == port.name) {
                Some(input) => inputs.extend(self.sources_of(index, input, port, scope, problems)),
                None if port.required && !meant.contains(&port.name) => {
                    problems.push(self.not_connected(index, member, port, scope))
                }
                None => {}
            }
        }
        if matches!(member.body, Body::Kind(_)) {
            self.needs.extend(inputs.iter().map(|input| (input.output.node, index, input.span)));
        }
        inputs
    }

    fn not_connected(&self, index: usize, member: &Member, port: &Port, scope: &Scope) -> Problem {
        let doc = if port.doc.is_empty() { port.kind.map_or("anything", Kind::name) } else { port.doc };
        let message = format!("stage `{}` lacks its input `{}` ({doc})", member.stage.id, port.name);
        let yielding = port.kind.map(|kind| self.yielding(kind, index, scope)).unwrap_or_default();
        let entry = format!("{}: {}", port.name, yielding.first().map_or("STAGE", String::as_str));
        let help = if member.stage.inputs.is_empty() {
            format!("add `inputs: {{ {entry} }}`")
        } else {
            format!("add `{entry}` to `inputs`")
        };
        Problem::at(member.stage.id_span, message).help(help)
    }

    /// Everything that feeds a port.
    fn sources_of(
        &mut self,
        index: usize,
        input: &document::Edge<'a>,
        port: &Port<'a>,
        scope: &'a Scope<'a>,
        problems: &mut Problems,
    ) -> Vec<Input<'a>> {
        if let (false, Some(second)) = (port.many, input.several()) {
            let message = format!("input `{}` takes one stage alone", port.name);
            problems.push(Problem::at(second.span, message).help(format!("write `{}: STAGE`", port.name)));
            return Vec::new();
        }
        let mut inputs = Vec::new();
        let mut labels = HashSet::new();
        for source in &input.sources {
            if port.many && !labels.insert(source.label) {
                let message = format!("input `{}` names `{}` twice", port.name, source.label);
                problems.push(Problem::at(source.span, message).help("remove one of them".to_owned()));
                continue;
            }
            let Some((from, found)) = self.input(index, source, port, scope, problems) else { continue };
            inputs.extend(found);
            let label = port.many.then_some(source.label);
            if let Some(feeds) = self.feeds.get_mut(index) {
                feeds.push(Feed { port: port.name, label, is_alone: !input.is_several, from, span: source.span });
            }
        }
        inputs
    }

    /// Where an input comes from, and every output that this means.
    fn input(
        &self,
        index: usize,
        source: &document::Source<'a>,
        port: &Port<'a>,
        scope: &'a Scope<'a>,
        problems: &mut Problems,
    ) -> Option<(Origin<'a>, Vec<Input<'a>>)> {
        let document::Source { name: source, span, .. } = *source;
        let problem = |(message, help): (String, String)| Problem::at(span, message).help(help);
        if let (Some((user, definition)), (INPUTS, name)) = (scope.user, selector::split(source)) {
            let outer = self.outer(name, user, definition, index, port, scope);
            return outer.map_err(|words| problems.push(problem(words))).ok();
        }
        let Named { id, member: from, selector, output: name } = self.named(source, span, scope, problems)?;
        if from == index {
            problems.push(problem((format!("stage `{id}` cannot be its own input"), self.sources(port.kind, from, scope))));
            return None;
        }
        if selector.is_some_and(selector::collects) && !port.many {
            let message = format!("input `{}` takes one stage alone, and `{source}` means several", port.name);
            let rest = name.map(|name| format!(".{name}")).unwrap_or_default();
            let help = format!("write `{id}{rest}`, and there is one such stage for each combination");
            problems.push(problem((message, help)));
            return None;
        }
        let outputs = self.known_outputs(from)?;
        let output = match name {
            Some(name) => {
                self.called(name, outputs, from, id).and_then(|output| self.fitting(output, outputs, port, index, id, scope))
            }
            None => self.only(outputs, port, index, id, scope),
        };
        let output = output.map_err(|words| problems.push(problem(words))).ok()?;
        let stage = Origin::Stage { member: from, selector, node: output.node, output: output.port };
        Some((stage, vec![Input { port: port.name, output, span }]))
    }

    /// An input of the definition, and what feeds it: nothing if it is not connected, or if that is a problem already.
    fn outer(
        &self,
        name: Option<&str>,
        user: usize,
        definition: &Definition<'a>,
        index: usize,
        port: &Port<'a>,
        scope: &Scope,
    ) -> Result<(Origin<'a>, Vec<Input<'a>>), (String, String)> {
        let names: Vec<&str> = definition.inputs.iter().map(|input| input.name).collect();
        let Some(name) = name else {
            return Err((format!("`{INPUTS}` alone names no input"), format!("write `{INPUTS}.NAME`")));
        };
        let Some(declared) = definition.inputs.iter().find(|input| input.name == name) else {
            let message = format!("the definition has no input `{name}`");
            return Err((message, did_you_mean(name, "inputs of the definition", &names)));
        };
        if let (Some(wanted), Some(kind)) = (port.kind, declared.kind)
            && kind != wanted
        {
            let message = format!("input `{}` wants {wanted}, but `{INPUTS}.{name}` is of kind {kind}", port.name);
            return Err((message, self.sources(port.kind, index, scope)));
        }
        if port.required && !declared.required {
            let message = format!("input `{}` must be connected, but `{INPUTS}.{name}` is optional", port.name);
            return Err((message, format!("declare `{name}` without `optional`")));
        }
        if declared.many && !port.many {
            let message = format!("input `{}` takes one stage alone, but `{INPUTS}.{name}` takes many", port.name);
            // The user of a command decides by a list what its input takes.
            let help = match port.kind {
                Some(_) => format!("declare `{name}` without `many`"),
                None => format!("write `{}: [{INPUTS}.{name}]`", port.name),
            };
            return Err((message, help));
        }
        let feeding = self.inputs.get(user).into_iter().flatten().filter(|input| input.port == name);
        let inputs = feeding.map(|input| Input { port: port.name, ..*input }).collect();
        Ok((Origin::Input { name: declared.name, is_many: declared.many }, inputs))
    }

    /// The stage that a source names, which of its combinations, and which output. A stage whose name has brackets itself, as where a
    /// pipeline is written out, comes first.
    fn named(&self, source: &'a str, span: Span, scope: &Scope, problems: &mut Problems) -> Option<Named<'a>> {
        let (id, output) = selector::split(source);
        if let Some(&member) = scope.by_name.get(id) {
            return Some(Named { id, member, selector: None, output });
        }
        let (id, selector) = selector::brackets(id).map_or((id, None), |(id, selector)| (id, Some(selector)));
        let member = self.member(id, span, scope, problems)?;
        if let Err((message, help)) = selector.map_or(Ok(()), selector::check) {
            problems.push(Problem::at(span, message).help(help));
            return None;
        }
        Some(Named { id, member, selector, output })
    }

    /// The member that a stage's name means.
    fn member(&self, id: &str, span: Span, scope: &Scope, problems: &mut Problems) -> Option<usize> {
        let index = scope.by_name.get(id).copied();
        if index.is_none() {
            let message = format!("there is no stage `{id}`");
            let problem = Problem::at(span, message).help(did_you_mean(id, "stages", &scope.names));
            let taken_out = problems.where_taken_out(id).filter(|_| scope.user.is_none());
            problems.push(taken_out.into_iter().fold(problem, |problem, span| problem.also(span, "taken out")));
        }
        index
    }

    /// What a member yields, unless some of it is not known, which is a problem already.
    fn known_outputs(&self, index: usize) -> Option<&[Output<'a>]> {
        let outputs = self.outputs.get(index)?;
        let known = match self.expanded.members.get(index)?.body {
            Body::Kind(_) => self.expanded.members.get(index)?.outputs.is_some(),
            Body::Definition(definition, _) => definition.outputs.len() == outputs.len(),
            Body::Unknown => false,
        };
        known.then_some(outputs)
    }

    /// The output that an edge names.
    fn called(&self, name: &str, outputs: &[Output<'a>], from: usize, id: &str) -> Result<Output<'a>, (String, String)> {
        outputs.iter().find(|output| output.name == name).copied().ok_or_else(|| {
            let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
            let uses = self.expanded.members.get(from).map_or("", Member::uses);
            (format!("stage `{id}` has no output `{name}`"), did_you_mean(name, &format!("outputs of `{uses}`"), &names))
        })
    }

    /// The output that an edge names, or else the only one there is. Plain files (plots) beside one of another kind are to be named, unless the user
    /// declared them.
    fn of_any_kind(
        &self,
        name: Option<&str>,
        outputs: &[Output<'a>],
        from: usize,
        id: &str,
    ) -> Result<Output<'a>, (String, String)> {
        match (name, outputs) {
            (Some(name), outputs) => self.called(name, outputs, from, id),
            (None, [only]) => Ok(*only),
            (None, outputs) => {
                let body = self.expanded.members.get(from).map(|member| &member.body);
                let is_ours = matches!(body, Some(Body::Kind(kind)) if kind.declared.is_none());
                let mut others = outputs.iter().filter(|output| is_ours && output.kind != Kind::File);
                if let (Some(only), None) = (others.next(), others.next()) {
                    return Ok(*only);
                }
                let names: Vec<String> = outputs.iter().map(|output| format!("{id}.{}", output.name)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let message = format!("stage `{id}` has {} outputs", if names.is_empty() { "no" } else { "several" });
                let help = if names.is_empty() { "name another stage".into() } else { format!("name one: {}", list(&names)) };
                Err((message, help))
            }
        }
    }

    /// The output, if it is of the kind that the port wants.
    fn fitting(
        &self,
        output: Output<'a>,
        outputs: &[Output<'a>],
        port: &Port,
        index: usize,
        id: &str,
        scope: &Scope,
    ) -> Result<Output<'a>, (String, String)> {
        let Some(kind) = port.kind.filter(|kind| *kind != output.kind) else { return Ok(output) };
        let name = output.name;
        let message = format!("input `{}` wants {}, but `{id}.{name}` is of kind {}", port.name, kind, output.kind);
        let other = outputs.iter().find(|output| output.kind == kind);
        let help = other.map_or_else(|| self.sources(port.kind, index, scope), |o| format!("did you mean `{id}.{}`?", o.name));
        Err((message, help))
    }

    /// The only output of the kind that the port wants.
    fn only(
        &self,
        outputs: &[Output<'a>],
        port: &Port,
        index: usize,
        id: &str,
        scope: &Scope,
    ) -> Result<Output<'a>, (String, String)> {
        let Some(kind) = port.kind else { return self.of_any_kind(None, outputs, index, id) };
        let fitting: Vec<&Output> = outputs.iter().filter(|output| output.kind == kind).collect();
        match fitting.as_slice() {
            [output] => Ok(**output),
            [] => {
                let mut yields: Vec<&str> = outputs.iter().map(|output| output.kind.name()).collect();
                yields.dedup();
                let yields = if yields.is_empty() { "nothing".into() } else { yields.join(" and ") };
                let message = format!("input `{}` wants {}, but stage `{id}` yields {yields}", port.name, kind);
                Err((message, self.sources(port.kind, index, scope)))
            }
            [first, ..] => {
                let names: Vec<&str> = fitting.iter().map(|output| output.name).collect();
                let message = format!("stage `{id}` has more than one output of kind {}: {}", kind, list(&names));
                Err((message, format!("name one, for example `{id}.{}`", first.name)))
            }
        }
    }

    /// Where else the input could come from.
    fn sources(&self, kind: Option<Kind>, not: usize, scope: &Scope) -> String {
        let Some(kind) = kind else { return "name another stage".into() };
        let stages = self.yielding(kind, not, scope);
        if let [_, ..] = stages.as_slice() {
            return format!("{kind} can come from {}", list(&stages.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        let kinds = registry::KINDS.iter().filter(|k| k.outputs.iter().any(|output| output.kind == kind));
        let kinds: Vec<&str> = kinds.map(|k| k.name).collect();
        match kinds.as_slice() {
            [] => format!("no kind of stage yields {kind}"),
            kinds => format!("add a stage that uses {}", list(kinds)),
        }
    }

    /// The stages of a scope that yield a kind, and the inputs of its definition that are of that kind.
    fn yielding(&self, kind: Kind, not: usize, scope: &Scope) -> Vec<String> {
        let inputs = scope.user.iter().flat_map(|(_, definition)| &definition.inputs);
        let inputs = inputs.filter(|input| input.kind == Some(kind)).map(|input| format!("{INPUTS}.{}", input.name));
        let yields = |index: &usize| self.outputs.get(*index).is_some_and(|outputs| outputs.iter().any(|o| o.kind == kind));
        let stages =
            scope.names.iter().filter(|name| scope.by_name.get(*name).is_some_and(|index| *index != not && yields(index)));
        inputs.chain(stages.map(|name| (*name).to_owned())).collect()
    }
}
