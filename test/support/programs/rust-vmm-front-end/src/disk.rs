//! A virtio-blk device behind a vhost-user socket, by the messages of rust-vmm's `vhost`.
use crate::ring::{Part, Ring, SIZE};
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use vhost::vhost_user::message::*;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Device features (virtio 1.3, 5.2.3 and 6).
const F_FLUSH: u64 = 1 << 9;
const F_INDIRECT: u64 = 1 << 28;
const F_EVENTS: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;
/// Device configuration up to max_write_zeroes_seg and its flag (5.2.4).
const CONFIG_SIZE: usize = 60;
/// Requests in flight; each has four descriptors: header, data in two parts, status.
const SLOTS: usize = 16;
const CHAIN: u16 = 4;
const MOST: usize = 131072;
/// Guest addresses: the ring and the requests' small parts in one region, the data in another behind a hole.
const SMALL: u64 = 0x3000;
const SMALL_SIZE: usize = 0x10000;
const DATA: u64 = 1 << 32;
/// Longest wait for a request, ms.
const PATIENCE: i32 = 20_000;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Read = 0,
    Write = 1,
    Flush = 4,
    Identity = 8,
}

#[derive(Default)]
pub struct Ways {
    slots: bool,
    events: bool,
    indirect: bool,
    inflight: bool,
}

impl Ways {
    pub fn parse(words: &[String]) -> Outcome<Self> {
        let mut ways = Ways::default();
        for word in words {
            match word.as_str() {
                "slots" => ways.slots = true,
                "events" => ways.events = true,
                "indirect" => ways.indirect = true,
                "inflight" => ways.inflight = true,
                _ => return Err(format!("unknown way {word}").into()),
            }
        }
        Ok(ways)
    }
}

fn shared(size: usize) -> Outcome<FileOffset> {
    // SAFETY: the name is a C string; the descriptor is owned by the File alone
    let file = unsafe {
        match libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => return Err(std::io::Error::last_os_error().into()),
            fd => File::from_raw_fd(fd),
        }
    };
    file.set_len(size as u64)?;
    Ok(FileOffset::new(file, 0))
}

pub struct Disk {
    frontend: Frontend,
    memory: GuestMemoryMmap,
    ring: Ring,
    kick: EventFd,
    call: EventFd,
    broken: EventFd,
    indirect: bool,
    /// Bytes.
    pub capacity: u64,
    // kept open as long as the device may use it
    _inflight: Option<File>,
}

impl Disk {
    /// Connects, negotiates, shares memory and starts queue 0.
    pub fn connect(socket: &str, ways: Ways) -> Outcome<Self> {
        let mut frontend = Frontend::connect(socket, 1)?;
        negotiate(&mut frontend, &ways)?;
        if frontend.get_queue_num()? < 1 {
            return Err("no queues".into());
        }
        let (_, config) = frontend.get_config(0, CONFIG_SIZE as u32, VhostUserConfigFlags::empty(), &[0; CONFIG_SIZE])?;
        let capacity = u64::from_le_bytes(config[..8].try_into()?) * 512;

        let data = SLOTS * MOST;
        let memory = GuestMemoryMmap::from_ranges_with_files([
            (GuestAddress(0), SMALL_SIZE, Some(shared(SMALL_SIZE)?)),
            (GuestAddress(DATA), data, Some(shared(data)?)),
        ])?;
        let regions = memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region);
        let regions = regions.collect::<vhost::Result<Vec<_>>>()?;
        if ways.slots {
            if frontend.get_max_mem_slots()? < regions.len() as u64 {
                return Err("too few memory slots".into());
            }
            for region in &regions {
                frontend.add_mem_region(region)?;
            }
        } else {
            frontend.set_mem_table(&regions)?;
        }
        let inflight = ways.inflight.then(|| share_inflight(&mut frontend)).transpose()?;

