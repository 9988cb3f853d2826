#!/usr/bin/env node
// `npm run fuzz`: everything is in main.ts. Decoding processes run the built worker, which is brought up to date first.

import { build, stale } from "../../cli/build.mjs";
import { startMain } from "../start_main.mjs";

if (stale()) await build();
await startMain("fuzz");
