//! The parameters of a stage: what it gives to its definition is what the `${params.…}` of the stages inside refer to.

use serde_json::{Map, Value};

use super::expand::{Body, Member, Scope};
use super::interpolate::{Budget, Combination, Interpolator, Names};
use super::paths::Paths;
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
pub(super) fn configure(
    member: &Member,
    scopes: &[Scope],
    names: Names,
    budget: &mut Budget,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<Parameters> {
    let stage = &member.stage;
    let fits = if let Body::Definition(definition, _) = member.body { definition.check(stage, problems) } else { true };
    let with = match stage.with {
        Some((_, yaml)) if !yaml.is_null() => Interpolator::new(names, budget).resolve(yaml, problems),
        _ => Some(Value::Object(Map::new())),
    };
    let before = problems.len();
    let parameters = match (member.body, with) {
        (Body::Kind(kind), Some(mut with @ Value::Object(_))) => {
            let found = parameters::configure(kind, stage, with.clone(), problems);
            let found = match found {
                Some(found) if paths.settle(stage, &found, &mut with, &names, problems) => {
                    parameters::configure(kind, stage, with, problems)
                }
                found => found,
            };
            found.map(Parameters::Node)
        }
        (Body::Definition(definition, inside), Some(Value::Object(with))) => {
            let given = definition.params(stage, with, &names, problems).filter(|_| fits);
            if let (Some(given), Some(inner)) = (&given, scopes.get(inside)) {
                let outer = scopes.get(member.scope).map_or(&[][..], |scope| &scope.used);
                problems.within(&inner.used);
                let names = Names { params: given, variables: None, ..names };
                let mut interpolator = Interpolator::new(names, budget);
                definition.check_defaults(given, |default, problems| interpolator.resolve(default, problems), problems);
                problems.within(outer);
            }
            given.map(Parameters::Definition)
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
