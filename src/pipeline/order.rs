//! The order in which stages can run, and the circles that have none.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::expand::{Expanded, Member};
use super::problem::{Problem, Problems, Span};

/// Of a circle, so many edges are pointed at.
const MOST_DRAWN_STEPS: usize = 10;

/// Circles go to the problems. `needs` leads from a member to the member that it feeds, and to where the file says so.
pub(super) fn circles(expanded: &Expanded, needs: &[(usize, usize, Span)], problems: &mut Problems) {
    let mut graph: DiGraph<(), Span> = DiGraph::new();
    let nodes: Vec<NodeIndex> = expanded.members.iter().map(|_| graph.add_node(())).collect();
    for (from, to, span) in needs {
        if let (Some(from), Some(to)) = (nodes.get(*from), nodes.get(*to)) {
            graph.add_edge(*from, *to, *span);
        }
    }
    for component in tarjan_scc(&graph).into_iter().filter(|c| c.len() > 1) {
        let circle = shortest_circle(&graph, &component.into_iter().collect());
        report_circle(expanded, &graph, &circle, problems);
    }
}

fn report_circle(expanded: &Expanded, graph: &DiGraph<(), Span>, circle: &[NodeIndex], problems: &mut Problems) {
    let members: Vec<&Member> = circle.iter().filter_map(|n| expanded.members.get(n.index())).collect();
    let steps = circle.windows(2).filter_map(|pair| match pair {
        [from, to] => graph.find_edge(*from, *to).and_then(|edge| graph.edge_weight(edge)).copied(),
        _ => None,
    });
    let mut spans: Vec<Span> = steps.take(MOST_DRAWN_STEPS).collect();
    spans.sort_unstable();
    let (Some((first, others)), Some(member)) = (spans.split_first(), members.first()) else { return };
    // A circle through several scopes is closed in the pipeline, or in the definition that has them all.
    let inside = members.iter().all(|other| other.scope == member.scope);
    let scope = expanded.scopes.get(member.scope).filter(|_| inside);
    problems.within(scope.map_or(&[], |scope| &scope.used));
    let ids: Vec<&str> = members.iter().map(|member| member.stage.id.as_str()).collect();
    let message = format!("stages feed each other in a circle: {}", ids.join(" → "));
    let problem = Problem::at(*first, message).help("take one of these inputs from another stage".to_owned());
    problems.push(others.iter().fold(problem, |problem, span| problem.also(*span, "")));
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
///
/// `needs` has what feeds each stage. What is on a circle, or comes after one, is left out.
pub(super) fn order(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut feeds: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    let mut waits_for: Vec<usize> = needs.iter().map(Vec::len).collect();
    for (to, from) in needs.iter().enumerate() {
        for from in from {
            if let Some(feeds) = feeds.get_mut(*from) {
                feeds.push(to);
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..needs.len()).filter(|i| waits_for.get(*i) == Some(&0)).collect();
    let mut order = Vec::with_capacity(needs.len());
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
        assert_eq!(order(&[vec![], vec![], vec![]]), [0, 1, 2]);
        // The first needs the last; the second does not care.
        assert_eq!(order(&[vec![3], vec![], vec![0, 0], vec![]]), [1, 3, 0, 2]);
        assert_eq!(order(&[vec![1], vec![0], vec![1], vec![]]), [3], "a circle has no order");
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
