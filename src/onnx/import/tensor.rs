//! The data of a tensor in an ONNX file, checked against what the file says of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use half::{bf16, f16};

use super::super::proto::TensorProto;
use super::super::shape::DataType;

/// A tensor in one of the three types that graphs have here: floats of any width become floats of 32 bits, whole numbers of
/// any width become integers of 64.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub data: Data,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    /// 0 or 1 each.
    Booleans(Vec<u8>),
}

impl Data {
    pub fn data_type(&self) -> DataType {
        match self {
            Data::Floats(_) => DataType::F32,
            Data::Integers(_) => DataType::I64,
            Data::Booleans(_) => DataType::Bool,
        }
    }

    /// Little-endian elements.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Data::Floats(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Integers(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Booleans(data) => data.clone(),
        }
    }
}

/// `TensorProto.DataType`.
pub mod kind {
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT8: i32 = 3;
    pub const UINT16: i32 = 4;
    pub const INT16: i32 = 5;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const UINT32: i32 = 12;
    pub const BFLOAT16: i32 = 16;
}

/// What a value of ONNX's type `kind` becomes.
pub fn data_type(kind: i32) -> Result<DataType, String> {
    Ok(match kind {
        kind::FLOAT | kind::FLOAT16 | kind::DOUBLE | kind::BFLOAT16 => DataType::F32,
        kind::UINT8 | kind::INT8 | kind::UINT16 | kind::INT16 | kind::INT32 | kind::INT64 | kind::UINT32 => DataType::I64,
        kind::BOOL => DataType::Bool,
        other => return Err(format!("values of ONNX's element type {other} are not supported")),
    })
}

/// Bytes an element takes in `raw_data`.
fn width(kind: i32) -> usize {
    match kind {
        kind::INT64 | kind::DOUBLE => 8,
        kind::FLOAT | kind::INT32 | kind::UINT32 => 4,
        kind::UINT16 | kind::INT16 | kind::FLOAT16 | kind::BFLOAT16 => 2,
        _ => 1,
    }
}

/// Reads `tensor`; data that lies outside of the file is looked for in `folder`.
pub fn read(tensor: &TensorProto, folder: &Path) -> Result<Tensor, String> {
    data_type(tensor.data_type)?;
    let dims = tensor.dims.iter().map(|&d| usize::try_from(d).ok());
    let dims: Vec<usize> = dims.collect::<Option<_>>().ok_or_else(|| format!("shape {:?} has a negative size", tensor.dims))?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n.checked_mul(8).is_some());
    let count = count.ok_or_else(|| format!("shape {dims:?} is larger than any memory"))?;
    let data = if tensor.data_location == 1 {
        raw(tensor.data_type, &external(tensor, folder, count * width(tensor.data_type))?)
    } else if tensor.raw_data.is_empty() {
        typed(tensor)?
    } else {
        if tensor.raw_data.len() != count.saturating_mul(width(tensor.data_type)) {
            return Err(format!("shape {dims:?} does not fit its {} bytes of data", tensor.raw_data.len()));
        }
        raw(tensor.data_type, &tensor.raw_data)
    };
    let found = match &data {
        Data::Floats(data) => data.len(),
        Data::Integers(data) => data.len(),
        Data::Booleans(data) => data.len(),
    };
    if found != count {
        return Err(format!("shape {dims:?} has {count} elements, but there is data for {found}"));
    }
    Ok(Tensor { dims, data })
}

