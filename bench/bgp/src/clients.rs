//! Light clients: they speak just enough BGP to announce blocks and to count what they hear.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use margay_bgp::message::{self, Context as Agreed, Nlri, Open};
use margay_bgp::{Attributes, Capability, Families};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What all clients counted together.
#[derive(Debug, Default)]
pub(crate) struct Count {
    /// Prefixes announced to clients.
    pub(crate) announced: u64,
    /// Prefixes withdrawn from clients.
    pub(crate) withdrawn: u64,
    /// UPDATEs.
    pub(crate) updates: u64,
    /// When the last UPDATE came.
    pub(crate) last: Option<Instant>,
    /// How many clients were closed.
    pub(crate) closed: u64,
}

/// A client whose session is up.
#[derive(Debug)]
pub(crate) struct Client {
    number: u16,
    writer: OwnedWriteHalf,
}

impl Client {
    /// Connects, and returns when the session is up; then it counts what it hears.
    pub(crate) async fn connect(number: u16, count: Rc<RefCell<Count>>) -> Result<Self> {
        let address = address(number);
        let stream = loop {
            let socket = TcpSocket::new_v4().context("opening a socket")?;
            socket
                .bind(SocketAddr::new(IpAddr::V4(address), 0))
                .context("binding a client")?;
            match socket.connect(REFLECTOR.into()).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        };
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let (mut reader, mut writer) = stream.into_split();
        let mut octets = Vec::new();
        let asn = AsNumber(64512);
        let capabilities = vec![
            Capability::Multiprotocol(Family::V4),
            Capability::RouteRefresh,
            Capability::FourOctetAs(asn),
        ];
        message::encode_open(
            &mut octets,
            &Open {
                asn,
                hold_time: 0,
                router_id: address,
                capabilities,
            },
        );
        message::keepalive(&mut octets);
        writer.write_all(&octets).await.context("sending OPEN")?;
        // The peer's OPEN, then its KEEPALIVE.
        let mut buffer = Vec::new();
        for _ in 0..2 {
            next_message(&mut reader, &mut buffer).await?;
        }
        tokio::task::spawn_local(count_all(reader, buffer, count));
        Ok(Self { number, writer })
    }

    /// Announces some of this client's blocks, from the `first` on.
    pub(crate) async fn announce(&mut self, first: u16, blocks: u16) -> Result<()> {
        let mut attributes = Attributes::local(address(self.number).into());
        attributes.local_pref = Some(100);
        let list = self.blocks(first, blocks)?;
        let mut octets = Vec::new();
        message::announcements(&mut octets, &AGREED, Family::V4, &attributes, &list)?;
        self.writer.write_all(&octets).await.context("announcing")
    }

    /// Withdraws some of this client's blocks.
    pub(crate) async fn withdraw(&mut self, first: u16, blocks: u16) -> Result<()> {
        let mut octets = Vec::new();
        message::withdrawals(
            &mut octets,
            &AGREED,
            Family::V4,
            &self.blocks(first, blocks)?,
        );
        self.writer.write_all(&octets).await.context("withdrawing")
    }

    fn blocks(&self, first: u16, blocks: u16) -> Result<Vec<Nlri>> {
        let base = u32::from(self.number) * BLOCKS_MAX + u32::from(first);
        (base..base + u32::from(blocks))
            .map(|block| {
                let address = Ipv4Addr::from(0x0b00_0000 + block * 64);
                let prefix = Cidr::new(address.into(), 26).context("making a block")?;
                Ok(Nlri { prefix, path_id: 0 })
            })
            .collect()
    }
}

async fn next_message(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Result<()> {
    loop {
        match message::frame(buffer) {
            Ok(Some(size)) => {
                if buffer.get(18) == Some(&3) {
                    bail!("the reflector refused: {buffer:?}");
                }
                buffer.drain(..size);
                return Ok(());
            }
            Ok(None) => {}
            Err(told) => bail!("the reflector's octets are no BGP: {told}"),
        }
        if reader.read_buf(buffer).await.context("reading")? == 0 {
            bail!("the reflector closed the connection");
        }
    }
}

async fn count_all(mut reader: OwnedReadHalf, mut buffer: Vec<u8>, count: Rc<RefCell<Count>>) {
    loop {
        let mut place = 0;
        {
            let mut count = count.borrow_mut();
            while let Some(Ok(Some(size))) = buffer.get(place..).map(message::frame) {
                if let Some(one) = buffer.get(place..place + size) {
                    count.add(one);
                }
                place += size;
            }
        }
        buffer.drain(..place);
        if !matches!(reader.read_buf(&mut buffer).await, Ok(size) if size > 0) {
            count.borrow_mut().closed += 1;
            return;
        }
    }
}

impl Count {
    /// Counts a message, without looking at attributes.
    fn add(&mut self, message: &[u8]) {
        if message.get(18) != Some(&2) {
            return;
        }
        let body = message.get(19..).unwrap_or_default();
        let Some((withdrawn, rest)) = part(body) else {
            return;
        };
        let Some((_, announced)) = part(rest) else {
            return;
        };
        let (withdrawn, announced) = (prefixes(withdrawn), prefixes(announced));
        if withdrawn + announced > 0 {
            self.updates += 1;
            self.withdrawn += withdrawn;
            self.announced += announced;
            self.last = Some(Instant::now());
        }
    }
}

/// Splits a part off that begins with its length.
fn part(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn prefixes(mut octets: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((bits, rest)) = octets.split_first() {
        octets = rest
            .get(usize::from(*bits).div_ceil(8)..)
            .unwrap_or_default();
        count += 1;
    }
    count
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, 200, high, low)
}

const REFLECTOR: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 1790);
const BLOCKS_MAX: u32 = 64;
const AGREED: Agreed = Agreed {
    external: false,
    four_octet_as: true,
    families: Families::V4,
    add_path: Families::NONE,
    extended_next_hop: false,
};
