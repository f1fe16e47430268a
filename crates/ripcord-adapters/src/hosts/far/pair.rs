//! Calls both ways over one pair of streams.
//!
//! A frame is the length of all that follows and the length of its head (4 bytes each, most significant first), the head as JSON,
//! and bytes that belong to it: contents go by as they are. Either side may call; answers come in any order. A call that its caller
//! drops is cancelled there. When the streams end, calls that wait for an answer fail, and those being answered are dropped, but
//! for the ones that outlive their caller.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ripcord_core::Fut;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::timeout;

/// More than any message of ours: the outline of some 400,000 files.
const LARGEST: usize = 64 << 20;
/// Frames that wait to be written.
const QUEUE: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Head {
    Call { id: u64, body: Value },
    Answer { id: u64, body: Value },
    Refused { id: u64, why: String },
    Cancel { id: u64 },
}

/// The number of a call whose answer nobody waits for.
const NOBODY: u64 = 0;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// The other side never heard of it.
    #[error("the connection was closed before")]
    Before,
    /// It may have.
    #[error("the connection broke")]
    Midway,
    /// It did, and says why not.
    #[error("{0}")]
    Refused(String),
}

/// A body and the bytes that go with it.
pub(crate) type Said = (Value, Vec<u8>);

/// What answers the other side's calls.
pub(crate) trait Answers: Send + Sync + 'static {
    fn answer(self: Arc<Self>, peer: Peer, said: Said) -> Fut<'static, Result<Said, String>>;
    /// Whether a call goes on to its end when the streams have ended.
    fn outlives(&self, _body: &Value) -> bool {
        false
    }
}

/// This side's way to call the other.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Inner>);

struct Inner {
    out: mpsc::Sender<Vec<u8>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Said, String>>>>,
    next: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Said, String>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.send_replace(true);
        // Whoever waits finds that nobody will answer.
        self.waiting().clear();
    }
}

/// Speaks over the two streams until one of them ends, or nothing comes for as long as `silence`. The task ends when no call is being
/// answered any more.
pub(crate) fn start(
    read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    answers: Arc<dyn Answers>,
    silence: Duration,
) -> (Peer, JoinHandle<()>) {
    let (out, queue) = mpsc::channel(QUEUE);
    let inner =
        Inner { out, waiting: Mutex::default(), next: AtomicU64::new(NOBODY + 1), closed: watch::channel(false).0 };
    let peer = Peer(Arc::new(inner));
    tokio::spawn(write_all(peer.clone(), write, queue));
    let task = tokio::spawn(listen(peer.clone(), read, answers, silence));
    (peer, task)
}

async fn write_all(peer: Peer, mut write: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Vec<u8>>) {
    let mut closed = peer.0.closed.subscribe();
    loop {
        let frame = tokio::select! {
            frame = queue.recv() => frame,
            _ = closed.wait_for(|closed| *closed) => None,
        };
        let Some(frame) = frame else { break };
        let written = tokio::select! {
            written = async { write.write_all(&frame).await?; write.flush().await } => written,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        if let Err(error) = written {
            tracing::debug!(%error, "the connection cannot be written to");
            break;
        }
    }
    peer.0.close();
}

async fn listen(peer: Peer, mut read: impl AsyncRead + Unpin, answers: Arc<dyn Answers>, silence: Duration) {
    let mut closed = peer.0.closed.subscribe();
    let mut answering = JoinSet::new();
    let mut begun: HashMap<u64, (AbortHandle, bool)> = HashMap::new();
    loop {
        let frame = tokio::select! {
            frame = frame(&mut read, silence) => frame,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        let (head, bytes) = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "the connection cannot be read");
                break;
            }
        };
        while answering.try_join_next().is_some() {}
        begun.retain(|_, (task, _)| !task.is_finished());
        match head {
            Head::Call { id, body } => {
                let lasts = answers.outlives(&body);
                let answer = Arc::clone(&answers).answer(peer.clone(), (body, bytes));
                let task = answering.spawn(answered(peer.clone(), id, answer));
                if id != NOBODY {
                    begun.insert(id, (task, lasts));
                }
            }
            Head::Answer { id, body } => peer.hear(id, Ok((body, bytes))),
            Head::Refused { id, why } => peer.hear(id, Err(why)),
            Head::Cancel { id } => {
                if let Some((task, _)) = begun.remove(&id) {
                    task.abort();
                }
            }
        }
    }
    peer.0.close();
    for (task, _) in begun.into_values().filter(|(_, lasts)| !lasts) {
        task.abort();
    }
    while answering.join_next().await.is_some() {}
}

