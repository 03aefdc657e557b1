//! Every operator against ONNX Runtime, and files that are not what they should be.

use super::*;
use crate::onnx::proto::*;
use crate::onnx::shape::Dim;
use crate::onnx::{Shape, differentiate};
use crate::runtime::session::{Input, Session};
use crate::runtime::testing::downloads;

/// A node as `output = Op(inputs…)`; an empty input is one that is left out.
fn node(output: &str, op: &str, inputs: &[&str], attributes: &[AttributeProto]) -> NodeProto {
    let (domain, op) = op.rsplit_once(':').unwrap_or(("", op));
    NodeProto {
        input: inputs.iter().map(|&i| i.into()).collect(),
        output: output.split(' ').map(|o| o.trim_matches('-').into()).collect(),
        name: format!("/{output}"),
        op_type: op.into(),
        attribute: attributes.to_vec(),
        domain: domain.into(),
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(i), kind: 2, ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: ints.to_vec(), kind: 7, ..Default::default() }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(f), kind: 1, ..Default::default() }
}

fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, float_data: data.to_vec(), ..Default::default() }
}

fn integers(name: &str, data: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![data.len() as i64],
        data_type: 7,
        int64_data: data.to_vec(),
        ..Default::default()
    }
}

fn model(opset: i64, nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, inputs: &[(&str, usize)]) -> Vec<u8> {
    let port = |name: &str, rank: Option<usize>| {
        let dim = || DimensionProto { value: None };
        let shape = rank.map(|rank| TensorShapeProto { dim: (0..rank).map(|_| dim()).collect() });
        let tensor_type = Some(TensorTypeProto { elem_type: 1, shape });
        ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type }) }
    };
    let graph = GraphProto {
        node: nodes,
        name: "test".into(),
        initializer,
        input: inputs.iter().map(|(name, rank)| port(name, Some(*rank))).collect(),
        output: vec![port("y", None)],
        ..Default::default()
    };
    let set = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![set("", opset), set(MICROSOFT, 1)], ..Default::default() }
        .encode_to_vec()
}

fn open(bytes: &[u8]) -> Result<OnnxFile, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    OnnxFile::read(&path).map(|mut file| {
        file.path = "model.onnx".into();
        file
    })
}

fn data(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect()
}

/// Runs a file of these nodes as it is, and as it is imported with sizes that are unknown; both must give the same. The gradients
/// with respect to all inputs must be there, and finite.
fn compare(opset: i64, nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, inputs: &[(&str, &[usize])]) {
    compare_in(&[true, false], opset, nodes, initializer, inputs);
}

