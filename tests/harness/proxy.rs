//! A TCP proxy that can cut, delay, stall and half-close what runs through it, counts round trips
//! and records what is said.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::{Transcript, let_time_pass, until};

pub struct Proxy {
    address: String,
    target: Arc<Mutex<String>>,
    shared: Arc<Shared>,
}

/// A fault of one flight of a client, which is all that it says before the server replies, or of
/// the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed, and the server has not heard the client.
    CutRequest,
    /// The server hears the client; the connection is closed in place of its reply.
    CutReply,
    /// The same by a reset.
    ResetReply,
    /// The server hears the client, and then that the client has nothing more to say; the client
    /// hears that of the server, in place of a reply.
    HalfClose,
    /// The server does not hear the client, and nobody is told: from here on the connection is
    /// dead.
    LoseRequest,
    /// The server hears the client; its reply is lost, and the connection is dead.
    LoseReply,
    /// The server hears the client later, even if the client is gone by then.
    DelayRequest(Duration),
    DelayReply(Duration),
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    /// Connections end when it changes.
    ended: watch::Sender<u64>,
    /// Connections that are open at that moment are dead from there on, and nobody is told.
    lost: watch::Sender<u64>,
    keeps_ends_back: AtomicBool,
    open: AtomicUsize,
    round_trips: AtomicUsize,
    /// Flights that are under way for longer than they should be.
    delayed: AtomicUsize,
    /// The number of flights that pass before the fault.
    fault: Mutex<Option<(usize, Fault)>>,
    faults_met: AtomicUsize,
    /// Of what passes now, if it is recorded.
    transcript: Mutex<Option<Transcript>>,
}

impl Proxy {
    /// Passes everything on to `target`.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Arc::new(Mutex::new(target.to_owned()));
        let shared = Arc::<Shared>::default();
        let this = Self {
            address,
            target: Arc::clone(&target),
            shared: Arc::clone(&shared),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let target = target.lock().unwrap().clone();
                let Ok(server) = TcpStream::connect(target).await else {
                    continue;
                };
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (ended, lost) = (shared.ended.subscribe(), shared.lost.subscribe());
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    carry(client, server, ended, lost, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        this
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Passes new connections on to another target.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.target.lock().unwrap());
    }

    /// Closes every connection and refuses new ones.
    pub async fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        self.drop_connections().await;
    }

    /// The same, whether there is a connection or not.
    pub fn refuse(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        self.shared.ended.send_modify(|epoch| *epoch += 1);
    }

    /// Lets new connections through again.
    pub fn restore(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// Closes every connection; new ones are let through. There has to be one.
    pub async fn drop_connections(&self) {
        assert_ne!(self.open_connections(), 0, "nothing to close");
        self.shared.ended.send_modify(|epoch| *epoch += 1);
        until("every connection is closed", async || {
            self.open_connections() == 0
        })
        .await;
    }

    /// Nothing passes any more through the connections that are open, and nobody is told; new ones
    /// are let through.
    pub fn lose_connections(&self) {
        self.shared.lost.send_modify(|epoch| *epoch += 1);
    }

    /// From now on a server is not told that its client has closed a connection.
    pub fn keep_ends_back(&self) {
        self.shared.keeps_ends_back.store(true, Ordering::SeqCst);
    }

    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Lets so many flights pass, counted over all connections, and then meets one with a fault. It
    /// takes the place of one that was asked for before.
    pub fn after(&self, flights: usize, fault: Fault) {
        *self.shared.fault.lock().unwrap() = Some((flights, fault));
    }

    /// Revokes a fault that was not met yet.
    pub fn no_fault(&self) {
        *self.shared.fault.lock().unwrap() = None;
    }

    /// The number of flights that have met a fault. One that meets the reply has done so when the
    /// server has given it: what was asked for is done.
    pub fn faults_met(&self) -> usize {
        self.shared.faults_met.load(Ordering::SeqCst)
    }

    /// A flight was delayed and has not arrived yet.
    pub fn delays(&self) -> bool {
        self.shared.delayed.load(Ordering::SeqCst) > 0
    }

    /// The round trips so far: the times that a client spoke after the server.
    pub fn round_trips(&self) -> usize {
        self.shared.round_trips.load(Ordering::SeqCst)
    }

    /// Waits for something, and records what is said meanwhile.
    pub async fn recording<T>(&self, request: impl Future<Output = T>) -> (T, Transcript) {
        *self.shared.transcript.lock().unwrap() = Some(Transcript::default());
        let value = request.await;
        let transcript = self.shared.transcript.lock().unwrap().take();
        (value, transcript.unwrap())
    }
}

