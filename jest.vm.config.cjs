/** Tests that boot real kernels: one guest at a time, generous times. */
module.exports = {
  ...require('./jest.config.cjs'),
  roots: ['<rootDir>/test/vm'],
  testPathIgnorePatterns: ['/node_modules/'],
  testTimeout: 900000,
  maxWorkers: 1,
};