/// As [`compare`], with all sizes known, or not, or both.
fn compare_in(ways: &[bool], opset: i64, nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, inputs: &[(&str, &[usize])]) {
    let what = format!("{} ({opset})", nodes[nodes.len() - 1].op_type);
    let ranks: Vec<(&str, usize)> = inputs.iter().map(|(name, dims)| (*name, dims.len())).collect();
    let bytes = model(opset, nodes, initializer, &ranks);
    let values: Vec<Vec<f32>> = inputs.iter().map(|(_, dims)| data(dims.iter().product())).collect();
    let feed = || inputs.iter().zip(&values).map(|((name, dims), v)| Input::floats(name, dims, v)).collect::<Vec<_>>();
    let expected = Session::from_model(&bytes, &downloads()).unwrap().run(&feed()).unwrap().remove(0);
    for &fixed in ways {
        let g = Graph::new();
        // Of every input the last size is known, as that of token vectors is.
        let shape = |name: &str, dims: &[usize]| -> Shape {
            let dim = |i: usize, d: usize| {
                if fixed || i + 1 == dims.len() { Dim::Fixed(d) } else { Dim::from(format!("{name}{i}").as_str()) }
            };
            dims.iter().enumerate().map(|(i, &d)| dim(i, d)).collect()
        };
        let given: Vec<(&str, Value)> =
            inputs.iter().map(|(name, dims)| (*name, g.input(name, DataType::F32, shape(name, dims)))).collect();
        let y =
            open(&bytes).unwrap().import(&g, &given, "y", &|_, _| None).unwrap_or_else(|e| panic!("{what}, fixed: {fixed}: {e}"));
        let y = g.add(y, g.scalar(0.0));
        let wanted: Vec<Value> = given.iter().map(|(_, v)| *v).collect();
        let loss = g.mean_all(g.mul(y, y));
        let gradients = differentiate(&g, loss, &wanted).unwrap_or_else(|e| panic!("{what}, fixed: {fixed}: {e}"));
        g.output("y", y);
        for (i, gradient) in gradients.iter().enumerate() {
            match gradient {
                crate::onnx::Gradient::Dense(value) => g.output(&format!("g{i}"), *value),
                crate::onnx::Gradient::Rows(rows) => g.output(&format!("g{i}"), rows[0].1),
                crate::onnx::Gradient::Zero => {}
            }
        }
        let found = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap().run(&feed()).unwrap();
        assert_eq!(found[0].0, expected.0, "{what}, fixed: {fixed}: shape");
        for (a, b) in found[0].1.iter().zip(&expected.1) {
            assert!((a - b).abs() < 1e-5, "{what}, fixed: {fixed}: {a} instead of {b}");
        }
        assert!(found.iter().skip(1).flat_map(|(_, d)| d).all(|x| x.is_finite()), "{what}: gradient");
    }
}

#[test]
fn operators_are_those_of_onnx_runtime() {
    let x: (&str, &[usize]) = ("x", &[2, 3, 4]);
    let one = |op: &str, attributes: &[AttributeProto]| compare(17, vec![node("y", op, &["x"], attributes)], vec![], &[x]);
    one("ReduceMean", &[ints("axes", &[-1]), int("keepdims", 0)]);
    one("ReduceMax", &[ints("axes", &[0, 2])]);
    one("ReduceMin", &[ints("axes", &[1])]);
    one("ReduceL2", &[ints("axes", &[-1])]);
    one("ReduceSumSquare", &[int("keepdims", 0)]);
    one("ReduceLogSumExp", &[ints("axes", &[1])]);
    one("Softmax", &[int("axis", 1)]);
    one("LogSoftmax", &[int("axis", -1)]);
    one("Flatten", &[int("axis", 2)]);
    one("Transpose", &[]);
    one("Tanh", &[]);
    one("Erf", &[]);
    one("com.microsoft:QuickGelu", &[float("alpha", 1.5)]);
    one("com.microsoft:FastGelu", &[]);
    one("Identity", &[]);
    let with = |opset, op: &str, inputs: &[&str], attributes: &[AttributeProto], others: Vec<TensorProto>| {
        compare(opset, vec![node("y", op, inputs, attributes)], others, &[x]);
    };
    with(13, "ReduceSum", &["x", "a"], &[int("keepdims", 0)], vec![integers("a", &[0, -1])]);
    with(18, "ReduceMean", &["x", "a"], &[], vec![integers("a", &[1])]);
    with(17, "Clip", &["x", "", "h"], &[], vec![floats("h", &[], &[0.5])]);
    with(
        17,
        "Slice",
        &["x", "s", "e", "a", "t"],
        &[],
        vec![integers("s", &[-1, 1]), integers("e", &[-9, i64::MAX]), integers("a", &[2, 1]), integers("t", &[-2, 1])],
    );
    with(17, "Slice", &["x", "s", "e"], &[], vec![integers("s", &[0, 1]), integers("e", &[1, -1])]);
    with(17, "Gather", &["x", "i"], &[int("axis", 2)], vec![integers("i", &[3, -1, 0])]);
    with(17, "Gather", &["x", "i"], &[int("axis", 1)], vec![TensorProto { dims: vec![], ..integers("i", &[0]) }]);
    with(17, "Unsqueeze", &["x", "a"], &[], vec![integers("a", &[-1, 0])]);
    with(17, "Pow", &["x", "p"], &[], vec![floats("p", &[], &[2.0])]);
    with(17, "Pow", &["x", "p"], &[], vec![integers("p", &[3])]);
    with(17, "Mul", &["x", "p"], &[], vec![floats("p", &[3, 1], &[2.0, 3.0, 4.0])]);
    with(17, "Max", &["x", "p", "q"], &[], vec![floats("p", &[4], &[0.1; 4]), floats("q", &[], &[-0.3])]);
    with(17, "Trilu", &["x"], &[int("upper", 0)], vec![]);
    with(17, "LayerNormalization", &["x", "w"], &[float("epsilon", 1e-3)], vec![floats("w", &[4], &[1.0, 2.0, 0.5, -1.0])]);
    with(17, "MatMul", &["x", "w"], &[], vec![floats("w", &[4], &[1.0, 2.0, 0.5, -1.0])]);
    compare_in(&[true], 17, vec![node("y", "MatMul", &["w", "x"], &[])], vec![floats("w", &[3], &[1.0, 2.0, 0.5])], &[x]);
    with(17, "com.microsoft:BiasGelu", &["x", "w"], &[], vec![floats("w", &[4], &[1.0, 2.0, 0.5, -1.0])]);
    with(17, "com.microsoft:FusedMatMul", &["x", "x"], &[int("transB", 1), float("alpha", 0.5)], vec![]);
    with(
        17,
        "com.microsoft:SkipLayerNormalization",
        &["x", "x", "w", "w", "w"],
        &[float("epsilon", 1e-3)],
        vec![floats("w", &[4], &[1.0, 2.0, 0.5, -1.0])],
    );
    with(
        20,
        "Gelu",
        &["x"],
        &[AttributeProto { name: "approximate".into(), s: Some("tanh".into()), kind: 3, ..Default::default() }],
        vec![],
    );
}

