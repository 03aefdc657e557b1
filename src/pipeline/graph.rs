//! The stages as a graph: who feeds whom, by which output, and in which order they can run.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Edge;
use super::definition::{Definition, INPUTS, Port};
use super::document;
use super::expand::{Body, Expanded, Member, Scope};
use super::problem::{Problem, Problems, Span};
use super::words::{did_you_mean, list, nearest};
use crate::artifact::Kind;
use crate::stage::{self, registry};

/// Of a circle, so many edges are pointed at.
const MOST_DRAWN_STEPS: usize = 10;

/// The inputs of each member that is a node, in the order of its kind's ports; [`Edge::from`] counts the nodes.
pub(super) fn edges(expanded: &Expanded, problems: &mut Problems) -> Vec<Vec<Edge>> {
    let count = expanded.members.len();
    let mut wiring = Wiring { expanded, outputs: vec![Vec::new(); count], inputs: vec![Vec::new(); count], needs: Vec::new() };
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
    wiring.cycles(problems);
    problems.within(&[]);
    wiring.edges()
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
    /// For a port that takes many.
    label: Option<&'a str>,
    output: Output<'a>,
    span: Span,
}

struct Wiring<'a> {
    expanded: &'a Expanded<'a>,
    /// By member.
    outputs: Vec<Vec<Output<'a>>>,
    /// By member.
    inputs: Vec<Vec<Input<'a>>>,
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
        let (id, name) = split(source);
        let from = self.member(id, span, scope, problems)?;
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
        &self,
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
        let mut inputs: Vec<Input> = Vec::new();
        for source in &input.sources {
            if port.many && inputs.iter().any(|input| input.label == Some(source.label)) {
                let message = format!("input `{}` names `{}` twice", port.name, source.label);
                problems.push(Problem::at(source.span, message).help("remove one of them".to_owned()));
                continue;
            }
            inputs.extend(self.input(index, source, port, scope, problems));
        }
        inputs
    }

    fn input(
        &self,
        index: usize,
        source: &document::Source<'a>,
        port: &Port<'a>,
        scope: &'a Scope<'a>,
        problems: &mut Problems,
    ) -> Option<Input<'a>> {
        let document::Source { name, label, span } = *source;
        let (id, name) = split(name);
        let label = port.many.then_some(label);
        let problem = |(message, help): (String, String)| Problem::at(span, message).help(help);
        if let Some((user, definition)) = scope.user.filter(|_| id == INPUTS) {
            let outer = self.outer(name, user, definition, index, port, scope);
            return outer.map_err(|words| problems.push(problem(words))).ok()?.map(|outer| Input {
                port: port.name,
                label,
                ..outer
            });
        }
        let from = self.member(id, span, scope, problems)?;
        if from == index {
            problems.push(problem((format!("stage `{id}` cannot be its own input"), self.sources(port.kind, from, scope))));
            return None;
        }
        let outputs = self.known_outputs(from)?;
        let output = match name {
            Some(name) => {
                self.called(name, outputs, from, id).and_then(|output| self.fitting(output, outputs, port, index, id, scope))
            }
            None => self.only(outputs, port, index, id, scope),
        };
        output.map(|output| Input { port: port.name, label, output, span }).map_err(|words| problems.push(problem(words))).ok()
    }

    /// What feeds an input of the definition; nothing if it is not connected, or if that is a problem already.
    fn outer(
        &self,
        name: Option<&str>,
        user: usize,
        definition: &Definition<'a>,
        index: usize,
        port: &Port,
        scope: &Scope,
    ) -> Result<Option<Input<'a>>, (String, String)> {
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
        Ok(self.inputs.get(user).into_iter().flatten().find(|input| input.port == name).copied())
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

    /// The output that an edge names, or else the only one there is.
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

    /// Circles go to the problems.
    fn cycles(&self, problems: &mut Problems) {
        let mut graph: DiGraph<(), Span> = DiGraph::new();
        let nodes: Vec<NodeIndex> = self.expanded.members.iter().map(|_| graph.add_node(())).collect();
        for (from, to, span) in &self.needs {
            if let (Some(from), Some(to)) = (nodes.get(*from), nodes.get(*to)) {
                graph.add_edge(*from, *to, *span);
            }
        }
        for component in tarjan_scc(&graph).into_iter().filter(|c| c.len() > 1) {
            let circle = shortest_circle(&graph, &component.into_iter().collect());
            self.report_circle(&graph, &circle, problems);
        }
    }

    fn report_circle(&self, graph: &DiGraph<(), Span>, circle: &[NodeIndex], problems: &mut Problems) {
        let members: Vec<&Member> = circle.iter().filter_map(|n| self.expanded.members.get(n.index())).collect();
        let steps = circle.windows(2).filter_map(|pair| match pair {
            [from, to] => graph.find_edge(*from, *to).and_then(|edge| graph.edge_weight(edge)).copied(),
            _ => None,
        });
        let mut spans: Vec<Span> = steps.take(MOST_DRAWN_STEPS).collect();
        spans.sort_unstable();
        let (Some((first, others)), Some(member)) = (spans.split_first(), members.first()) else { return };
        // A circle through several scopes is closed in the pipeline, or in the definition that has them all.
        let inside = members.iter().all(|other| other.scope == member.scope);
        let scope = self.expanded.scopes.get(member.scope).filter(|_| inside);
        problems.within(scope.map_or(&[], |scope| &scope.used));
        let ids: Vec<&str> = members.iter().map(|member| member.stage.id.as_str()).collect();
        let message = format!("stages feed each other in a circle: {}", ids.join(" → "));
        let problem = Problem::at(*first, message).help("take one of these inputs from another stage".to_owned());
        problems.push(others.iter().fold(problem, |problem, span| problem.also(*span, "")));
    }

    /// Counts nodes instead of members.
    fn edges(&self) -> Vec<Vec<Edge>> {
        let is_node = |index: &usize| self.expanded.members.get(*index).is_some_and(Member::is_node);
        let nodes: Vec<usize> = (0..self.expanded.members.len()).filter(is_node).collect();
        let edge = |input: &Input| {
            let from = nodes.binary_search(&input.output.node).ok()?;
            let port = input.label.map_or_else(|| input.port.to_owned(), |label| format!("{}[{label}]", input.port));
            Some(Edge { port, from, output: input.output.port.to_owned() })
        };
        let edges = |index: &usize| match (self.inputs.get(*index), self.expanded.members.get(*index)?.body) {
            (Some(inputs), Body::Kind(_)) => Some(inputs.iter().filter_map(edge).collect()),
            _ => None,
        };
        nodes.iter().filter_map(edges).collect()
    }
}