/// A task that is ended when nobody waits for it any more.
struct Ended<T>(JoinHandle<T>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answered(peer: Peer, id: u64, answer: Fut<'static, Result<Said, String>>) {
    // In a task of its own, so that one that panics is an answer too.
    let mut task = Ended(tokio::spawn(answer));
    let answer = (&mut task.0).await.unwrap_or_else(|error| Err(format!("failed inside Ripcord: {error}")));
    if id == NOBODY {
        return;
    }
    let (head, bytes) = match answer {
        Ok((body, bytes)) => (Head::Answer { id, body }, bytes),
        Err(why) => (Head::Refused { id, why }, vec![]),
    };
    let encoded = match encode(&head, &bytes) {
        Err(why) => encode(&Head::Refused { id, why }, &[]),
        encoded => encoded,
    };
    if let Ok(frame) = encoded {
        // Where it cannot be sent, nobody is there to hear it.
        let _ = peer.0.out.send(frame).await;
    }
}

impl Peer {
    /// Calls the other side. Dropped, the call is cancelled there.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        ask: &impl Serialize,
        bytes: &[u8],
    ) -> Result<(A, Vec<u8>), Cut> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let refused = |why: String| Cut::Refused(why);
        let body = serde_json::to_value(ask).map_err(|error| refused(error.to_string()))?;
        let frame = encode(&Head::Call { id, body }, bytes).map_err(refused)?;
        let (tell, told) = oneshot::channel();
        self.0.waiting().insert(id, tell);
        let mut waiting = Waiting { peer: self, id, sent: false };
        if self.is_closed() || self.0.out.send(frame).await.is_err() {
            return Err(Cut::Before);
        }
        waiting.sent = true;
        let heard = told.await;
        waiting.sent = false;
        match heard {
            Err(_) => Err(Cut::Midway),
            Ok(Err(why)) => Err(Cut::Refused(why)),
            Ok(Ok((body, bytes))) => match serde_json::from_value(body) {
                Ok(body) => Ok((body, bytes)),
                Err(error) => Err(Cut::Refused(format!("its answer was not understood: {error}"))),
            },
        }
    }

    /// Says something that needs no answer, if it can still be said.
    pub(crate) async fn tell(&self, word: &impl Serialize) {
        let Ok(body) = serde_json::to_value(word) else { return };
        if let Ok(frame) = encode(&Head::Call { id: NOBODY, body }, &[]) {
            let _ = self.0.out.send(frame).await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    /// Returns once the conversation is over.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as this.
        let _ = self.0.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Ends the conversation from this side.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    fn hear(&self, id: u64, answer: Result<Said, String>) {
        let waiting = self.0.waiting().remove(&id);
        if let Some(waiting) = waiting {
            // It was cancelled at the same moment.
            let _ = waiting.send(answer);
        }
    }
}

/// A call under way: cancelled when it is dropped.
struct Waiting<'a> {
    peer: &'a Peer,
    id: u64,
    sent: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.peer.0.waiting().remove(&self.id);
        if !self.sent || self.peer.is_closed() {
            return;
        }
        let Ok(frame) = encode(&Head::Cancel { id: self.id }, &[]) else { return };
        let out = self.peer.0.out.clone();
        let full = out.try_send(frame);
        if let (Err(mpsc::error::TrySendError::Full(frame)), Ok(runtime)) =
            (full, tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                let _ = out.send(frame).await;
            });
        }
    }
}

