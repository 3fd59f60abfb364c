/** Tests that boot real kernels: two guests at a time (test/vm/slots.ts), generous times. */
module.exports = {
  ...require('./jest.config.cjs'),
  roots: ['<rootDir>/test/vm'],
  testPathIgnorePatterns: ['/node_modules/'],
  testTimeout: 900000,
  maxWorkers: 2,
};
