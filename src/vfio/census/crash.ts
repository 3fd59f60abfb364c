import type { Sysroot } from '../../common/sysroot.js';

/** Where a crash kernel writes: devices and hosts of kdump.conf(5), and of kdump-tools. */
export function crashTargets(conf: string, tools: string): { devices: string[]; hosts: string[] } {
  const devices: string[] = [];
  const hosts: string[] = [];
  const host = (text: string) =>
    hosts.push(
      text
        .replace(/^.*@/, '')
        .replace(/:\/.*$/, '')
        .replace(/^\[(.*)\]$/, '$1'),
    );
  for (const line of conf.split('\n')) {
    const [key = '', value] = line.trim().split(/\s+/);
    if (value === undefined) continue;
    if (/^(raw|ext[234]|xfs|btrfs|minix)$/.test(key)) devices.push(value);
    if (['nfs', 'ssh', 'net'].includes(key)) host(value);
  }
  for (const [, key, value] of tools.matchAll(/^\s*(NFS|SSH|FTP)=["']?([^"'\n]+)/gm)) if (key !== undefined && value) host(value.trim());
  return { devices, hosts };
}

/** The targets that this host's configuration names; none as long as no crash kernel is loaded. */
export const readCrashTargets = (root: Sysroot): { devices: string[]; hosts: string[] } =>
  root.attr('/sys/kernel/kexec_crash_loaded') !== '1'
    ? { devices: [], hosts: [] }
    : crashTargets(root.attr('/etc/kdump.conf') ?? '', root.attr('/etc/default/kdump-tools') ?? '');
