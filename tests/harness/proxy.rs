//! A TCP proxy that can cut what runs through it, and counts round trips.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::until;

pub struct Proxy {
    address: String,
    is_cut: Arc<AtomicBool>,
    /// Connections end when it changes.
    epoch: watch::Sender<u64>,
    open: Arc<AtomicUsize>,
    round_trips: Arc<AtomicUsize>,
}

impl Proxy {
    /// Passes everything on to `target`.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let this = Self {
            address,
            is_cut: Arc::default(),
            epoch: watch::Sender::new(0),
            open: Arc::default(),
            round_trips: Arc::default(),
        };
        let target = target.to_owned();
        let (is_cut, epoch) = (Arc::clone(&this.is_cut), this.epoch.clone());
        let (open, round_trips) = (Arc::clone(&this.open), Arc::clone(&this.round_trips));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                open.fetch_add(1, Ordering::SeqCst);
                let (open, epoch) = (Arc::clone(&open), epoch.subscribe());
                let round_trips = Arc::clone(&round_trips);
                tokio::spawn(async move {
                    carry(client, server, epoch, &round_trips).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        this
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Closes every connection and refuses new ones.
    pub async fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.drop_connections().await;
    }

    /// Lets new connections through again.
    pub fn restore(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }

    /// Closes every connection; new ones are let through. There has to be one.
    pub async fn drop_connections(&self) {
        assert_ne!(self.open.load(Ordering::SeqCst), 0, "nothing to close");
        self.epoch.send_modify(|epoch| *epoch += 1);
        until("every connection is closed", async || {
            self.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    /// How often a client spoke after the server had: the round trips so far.
    pub fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    mut epoch: watch::Receiver<u64>,
    round_trips: &AtomicUsize,
) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let client_spoke = AtomicBool::new(false);
    let up = copy(from_client, to_server, || {
        if !client_spoke.swap(true, Ordering::SeqCst) {
            round_trips.fetch_add(1, Ordering::SeqCst);
        }
    });
    let down = copy(from_server, to_client, || {
        client_spoke.store(false, Ordering::SeqCst);
    });
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = epoch.changed() => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, spoke: impl Fn()) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        spoke();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
