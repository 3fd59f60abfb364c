import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import { foreignInterfaces, isDefault, isUp, kindOf, routesTo, uppersOf } from '../census/interfaces.js';
import type { PciDevice } from '../devices/pci.js';
import { conversationFindings } from './conversations.js';
import { mountFindings, serversOf } from './filesystems.js';
import type { Finding } from './finding.js';

/** Network file systems whose server is reached through an interface or what is stacked on it. */
function remoteFindings(census: Census, name: string, stack: ReadonlySet<string>): Finding[] {
  return census.mounts.all.flatMap((mount): Finding[] => {
    const server = serversOf(mount).find((address) => routesTo(census.routes, address).some((route) => stack.has(route.device)));
    if (server === undefined) return [];
    return mountFindings(census, name, `the ${mount.fstype} file system ${printable(mount.source)}, reached through ${name},`, mount);
  });
}

/** An interface that is up and has addresses or routes of its own: storage and cluster networks. Link-local ones come by themselves. */
function addressFindings(census: Census, name: string): Finding[] {
  const own = [
    ...(census.addresses.get(name) ?? []),
    ...census.routes.filter((r) => r.device === name && !isDefault(r)).map((r) => `a route to ${r.destination}`),
  ].filter((text) => !/\bfe80:/i.test(text));
  if (own.length === 0 || !isUp(census.root, name)) return [];
  const message = `interface ${name} is up and has ${own.slice(0, 3).join(', ')}${own.length > 3 ? ', …' : ''}`;
  return [{ check: 'address', subject: name, brief: `${name} has an address`, message, fix: `ip link set ${name} down` }];
}

/** What the interfaces of a device carry: stacked devices, routes, addresses, network file systems; also in other namespaces. */
export function netFindings(census: Census, device: PciDevice): Finding[] {
  const { root } = census;
  const found: Finding[] = [];
  for (const { name } of census.below('/sys/class/net', device.bdf)) {
    const uppers = uppersOf(root, name);
    for (const upper of uppers) {
      const kind = kindOf(root, upper);
      found.push({
        check: 'upper',
        subject: name,
        brief: `${name} in ${kind} ${upper}`,
        message: `interface ${name} is part of ${kind} ${upper}`,
        fix: `ip link set ${name} nomaster, or remove ${upper}`,
      });
    }
    const stack = new Set([name, ...uppers]);
    const via = (egress: string) => (egress === name ? name : `${egress} over ${name}`);
    for (const route of census.routes.filter((r) => isDefault(r) && stack.has(r.device))) {
      const table = route.table === 'main' ? '' : ` (table ${route.table})`;
      found.push({
        check: 'route',
        subject: name,
        brief: `default route via ${route.device}`,
        message: `the IPv${route.family} default route${table} leads out of ${via(route.device)}`,
        fix: `ip -${route.family} route del default dev ${route.device}`,
      });
    }
    const { peer } = census;
    const hit = peer === undefined ? undefined : routesTo(census.routes, peer).find((r) => stack.has(r.device));
    if (hit)
      found.push({
        check: 'route',
        subject: name,
        brief: `ssh peer ${peer}`,
        message: `this ssh session from ${peer} comes in by ${via(hit.device)}`,
        fix: undefined,
      });
    found.push(...remoteFindings(census, name, stack), ...conversationFindings(census, name, stack));
    // who allows a route to go knows that the interface has an address
    if (!found.some(({ check, subject }) => check === 'route' && subject === name)) found.push(...addressFindings(census, name));
  }
  // an interface that was moved into another network namespace does not show here
  if (found.length === 0 && device.class >> 16 === 0x02 && device.driver !== undefined && !census.isVfio(device.driver)) {
    const { foreign, named } = census.namespaces;
    for (const { pid, ns } of foreign) {
      for (const name of foreignInterfaces(root, device.bdf, pid)) {
        const who = `${printable(census.processes.comm(pid))} (pid ${pid})`;
        const message = `its interface ${name} is in the network namespace of ${who}, ${ns}`;
        found.push({
          check: 'route',
          subject: name,
          brief: `${name} in another netns`,
          message,
          fix: `nsenter -t ${pid} -n ip link set ${name} netns 1`,
        });
      }
    }
    if (found.length === 0 && named.length > 0 && census.below('/sys/class/net', device.bdf).length === 0) {
      const message = `it has no interface here; there are other network namespaces (${named.map(printable).join(', ')}) that may have it`;
      found.push({ check: 'route', subject: device.bdf, brief: 'in another netns', message, fix: `ip -n ${named[0]} link` });
    }
  }
  return found;
}