        let ring = Ring::new(memory.clone(), ways.events);
        let [kick, call, broken] = [
            EventFd::new(EFD_NONBLOCK)?,
            EventFd::new(EFD_NONBLOCK)?,
            EventFd::new(EFD_NONBLOCK)?,
        ];
        frontend.set_vring_num(0, SIZE)?;
        frontend.set_vring_base(0, 0)?;
        frontend.set_vring_addr(0, &ring.config()?)?;
        frontend.set_vring_call(0, &call)?;
        frontend.set_vring_err(0, &broken)?;
        frontend.set_vring_kick(0, &kick)?;
        frontend.set_vring_enable(0, true)?;
        Ok(Disk {
            frontend,
            memory,
            ring,
            kick,
            call,
            broken,
            indirect: ways.indirect,
            capacity,
            _inflight: inflight,
        })
    }

    fn small(slot: usize) -> u64 {
        SMALL + 0x100 * slot as u64
    }

    fn data(slot: usize) -> GuestAddress {
        GuestAddress(DATA + (slot * MOST) as u64)
    }

    /// Offers a request whose data are in the slot's place.
    fn offer(&mut self, slot: usize, kind: Kind, sector: u64, size: usize) -> Outcome<()> {
        let small = Self::small(slot);
        self.memory.write_obj(kind as u32, GuestAddress(small))?;
        self.memory.write_obj(0u32, GuestAddress(small + 4))?;
        self.memory.write_obj(sector, GuestAddress(small + 8))?;
        self.memory.write_obj(0xffu8, GuestAddress(small + 0x20))?;
        let part = |address, size: usize, device_writes| Part {
            address,
            size: size as u32,
            device_writes,
        };
        let (data, to_guest) = (Self::data(slot).0, kind != Kind::Write);
        // the second part begins in the middle of a sector
        let cut = size / 2 + if size > 512 { 100 } else { 0 };
        let mut parts = vec![part(small, 16, false)];
        if size > 0 {
            parts.push(part(data, cut, to_guest));
            parts.push(part(data + cut as u64, size - cut, to_guest));
        }
        parts.push(part(small + 0x20, 1, true));
        let table = (self.indirect && slot % 2 == 0).then_some(small + 0x40);
        self.ring.offer(CHAIN * slot as u16, &parts, table)
    }

    /// The next finished request: its slot, its status, and the bytes that the device says to have written.
    fn finished(&mut self) -> Outcome<(usize, u8, usize)> {
        if self.ring.needs_kick()? {
            self.kick.write(1)?;
        }
        loop {
            if let Some((id, written)) = self.ring.take()? {
                let slot = id as usize / CHAIN as usize;
                if id as usize % CHAIN as usize != 0 || slot >= SLOTS {
                    return Err(format!("used element {id} was never offered").into());
                }
                let status = self.memory.read_obj(GuestAddress(Self::small(slot) + 0x20))?;
                return Ok((slot, status, written as usize));
            }
            let mut wait = libc::pollfd {
                fd: self.call.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry, alive during the call
            match unsafe { libc::poll(&mut wait, 1, PATIENCE) } {
                1 => self.call.read()?,
                _ => return Err("no notification".into()),
            };
        }
    }

    /// One request alone. Returns status and bytes written.
    fn single(&mut self, kind: Kind, sector: u64, size: usize) -> Outcome<(u8, usize)> {
        self.offer(0, kind, sector, size)?;
        let (slot, status, written) = self.finished()?;
        match slot {
            0 => Ok((status, written)),
            _ => Err(format!("request of slot {slot} finished, but was not offered").into()),
        }
    }

    /// Goes through the disk with requests of `sizes` in turn, many at a time. `work` gets each one's offset and data: before a write,
    /// after a read. Returns the number of requests.
    pub fn each(&mut self, kind: Kind, sizes: &[usize], mut work: impl FnMut(usize, &mut [u8]) -> Outcome<()>) -> Outcome<usize> {
        let mut buffer = vec![0; MOST];
        let mut busy: HashMap<usize, (usize, usize)> = HashMap::new();
        let (mut at, mut done, mut started) = (0, 0, 0);
        let end = self.capacity as usize;
        while at < end || !busy.is_empty() {
            while let Some(slot) = (0..SLOTS).find(|slot| at < end && !busy.contains_key(slot)) {
                let size = sizes[started % sizes.len()].min(end - at);
                let data = &mut buffer[..size];
                match kind {
                    Kind::Write => work(at, data)?,
                    _ => data.fill(0xee),
                }
                self.memory.write_slice(data, Self::data(slot))?;
                self.offer(slot, kind, at as u64 / 512, size)?;
                busy.insert(slot, (at, size));
                (at, started) = (at + size, started + 1);
            }
            let (slot, status, written) = self.finished()?;
            let (from, size) = busy.remove(&slot).ok_or("a request finished twice")?;
            let wanted = if kind == Kind::Read { size + 1 } else { 1 };
            if (status, written) != (0, wanted) {
                return Err(format!("request at {from}: status {status}, {written} bytes written, not {wanted}").into());
            }
            if kind == Kind::Read {
                let data = &mut buffer[..size];
                self.memory.read_slice(data, Self::data(slot))?;
                work(from, data)?;
            }
            done += 1;
        }
        Ok(done)
    }

    pub fn flush(&mut self) -> Outcome<()> {
        match self.single(Kind::Flush, 0, 0)? {
            (0, 1) => Ok(()),
            other => Err(format!("flush: status and length {other:?}").into()),
        }
    }

    /// The text of GET_ID (5.2.6): up to 20 bytes, ended by a zero if shorter.
    pub fn serial(&mut self) -> Outcome<String> {
        self.memory.write_slice(&[0xee; 20], Self::data(0))?;
        let status = self.single(Kind::Identity, 0, 20)?.0;
        let mut text = [0; 20];
        self.memory.read_slice(&mut text, Self::data(0))?;
        match status {
            0 => Ok(String::from_utf8(text.split(|&b| b == 0).next().unwrap_or(&[]).to_vec())?),
            _ => Err(format!("GET_ID: status {status}").into()),
        }
    }

    /// 5.2.6.2: a request beyond the capacity has to fail with VIRTIO_BLK_S_IOERR.
    pub fn read_beyond_the_end(&mut self) -> Outcome<()> {
        match self.single(Kind::Read, self.capacity / 512 - 1, 1024)?.0 {
            1 => Ok(()),
            status => Err(format!("read beyond the end: status {status}, not 1").into()),
        }
    }

    /// Stops the queue and returns its base, which has to be everything that was offered.
    pub fn disconnect(mut self) -> Outcome<u32> {
        let base = self.frontend.get_vring_base(0)?;
        if base != u32::from(self.ring.offered()) {
            return Err(format!("ring base {base} after {} requests", self.ring.offered()).into());
        }
        self.frontend.set_vring_enable(0, false)?;
        match self.broken.read() {
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => Ok(base),
            _ => Err("the device reported a broken ring".into()),
        }
    }
}

