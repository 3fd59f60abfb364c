/** Unit, CLI, native and peer tests. Sources are TypeScript, turned into CommonJS by esbuild file by file. */
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/', '<rootDir>/test/vm/', '<rootDir>/test/bench/'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  moduleFileExtensions: ['ts', 'js', 'cjs', 'mjs', 'json', 'node'],
  transform: { '\\.(ts|js|mjs)$': '<rootDir>/test/support/transform.cjs' },
  transformIgnorePatterns: [
    '/node_modules/(?!(chalk|fast-check|pure-rand|@noble/hashes|string-width|strip-ansi|ansi-regex|get-east-asian-width)/)',
  ],
  setupFiles: ['<rootDir>/test/support/setup.cjs'],
  setupFilesAfterEnv: ['<rootDir>/test/support/deadline.ts'],
  testTimeout: 300000, // a hung test, not a slow machine
  maxWorkers: 3, // some wait most of their time
};
