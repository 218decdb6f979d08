//! The dashboard beside a run that trains: a thread of the same process, which works only when a page asks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::dashboard::server::{self, Dashboard};
use crate::error::Error;
use crate::terminal::text::quoted;

/// How much lower than the threads of the run its own come to a core: as low as it gets.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// A dashboard that is served while the run goes on, and ends when it is dropped.
#[derive(Debug)]
pub struct Beside {
    dir: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Beside {
    /// Serves the folder that holds the run in `run`, and says where. A dashboard that cannot be served is a
    /// warning: the run goes on without it.
    pub fn start(run: &Path) -> Option<Beside> {
        let parent = run.parent().filter(|parent| !parent.as_os_str().is_empty());
        let dir = parent.unwrap_or(Path::new(".")).to_owned();
        match Beside::serve(dir) {
            Ok((beside, address)) => {
                tracing::info!("dashboard http://{address} while this run goes on");
                Some(beside)
            }
            Err(error) => {
                tracing::warn!("the run goes on without a dashboard: {error}");
                None
            }
        }
    }

    fn serve(dir: PathBuf) -> Result<(Beside, SocketAddr), Error> {
        let unusable = |error: std::io::Error| Error::Unusable(error.to_string());
        let dashboard = Dashboard::new(&dir)?;
        let listener = server::listen_anywhere().map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("dashboard".to_owned())
            .spawn(move || {
                give_way();
                server::serve(listener, dashboard, async move {
                    let _ = stopped.await;
                })
            })
            .map_err(unusable)?;
        Ok((Beside { dir, stop: Some(stop), thread: Some(thread) }, address))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(()))) => tracing::info!(
                "the dashboard ends with the run; see it again with: bninception dashboard {}",
                quoted(&self.dir)
            ),
            Some(Ok(Err(error))) => tracing::warn!("the dashboard ended before the run: {error}"),
            Some(Err(_)) => tracing::warn!("the dashboard ended before the run: its thread failed"),
            None => {}
        }
    }
}

/// Lets this thread, and those that it starts, come after the run's where there is not a core for each.
#[cfg(target_os = "linux")]
fn give_way() {
    use rustix::process::{Pid, setpriority_process};
    // Linux has a priority for each thread, named by the thread's number; others have one for the process.
    let own = Pid::from_raw(rustix::thread::gettid().as_raw_nonzero().get());
    if let Err(error) = setpriority_process(own, NICENESS) {
        tracing::debug!("the dashboard keeps the priority of the run: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}
