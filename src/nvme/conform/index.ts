/** The wire table of NVMe/TCP as cases that judge a target. */
export * from './report.js';
export * from './run.js';
