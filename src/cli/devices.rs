//! `retune devices`: what models can run on here.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Failure, Global};
use crate::onnx::{DataType, Graph};
use crate::runtime::device::{Choice, Device, Runtime};
use crate::runtime::session::{Input, Session};
use crate::runtime::{cache, cuda, library};
use crate::shape;

/// Says what models can run on here, and why not on CUDA where they cannot.
#[derive(Args)]
pub(super) struct Devices {
    /// Also multiply matrices on this device and on the processor, and compare: `auto`, `cpu`, `cuda`, `cuda:1`
    #[arg(long, value_name = "DEVICE")]
    check: Option<Choice>,
}

#[derive(Serialize)]
struct Listed {
    device: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_capability: Option<String>,
}

impl Devices {
    pub fn call(&self, global: &Global) -> Result<(), Failure> {
        let downloads = cache::folder();
        let auto = Runtime::choose(Choice::Auto, &downloads).map_err(Failure::Failed)?;
        let library = library::known(&downloads).map_err(Failure::Failed)?;
        let first = Device::choose(Choice::Cuda(0), &downloads);
        let host = crate::run::Host::here();
        let mut devices = vec![Listed { device: "cpu".into(), name: host.processor, compute_capability: None }];
        if let (Ok(cuda), Ok(_)) = (cuda::find(), &first) {
            devices.extend(cuda.gpus.iter().enumerate().map(|(number, gpu)| Listed {
                device: format!("cuda:{number}"),
                name: gpu.name.clone(),
                compute_capability: Some(format!("{}.{}", gpu.capability.0, gpu.capability.1)),
            }));
        }
        let (cuda, choice) =
            (first.err().map(|error| error.to_string()), if auto.device == Device::Cpu { "cpu" } else { "cuda:0" });
        let checked = self.check.map(|choice| check(choice).map(|off| (choice, off))).transpose().map_err(Failure::Failed)?;
        if global.json {
            let path = library.path.display().to_string();
            let onnx_runtime = json!({ "version": library.identity, "library": path, "is_there": library.path.exists() });
            let mut found = json!({ "devices": devices, "auto": choice, "onnx_runtime": onnx_runtime });
            if let Some(why) = &cuda {
                found["no_cuda"] = json!(why);
            }
            if let Some((choice, off)) = checked {
                found["check"] = json!({ "device": choice.to_string(), "largest_deviation": off });
            }
            println!("{found:#}");
            return Ok(());
        }
        for device in &devices {
            let capability = device.compute_capability.as_ref().map_or_else(String::new, |c| format!(", compute capability {c}"));
            println!("{:<8} {}{capability}", device.device, device.name);
        }
        let place = if library.path.exists() { "at" } else { "to be fetched to" };
        println!("\nONNX Runtime {} {place} {}", library.identity, library.path.display());
        println!("`device: auto` means `{choice}`");
        if let Some(why) = cuda {
            println!("{why}");
        }
        if let Some((choice, off)) = checked {
            println!("products on `{choice}` differ from those of the processor by {off:.1e} at most");
        }
        Ok(())
    }
}

/// The largest difference of a product on the device of `choice` from the same in double precision, relative to the sum of the absolute terms.
fn check(choice: Choice) -> anyhow::Result<f64> {
    const SIZE: usize = 512;
    let g = Graph::new();
    let (a, b) = (g.input("a", DataType::F32, shape![SIZE, SIZE]), g.input("b", DataType::F32, shape![SIZE, SIZE]));
    g.output("product", g.matmul(a, b, false, false, 1.0));
    let mut session = Session::from_model(&g.to_model()?, &Runtime::choose(choice, &cache::folder())?)?;
    let numbers = |by: usize| (0..SIZE * SIZE).map(|i| (i * by % 251) as f32 / 251.0 - 0.5).collect::<Vec<f32>>();
    let (a, b) = (numbers(7), numbers(11));
    let inputs = [Input::floats("a", &[SIZE, SIZE], &a), Input::floats("b", &[SIZE, SIZE], &b)];
    let product = session.run(&inputs)?.pop().map(|(_, data)| data).unwrap_or_default();
    let mut worst = 0.0f64;
    for (at, &found) in product.iter().enumerate() {
        let (row, column) = (at / SIZE, at % SIZE);
        let terms = (0..SIZE).map(|k| f64::from(a[row * SIZE + k]) * f64::from(b[k * SIZE + column]));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        worst = worst.max((f64::from(found) - sum).abs() / f64::max(size, 1e-9));
    }
    anyhow::ensure!(
        product.len() == SIZE * SIZE && worst < 1e-4,
        "`{choice}` computes wrong products: they are off by {worst:.1e}"
    );
    Ok(worst)
}
