//! What was found of GPUs, as text and as JSON.

use serde_json::{Value, json};

use crate::machine::gpu::{GpuDevice, GpuLibrary, Gpus};
use crate::terminal::text::{bytes, counted};

/// Lines of a name and what was found.
pub(super) fn to_lines(gpus: &Gpus) -> Vec<(String, String)> {
    let mut lines: Vec<_> = gpus.libraries.iter().map(of_library).collect();
    // Without a driver nobody needs the others.
    if !gpus.has_driver() {
        lines.truncate(1);
    }
    match &gpus.devices {
        Ok(devices) => lines.extend(devices.iter().enumerate().map(of_device)),
        Err(reason) if gpus.has_driver() => lines.push(("devices".to_owned(), reason.clone())),
        Err(_) => {}
    }
    lines.push(("--device auto".to_owned(), chosen(gpus)));
    lines
}

/// Where `--device auto` computes.
fn chosen(gpus: &Gpus) -> String {
    match &gpus.devices {
        Ok(devices) if gpus.unusable.is_none() && !devices.is_empty() => {
            format!("computes on cuda:0 {}", devices[0].name)
        }
        _ => "computes on the processor".to_owned(),
    }
}

fn of_library(library: &GpuLibrary) -> (String, String) {
    let found = match &library.found {
        Ok((path, Some(version))) => format!("{version}, {}", path.display()),
        Ok((path, None)) => path.display().to_string(),
        Err(reason) if library.is_needed => reason.clone(),
        Err(_) => "not found, and not needed yet".to_owned(),
    };
    (library.title.to_owned(), found)
}

fn of_device((number, device): (usize, &GpuDevice)) -> (String, String) {
    let GpuDevice { name, memory, multiprocessors, architecture } = device;
    let about = format!(
        "{name}, {} of memory, {}, {architecture}",
        bytes(*memory as u64),
        counted(*multiprocessors as u64, "multiprocessor")
    );
    (format!("cuda:{number}"), about)
}

/// The same as an object.
pub(super) fn to_json(gpus: &Gpus) -> Value {
    let libraries = gpus.libraries.iter().map(|library| {
        let found = library.found.as_ref();
        json!({
            "name": library.title,
            "path": found.map(|(path, _)| path.to_string_lossy()).ok(),
            "version": found.ok().and_then(|(_, version)| version.as_ref()),
            "error": found.err(),
        })
    });
    let devices = gpus.devices.iter().flatten().map(|device| {
        json!({
            "name": device.name,
            "memory_bytes": device.memory,
            "multiprocessors": device.multiprocessors,
            "architecture": device.architecture,
        })
    });
    json!({
        "has_driver": gpus.has_driver(),
        "libraries": libraries.collect::<Vec<_>>(),
        "devices": devices.collect::<Vec<_>>(),
        "error": gpus.devices.as_ref().err().or(gpus.unusable.as_ref()),
        "auto": chosen(gpus),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn driver(found: Result<(PathBuf, Option<String>), String>) -> GpuLibrary {
        GpuLibrary { title: "NVIDIA driver", is_needed: true, found }
    }

    #[test]
    fn gpus_are_told_with_what_auto_takes() {
        let none = Gpus {
            libraries: vec![driver(Err("not there".to_owned()))],
            devices: Err("not there".to_owned()),
            unusable: None,
            has_card: false,
        };
        let lines = to_lines(&none);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0].1, "not there");
        assert_eq!(lines[1].1, "computes on the processor");
        assert_eq!(to_json(&none)["has_driver"], false);

        let device = GpuDevice {
            name: "Some GPU".to_owned(),
            memory: 80_000_000_000,
            multiprocessors: 132,
            architecture: "sm_90".to_owned(),
        };
        let library = driver(Ok((PathBuf::from("/lib/libcuda.so.1"), Some("13.0".to_owned()))));
        let nccl = GpuLibrary { title: "NCCL", is_needed: false, found: Err("away".to_owned()) };
        let one = Gpus {
            libraries: vec![library, nccl],
            devices: Ok(vec![device]),
            unusable: None,
            has_card: true,
        };
        let found = to_lines(&one).into_iter().map(|(name, found)| format!("{name}: {found}"));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                "NVIDIA driver: 13.0, /lib/libcuda.so.1",
                "NCCL: not found, and not needed yet",
                "cuda:0: Some GPU, 80.00 GB of memory, 132 multiprocessors, sm_90",
                "--device auto: computes on cuda:0 Some GPU",
            ]
        );
        let json = to_json(&one);
        assert_eq!(json["devices"][0]["architecture"], "sm_90");
        assert_eq!(json["libraries"][0]["version"], "13.0");
        let unusable = Gpus { unusable: Some("too old".to_owned()), ..one };
        assert_eq!(to_json(&unusable)["error"], "too old");
        assert!(to_lines(&unusable).last().unwrap().1.contains("on the processor"));
    }
}
