//! The thread every process of the mesh is started from.
//!
//! A process that asked to die with its parent dies with the *thread* that started it (prctl(2)), and a runtime's
//! threads come and go. This one lives as long as the mesh; when it ends, so does everything it started.

use std::io;

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

/// Starting processes is quick; who finds the queue full waits.
const QUEUE: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Spawner {
    jobs: mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>,
}

impl Spawner {
    /// Starts the thread; it ends when the last `Spawner` is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>(QUEUE);
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("weft-spawner".to_owned()).spawn(move || {
            let _entered = runtime.enter();
            while let Some((mut command, answer)) = queue.blocking_recv() {
                // Nobody waits for the answer any more: the child is dropped, and killed on drop.
                answer.send(command.kill_on_drop(true).spawn()).ok();
            }
        })?;
        Ok(Self { jobs })
    }

    pub(super) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| io::Error::other("the mesh is ending");
        self.jobs.send((command, answer)).await.map_err(|_| io::Error::other("the mesh is ending"))?;
        answered.await.map_err(gone)?
    }
}