/// Owner, features and protocol features; from then on every message asks for an answer.
fn negotiate(frontend: &mut Frontend, ways: &Ways) -> Outcome<()> {
    frontend.set_owner()?;
    let offered = frontend.get_features()?;
    let mut wanted = F_VERSION_1 | F_FLUSH | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    wanted |= if ways.events { F_EVENTS } else { 0 } | if ways.indirect { F_INDIRECT } else { 0 };
    if offered & wanted != wanted {
        return Err(format!("features {offered:#x} lack some of {wanted:#x}").into());
    }
    let offered = frontend.get_protocol_features()?;
    let mut protocol = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK;
    if ways.slots {
        protocol |= VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    }
    if ways.inflight {
        protocol |= VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    }
    if !offered.contains(protocol) {
        return Err(format!("protocol features {offered:?} lack some of {protocol:?}").into());
    }
    frontend.set_protocol_features(protocol)?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_features(wanted)?;
    Ok(())
}

fn share_inflight(frontend: &mut Frontend) -> Outcome<File> {
    let wanted = VhostUserInflight::new(0, 0, 1, SIZE);
    let (given, file) = frontend.get_inflight_fd(&wanted)?;
    frontend.set_inflight_fd(
        &VhostUserInflight::new(given.mmap_size, given.mmap_offset, 1, SIZE),
        file.as_raw_fd(),
    )?;
    Ok(file)
}
