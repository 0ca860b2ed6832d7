// The OpenAPI document, judged by two validators that share no code: one knows the JSON Schema of OpenAPI 3.1, the
// other has rules of its own and follows all references.
//
// BEDPLATE_URL is a running server, OPENAPI_FILE the whole document of the fixture.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { createConfig, lintFromString } from "@redocly/openapi-core";
import { Validator } from "@seriousme/openapi-schema-validator";

const url = process.env.BEDPLATE_URL ?? "http://127.0.0.1:4000";
const file = process.env.OPENAPI_FILE;

// mistakes returns what either validator has against a document.
async function mistakes(text) {
  const validator = new Validator();
  const { valid, errors } = await validator.validate(JSON.parse(text));
  const found = valid ? [] : [JSON.stringify(errors)];
  if (valid) {
    assert.equal(validator.version, "3.1");
  }
  const config = await createConfig({ extends: ["minimal"] });
  for (const p of await lintFromString({ source: text, absoluteRef: "/openapi.json", config })) {
    if (p.severity === "error" || p.ruleId.startsWith("struct") || p.ruleId.startsWith("no-unresolved")) {
      found.push(`${p.ruleId}: ${p.message} ${p.location[0]?.pointer}`);
    }
  }
  return found;
}

test("the whole document is valid", async () => {
  const text = await readFile(file, "utf8");
  assert.deepEqual(await mistakes(text), []);
  const { paths } = JSON.parse(text);
  for (const path of ["/api/records/v1/movies", "/api/records/v1/file_upload_table/{record}/file/{column}", "/api/auth/v1/login", "/api/transaction/v1/execute"]) {
    assert.ok(paths[path], path);
  }
});

test("what a server shows is valid and has no API without the permission SCHEMA", async () => {
  const response = await fetch(`${url}/api/openapi.json`);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "application/json");
  const text = await response.text();
  assert.deepEqual(await mistakes(text), []);
  const { paths, servers } = JSON.parse(text);
  assert.deepEqual(Object.keys(paths).filter((path) => path.startsWith("/api/records/")), []);
  // Where a path is, as a client finds out.
  const base = new URL(servers[0].url, response.url).href.replace(/\/$/, "");
  assert.equal((await fetch(`${base}/api/healthcheck`)).status, 200);
});

test("each validator sees a mistake", async () => {
  const document = JSON.parse(await readFile(file, "utf8"));
  document.paths["/api/healthcheck"].get.responses = { 200: {} };
  const found = await mistakes(JSON.stringify(document));
  assert.ok(found.length >= 2, found.join("\n"));
});