fn raw(kind: i32, bytes: &[u8]) -> Data {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    let fours = || bytes.as_chunks::<4>().0.iter();
    let eights = || bytes.as_chunks::<8>().0.iter();
    match kind {
        kind::FLOAT => Data::Floats(fours().map(|b| f32::from_le_bytes(*b)).collect()),
        kind::DOUBLE => Data::Floats(eights().map(|b| f64::from_le_bytes(*b) as f32).collect()),
        kind::FLOAT16 => Data::Floats(pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        kind::BFLOAT16 => Data::Floats(pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        kind::INT64 => Data::Integers(eights().map(|b| i64::from_le_bytes(*b)).collect()),
        kind::INT32 => Data::Integers(fours().map(|b| i32::from_le_bytes(*b).into()).collect()),
        kind::UINT32 => Data::Integers(fours().map(|b| u32::from_le_bytes(*b).into()).collect()),
        kind::INT16 => Data::Integers(pairs().map(|b| i16::from_le_bytes(*b).into()).collect()),
        kind::UINT16 => Data::Integers(pairs().map(|b| u16::from_le_bytes(*b).into()).collect()),
        kind::INT8 => Data::Integers(bytes.iter().map(|&b| i64::from(b.cast_signed())).collect()),
        kind::BOOL => Data::Booleans(bytes.iter().map(|&b| u8::from(b != 0)).collect()),
        _ => Data::Integers(bytes.iter().map(|&b| b.into()).collect()),
    }
}

/// The elements that are no bytes, but numbers of the protobuf.
fn typed(tensor: &TensorProto) -> Result<Data, String> {
    let small = || tensor.int32_data.iter();
    Ok(match tensor.data_type {
        kind::FLOAT => Data::Floats(tensor.float_data.clone()),
        kind::DOUBLE => Data::Floats(tensor.double_data.iter().map(|&x| x as f32).collect()),
        kind::FLOAT16 => Data::Floats(small().map(|&x| f16::from_bits(x as u16).to_f32()).collect()),
        kind::BFLOAT16 => Data::Floats(small().map(|&x| bf16::from_bits(x as u16).to_f32()).collect()),
        kind::INT64 => Data::Integers(tensor.int64_data.clone()),
        kind::BOOL => Data::Booleans(small().map(|&x| u8::from(x != 0)).collect()),
        kind::UINT32 => return Err("unsigned integers that are not in `raw_data` are not supported".into()),
        _ => Data::Integers(small().map(|&x| x.into()).collect()),
    })
}

/// The `length` bytes of a tensor in another file of the model's folder.
fn external(tensor: &TensorProto, folder: &Path, length: usize) -> Result<Vec<u8>, String> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").ok_or("its data lies in another file, but there is no `location`")?;
    let number = |key: &str, default: u64| match entry(key) {
        Some(text) => text.parse::<u64>().map_err(|_| format!("`{key}` of its external data is `{text}`, which is no number")),
        None => Ok(default),
    };
    let (offset, said) = (number("offset", 0)?, number("length", length as u64)?);
    if said != length as u64 {
        return Err(format!("its external data is said to have {said} bytes, but its shape asks for {length}"));
    }
    // The data must lie beside the model: neither a path nor a link may lead elsewhere.
    let relative = Path::new(location);
    let path = folder.join(relative);
    let inside = || Some(path.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?));
    if location.is_empty() || !relative.components().all(|c| matches!(c, Component::Normal(_))) || inside() == Some(false) {
        return Err(format!("its data lies in `{location}`, which is outside of the model's folder; put a copy of it there"));
    }
    let fail = |e: std::io::Error| format!("its data, in `{}`, cannot be read: {e}", path.display());
    let mut file = File::open(&path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    if offset.checked_add(said).is_none_or(|end| end > size) {
        return Err(format!("`{}` is too short for its data; get the file again", path.display()));
    }
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::StringStringEntryProto;

    fn tensor(dims: &[i64], data_type: i32, raw: &[u8]) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type, raw_data: raw.to_vec().into(), ..Default::default() }
    }

    #[test]
    fn every_form_of_data_is_read() {
        let folder = Path::new("");
        let floats = TensorProto { dims: vec![2], data_type: 1, float_data: vec![1.0, 2.0], ..Default::default() };
        assert_eq!(read(&floats, folder).unwrap().data, Data::Floats(vec![1.0, 2.0]));
        assert_eq!(read(&tensor(&[1], kind::FLOAT16, &[0, 0x3c]), folder).unwrap().data, Data::Floats(vec![1.0]));
        assert_eq!(read(&tensor(&[1], kind::INT32, &[254, 255, 255, 255]), folder).unwrap().data, Data::Integers(vec![-2]));
        assert_eq!(read(&tensor(&[2], kind::BOOL, &[0, 7]), folder).unwrap().data, Data::Booleans(vec![0, 1]));
        assert_eq!(read(&tensor(&[0, 4], kind::FLOAT, &[]), folder).unwrap().dims, [0, 4]);
    }

    #[test]
    fn half_precision() {
        let half = |bits: u16| match raw(kind::FLOAT16, &bits.to_le_bytes()) {
            Data::Floats(numbers) => numbers[0],
            other => panic!("{other:?}"),
        };
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0)]
        {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan() && half(0x7c00).is_infinite());
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let folder = Path::new("");
        for (dims, bytes) in [(vec![3], 8), (vec![-1], 4), (vec![i64::MAX, i64::MAX], 4), (vec![1 << 40], 4), (vec![2], 0)] {
            assert!(read(&tensor(&dims, kind::FLOAT, &vec![0; bytes]), folder).is_err(), "{dims:?}");
        }
        insta::assert_snapshot!(read(&tensor(&[1], 8, &[]), folder).unwrap_err(), @"values of ONNX's element type 8 are not supported");
    }

    #[test]
    fn data_in_another_file_must_lie_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), [0, 0, 0, 0, 0, 0, 128, 63]).unwrap();
        let at = |location: &str, offset: &str| {
            let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
            let external_data = vec![entry("location", location), entry("offset", offset)];
            let tensor = TensorProto { dims: vec![1], data_type: 1, data_location: 1, external_data, ..Default::default() };
            read(&tensor, folder.path())
        };
        assert_eq!(at("data", "4").unwrap().data, Data::Floats(vec![1.0]));
        for (location, offset) in [
            ("data", "5"),
            ("data", "18446744073709551615"),
            ("data", "x"),
            ("../data", "0"),
            ("/etc/passwd", "0"),
            ("", "0"),
            ("none", "0"),
        ] {
            assert!(at(location, offset).is_err(), "{location} {offset}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
            insta::assert_snapshot!(at("link", "0").unwrap_err(), @"its data lies in `link`, which is outside of the model's folder; put a copy of it there");
        }
    }
}
