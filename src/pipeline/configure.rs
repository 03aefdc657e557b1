//! The parameters of a stage: what it gives to its definition is what the `${params.…}` of the stages inside refer to.

use serde_json::{Map, Value};

use super::expand::{Body, Member};
use super::interpolate::{Budget, Combination, Interpolator, Names};
use super::problem::Problems;
use super::yaml::Entry;
use super::{combination, parameters};
use crate::stage::Configured;

/// What the `with` of a stage is read as.
pub(super) enum Parameters {
    Node(Configured),
    /// What `${params.…}` refers to in the definition.
    Definition(Vec<Entry>),
}

/// The parameters of a stage that sees these names; nothing when there was a problem.
pub(super) fn configure(member: &Member, names: Names, budget: &mut Budget, problems: &mut Problems) -> Option<Parameters> {
    let stage = &member.stage;
    let fits = if let Body::Definition(definition, _) = member.body { definition.check(stage, problems) } else { true };
    let with = match stage.with {
        Some((_, yaml)) if !yaml.is_null() => Interpolator::new(names, budget).resolve(yaml, problems),
        _ => Some(Value::Object(Map::new())),
    };
    let before = problems.len();
    let parameters = match (member.body, with) {
        (Body::Kind(kind), Some(with @ Value::Object(_))) => {
            parameters::configure(kind, stage, with, problems).map(Parameters::Node)
        }
        (Body::Definition(definition, _), Some(Value::Object(with))) if fits => {
            Some(Parameters::Definition(definition.params(stage, with)))
        }
        _ => None,
    };
    if let Combination::Of(axes, row) = names.matrix
        && problems.len() > before
    {
        problems.in_combination(before, &combination::label(axes, row));
    }
    parameters
}
