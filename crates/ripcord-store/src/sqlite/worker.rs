//! A thread with a connection of its own: jobs go in by a channel, answers come back as futures.
//!
//! A job runs to its end whatever becomes of whoever waits for it, so dropping the future never leaves a transaction open.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

pub(crate) struct Worker<S> {
    jobs: Option<mpsc::Sender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Send + 'static> Worker<S> {
    pub fn start(name: &str, mut state: S) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(job) = queue.recv() {
                job(&mut state);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// The job's answer; none where the thread has died.
    pub async fn call<T: Send + 'static>(&self, job: impl FnOnce(&mut S) -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            // Nobody may be waiting any more; the work was done all the same.
            let _ = answer.send(job(state));
        });
        self.jobs.as_ref()?.send(job).ok()?;
        answered.await.ok()
    }
}

impl<S> Drop for Worker<S> {
    /// Waits for the jobs under way, so that the files are closed when the store is gone.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a job was reported to whoever waited for it.
            let _ = thread.join();
        }
    }
}
