//! Listening sockets, plain or with TLS, whose connections can be cut on purpose: what the fault switches use to lose
//! a reply the way a network does. Without a fault a connection is a plain stream.
//!
//! A TLS handshake is done beside the accepting of further connections, for a limited time, so that a client that
//! connects and stays silent holds up nobody. There is a limit on connections, and one on their silence, so that
//! forgotten ones do not use up the process's open files.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const UNLIMITED: i64 = -1;
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Handshakes at one time. Further connections wait in the system's backlog.
const MOST_HANDSHAKES: usize = 512;
/// Connections at one time, whatever the limit on open files.
const MOST_CONNECTIONS: usize = 100_000;
/// How long nothing may move on a connection, in whichever direction.
const SILENCE_LIMIT: Duration = Duration::from_secs(330);

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

/// Places for connections: three quarters of the files that this process may have open, so that the database and files
/// can still be opened. Further connections wait in the system's backlog.
pub(crate) fn room() -> Arc<Semaphore> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let places = usize::try_from(files / 4).unwrap_or(usize::MAX).saturating_mul(3);
    Arc::new(Semaphore::new(places.clamp(16, MOST_CONNECTIONS)))
}

/// A TCP listener that gives [`Stream`]s.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<(Stream, SocketAddr)>>,
    room: Arc<Semaphore>,
}

impl Listener {
    /// `room` is shared by all ports.
    pub(crate) fn new(
        tcp: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        room: Arc<Semaphore>,
    ) -> Self {
        Self {
            tcp,
            tls: tls.map(TlsAcceptor::from),
            handshakes: JoinSet::new(),
            room,
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            let accepted = tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(ready)) => return ready,
                    _ => continue,
                },
                accepted = accept(&self.tcp, &self.room), if self.handshakes.len() < MOST_HANDSHAKES => accepted,
            };
            match accepted {
                Ok((tcp, address, place)) => {
                    // Small replies must not wait for an acknowledgement; a failure only costs time.
                    let _ = tcp.set_nodelay(true);
                    let Some(acceptor) = self.tls.clone() else {
                        return (Stream::new(Transport::Plain(tcp), place), address);
                    };
                    self.handshakes.spawn(handshake(acceptor, tcp, address, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// The next connection, when there is a place for it.
async fn accept(
    tcp: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = tcp.accept().await?;
    Ok((stream, address, place))
}

async fn handshake(
    acceptor: TlsAcceptor,
    mut tcp: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
) -> Option<(Stream, SocketAddr)> {
    let shaking = async move {
        let mut first = [0];
        tcp.peek(&mut first).await?;
        if first[0].is_ascii_alphabetic() {
            // A TLS greeting begins with a control character, an HTTP request with its method.
            explain_https(&mut tcp).await?;
            return Err(io::Error::other("plain HTTP on a TLS port"));
        }
        acceptor.accept(tcp).await
    };
    match tokio::time::timeout(HANDSHAKE_LIMIT, shaking).await {
        Ok(Ok(tls)) => Some((Stream::new(Transport::Tls(Box::new(tls)), place), address)),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "no TLS connection");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "no TLS connection: the handshake took too long");
            None
        }
    }
}

/// Answers a request that came without TLS in a way that its sender understands.
async fn explain_https(tcp: &mut TcpStream) -> io::Result<()> {
    const BODY: &str = "this port speaks https, not http\n";
    // What is left unread when the socket closes would turn the close into a reset, and lose the answer.
    let _ = tcp.read(&mut [0; 4096]).await?;
    let reply = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    tcp.write_all(reply.as_bytes()).await?;
    tcp.shutdown().await
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// One accepted connection.
pub(crate) struct Stream {
    transport: Transport,
    budget: Arc<AtomicI64>,
    /// When the silence has lasted too long.
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    fn new(transport: Transport, place: OwnedSemaphorePermit) -> Self {
        Self {
            transport,
            budget: Arc::new(AtomicI64::new(UNLIMITED)),
            silence: Box::pin(tokio::time::sleep(SILENCE_LIMIT)),
            _place: place,
        }
    }

    /// Something moved, or else it is noticed when the silence has lasted too long.
    fn watch<T>(&mut self, poll: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE_LIMIT);
            return poll;
        }
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// How many of `wanted` bytes may be written; an error when the connection is to be cut now.
    fn allowance(&self, wanted: usize) -> io::Result<usize> {
        let budget = self.budget.load(Ordering::SeqCst);
        if budget == UNLIMITED {
            return Ok(wanted);
        }
        if budget == 0 {
            // Zero linger turns the close into a reset, which is what a dying peer looks like.
            let _ = rustix::net::sockopt::set_socket_linger(self.transport.tcp(), Some(Duration::ZERO));
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
        let poll = match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        };
        self.watch(poll, context)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = self.allowance(bytes.len())?;
        let bytes = &bytes[..allowed];
        let poll = match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Transport::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        };
        if let Poll::Ready(Ok(written)) = &poll {
            self.spend(*written);
        }
        self.watch(poll, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
