//! `dashboard`: a live page on the runs of a folder.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::DashboardArgs;
use crate::commands::print;
use crate::config::{Sources, resolve};
use crate::dashboard::server::{self, Dashboard};
use crate::error::Error;
use crate::terminal::signals;

/// How often it is asked whether a signal has come.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(100);

pub(super) fn dashboard(args: &DashboardArgs) -> Result<(), Error> {
    signals::listen()?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => PathBuf::from(resolve(&Sources::default())?.config.checkpoint.dir),
    };
    let dashboard = Dashboard::new(&dir)?;
    let refused = |error: std::io::Error| match args.port {
        Some(port) => Error::Usage(format!(
            "--port {port} cannot be had: {error}; name another, or none for the first free one"
        )),
        None => Error::Usage(format!("{error}; name another with --port N")),
    };
    let listener = match args.port {
        Some(port) => server::listen(port),
        None => server::listen_anywhere(),
    };
    let listener = listener.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    if args.port.is_none() && address.port() != server::FIRST_PORT {
        tracing::info!("port {} is taken, so it is {}", server::FIRST_PORT, address.port());
    }
    let url = format!("http://{address}");
    print::text(&url)?;
    tracing::info!(
        "a live page on the runs in {}, for browsers on this machine; Ctrl-C ends it",
        dir.display()
    );
    if args.open
        && let Err(error) = open::that_detached(&url)
    {
        tracing::warn!("no browser was opened ({error}); the address is {url}");
    }
    server::serve(listener, dashboard, signal())
        .map_err(|error| Error::Unusable(format!("the page cannot be served: {error}")))?;
    if let Some((_, name)) = signals::received() {
        tracing::info!("ended by {name}");
    }
    Ok(())
}

/// Over when a signal has come.
async fn signal() {
    while signals::received().is_none() {
        tokio::time::sleep(LOOK_FOR_SIGNALS).await;
    }
}
