//! The stages as a graph: who feeds whom, by which output, and in which order they can run.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Edge;
use super::document::{Input, Stage};
use super::problem::{Problem, Problems, Span};
use super::words::{did_you_mean, list, nearest};
use crate::artifact::Kind;
use crate::stage::{OutputPort, Port, StageKind, registry};

/// Of a circle, so many edges are pointed at.
const MOST_DRAWN_STEPS: usize = 10;

/// The kind that each stage uses; unknown ones go to the problems.
pub(super) fn kinds(stages: &[Stage], problems: &mut Problems) -> Vec<Option<&'static StageKind>> {
    let names: Vec<&str> = registry::KINDS.iter().map(|kind| kind.name).collect();
    let kind = |stage: &Stage, problems: &mut Problems| {
        let (name, span) = stage.uses?;
        let kind = registry::find(name);
        if kind.is_none() {
            let message = format!("there is no kind of stage `{name}`");
            problems.push(Problem::at(span, message).help(did_you_mean(name, "kinds of stage", &names)));
        }
        kind
    };
    stages.iter().map(|stage| kind(stage, problems)).collect()
}

/// The inputs of each stage, in the order of its kind's ports; [`Edge::from`] indexes `stages`.
pub(super) fn edges(stages: &[Stage], kinds: &[Option<&'static StageKind>], problems: &mut Problems) -> Vec<Vec<Edge>> {
    let by_id = stages.iter().enumerate().map(|(i, stage)| (stage.id, i)).collect();
    let wiring = Wiring { stages, kinds, by_id };
    let all = stages.iter().zip(kinds).enumerate();
    let edges =
        all.map(|(i, (stage, kind))| kind.map_or_else(Vec::new, |kind| wiring.inputs(i, stage, kind, problems))).collect();
    wiring.cycles(problems);
    edges
}

struct Wiring<'a> {
    stages: &'a [Stage<'a>],
    kinds: &'a [Option<&'static StageKind>],
    by_id: HashMap<&'a str, usize>,
}

