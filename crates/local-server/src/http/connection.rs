//! Listening sockets whose connections can be cut on purpose: what the fault switches use to lose a reply the way a
//! network does. Without a fault a connection is a plain TCP stream.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

const UNLIMITED: i64 = -1;

/// What a handler knows about the connection of its request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    budget: Arc<AtomicI64>,
}

impl Peer {
    /// After `bytes` further bytes of reply the connection is reset.
    pub(crate) fn cut_after(&self, bytes: u32) {
        self.budget.store(i64::from(bytes), Ordering::SeqCst);
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self {
            ip: stream.remote_addr().ip(),
            budget: Arc::clone(&stream.io().budget),
        }
    }
}

/// A TCP listener that gives [`Stream`]s.
pub(crate) struct Listener(pub(crate) TcpListener);

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((tcp, address)) => {
                    // Small replies must not wait for an acknowledgement; a failure only costs time.
                    let _ = tcp.set_nodelay(true);
                    return (
                        Stream {
                            tcp,
                            budget: Arc::new(AtomicI64::new(UNLIMITED)),
                        },
                        address,
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// One accepted connection.
pub(crate) struct Stream {
    tcp: TcpStream,
    budget: Arc<AtomicI64>,
}

impl Stream {
    /// How many of `wanted` bytes may be written; an error when the connection is to be cut now.
    fn allowance(&self, wanted: usize) -> io::Result<usize> {
        let budget = self.budget.load(Ordering::SeqCst);
        if budget == UNLIMITED {
            return Ok(wanted);
        }
        if budget == 0 {
            // Zero linger turns the close into a reset, which is what a dying peer looks like.
            let _ = rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO));
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(wanted.min(usize::try_from(budget).unwrap_or(usize::MAX)))
    }

    fn spend(&self, written: usize) {
        if self.budget.load(Ordering::SeqCst) != UNLIMITED {
            self.budget
                .fetch_sub(i64::try_from(written).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = self.allowance(bytes.len())?;
        let poll = Pin::new(&mut self.tcp).poll_write(context, &bytes[..allowed]);
        if let Poll::Ready(Ok(written)) = &poll {
            self.spend(*written);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
