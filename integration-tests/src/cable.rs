//! A wire between a client and the server: a forwarder on loopback that can be cut, as a network is.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards connections to the server until it is cut.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    cut: Arc<watch::Sender<bool>>,
    forwarding: JoinHandle<()>,
}

impl Cable {
    /// A cable to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the cable");
        let address = listener.local_addr().expect("the cable's address");
        let (cut, watching) = watch::channel(false);
        let forwarding = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut watching = watching.clone();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    client.set_nodelay(true).ok();
                    server.set_nodelay(true).ok();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = watching.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { address, cut: Arc::new(cut), forwarding }
    }

    /// Where the client connects.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection at once, without a farewell, and lets no new one through.
    pub fn cut(&self) {
        self.forwarding.abort();
        self.cut.send_replace(true);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
    }
}
