// A jest reporter that writes one line of counts per test file as soon as the file is done, so that a run that is cut
// short still tells what it did.
const fs = require('node:fs');
const path = require('node:path');

module.exports = class {
  onTestResult(_test, result) {
    const file = path.relative(process.cwd(), result.testFilePath);
    const broken = result.testExecError || (result.numFailingTests === 0 && result.failureMessage) ? 1 : 0;
    // test/support/deadline.ts left its tests out
    const late = result.numPassingTests + result.numFailingTests === 0 && result.perfStats.end > Number(process.env.VIOCTL_UNTIL) * 1000;
    const line = {
      step: process.env.VIOCTL_STEP,
      file,
      passed: result.numPassingTests,
      // a test that was left out is not a passed one: skipping goes through test/support/skip.ts
      failed: result.numFailingTests + (late ? 0 : result.numPendingTests) + result.numTodoTests + broken,
      ...(late && { late: result.numPendingTests }),
      seconds: Math.round((result.perfStats.end - result.perfStats.start) / 1000),
    };
    fs.appendFileSync(process.env.VIOCTL_RESULTS, `${JSON.stringify(line)}\n`);
  }
};
