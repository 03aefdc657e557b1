//! The kinds of stage. One line each.

use super::StageKind;

/// Every kind, in the order of a typical pipeline.
pub const KINDS: &[&StageKind] = &[
    &super::load::KIND,
    &super::chunk::KIND,
    &super::judge::KIND,
    &super::examples::KIND,
    &super::mine::KIND,
    &super::model::KIND,
    &super::train::KIND,
    &super::evaluate::KIND,
    &super::compare::KIND,
    &super::retrieve::KIND,
    &super::generate::KIND,
    &super::project::KIND,
    &super::command::KIND,
];

/// The kind called `name`.
pub fn find(name: &str) -> Option<&'static StageKind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}
