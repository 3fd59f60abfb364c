//! A front-end and a virtio-blk driver on rust-vmm's crates: writes a pattern over a whole disk, flushes, reads it back and compares.
//!
//!     rust-vmm-front-end SOCKET BYTES SEED BEFORE [slots] [events] [indirect] [inflight]
//!
//! BYTES is the size the disk has to report. Word i of the disk is to be `SEED << 32 | i`; with BEFORE other than 0 the pattern of that
//! seed has to be there first. The words take another way each: memory by slots instead of a table, event index, indirect descriptors,
//! a buffer for requests in flight. Prints the disk's serial and what was done; exit status 1 with the reason otherwise.
mod disk;
mod ring;

use disk::{Disk, Kind, Ways};
use std::error::Error;

/// Sizes of requests in turn: a sector, a page, and some that cross the ends of others.
const WRITES: [usize; 4] = [65536, 4096, 512, 131072];
const READS: [usize; 3] = [49152, 131072, 1536];

fn pattern(seed: u64, at: usize, into: &mut [u8]) {
    for (i, word) in into.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(seed << 32 | (at / 8 + i) as u64).to_le_bytes());
    }
}

/// Reads the whole disk; an error that names the first wrong request.
fn compare(disk: &mut Disk, seed: u64) -> Result<usize, Box<dyn Error>> {
    let mut wanted = vec![0; 131072];
    disk.each(Kind::Read, &READS, |at, data| {
        let wanted = &mut wanted[..data.len()];
        pattern(seed, at, wanted);
        match data == wanted {
            true => Ok(()),
            false => Err(format!("data at {at} are not the pattern of seed {seed}").into()),
        }
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, bytes, seed, before, words @ ..] = args.as_slice() else {
        return Err("usage: rust-vmm-front-end SOCKET BYTES SEED BEFORE [WAY...]".into());
    };
    let (bytes, seed, before): (u64, u64, u64) = (bytes.parse()?, seed.parse()?, before.parse()?);
    let mut disk = Disk::connect(socket, Ways::parse(words)?)?;
    if disk.capacity != bytes {
        return Err(format!("the disk reports {} bytes, not {bytes}", disk.capacity).into());
    }
    println!("serial {}", disk.serial()?);
    if before != 0 {
        println!("{} reads found seed {before}", compare(&mut disk, before)?);
    }
    let writes = disk.each(Kind::Write, &WRITES, |at, data| {
        pattern(seed, at, data);
        Ok(())
    })?;
    disk.flush()?;
    let reads = compare(&mut disk, seed)?;
    disk.read_beyond_the_end()?;
    let base = disk.disconnect()?;
    println!("{writes} writes, {reads} reads, ring base {base}");
    Ok(())
}
