/** What help says of sources, the same for every server. @param more options of one kind of server */
export const sourceHelp = (more?: string): string =>
  `\
A source can have options behind it: FILE,ro (read-only); FILE,bs=4096 (block size);${more === undefined ? '' : ` ${more};`} FILE,format=raw (serve the bytes of an
image of another format); FILE,shared=on (share it with other servers that do so too); FILE,direct=on
(bypass the page cache); FILE,zero=unmap (free the space of zeroes that hosts write; by default, zeroes only leave holes as they
are); FILE,zero=off (write zeroes as any data). Write a comma in a file name twice.

The server locks what it serves. It rejects a file that another server or QEMU uses, a mounted device, and an image that is no raw
disk (qcow2, VMDK, VHDX, ISO 9660, compressed files). Several servers can read one file. --force skips these checks.

If a flush fails, data may be lost. From then on every flush and FUA write of that source fails, for every host and guest, until the
source is opened anew.`;
