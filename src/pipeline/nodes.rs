//! The nodes of the pipeline, in an order in which they can run.

use std::collections::HashMap;

use super::expand::{Body, Expanded};
use super::fan_out::{Input, Instance};
use super::problem::{Problem, Problems};
use super::{Edge, Node, order};

/// The instances that are nodes, as far as there are no problems; each after its inputs, and otherwise in the order of the files.
pub(super) fn nodes(mut instances: Vec<Instance>, expanded: &Expanded, problems: &mut Problems) -> Option<Vec<Node>> {
    if !problems.is_empty() {
        return None;
    }
    let kind = |instance: &Instance| match expanded.members.get(instance.member).map(|member| member.body) {
        Some(Body::Kind(kind)) => Some(kind),
        _ => None,
    };
    let mut numbers: Vec<usize> = (0..instances.len()).filter(|at| instances.get(*at).and_then(kind).is_some()).collect();
    // The combinations of a stage stand together.
    numbers.sort_by_key(|at| instances.get(*at).map(|instance| instance.member));
    let places: HashMap<usize, usize> = numbers.iter().enumerate().map(|(place, at)| (*at, place)).collect();
    let needs = |at: &usize| {
        let inputs = instances.get(*at).map_or(&[][..], |instance| &instance.inputs);
        inputs.iter().filter_map(|input| places.get(&input.from).copied()).collect()
    };
    let order = order::order(&numbers.iter().map(needs).collect::<Vec<Vec<usize>>>());
    let mut position = vec![0; order.len()];
    for (at, &place) in order.iter().enumerate() {
        *position.get_mut(place)? = at;
    }
    let mut nodes = Vec::with_capacity(order.len());
    let mut ids: HashMap<String, usize> = HashMap::new();
    for place in order {
        let instance = instances.get_mut(*numbers.get(place)?)?;
        let member = expanded.members.get(instance.member)?;
        if let Some(other) = ids.insert(instance.id.clone(), instance.member) {
            let message = format!("two stages would be called `{}`", instance.id);
            let other = expanded.members.get(other)?.stage.id_span;
            let problem = Problem::at(member.stage.id_span, message).help("rename one of them".to_owned());
            problems.push(if other == member.stage.id_span { problem } else { problem.also(other, "the other one") });
        }
        let kind = kind(instance)?;
        let edge = |input: &Input| {
            let port = input.label.as_ref().map_or_else(
                || input.port.to_owned(),
                |label| {
                    // Within a definition, an input of it is known by its name alone.
                    format!("{}[{}]", input.port, label.strip_prefix("inputs.").unwrap_or(label))
                },
            );
            Some(Edge { port, from: *position.get(*places.get(&input.from)?)?, output: input.output.to_owned() })
        };
        let inputs = instance.inputs.iter().filter_map(edge).collect();
        nodes.push(Node {
            id: std::mem::take(&mut instance.id),
            description: instance.description.take(),
            kind,
            configured: instance.configured.take()?,
            inputs,
            outputs: member.outputs.clone()?,
            freeze: member.stage.freeze,
        });
    }
    problems.is_empty().then_some(nodes)
}