#[test]
fn products_of_matrices_are_those_of_onnx_runtime() {
    let inputs: [(&str, &[usize]); 2] = [("a", &[2, 3]), ("b", &[2, 4])];
    let gemm = |attributes: &[AttributeProto], c: TensorProto, inputs: &[(&str, &[usize])]| {
        compare_in(&[true], 17, vec![node("y", "Gemm", &["a", "b", "c"], attributes)], vec![c], inputs);
    };
    gemm(&[int("transA", 1), float("alpha", 0.5), float("beta", 2.0)], floats("c", &[3, 1], &[1.0, 2.0, 3.0]), &inputs);
    gemm(&[int("transB", 1)], floats("c", &[2], &[1.0, 2.0]), &[("a", &[5, 3]), ("b", &[2, 3])]);
    compare_in(&[true], 17, vec![node("y", "Gemm", &["a", "b"], &[])], vec![], &[("a", &[5, 3]), ("b", &[3, 2])]);
    compare_in(&[true], 17, vec![node("y", "MatMul", &["a", "b"], &[])], vec![], &[("a", &[2, 1, 3, 4]), ("b", &[5, 4, 2])]);
}

#[test]
fn parts_and_shapes_are_those_of_onnx_runtime() {
    let x: (&str, &[usize]) = ("x", &[2, 3, 4]);
    let split =
        vec![node("a b", "Split", &["x", "s"], &[int("axis", 2)]), node("y", "Concat", &["b", "a", "b"], &[int("axis", -1)])];
    compare(17, split, vec![integers("s", &[1, 3])], &[x]);
    let halves = vec![node("a b", "Split", &["x"], &[int("axis", 2)]), node("y", "Mul", &["a", "b"], &[])];
    compare(17, halves, vec![], &[x]);
    // The shape arithmetic of exports: heads are split off and put back.
    let heads = vec![
        node("s", "Shape", &["x"], &[]),
        node("rows", "Gather", &["s", "zero"], &[]),
        node("seq", "Gather", &["s", "one"], &[]),
        node("target", "Concat", &["rows", "seq", "heads", "open"], &[int("axis", 0)]),
        node("h", "Reshape", &["x", "target"], &[]),
        node("t", "Transpose", &["h"], &[ints("perm", &[0, 2, 1, 3])]),
        node("all", "Reshape", &["t", "flat"], &[]),
        node("y", "Mul", &["all", "all"], &[]),
    ];
    let numbers = vec![
        integers("zero", &[0]),
        integers("one", &[1]),
        integers("heads", &[2]),
        integers("open", &[-1]),
        integers("flat", &[-1, 2]),
    ];
    compare(17, heads, numbers, &[x]);
    let expanded = vec![
        node("s", "Shape", &["x"], &[]),
        node("ones", "ConstantOfShape", &["s"], &[]),
        node("c", "Equal", &["ones", "x"], &[]),
        node("n", "Neg", &["x"], &[]),
        node("w", "Where", &["c", "n", "x"], &[]),
        node("r", "ReduceMax", &["w"], &[ints("axes", &[1])]),
        node("y", "Expand", &["r", "s"], &[]),
    ];
    compare(17, expanded, vec![], &[x]);
}