fn encode(head: &Head, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let head = serde_json::to_vec(head).map_err(|error| error.to_string())?;
    let length = 4 + head.len() + bytes.len();
    if length > LARGEST {
        return Err(format!("it is too large to be sent: {} MiB, and {} are the most", length >> 20, LARGEST >> 20));
    }
    let mut frame = Vec::with_capacity(4 + length);
    // Both are far below 4 GiB.
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    frame.extend_from_slice(&(head.len() as u32).to_be_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(bytes);
    Ok(frame)
}

/// The next frame; none where the stream ended between two. An error where nothing at all comes for as long as `silence`.
async fn frame(read: &mut (impl AsyncRead + Unpin), silence: Duration) -> io::Result<Option<(Head, Vec<u8>)>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut length = [0; 4];
    if let Err(error) = timeout(silence, read.read_exact(&mut length)).await.map_err(silent)? {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=LARGEST).contains(&length) {
        return Err(bad("a frame of an impossible length"));
    }
    let mut frame = vec![];
    let mut rest = read.take(length as u64);
    // Grows with what comes, not with what is announced. A large one on a slow way is not silence.
    while timeout(silence, rest.read_buf(&mut frame)).await.map_err(silent)?? > 0 {}
    if frame.len() != length {
        return Err(bad("the stream ended within a frame"));
    }
    let (head, rest) = frame.split_at(4);
    let head = head.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let Some((head, bytes)) = rest.split_at_checked(head) else { return Err(bad("a head longer than its frame")) };
    let head = serde_json::from_slice(head).map_err(|error| bad(&format!("a head that is none: {error}")))?;
    Ok(Some((head, bytes.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::io::duplex;

    use super::*;

    /// Answers a text with itself, once asked to wait with nothing, and calls back when told to.
    #[derive(Default)]
    struct Echo {
        dropped: AtomicU32,
        ended: AtomicU32,
    }

    const LONG: Duration = Duration::from_secs(60);

    struct CountDrop(Arc<Echo>);
    impl Drop for CountDrop {
        fn drop(&mut self) {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Answers for Echo {
        fn answer(self: Arc<Self>, peer: Peer, (body, bytes): Said) -> Fut<'static, Result<Said, String>> {
            Box::pin(async move {
                match body.as_str() {
                    Some("wait") => {
                        let _count = CountDrop(self);
                        std::future::pending::<()>().await;
                        Err(String::new())
                    }
                    Some("back") => {
                        let (answer, bytes) =
                            peer.call::<Value>(&"there", &bytes).await.map_err(|cut| cut.to_string())?;
                        Ok((answer, bytes))
                    }
                    Some("outlive") => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        self.ended.fetch_add(1, Ordering::SeqCst);
                        Ok((body, bytes))
                    }
                    Some("panic") => panic!("on purpose"),
                    Some("no") => Err("no".to_owned()),
                    _ => Ok((body, bytes)),
                }
            })
        }
        fn outlives(&self, body: &Value) -> bool {
            body == "outlive"
        }
    }

    type End = (Peer, Arc<Echo>, JoinHandle<()>);

    fn pair() -> (End, End) {
        let (here, there) = duplex(1 << 10);
        let one = |stream| {
            let (read, write) = tokio::io::split(stream);
            let echo = Arc::new(Echo::default());
            let (peer, task) = start(read, write, Arc::clone(&echo) as _, LONG);
            (peer, echo, task)
        };
        (one(here), one(there))
    }

    #[tokio::test]
    async fn both_sides_call_and_bytes_go_by_as_they_are() {
        let ((near, ..), (far, ..)) = pair();
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        for peer in [&near, &far] {
            assert_eq!(peer.call::<Value>(&"x", &bytes).await, Ok(("x".into(), bytes.clone())));
            assert_eq!(peer.call::<Value>(&"back", b"1").await, Ok(("there".into(), b"1".to_vec())));
            assert_eq!(peer.call::<Value>(&"no", b"").await, Err(Cut::Refused("no".into())));
            let panicked = peer.call::<Value>(&"panic", b"").await;
            assert!(matches!(panicked, Err(Cut::Refused(why)) if why.contains("inside Ripcord")));
        }
        let mut many = JoinSet::new();
        for n in 0..50 {
            let peer = near.clone();
            many.spawn(async move { (n, peer.call::<Value>(&n, b"").await) });
        }
        for (n, answer) in many.join_all().await {
            assert_eq!(answer, Ok((Value::from(n), vec![])));
        }
    }

    async fn until(mut so: impl FnMut() -> bool) {
        tokio::time::timeout(Duration::from_secs(10), async {
            while !so() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("it comes true");
    }

    #[tokio::test]
    async fn a_dropped_call_is_dropped_there() {
        let ((near, ..), (_far, echo, _)) = pair();
        let call = near.call::<Value>(&"wait", b"");
        assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
        until(|| echo.dropped.load(Ordering::SeqCst) == 1).await;
        assert_eq!(near.call::<Value>(&"x", b"").await, Ok(("x".into(), vec![])));
    }

    #[tokio::test]
    async fn when_the_streams_end_calls_fail_and_only_what_outlives_goes_on() {
        let ((near, ..), (_far, echo, task)) = pair();
        let calls = async {
            tokio::join!(near.call::<Value>(&"wait", b""), near.call::<Value>(&"outlive", b""), async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                near.close();
            })
        };
        let (waited, outlived, ()) = calls.await;
        assert_eq!((waited, outlived), (Err(Cut::Midway), Err(Cut::Midway)));
        task.await.unwrap();
        assert_eq!((echo.dropped.load(Ordering::SeqCst), echo.ended.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(near.call::<Value>(&"x", b"").await, Err(Cut::Before));
    }

    #[tokio::test]
    async fn silence_ends_the_conversation_also_within_a_frame() {
        for begun in [&b""[..], b"\0\0", b"\0\0\0\x08\0\0"] {
            let (mut here, there) = duplex(1 << 10);
            let (read, write) = tokio::io::split(there);
            let (peer, task) = start(read, write, Arc::new(Echo::default()), Duration::from_millis(20));
            here.write_all(begun).await.unwrap();
            task.await.unwrap();
            assert!(peer.is_closed());
        }
    }

    #[tokio::test]
    async fn nonsense_ends_the_conversation() {
        for nonsense in
            [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x08\0\0\0\xff{}  ", b"\0\0\0\x06\0\0\0\x02{}", b"\0\0\0\x01x"]
        {
            let (mut here, there) = duplex(1 << 10);
            let (read, write) = tokio::io::split(there);
            let (peer, task) = start(read, write, Arc::new(Echo::default()), LONG);
            here.write_all(nonsense).await.unwrap();
            drop(here);
            task.await.unwrap();
            assert!(peer.is_closed());
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_and_breaks_nothing() {
        let ((near, ..), _far) = pair();
        let call = near.call::<Value>(&"x", &vec![0; LARGEST]).await;
        assert!(matches!(&call, Err(Cut::Refused(why)) if why.contains("too large")), "{call:?}");
        assert_eq!(near.call::<Value>(&"x", b"").await, Ok(("x".into(), vec![])));
    }
}
