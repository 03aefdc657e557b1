//! A node of a file with its inputs, as the operators see it.

use super::super::graph::{Attribute, Value};
use super::super::proto::{AttributeProto, NodeProto};
use super::tensor::{self, Tensor};

/// See the [module](self).
pub struct Call<'a> {
    pub op: &'static str,
    pub domain: &'static str,
    pub node: &'a NodeProto,
    /// `None` where an optional input is left out.
    pub inputs: Vec<Option<Value>>,
}

impl Call<'_> {
    /// The input of this number.
    pub fn input(&self, i: usize) -> Result<Value, String> {
        self.optional(i).ok_or_else(|| format!("input {i} is missing"))
    }

    /// The input of this number, when there is one.
    pub fn optional(&self, i: usize) -> Option<Value> {
        self.inputs.get(i).copied().flatten()
    }

    /// How many outputs somebody may use.
    pub fn outputs(&self) -> usize {
        self.node.output.len()
    }

    fn attribute(&self, name: &str, kind: i32) -> Result<Option<&AttributeProto>, String> {
        let Some(attribute) = self.node.attribute.iter().find(|a| a.name == name) else { return Ok(None) };
        // Files older than IR version 4 do not say the kind.
        if attribute.kind != kind && attribute.kind != 0 {
            return Err(format!("attribute `{name}` has another type than the operator's definition says"));
        }
        Ok(Some(attribute))
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64, String> {
        Ok(self.attribute(name, 2)?.and_then(|a| a.i).unwrap_or(default))
    }

    pub fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        Ok(self.attribute(name, 1)?.and_then(|a| a.f).unwrap_or(default))
    }

    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>, String> {
        Ok(self.attribute(name, 7)?.map(|a| a.ints.as_slice()))
    }

    /// A string, empty when it is not there.
    pub fn text(&self, name: &str) -> Result<&str, String> {
        let bytes = self.attribute(name, 3)?.and_then(|a| a.s.as_deref()).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| format!("attribute `{name}` is no text"))
    }

    /// A tensor; one whose data lies in another file is refused.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, String> {
        let Some(tensor) = self.attribute(name, 4)?.and_then(|a| a.t.as_ref()) else { return Ok(None) };
        if tensor.data_location == 1 {
            return Err(format!("attribute `{name}` has its data in another file"));
        }
        tensor::read(tensor, std::path::Path::new("")).map(Some).map_err(|e| format!("attribute `{name}`: {e}"))
    }

    /// `axis` counted from the front of `rank` dimensions.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, String> {
        let at = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        at.and_then(|at| usize::try_from(at).ok())
            .filter(|&at| at < rank)
            .ok_or_else(|| format!("there is no axis {axis} among {rank}"))
    }
}

/// Shorthand for an attribute of a node that is written.
pub fn int(name: &'static str, value: usize) -> (&'static str, Attribute) {
    (name, Attribute::Int(value as i64))
}