fn refused(bytes: &[u8]) -> String {
    let import = |file: OnnxFile| {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, vec![Dim::from("rows"), Dim::Fixed(4)]);
        let y = file.import(&g, &[("x", x)], "y", &|_, _| None)?;
        let loss = g.mean_all(y);
        Ok(differentiate(&g, loss, &[x]).map_err(|e| e.to_string()))
    };
    let name = |e: ImportError| e.to_string().replace('\n', " ");
    let text = match open(bytes).and_then(import) {
        Err(e) => name(e),
        Ok(Err(text)) => text,
        Ok(Ok(_)) => panic!("it was imported"),
    };
    // Where the file lay.
    match (text.find("`/"), text.find("model.onnx")) {
        (Some(from), Some(to)) if from < to => format!("{}`{}", &text[..from], &text[to..]),
        _ => text,
    }
}

#[test]
fn what_is_refused_is_named() {
    let of = |nodes| refused(&model(17, nodes, vec![], &[("x", 2)]));
    insta::assert_snapshot!(of(vec![node("y", "If", &["x"], &[])]), @"`model.onnx`: operator `If` (node `/y`): this operator is not known, so the model cannot be imported");
    insta::assert_snapshot!(of(vec![node("y", "org.example:Norm", &["x"], &[])]), @"`model.onnx`: operator `Norm` (node `/y`): this operator of domain `org.example` is not known, so the model cannot be imported");
    insta::assert_snapshot!(of(vec![node("y", "CumSum", &["x", "a"], &[])]), @"`model.onnx`: operator `CumSum` (node `/y`): uses `a`, which neither an input nor a node before it yields");
    insta::assert_snapshot!(of(vec![node("a", "Shape", &["x"], &[int("end", 1)]), node("b", "Squeeze", &["a"], &[]), node("y", "CumSum", &["x", "b"], &[])]), @"operator `CumSum` has no gradient rule, so what feeds it cannot be trained (node `/y`)");
    insta::assert_snapshot!(of(vec![node("a", "Neg", &["y"], &[]), node("y", "Neg", &["a"], &[])]), @"`model.onnx`: operator `Neg` (node `/a`): uses `y`, which neither an input nor a node before it yields");
    insta::assert_snapshot!(of(vec![node("y", "Neg", &["x"], &[]), node("y", "Abs", &["x"], &[])]), @"`model.onnx` computes `y` more than once");
    insta::assert_snapshot!(of(vec![node("z", "Neg", &["x"], &[])]), @"`model.onnx` has no output `y`");
    insta::assert_snapshot!(of(vec![node("y", "Neg", &["x"], &[int("mode", 1)])]), @"`model.onnx`: operator `Neg` (node `/y`): attribute `mode` is not supported");
    insta::assert_snapshot!(of(vec![node("y", "Softmax", &["x"], &[int("axis", 7)])]), @"`model.onnx`: operator `Softmax` (node `/y`): there is no axis 7 among 2");
    insta::assert_snapshot!(of(vec![node("y", "Softmax", &["x"], &[float("axis", 1.0)])]), @"`model.onnx`: operator `Softmax` (node `/y`): attribute `axis` has another type than the operator's definition says");
    insta::assert_snapshot!(refused(&model(11, vec![node("y", "Neg", &["x"], &[])], vec![], &[("x", 2)])), @"`model.onnx` uses version 11 of ONNX's operators, but 13 to 23 are understood; export the model again, with `opset_version=17` or later");
    insta::assert_snapshot!(refused(b"PK\x03\x04 is a zip archive"), @"`model.onnx` is no intact ONNX file (failed to decode Protobuf message: invalid tag value: 0); get the file again, it may have been cut off while it was fetched");
}

