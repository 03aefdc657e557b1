//! The parameters of every stage, file by file from the pipeline inwards: what a stage gives to its definition is what the
//! `${params.…}` of the stages inside refer to.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::Document;
use super::expand::{Body, Expanded};
use super::interpolate::{Budget, Environment, Interpolator, Names};
use super::parameters;
use super::paths::Paths;
use super::problem::Problems;
use super::yaml::Entry;
use crate::stage::Configured;

/// The pipeline's own `params`, and each node's parameters in order. Those with problems are left out.
pub(super) fn configure(
    document: &Document,
    expanded: &Expanded,
    environment: Environment,
    paths: &mut Paths,
    problems: &mut Problems,
) -> (BTreeMap<String, Value>, Vec<Configured>) {
    let mut budget = Budget::default();
    let pipeline = Names { params: document.params, variables: Some(&document.environment), environment };
    let parameters = Interpolator::new(pipeline, &mut budget).parameters(problems);
    // By scope; nothing where the stage that uses the definition has problems.
    let mut params: Vec<Option<Vec<Entry>>> = expanded.scopes.iter().map(|_| None).collect();
    let mut configured = Vec::new();
    for member in &expanded.members {
        let Some(scope) = expanded.scopes.get(member.scope) else { continue };
        problems.within(&scope.used);
        let names = match (&scope.user, params.get(member.scope)) {
            (None, _) => pipeline,
            (Some(_), Some(Some(params))) => Names { params, variables: None, environment },
            (Some(_), _) => continue,
        };
        let stage = &member.stage;
        let fits = if let Body::Definition(definition, _) = member.body { definition.check(stage, problems) } else { true };
        let with = match stage.with {
            Some((_, yaml)) if !yaml.is_null() => Interpolator::new(names, &mut budget).resolve(yaml, problems),
            _ => Some(Value::Object(Map::new())),
        };
        match (member.body, with) {
            (Body::Kind(kind), Some(mut with @ Value::Object(_))) => {
                let found = parameters::configure(kind, stage, with.clone(), problems);
                configured.extend(match found {
                    Some(found) if paths.settle(stage, &found, &mut with, &names, problems) => {
                        parameters::configure(kind, stage, with, problems)
                    }
                    found => found,
                });
            }
            (Body::Definition(definition, inside), Some(Value::Object(with))) => {
                let given = definition.params(stage, with, &names, problems);
                let Some(given) = given.filter(|_| fits) else { continue };
                problems.within(expanded.scopes.get(inside).map_or(&[], |scope| &scope.used));
                let names = Names { params: &given, variables: None, environment };
                let mut interpolator = Interpolator::new(names, &mut budget);
                definition.check_defaults(&given, |default, problems| interpolator.resolve(default, problems), problems);
                if let Some(params) = params.get_mut(inside) {
                    *params = Some(given);
                }
            }
            _ => {}
        }
    }
    problems.within(&[]);
    (parameters, configured)
}
