import { MetricsText } from '../../../src/control/metrics-text.js';

const text = (fill: (to: MetricsText) => void, format: 'openmetrics' | 'prometheus' = 'openmetrics', max?: number): string => {
  const metrics = new MetricsText(format, max);
  fill(metrics);
  return metrics.end();
};

describe('metrics as text', () => {
  test('OpenMetrics names a counter without _total in its type, Prometheus with it', () => {
    const fill = (to: MetricsText) => to.counter('a_bytes', 'Bytes.', [[{ disk: 1 }, 5]]);
    expect(text(fill)).toBe('# HELP a_bytes Bytes.\n# TYPE a_bytes counter\na_bytes_total{disk="1"} 5\n# EOF\n');
    expect(text(fill, 'prometheus')).toBe('# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total{disk="1"} 5\n# EOF\n');
  });

  test('label values are escaped: quotes, backslashes, newlines; control characters do not pass', () => {
    const hostile = 'nqn."}\\ 1\nevil_total 7\r\x1b[2J\u009b\ud800';
    const lines = text((to) => to.gauge('g', 'G.', [[{ host: hostile }, 1]])).split('\n');
    expect(lines).toEqual(['# HELP g G.', '# TYPE g gauge', expect.any(String), '# EOF', '']);
    expect(lines[2]).toBe('g{host="nqn.\\"}\\\\ 1\\nevil_total 7\ufffd\ufffd[2J\ufffd\ufffd"} 1');
  });

  test('a histogram has its buckets, all values, and their sum; one of several states is 1', () => {
    const fill = (to: MetricsText) => {
      to.histogram('h_seconds', 'H.', [
        [
          { k: 'r' },
          {
            bounds: [
              [0.5, 1],
              [1, 3],
            ],
            count: 4,
            sum: 2.5,
          },
        ],
      ]);
      to.states('s', 'S.', ['up', 'down'], [[{ n: 1 }, 'down']]);
      to.info('i', 'I.', [{ v: '1' }]);
    };
    expect(text(fill).split('\n')).toEqual([
      '# HELP h_seconds H.',
      '# TYPE h_seconds histogram',
      'h_seconds_bucket{k="r",le="0.5"} 1',
      'h_seconds_bucket{k="r",le="1"} 3',
      'h_seconds_bucket{k="r",le="+Inf"} 4',
      'h_seconds_count{k="r"} 4',
      'h_seconds_sum{k="r"} 2.5',
      '# HELP s S.',
      '# TYPE s stateset',
      's{n="1",s="up"} 0',
      's{n="1",s="down"} 1',
      '# HELP i I.',
      '# TYPE i info',
      'i_info{v="1"} 1',
      '# EOF',
      '',
    ]);
    expect(text(fill, 'prometheus')).toContain('# TYPE s gauge\n');
    expect(text(fill, 'prometheus')).toContain('# TYPE i_info gauge\n');
  });

  test('series beyond the limit are left out, counted, and a family is never empty', () => {
    const many = Array.from({ length: 10 }, (_, i) => [{ i }, i] as const);
    const fill = (to: MetricsText) => {
      to.gauge('a', 'A.', many);
      to.gauge('b', 'B.', many);
      to.histogram('h', 'H.', [[{}, { bounds: [], count: 0, sum: 0 }]]);
      to.gauge('c', 'C.', many.slice(0, 1));
    };
    const lines = text(fill, 'openmetrics', 12).split('\n');
    expect(lines.filter((line) => !line.startsWith('#') && line !== '')).toHaveLength(13);
    expect(lines).toContain('vioctl_metrics_dropped_series 12');
    expect(lines.some((line) => line.includes(' h ') || line.includes(' c '))).toBe(false);
  });
});
