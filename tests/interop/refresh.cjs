// tuf-js as an independent client: refresh, then download every target that is named.
// usage: node refresh.cjs NODE_MODULES METADATA_DIR TARGET_DIR URL TARGET...
'use strict';
const { createRequire } = require('node:module');
const path = require('node:path');

const [modules, metadataDir, targetDir, url, ...targets] = process.argv.slice(2);
const { Updater } = createRequire(path.join(modules, 'x.js'))('tuf-js');

(async () => {
  const updater = new Updater({
    metadataDir,
    metadataBaseUrl: `${url}metadata`,
    targetDir,
    targetBaseUrl: `${url}targets`,
  });
  await updater.refresh();
  for (const [index, name] of targets.entries()) {
    const info = await updater.getTargetInfo(name);
    if (info === undefined) throw new Error(`${name}: tuf-js does not find it`);
    await updater.downloadTarget(info, path.join(targetDir, String(index)));
  }
})().catch((error) => {
  console.error(`${error.name}: ${error.message}`);
  process.exit(1);
});
