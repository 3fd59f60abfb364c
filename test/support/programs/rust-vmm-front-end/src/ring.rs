//! The driver's side of one split virtqueue (virtio 1.3, 2.7), in guest memory at fixed places.
use std::error::Error;
use std::sync::atomic::{fence, Ordering};
use vhost::VringConfigData;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};

/// Descriptors of the queue.
pub const SIZE: u16 = 64;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Behind avail.ring, and behind used.ring.
const USED_EVENT: u64 = AVAILABLE + 4 + 2 * SIZE as u64;
const AVAILABLE_EVENT: u64 = USED + 4 + 8 * SIZE as u64;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// used.flags: no kick needed.
const NO_NOTIFY: u16 = 1;

/// A buffer of a request.
pub struct Part {
    pub address: u64,
    pub size: u32,
    /// The device writes it.
    pub device_writes: bool,
}

pub struct Ring {
    memory: GuestMemoryMmap,
    available: u16,
    kicked: u16,
    used: u16,
    events: bool,
}

impl Ring {
    pub fn new(memory: GuestMemoryMmap, events: bool) -> Self {
        Ring {
            memory,
            available: 0,
            kicked: 0,
            used: 0,
            events,
        }
    }

    /// Addresses as SET_VRING_ADDR takes them: those of this process.
    pub fn config(&self) -> Result<VringConfigData, Box<dyn Error>> {
        let host = |at| self.memory.get_host_address(GuestAddress(at)).map(|p| p as u64);
        Ok(VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: host(DESCRIPTORS)?,
            avail_ring_addr: host(AVAILABLE)?,
            used_ring_addr: host(USED)?,
            log_addr: None,
        })
    }

    fn describe(&self, at: u64, address: u64, size: u32, flags: u16, next: u16) -> Result<(), Box<dyn Error>> {
        self.memory.write_obj(address, GuestAddress(at))?;
        self.memory.write_obj(size, GuestAddress(at + 8))?;
        self.memory.write_obj(flags, GuestAddress(at + 12))?;
        self.memory.write_obj(next, GuestAddress(at + 14))?;
        Ok(())
    }

    /// Offers a chain from descriptor `head` on; with `table` it stands there, and `head` alone points to it.
    pub fn offer(&mut self, head: u16, parts: &[Part], table: Option<u64>) -> Result<(), Box<dyn Error>> {
        let (start, first) = match table {
            Some(at) => (at, 0),
            None => (DESCRIPTORS + 16 * u64::from(head), head),
        };
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            let flags = if part.device_writes { WRITE } else { 0 } | if last { 0 } else { NEXT };
            let next = if last { 0 } else { first + i as u16 + 1 };
            self.describe(start + 16 * i as u64, part.address, part.size, flags, next)?;
        }
        if let Some(at) = table {
            self.describe(DESCRIPTORS + 16 * u64::from(head), at, 16 * parts.len() as u32, INDIRECT, 0)?;
        }
        let place = AVAILABLE + 4 + 2 * u64::from(self.available % SIZE);
        self.memory.write_obj(head, GuestAddress(place))?;
        self.available = self.available.wrapping_add(1);
        self.memory.store(self.available, GuestAddress(AVAILABLE + 2), Ordering::Release)?;
        Ok(())
    }

    /// Whether the device wants to hear of what was offered since the last call.
    pub fn needs_kick(&mut self) -> Result<bool, Box<dyn Error>> {
        fence(Ordering::SeqCst);
        let from = std::mem::replace(&mut self.kicked, self.available);
        if !self.events {
            return Ok(self.memory.load::<u16>(GuestAddress(USED), Ordering::Relaxed)? & NO_NOTIFY == 0);
        }
        let event: u16 = self.memory.load(GuestAddress(AVAILABLE_EVENT), Ordering::Relaxed)?;
        // 2.7.10: the event lies among those offered since
        Ok(self.available.wrapping_sub(event).wrapping_sub(1) < self.available.wrapping_sub(from))
    }

    /// The next used element: head and bytes written. With none, a notification for it is asked for.
    pub fn take(&mut self) -> Result<Option<(u32, u32)>, Box<dyn Error>> {
        if self.events {
            self.memory.store(self.used, GuestAddress(USED_EVENT), Ordering::Relaxed)?;
            fence(Ordering::SeqCst);
        }
        let index: u16 = self.memory.load(GuestAddress(USED + 2), Ordering::Acquire)?;
        if index == self.used {
            return Ok(None);
        }
        if index.wrapping_sub(self.used) > self.available.wrapping_sub(self.used) {
            return Err(format!("used index {index}, but only {} were offered", self.available).into());
        }
        let at = USED + 4 + 8 * u64::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        let id = self.memory.read_obj(GuestAddress(at))?;
        Ok(Some((id, self.memory.read_obj(GuestAddress(at + 4))?)))
    }

    /// What was offered in all.
    pub fn offered(&self) -> u16 {
        self.available
    }
}
