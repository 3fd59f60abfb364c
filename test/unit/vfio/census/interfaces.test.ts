import fc from 'fast-check';
import { parseRoute4, parseRoute6, routesTo } from '../../../../src/vfio/census/interfaces.js';

describe('route tables', () => {
  test('/proc/net/route', () => {
    const text = [
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
      'eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0',
      'eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0',
      'down0\t00000000\t00000000\t0000\t0\t0\t0\t00000000\t0\t0\t0',
      'short\t00',
    ].join('\n');
    expect(parseRoute4(text).map(({ destination, prefix, device }) => [destination, prefix, device])).toEqual([
      ['0.0.0.0/0', 0, 'eth0'],
      ['192.168.2.0/24', 24, 'eth0'],
    ]);
  });

  test('/proc/net/ipv6_route: unreachable and local entries lead nowhere', () => {
    const line = (prefix: string, length: string, flags: string, device: string) =>
      `${prefix} ${length} ${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00000400 00000001 00000000 ${flags} ${device.padStart(8)}`;
    const text = [
      line('0'.repeat(32), '00', '00000003', 'eth0'),
      line('20010db8000000000000000000000000', '20', '00000001', 'eth1'),
      line('0'.repeat(32), '00', '00200200', 'eth2'),
      line('0'.repeat(31).concat('1'), '80', '80200001', 'lo'),
      'short',
    ].join('\n');
    expect(parseRoute6(text).map(({ destination, device }) => [destination, device])).toEqual([
      ['0000:0000:0000:0000:0000:0000:0000:0000/0', 'eth0'],
      ['2001:0db8:0000:0000:0000:0000:0000:0000/32', 'eth1'],
    ]);
  });

  test('the longest match wins, in each table, against a plain comparison of bits', () => {
    const address = fc.integer({ min: 0, max: 0xffff_ffff });
    const dotted = (n: number) => [24, 16, 8, 0].map((shift) => (n >>> shift) & 255).join('.');
    const mask = (prefix: number) => (prefix === 0 ? 0 : (0xffff_ffff << (32 - prefix)) >>> 0);
    const entry = fc.record({ net: address, prefix: fc.integer({ min: 0, max: 32 }), table: fc.constantFrom('main', '7') });
    fc.assert(
      fc.property(address, fc.array(entry, { maxLength: 12 }), (peer, entries) => {
        const routes = entries.map(({ net, prefix, table }, i) => ({
          family: 4 as const,
          destination: `${dotted((net & mask(prefix)) >>> 0)}/${prefix}`,
          prefix,
          device: `e${i}`,
          table,
        }));
        const expected = ['main', '7'].flatMap((table) => {
          const hits = routes.filter(
            (route, i) => route.table === table && (peer & mask(route.prefix)) >>> 0 === (entries[i]!.net & mask(route.prefix)) >>> 0,
          );
          const best = Math.max(...hits.map((route) => route.prefix));
          return hits.filter((route) => route.prefix === best).map((route) => route.device);
        });
        expect(
          routesTo(routes, dotted(peer))
            .map((route) => route.device)
            .sort(),
        ).toEqual(expected.sort());
      }),
    );
  });
});