impl Wiring<'_> {
    fn inputs(&self, index: usize, stage: &Stage, kind: &'static StageKind, problems: &mut Problems) -> Vec<Edge> {
        let names: Vec<&str> = kind.inputs.iter().map(|port| port.name).collect();
        let mut meant = Vec::new();
        for input in stage.inputs.iter().filter(|input| !names.contains(&input.port)) {
            meant.extend(nearest(input.port, &names));
            let message = format!("`{}` has no input `{}`", kind.name, input.port);
            let help = did_you_mean(input.port, &format!("inputs of `{}`", kind.name), &names);
            problems.push(Problem::at(input.port_span, message).help(help));
        }
        let mut edges = Vec::new();
        for port in kind.inputs {
            match stage.inputs.iter().find(|input| input.port == port.name) {
                Some(input) => edges.extend(self.edge(index, input, port, problems)),
                None if port.required && !meant.contains(&port.name) => problems.push(self.not_connected(stage, port)),
                None => {}
            }
        }
        edges
    }

    fn not_connected(&self, stage: &Stage, port: &Port) -> Problem {
        let message = format!("stage `{}` lacks its input `{}` ({})", stage.id, port.name, port.doc);
        let source = self.yielding(port.kind, stage.id).first().map_or("STAGE", |id| id);
        let entry = format!("{}: {source}", port.name);
        let help =
            if stage.inputs.is_empty() { format!("add `inputs: {{ {entry} }}`") } else { format!("add `{entry}` to `inputs`") };
        Problem::at(stage.id_span, message).help(help)
    }

    fn edge(&self, index: usize, input: &Input, port: &'static Port, problems: &mut Problems) -> Option<Edge> {
        let (source, span) = input.source?;
        let (id, output) = source.split_once('.').map_or((source, None), |(id, output)| (id, Some(output)));
        let problem = |message: String, help: String| Problem::at(span, message).help(help);
        let Some(&from) = self.by_id.get(id) else {
            let ids: Vec<&str> = self.stages.iter().map(|stage| stage.id).collect();
            problems.push(problem(format!("there is no stage `{id}`"), did_you_mean(id, "stages", &ids)));
            return None;
        };
        if from == index {
            let help = self.sources(port.kind, id);
            problems.push(problem(format!("stage `{id}` cannot be its own input"), help));
            return None;
        }
        let kind = (*self.kinds.get(from)?)?;
        let output = match output {
            Some(name) => self.named(name, kind, port, id),
            None => self.only(kind, port, id),
        };
        match output {
            Ok(output) => Some(Edge { port: port.name, from, output: output.name }),
            Err((message, help)) => {
                problems.push(problem(message, help));
                None
            }
        }
    }

    /// The output that the edge names.
    fn named(
        &self,
        name: &str,
        kind: &'static StageKind,
        port: &Port,
        id: &str,
    ) -> Result<&'static OutputPort, (String, String)> {
        let Some(output) = kind.outputs.iter().find(|output| output.name == name) else {
            let names: Vec<&str> = kind.outputs.iter().map(|output| output.name).collect();
            let message = format!("stage `{id}` has no output `{name}`");
            return Err((message, did_you_mean(name, &format!("outputs of `{}`", kind.name), &names)));
        };
        if output.kind != port.kind {
            let message = format!("input `{}` wants {}, but `{id}.{name}` is of kind {}", port.name, port.kind, output.kind);
            let fitting = kind.outputs.iter().find(|output| output.kind == port.kind);
            let help = fitting.map_or_else(|| self.sources(port.kind, id), |o| format!("did you mean `{id}.{}`?", o.name));
            return Err((message, help));
        }
        Ok(output)
    }

    /// The only output of the kind that the port wants.
    fn only(&self, kind: &'static StageKind, port: &Port, id: &str) -> Result<&'static OutputPort, (String, String)> {
        let fitting: Vec<&'static OutputPort> = kind.outputs.iter().filter(|output| output.kind == port.kind).collect();
        match fitting.as_slice() {
            [output] => Ok(output),
            [] => {
                let mut yields: Vec<&str> = kind.outputs.iter().map(|output| output.kind.name()).collect();
                yields.dedup();
                let yields = yields.join(" and ");
                let message = format!("input `{}` wants {}, but stage `{id}` yields {yields}", port.name, port.kind);
                Err((message, self.sources(port.kind, id)))
            }
            [first, ..] => {
                let names: Vec<&str> = fitting.iter().map(|output| output.name).collect();
                let message = format!("stage `{id}` has more than one output of kind {}: {}", port.kind, list(&names));
                Err((message, format!("name one, for example `{id}.{}`", first.name)))
            }
        }
    }

    /// Where else the input could come from.
    fn sources(&self, kind: Kind, not: &str) -> String {
        let stages = self.yielding(kind, not);
        if let [_, ..] = stages.as_slice() {
            return format!("{kind} can come from {}", list(&stages));
        }
        let kinds = registry::KINDS.iter().filter(|k| k.outputs.iter().any(|output| output.kind == kind));
        let kinds: Vec<&str> = kinds.map(|k| k.name).collect();
        match kinds.as_slice() {
            [] => format!("no kind of stage yields {kind}"),
            kinds => format!("add a stage that uses {}", list(kinds)),
        }
    }

    /// The stages that yield a kind.
    fn yielding(&self, kind: Kind, not: &str) -> Vec<&str> {
        let yields = |k: &Option<&StageKind>| k.is_some_and(|k| k.outputs.iter().any(|output| output.kind == kind));
        let all = self.stages.iter().zip(self.kinds);
        all.filter(|(stage, kind)| yields(kind) && stage.id != not).map(|(stage, _)| stage.id).collect()
    }

    /// Circles go to the problems, whatever the edges carry.
    fn cycles(&self, problems: &mut Problems) {
        let mut graph: DiGraph<(), Span> = DiGraph::new();
        let nodes: Vec<NodeIndex> = self.stages.iter().map(|_| graph.add_node(())).collect();
        for (stage, to) in self.stages.iter().zip(&nodes) {
            for (source, span) in stage.inputs.iter().filter_map(|input| input.source) {
                let id = source.split_once('.').map_or(source, |(id, _)| id);
                if let Some(from) = self.by_id.get(id).and_then(|&i| nodes.get(i)).filter(|from| *from != to) {
                    graph.add_edge(*from, *to, span);
                }
            }
        }
        for component in tarjan_scc(&graph).into_iter().filter(|c| c.len() > 1) {
            let circle = shortest_circle(&graph, &component.into_iter().collect());
            if let Some(problem) = self.circle_problem(&graph, &circle) {
                problems.push(problem);
            }
        }
    }

    fn circle_problem(&self, graph: &DiGraph<(), Span>, circle: &[NodeIndex]) -> Option<Problem> {
        let ids: Vec<&str> = circle.iter().filter_map(|n| self.stages.get(n.index())).map(|stage| stage.id).collect();
        let steps = circle.windows(2).filter_map(|pair| match pair {
            [from, to] => graph.find_edge(*from, *to).and_then(|edge| graph.edge_weight(edge)).copied(),
            _ => None,
        });
        let mut spans: Vec<Span> = steps.take(MOST_DRAWN_STEPS).collect();
        spans.sort_unstable();
        let (first, others) = spans.split_first()?;
        let message = format!("stages feed each other in a circle: {}", ids.join(" → "));
        let problem = Problem::at(*first, message).help("take one of these inputs from another stage".to_owned());
        Some(others.iter().fold(problem, |problem, span| problem.also(*span, "")))
    }
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
        let from = |from: &[usize]| from.iter().map(|&from| Edge { port: "p", from, output: "o" }).collect();
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