/// `stage` or `stage.output`.
fn split(source: &str) -> (&str, Option<&str>) {
    source.split_once('.').map_or((source, None), |(id, output)| (id, Some(output)))
}

/// A shortest circle through the first stage of a strongly connected component: the first stage, …, the first stage again.
fn shortest_circle(graph: &DiGraph<(), Span>, component: &BTreeSet<NodeIndex>) -> Vec<NodeIndex> {
    let Some(&start) = component.first() else { return Vec::new() };
    let mut before: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let next: BTreeSet<NodeIndex> = graph.neighbors(node).filter(|n| component.contains(n)).collect();
        for neighbour in next {
            if let Entry::Vacant(entry) = before.entry(neighbour) {
                entry.insert(node);
                queue.push_back(neighbour);
            }
        }
    }
    let mut circle = vec![start];
    let mut node = before.get(&start);
    while let Some(previous) = node {
        circle.push(*previous);
        node = before.get(previous).filter(|_| *previous != start);
    }
    circle.reverse();
    circle
}

/// The indices of the stages in an order in which each comes after its inputs, and otherwise in the order of the file.
pub(super) fn order(edges: &[Vec<Edge>]) -> Vec<usize> {
    let mut feeds: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    let mut waits_for: Vec<usize> = edges.iter().map(Vec::len).collect();
    for (to, edges) in edges.iter().enumerate() {
        for edge in edges {
            if let Some(feeds) = feeds.get_mut(edge.from) {
                feeds.push(to);
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..edges.len()).filter(|i| waits_for.get(*i) == Some(&0)).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for &fed in feeds.get(next).into_iter().flatten() {
            if let Some(waits_for) = waits_for.get_mut(fed) {
                *waits_for -= 1;
                if *waits_for == 0 {
                    ready.insert(fed);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_files_as_far_as_inputs_allow() {
        let from = |from: &[usize]| from.iter().map(|&from| Edge { port: "p".into(), from, output: "o".into() }).collect();
        assert_eq!(order(&[from(&[]), from(&[]), from(&[])]), [0, 1, 2]);
        // The first needs the last; the second does not care.
        assert_eq!(order(&[from(&[3]), from(&[]), from(&[0, 0]), from(&[])]), [1, 3, 0, 2]);
    }

    #[test]
    fn the_shortest_circle_is_named() {
        let mut graph = DiGraph::new();
        let n: Vec<NodeIndex> = (0..4).map(|_| graph.add_node(())).collect();
        let span = Span { source: 0, start: 0, end: 0 };
        for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0), (2, 0), (3, 1)] {
            graph.add_edge(n[a], n[b], span);
        }
        assert_eq!(shortest_circle(&graph, &n.iter().copied().collect()), [n[0], n[1], n[2], n[0]]);
    }
}
