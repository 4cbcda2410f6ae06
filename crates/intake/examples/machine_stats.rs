//! What a status report would say about this machine, and which CUDA it has. An argument is the number of
//! seconds to look at it, 2 otherwise.

use std::error::Error;
use std::time::Duration;

use clearml_intake::machine::cuda::{CudaSources, cuda_versions};
use clearml_intake::{Monitor, MonitorOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let options = MonitorOptions {
        disk: std::env::home_dir(),
        default_gpu_usage: Some(100.0),
        ..MonitorOptions::default()
    };
    let seconds = match std::env::args().nth(1) {
        Some(seconds) => seconds.parse()?,
        None => 2,
    };
    let monitor = Monitor::start(options)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let stats = monitor.stats().unwrap_or_default();
    println!("{stats:#}");
    let versions = cuda_versions(&CudaSources::default());
    println!("CUDA {}, cuDNN {}", versions.cuda, versions.cudnn);
    Ok(())
}
