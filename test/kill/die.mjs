// Loaded before a program (`node --import`): kills it at its DIE_AT-th operation on files below DIE_IN, in the middle of it
// where it has one: half a line, half a file. As SIGKILL does it, nothing is flushed, closed or cleaned. Used by
// curate_kill.test.ts.

import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { sep } from "node:path";

const { DIE_AT = "0", DIE_IN = "" } = process.env;
const root = fs.realpathSync(DIE_IN) + sep;
let count = 0;

/** Counts an operation on `path`; at the last one does `half` of it and ends the process. */
function operation(path, half = () => {}) {
  if (!String(path).startsWith(root) || ++count < Number(DIE_AT)) return;
  half();
  process.kill(process.pid, "SIGKILL");
}

const firstHalf = (data) => Buffer.from(data).subarray(0, Buffer.byteLength(data) >> 1);

const { openSync, writeSync, createReadStream, createWriteStream, promises } = fs;
const original = { ...promises };
const paths = new Map(); // of open file descriptors

fs.openSync = (path, ...rest) => {
  operation(path);
  const file = openSync(path, ...rest);
  paths.set(file, path);
  return file;
};
fs.writeSync = (file, data, ...rest) => {
  operation(paths.get(file), () => writeSync(file, firstHalf(data)));
  return writeSync(file, data, ...rest);
};
fs.createReadStream = (path, ...rest) => {
  operation(path);
  return createReadStream(path, ...rest);
};
fs.createWriteStream = (path, ...rest) => {
  operation(path);
  const stream = createWriteStream(path, ...rest);
  const write = stream.write.bind(stream);
  stream.write = (data, ...more) => {
    operation(path, () => fs.appendFileSync(path, firstHalf(data)));
    return write(data, ...more);
  };
  return stream;
};
promises.open = async (path, ...rest) => {
  operation(path);
  const file = await original.open(path, ...rest);
  const writeFile = file.writeFile.bind(file);
  file.writeFile = (data, ...more) => {
    operation(path, () => fs.writeFileSync(path, firstHalf(data)));
    return writeFile(data, ...more);
  };
  return file;
};
promises.rename = (from, to) => {
  operation(to, () => fs.truncateSync(from, fs.statSync(from).size >> 1)); // killed while another was writing it
  return original.rename(from, to);
};
promises.copyFile = (from, to) => {
  operation(to, () => fs.writeFileSync(to, firstHalf(fs.readFileSync(from))));
  return original.copyFile(from, to);
};
for (const name of ["mkdir", "rm", "writeFile"]) {
  promises[name] = (path, ...rest) => {
    operation(path);
    return original[name](path, ...rest);
  };
}
syncBuiltinESMExports();
