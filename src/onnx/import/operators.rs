//! The operators that can be imported. To add one: a line here, and a function that translates its nodes.

use super::super::graph::Value;
use super::super::proto::MICROSOFT;
use super::call::Call;
use super::importer::Importer;
use super::{contributed, elementwise, indexing, is_onnx, layout, matrix, reduce};

/// Adds to the graph what a node computes; its outputs in order.
type Translate = fn(&mut Importer, &Call) -> Result<Vec<Value>, String>;

/// An operator.
pub struct Operator {
    pub name: &'static str,
    /// Empty for ONNX's own.
    pub domain: &'static str,
    /// The attributes that are understood; a node with others is refused, as they may change what it computes.
    pub attributes: &'static [&'static str],
    pub translate: Translate,
}

/// ONNX's own operators, by how they are translated.
const ONNX: &[(&[&str], &[&str], Translate)] = &[
    (&["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"], &[], elementwise::arithmetic),
    (&["Mod"], &["fmod"], elementwise::modulo),
    (&["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor"], &[], elementwise::comparison),
    (
        &["Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Tanh", "Sigmoid", "Relu", "Sin", "Cos", "Reciprocal"],
        &[],
        elementwise::unary,
    ),
    (&["Floor", "Ceil", "Round", "Sign", "Not"], &[], elementwise::unary),
    (&["IsNaN", "IsInf"], &["detect_negative", "detect_positive"], elementwise::test),
    (&["Identity", "Dropout"], &["seed"], elementwise::same),
    (&["Cast"], &["to", "saturate"], elementwise::cast),
    (&["CastLike"], &["saturate"], elementwise::cast_like),
    (&["Where"], &[], elementwise::select),
    (&["Clip"], &[], elementwise::clip),
    (&["Gelu"], &["approximate"], elementwise::gelu),
    (&["MatMul"], &[], matrix::matmul),
    (&["Gemm"], &["alpha", "beta", "transA", "transB"], matrix::gemm),
    (
        &["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"],
        &["axes", "keepdims", "noop_with_empty_axes"],
        reduce::reduce,
    ),
    (&["ArgMax", "ArgMin"], &["axis", "keepdims", "select_last_index"], reduce::arg),
    (&["CumSum"], &["exclusive", "reverse"], reduce::running),
    (&["Softmax", "LogSoftmax"], &["axis"], reduce::softmax),
    (&["LayerNormalization"], &["axis", "epsilon", "stash_type"], reduce::layer_norm),
    // ONNX Runtime writes the first of these before ONNX had the second.
    (&["SimplifiedLayerNormalization", "RMSNormalization"], &["axis", "epsilon", "stash_type"], reduce::rms_norm),
    (&["Constant"], &["value", "value_int", "value_ints", "value_float"], layout::constant),
    (&["Shape"], &["start", "end"], layout::shape),
    (&["Size"], &[], layout::size),
    (&["Reshape"], &["allowzero"], layout::reshape),
    (&["Flatten"], &["axis"], layout::flatten),
    (&["Transpose"], &["perm"], layout::transpose),
    (&["Squeeze"], &[], layout::squeeze),
    (&["Unsqueeze"], &[], layout::unsqueeze),
    (&["Expand"], &[], layout::expand),
    (&["Tile"], &[], layout::tile),
    (&["Concat"], &["axis"], layout::concat),
    (&["Split"], &["axis", "num_outputs"], layout::split),
    (&["ConstantOfShape"], &["value"], layout::constant_of_shape),
    (&["Range"], &[], layout::range),
    (&["Trilu"], &["upper"], layout::triangle),
    (&["Slice"], &[], indexing::slice),
    (&["Gather"], &["axis"], indexing::gather),
    (&["GatherElements"], &["axis"], indexing::gather_elements),
    (&["GatherND"], &["batch_dims"], indexing::gather_nd),
    (&["ScatterND"], &["reduction"], indexing::scatter),
    (&["ScatterElements"], &["reduction", "axis"], indexing::scatter),
    (&["NonZero"], &[], indexing::non_zero),
];

/// ONNX Runtime's own.
const CONTRIBUTED: &[(&[&str], &[&str], Translate)] = &[
    (&["FusedMatMul"], &["alpha", "transA", "transB", "transBatchA", "transBatchB"], matrix::fused),
    (&["Gelu"], &[], elementwise::gelu),
    (&["BiasGelu"], &[], contributed::bias_gelu),
    (&["FastGelu"], &[], contributed::fast_gelu),
    (&["QuickGelu"], &["alpha"], contributed::quick_gelu),
    (&["SkipLayerNormalization"], &["epsilon"], contributed::skip_layer_norm),
];

/// The operator of a domain.
pub fn find(domain: &str, name: &str) -> Option<Operator> {
    let (table, domain) = if is_onnx(domain) {
        (ONNX, "")
    } else if domain == MICROSOFT {
        (CONTRIBUTED, MICROSOFT)
    } else {
        return None;
    };
    table.iter().find_map(|(names, attributes, translate)| {
        let name = names.iter().find(|n| **n == name)?;
        Some(Operator { name, domain, attributes, translate: *translate })
    })
}

/// Whether the results of an operator are never floats, or do not depend on the values of its inputs, so that no gradient passes.
pub fn yields_no_floats(name: &str) -> bool {
    let none = [
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "And",
        "Or",
        "Xor",
        "Not",
        "IsNaN",
        "IsInf",
        "ArgMax",
        "ArgMin",
        "Shape",
        "Size",
        "NonZero",
        "ConstantOfShape",
    ];
    none.contains(&name)
}
