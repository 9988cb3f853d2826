export * from "../engine/testing/programs.ts";