/// Whatever is wrong with a file, the answer is an error or a graph, and no panic.
#[test]
fn damaged_files_do_no_harm() {
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imported");
    let bytes = std::fs::read(folder.join("modernbert-dynamo.onnx")).unwrap();
    let mut damaged = bytes.clone();
    for step in 0..400 {
        let at = step * 97 % bytes.len();
        damaged[at] = damaged[at].wrapping_add(1 + (step % 255) as u8);
        let shortened = &damaged[..if step % 3 == 0 { bytes.len() - step } else { bytes.len() }];
        if let Ok(file) = open(shortened) {
            let g = Graph::new();
            let input = |name| g.input(name, DataType::I64, vec![Dim::from("rows"), Dim::from("seq")]);
            let inputs = [("input_ids", input("input_ids")), ("attention_mask", input("attention_mask"))];
            let _ = file.import(&g, &inputs, "last_hidden_state", &|_, _| None);
            let _ = file.with_weights(|_| None);
        }
        damaged[at] = bytes[at];
    }
}

#[test]
fn only_the_weights_of_a_file_change() {
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imported");
    let file = OnnxFile::read(&folder.join("bert-trace.onnx")).unwrap();
    assert_eq!(file.with_weights(|_| None).unwrap(), file.bytes);
    let weights = file.weights("last_hidden_state").unwrap();
    let (name, tensor) = weights.iter().find(|(name, _)| name == "onnx::MatMul_299" || name.starts_with("onnx::MatMul")).unwrap();
    let Data::Floats(old) = &tensor.data else { panic!() };
    let new: Vec<f32> = old.iter().map(|x| x + 1.0).collect();
    let changed = open(&file.with_weights(|n| (n == name).then_some(new.as_slice())).unwrap()).unwrap();
    assert_eq!(changed.graph.node, file.graph.node);
    for ((a, before), (b, after)) in weights.iter().zip(changed.weights("last_hidden_state").unwrap()) {
        assert_eq!(*a, b);
        let expected = if a == name { Data::Floats(new.clone()) } else { before.data.clone() };
        assert_eq!(after.data, expected, "{a}");
    }
    let error = file.with_weights(|n| (n == name).then_some(&new[1..])).unwrap_err().to_string();
    assert!(error.contains("has a weight `onnx::MatMul_"), "{error}");
}

#[test]
fn constants_of_the_method_are_no_weights() {
    let nodes = vec![
        node("a", "Mul", &["x", "inv_freq"], &[]),
        node("b", "Cos", &["a"], &[]),
        node("c", "Add", &["b", "mask"], &[]),
        node("d", "Mul", &["c", "scale"], &[]),
        node("y", "Add", &["d", "bias.0"], &[]),
    ];
    let tensors = vec![
        floats("inv_freq", &[4], &[1.0, 0.1, 0.01, 0.001]),
        floats("mask", &[1, 4], &[0.0, 0.0, f32::MIN, f32::MIN]),
        floats("scale", &[1], &[0.5]),
        floats("bias.0", &[4], &[0.0; 4]),
    ];
    let file = open(&model(17, nodes, tensors, &[("x", 2)])).unwrap();
    let names: Vec<String> = file.weights("y").unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bias.0"]);
}
