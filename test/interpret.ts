export * from "../engine/testing/interpret.ts";
