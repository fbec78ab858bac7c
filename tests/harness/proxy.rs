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

pub struct Proxy {
    address: String,
    is_cut: watch::Sender<bool>,
    round_trips: Arc<AtomicUsize>,
}

impl Proxy {
    /// Passes everything on to `target`.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_cut, watching) = watch::channel(false);
        let round_trips = Arc::new(AtomicUsize::new(0));
        let (target, counter) = (target.to_owned(), Arc::clone(&round_trips));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watching.borrow() {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                tokio::spawn(carry(
                    client,
                    server,
                    watching.clone(),
                    Arc::clone(&counter),
                ));
            }
        });
        Self {
            address,
            is_cut,
            round_trips,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets new connections through again.
    pub fn restore(&self) {
        self.is_cut.send_replace(false);
    }

    /// How often a client spoke after the server had: the round trips so far.
    pub fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    mut watching: watch::Receiver<bool>,
    round_trips: Arc<AtomicUsize>,
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
        _ = watching.wait_for(|is_cut| *is_cut) => {}
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