impl Fault {
    fn meets_the_request(self) -> bool {
        matches!(
            self,
            Self::CutRequest | Self::LoseRequest | Self::DelayRequest(_)
        )
    }
}

impl Shared {
    /// Counts a flight, and tells what happens to it.
    fn flight(&self) -> Option<Fault> {
        self.round_trips.fetch_add(1, Ordering::SeqCst);
        let mut next = self.fault.lock().unwrap();
        match *next {
            Some((0, fault)) => {
                *next = None;
                Some(fault)
            }
            Some((flights, fault)) => {
                *next = Some((flights - 1, fault));
                None
            }
            None => None,
        }
    }

    fn record(&self, side: fn(&mut Transcript) -> &mut Vec<u8>, said: &[u8]) {
        if let Some(transcript) = &mut *self.transcript.lock().unwrap() {
            side(transcript).extend_from_slice(said);
        }
    }
}

/// Counts a flight for as long as it is delayed.
struct Delayed<'a>(&'a AtomicUsize);

impl<'a> Delayed<'a> {
    fn by(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Delayed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One connection, from both sides.
struct Carried<'a> {
    shared: &'a Shared,
    client_spoke: AtomicBool,
    /// The fault of the flight that is under way.
    fault: Mutex<Option<Fault>>,
    lost: watch::Receiver<u64>,
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    mut ended: watch::Receiver<u64>,
    lost: watch::Receiver<u64>,
    shared: &Shared,
) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let carried = Carried {
        shared,
        client_spoke: AtomicBool::new(false),
        fault: Mutex::new(None),
        lost,
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = carried.requests(from_client, to_server) => {}
        () = carried.replies(from_server, to_client) => {}
        _ = ended.changed() => {}
    }
}

impl Carried<'_> {
    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }

    fn is_lost(&self) -> bool {
        self.lost.has_changed().unwrap_or(false)
    }

    async fn requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let Ok(length @ 1..) = from.read(&mut buffer).await else {
                if self.shared.keeps_ends_back.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                return;
            };
            let said = &buffer[..length];
            self.shared.record(|it| &mut it.clients, said);
            if !self.client_spoke.swap(true, Ordering::SeqCst) {
                let fault = self.shared.flight();
                *self.fault.lock().unwrap() = fault;
                if fault.is_some_and(Fault::meets_the_request) {
                    self.shared.faults_met.fetch_add(1, Ordering::SeqCst);
                }
            }
            match self.fault() {
                _ if self.is_lost() => continue,
                Some(Fault::LoseRequest) => continue,
                Some(Fault::CutRequest) => return,
                Some(Fault::DelayRequest(time)) => {
                    let _delayed = Delayed::by(&self.shared.delayed);
                    let_time_pass(time).await;
                    if to.write_all(said).await.is_err() {
                        return;
                    }
                    continue;
                }
                _ => {}
            }
            if to.write_all(said).await.is_err() {
                return;
            }
            if self.fault() == Some(Fault::HalfClose) && to.shutdown().await.is_err() {
                return;
            }
        }
    }

    async fn replies(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            let fault = self.fault();
            if self.client_spoke.load(Ordering::SeqCst)
                && fault.is_some_and(|fault| !fault.meets_the_request())
            {
                self.shared.faults_met.fetch_add(1, Ordering::SeqCst);
            }
            // A dead connection does not even tell that the server has closed it.
            if self.is_lost() || matches!(fault, Some(Fault::LoseRequest | Fault::LoseReply)) {
                if matches!(read, Ok(1..)) {
                    continue;
                }
                std::future::pending::<()>().await;
            }
            let Ok(length @ 1..) = read else { return };
            self.shared.record(|it| &mut it.servers, &buffer[..length]);
            self.client_spoke.store(false, Ordering::SeqCst);
            match fault {
                Some(Fault::CutReply) => return,
                Some(Fault::ResetReply) => {
                    // Closing a socket that does not linger is a reset.
                    let _unset = to.as_ref().set_zero_linger();
                    return;
                }
                Some(Fault::HalfClose) => {
                    let _closed = to.shutdown().await;
                    std::future::pending::<()>().await;
                }
                Some(Fault::DelayReply(time)) => let_time_pass(time).await,
                _ => {}
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }
}
