//! An ONNX file with other weights: the bytes of the file are copied, but for those of the tensors that are replaced. So whatever
//! the file has that is not understood here stays in it.

use prost::Message;
use prost::bytes::Bytes;

use super::super::proto::TensorProto;
use super::tensor::kind;

/// Protobuf fields: a model's graph, and a graph's initializers.
const GRAPH: u64 = 7;
const INITIALIZER: u64 = 5;

/// `file` with the initializers replaced for which `weight` has elements.
pub fn weights<'w>(file: &Bytes, weight: impl Fn(&str) -> Option<&'w [f32]>) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(file.len());
    for field in Fields(file) {
        let field = field?;
        match field.message {
            Some(graph) if field.number == GRAPH => {
                let mut inner = Vec::with_capacity(graph.len());
                for part in Fields(graph) {
                    let part = part?;
                    match part.message {
                        Some(tensor) if part.number == INITIALIZER => replace(&mut inner, part.bytes, tensor, &weight)?,
                        _ => inner.extend_from_slice(part.bytes),
                    }
                }
                append(&mut out, GRAPH, &inner);
            }
            _ => out.extend_from_slice(field.bytes),
        }
    }
    if out.len() as u64 > super::LARGEST {
        return Err("would be too large with its weights in it".into());
    }
    Ok(out)
}

fn replace<'w>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    tensor: &[u8],
    weight: &impl Fn(&str) -> Option<&'w [f32]>,
) -> Result<(), String> {
    let old = TensorProto::decode(tensor).map_err(|e| format!("has a damaged tensor: {e}"))?;
    let Some(data) = weight(&old.name) else {
        out.extend_from_slice(bytes);
        return Ok(());
    };
    let count = old.dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d));
    if count != Some(data.len() as i64) {
        return Err(format!("has a weight `{}` of shape {:?}, for which there are {} elements", old.name, old.dims, data.len()));
    }
    let raw_data = data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into();
    let new = TensorProto { dims: old.dims, data_type: kind::FLOAT, name: old.name, raw_data, ..Default::default() };
    append(out, INITIALIZER, &new.encode_to_vec());
    Ok(())
}

/// Appends a field that holds a message.
fn append(out: &mut Vec<u8>, number: u64, message: &[u8]) {
    for value in [number << 3 | 2, message.len() as u64] {
        let mut value = value;
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend_from_slice(message);
}

/// The fields of a message in order.
struct Fields<'a>(&'a [u8]);

struct Field<'a> {
    number: u64,
    /// All of it, tag included.
    bytes: &'a [u8],
    /// What it holds, when that has a length.
    message: Option<&'a [u8]>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = next(self.0).ok_or_else(|| "is damaged".to_owned());
        self.0 = field.as_ref().ok().and_then(|f| self.0.get(f.bytes.len()..)).unwrap_or_default();
        Some(field)
    }
}

fn next(from: &[u8]) -> Option<Field<'_>> {
    let mut rest = from;
    let tag = varint(&mut rest)?;
    let message = match tag & 7 {
        0 => {
            varint(&mut rest)?;
            None
        }
        1 => {
            rest = rest.get(8..)?;
            None
        }
        2 => {
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            let message = rest.get(..length)?;
            rest = &rest[length..];
            Some(message)
        }
        5 => {
            rest = rest.get(4..)?;
            None
        }
        _ => return None,
    };
    Some(Field { number: tag >> 3, bytes: from.get(..from.len() - rest.len())?, message })
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
