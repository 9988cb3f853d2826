#!/usr/bin/env node
// `npm run dataset:scale`: everything is in main.ts. Decoding processes run the built worker, so that is built first.

import { build, stale } from "../../cli/build.mjs";
import { startMain } from "../start_main.mjs";

if (stale()) await build();
await startMain("scale");
