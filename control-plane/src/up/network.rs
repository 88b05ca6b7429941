//! Bridge, veths and addresses, by netlink.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

const BRIDGE: &str = "weft0";
/// The fabric's end of the mesh: the control plane listens here, and pods route by it.
pub(super) const FABRIC: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd58, 0, 0, 0, 0, 0, 0, 1);

/// What a pod's interface is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PodAddress {
    pub(super) v4: Ipv4Addr,
    /// `None` where the kernel has no IPv6.
    pub(super) v6: Option<Ipv6Addr>,
}

impl PodAddress {
    /// The addresses of the pod of that number (2..=65534).
    pub(super) fn of(number: u16, with_v6: bool) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            v4: Ipv4Addr::new(10, 97, high, low),
            v6: with_v6.then_some(Ipv6Addr::new(0xfd58, 0, 0, 0, 0, 0, 0, number)),
        }
    }

    pub(super) fn all(&self) -> Vec<IpAddr> {
        std::iter::once(IpAddr::V4(self.v4)).chain(self.v6.map(IpAddr::V6)).collect()
    }
}

/// A netlink step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub(super) struct NetworkError {
    doing: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: std::error::Error + Send + Sync + 'static>(doing: impl Into<String>) -> impl FnOnce(E) -> NetworkError {
    let doing = doing.into();
    |error| NetworkError { doing, source: Box::new(error) }
}

/// The fabric: this process's network namespace with a bridge in it.
#[derive(Debug, Clone)]
pub(super) struct Fabric {
    handle: Handle,
    bridge: u32,
    pub(super) with_v6: bool,
}

impl Fabric {
    /// Makes the bridge; the namespace must be fresh.
    pub(super) async fn create() -> Result<Self, NetworkError> {
        let handle = connect()?;
        raise(&handle, "lo").await?;
        let message = LinkBridge::new(BRIDGE).up().build();
        handle.link().add(message).execute().await.map_err(failed("adding the bridge"))?;
        let bridge = index_of(BRIDGE)?;
        add_address(&handle, bridge, FABRIC.into(), 16).await?;
        // A kernel without IPv6 has a mesh without it, not none.
        let with_v6 = add_address(&handle, bridge, FABRIC_V6.into(), 64).await.is_ok();
        Ok(Self { handle, bridge, with_v6 })
    }

    /// Joins the network namespace of `process` to the bridge; its end is called `eth0`.
    pub(super) async fn attach(&self, process: u32, number: u16) -> Result<(), NetworkError> {
        let [high, low] = number.to_be_bytes();
        // The hardware address follows from the number: a pod that is made again under its address is reached at
        // once, without waiting for its neighbours' caches to expire.
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(vec![0x02, 0x77, 0x65, 0x66, high, low])
            .setns_by_pid(process)
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(end_name(number))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(self.bridge)
            .up()
            .build();
        self.handle.link().add(pair).execute().await.map_err(failed(format!("joining pod {number} to the bridge")))
    }

    /// Takes a pod off the bridge now rather than when the kernel gets to it; the pair may be gone already.
    pub(super) async fn detach(&self, number: u16) {
        if let Ok(index) = index_of(&end_name(number)) {
            self.handle.link().del(index).execute().await.ok();
        }
    }
}

/// Gives this namespace its addresses and routes. Everything outside the mesh's own network is routed to the fabric:
/// virtual addresses need a route to be captured on their way out.
pub(super) async fn configure_pod(address: PodAddress) -> Result<(), NetworkError> {
    let handle = connect()?;
    raise(&handle, "lo").await?;
    let index = index_of("eth0")?;
    for (ip, prefix) in address.all().into_iter().zip([16, 64]) {
        add_address(&handle, index, ip, prefix).await?;
    }
    raise(&handle, "eth0").await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(FABRIC).build();
    handle.route().add(route).execute().await.map_err(failed("adding the default route"))?;
    if address.v6.is_some() {
        let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(FABRIC_V6).build();
        handle.route().add(route).execute().await.map_err(failed("adding the IPv6 default route"))?;
    }
    Ok(())
}

/// Makes a bridge and a veth in this namespace, to see whether the kernel has them.
pub(super) async fn try_bridge() -> Result<(), NetworkError> {
    let fabric = Fabric::create().await?;
    fabric.attach(std::process::id(), 2).await
}

/// Runs netlink work where there is no runtime and no thread may be started.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, NetworkError>>) -> Result<T, NetworkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(failed("starting a runtime"))?.block_on(work)
}

fn end_name(number: u16) -> String {
    format!("pod{number}")
}

fn connect() -> Result<Handle, NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(failed("opening a netlink socket"))?;
    tokio::spawn(connection);
    Ok(handle)
}

fn index_of(name: &str) -> Result<u32, NetworkError> {
    nix::net::if_::if_nametoindex(name).map_err(failed(format!("finding interface {name}")))
}

async fn raise(handle: &Handle, name: &str) -> Result<(), NetworkError> {
    let up = LinkUnspec::new_with_name(name).up().build();
    handle.link().set(up).execute().await.map_err(failed(format!("raising {name}")))
}

async fn add_address(handle: &Handle, index: u32, ip: IpAddr, prefix: u8) -> Result<(), NetworkError> {
    let mut request = handle.address().add(index, ip, prefix);
    if ip.is_ipv6() {
        // Usable at once: nobody else is on this network, so duplicates need not be looked for.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(failed(format!("adding address {ip}")))
}
