// Sign-in with the published TrailBase client, against a server that runs the conformance fixture.
//
//   conformance/serve.sh --port 4005 &
//   cd conformance/js && npm ci && BEDPLATE_URL=http://127.0.0.1:4005 node --test auth.mjs
//
// It may be repeated on the same database.

import assert from "node:assert/strict";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { test } from "node:test";
import { FetchError, initClient, initClientFromCookies } from "trailbase";

const base = process.env.BEDPLATE_URL;
assert.ok(base, "set BEDPLATE_URL to the address of the server, such as http://127.0.0.1:4005");
const auth = "/api/auth/v1";
const password = "secret";

const run = Date.now().toString(36);
const mark = (title) => `${title} ${run} =?&`;

const refused = (status, message) => (error) => {
  assert.ok(error instanceof FetchError, `want a FetchError, got ${error}`);
  assert.equal(error.status, status);
  if (message !== undefined) assert.equal(error.message, message);
  return true;
};

const post = (path, body, headers = {}) =>
  fetch(new URL(path, base), {
    method: "POST",
    redirect: "manual",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });

const signedIn = async (email = "admin@localhost") => {
  const client = initClient(base);
  assert.equal(await client.login(email, password), undefined);
  return client;
};

// What an authenticator app shows (RFC 6238).
function totp(secret, time = Date.now()) {
  let bits = "";
  for (const c of secret.replace(/=+$/, "")) {
    bits += "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0");
  }
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => Number.parseInt(b, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(time / 30000)));
  const sum = createHmac("sha1", key).update(counter).digest();
  const at = sum[19] & 15;
  return ((sum.readUInt32BE(at) & 0x7fffffff) % 1000000).toString().padStart(6, "0");
}

test("login, refresh twice, logout", async () => {
  const changes = [];
  const client = initClient(base, { onAuthChange: (_, user) => changes.push(user?.email) });
  await client.login("admin@localhost", password);
  const user = client.user();
  assert.equal(user.email, "admin@localhost");
  assert.match(user.id, /^[A-Za-z0-9_-]{22}==$/);
  const first = client.tokens();
  assert.ok(first.refresh_token && first.csrf_token);

  await client.refreshAuthToken();
  assert.equal(client.tokens().auth_token, first.auth_token, "a token that is not near its end is kept");
  await client.refreshAuthToken({ force: true });
  const second = client.tokens();
  await client.refreshAuthToken({ force: true });
  const third = client.tokens();
  assert.notEqual(second.auth_token, first.auth_token);
  assert.notEqual(third.auth_token, second.auth_token);
  assert.equal(third.refresh_token, first.refresh_token, "official clients keep their refresh token");

  assert.equal(await client.logout(), true);
  assert.equal(client.tokens(), undefined);
  assert.deepEqual(changes.at(-1), undefined);
  const dead = initClient(base, { tokens: third });
  await assert.rejects(dead.records("simple_strict_table").list(), refused(403));
});

test("wrong passwords are alike", async () => {
  const client = initClient(base);
  await assert.rejects(client.login("admin@localhost", "wrong"), refused(401));
  await assert.rejects(client.login(`nobody${run}@localhost`, "wrong"), refused(401));
});

test("claims", async () => {
  const client = await signedIn();
  const [header, claims] = client.tokens().auth_token.split(".").slice(0, 2).map((p) => JSON.parse(Buffer.from(p, "base64url")));
  assert.equal(header.alg, "EdDSA");
  assert.equal(header.typ, "JWT");
  assert.equal(claims.admin, true);
  assert.equal(claims.username, "admin");
  assert.equal(claims.csrf_token, client.tokens().csrf_token);
  assert.equal(claims.type, 1);
  assert.equal(claims.provider, 0);
  assert.ok(claims.exp - claims.iat > 60);
  const { keys } = await (await fetch(new URL("/.well-known/jwks.json", base))).json();
  assert.ok(keys.some((k) => k.kid === header.kid && k.kty === "OKP" && k.crv === "Ed25519"));
});

test("anonymous and promotion", async () => {
  const response = await post(`${auth}/login_anonymous`, {});
  assert.equal(response.status, 200);
  const client = initClient(base, { tokens: await response.json() });
  assert.ok(client.user());
  const { username, email } = JSON.parse(Buffer.from(client.tokens().auth_token.split(".")[1], "base64url"));
  assert.match(username, /^anon[a-z0-9]{6}$/);
  assert.equal(email, null);
  await client.records("simple_strict_table").create({ text_not_null: mark("anonymous") });

  const promoted = await client.fetch(`${auth}/promote_anonymous`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ new_password: "secret123.", new_email: `promoted${run}@test.org`, new_username: null }),
  });
  assert.equal(promoted.status, 200);
  await client.records("simple_strict_table").list({ pagination: { limit: 1 } });
  const again = await client.fetch(`${auth}/promote_anonymous`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ new_password: "secret123.", new_email: `other${run}@test.org` }),
    throwOnError: false,
  });
  assert.equal(again.status, 424);
  assert.equal((await post(`${auth}/promote_anonymous`, { new_password: "secret123.", new_email: "x@test.org" })).status, 401);
});

test("second factor", async () => {
  const client = initClient(base);
  const mfaToken = await client.login("alice@trailbase.io", password);
  assert.ok(mfaToken.token);
  assert.equal(client.tokens(), undefined);
  await assert.rejects(client.loginSecond({ mfaToken, totpCode: "000000" }), refused(401));
  const secret = "YCUTAYEZ346ZUEI7FLCG57BOMZQHHRA5";
  // A code is good once, so a run right after another one needs the next one.
  let last;
  for (const time of [Date.now(), Date.now() + 30000]) {
    last = await client.loginSecond({ mfaToken, totpCode: totp(secret, time) }).catch((e) => e);
    if (last === undefined) break;
  }
  assert.equal(last, undefined);
  assert.equal(client.user().email, "alice@trailbase.io");
});

test("enrolling a second factor", async () => {
  const response = await post(`${auth}/login_anonymous`, {});
  const client = initClient(base, { tokens: await response.json() });
  const { url: totp_url, png } = await client.registerTOTP({ png: true });
  assert.ok(png.length > 100);
  const secret = new URL(totp_url).searchParams.get("secret");
  await assert.rejects(client.confirmTOTP(totp_url, "000000"), refused(400));
  await client.confirmTOTP(totp_url, totp(secret));
  await client.unregisterTOTP(totp(secret, Date.now() + 30000));
});

test("a mailed code says nothing about accounts", async () => {
  const client = initClient(base);
  await client.requestOtp("0@localhost");
  await client.requestOtp(`nobody${run}@localhost`);
  await assert.rejects(client.loginOtp("0@localhost", "XXXXXX"), refused(401));
  await assert.rejects(client.loginOtp(`nobody${run}@localhost`, "XXXXXX"), refused(401));
});

test("records of a signed-in user", async () => {
  const client = await signedIn();
  const records = client.records("simple_strict_table");
  const text = mark("records");
  const ids = [];
  for (const i of [0, 1, 2]) ids.push(await records.create({ text_not_null: `${text}${i}`, text_default: mark("default") }));
  assert.equal((await records.read(ids[0])).text_not_null, `${text}0`);

  const one = await records.list({
    filters: [
      { column: "text_not_null", value: `${text}0` },
      { column: "text_default", value: mark("default") },
    ],
  });
  assert.equal(one.records.length, 1);
  assert.equal(one.total_count, undefined);
  assert.ok(one.cursor);

  const filters = [{ column: "text_not_null", op: "like", value: `${text}%` }];
  const up = await records.list({ filters, order: ["+text_not_null"], count: true });
  assert.equal(up.total_count, 3);
  assert.deepEqual(up.records.map((r) => r.text_not_null), [0, 1, 2].map((i) => `${text}${i}`));
  const down = await records.list({ filters, order: ["-text_not_null"] });
  assert.equal(down.total_count, undefined);
  assert.deepEqual(down.records.map((r) => r.text_not_null), [2, 1, 0].map((i) => `${text}${i}`));

  for (const view of ["simple_complete_view", "simple_subset_view"]) {
    const row = await client.records(view).read(ids[0]);
    assert.equal(row.text_not_null ?? row.t_not_null, `${text}0`);
  }
  await records.update(ids[0], { text_not_null: `${text}new`, text_default: "changed" });
  assert.equal((await records.read(ids[0])).text_not_null, `${text}new`);
  await records.delete(ids[0]);
  await assert.rejects(records.read(ids[0]), refused(404));
  await client.logout();
  await assert.rejects(records.read(ids[1]), refused(403));
});

test("bulk create and large integers", async () => {
  const records = (await signedIn()).records("simple_strict_table");
  const ids = await records.createBulk([{ text_not_null: mark("bulk 0") }, { text_not_null: mark("bulk 1") }]);
  assert.equal(ids.length, 2);
  const client = await signedIn();
  const response = await client.fetch("/api/records/v1/simple_strict_table", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: `{"int_not_null":9223372036854775807}`,
  });
  const [id] = (await response.json()).ids;
  assert.match(await (await client.fetch(`/api/records/v1/simple_strict_table/${id}`)).text(), /"int_not_null":9223372036854775807[,}]/);
});

test("expand", async () => {
  const comments = (await signedIn()).records("comment");
  const plain = await comments.read(1);
  assert.equal(plain.post.data, undefined);
  assert.equal(plain.author.data, undefined);
  const list = await comments.list({ expand: ["author", "post"], order: ["-id"], pagination: { limit: 1 } });
  assert.equal(list.records[0].id, 2);
  assert.equal(list.records[0].body, "second comment");
  assert.equal(list.records[0].author.data.name, "SecondUser");
});

test("a rule that names the user", async () => {
  const mine = (await signedIn()).records("simple_schema_table");
  const id = await mine.create({ data: { name: "Alice" } });
  assert.ok(id);
  const other = (await signedIn("1@localhost")).records("simple_schema_table");
  await assert.rejects(other.create({ data: { name: "Alice" } }), refused(403));
});

test("errors", async () => {
  const client = await signedIn();
  await assert.rejects(client.fetch("/nonexistent/api/path"), refused(404, "Not Found"));
  await assert.rejects(client.records("nonexistent").read("AZH8mYTFd5OexZ71Jwjzyw=="), refused(405, "Method Not Allowed"));
  const records = client.records("simple_strict_table");
  await assert.rejects(records.read("InvalidId0123"), refused(400, "Invalid id"));
  await assert.rejects(records.read("AZH8mYTFd5OexZ71Jwjzyw=="), refused(404, "Not Found"));
});

test("cookies", async () => {
  const form = await fetch(new URL(`${auth}/login`, base), {
    method: "POST",
    redirect: "manual",
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams({ email_or_username: "admin", password, redirect_uri: "/in" }),
  });
  assert.equal(form.status, 303);
  assert.equal(form.headers.get("location"), "/in");
  const cookies = form.headers.getSetCookie();
  for (const c of cookies) assert.match(c, /; HttpOnly/);
  const cookie = cookies.map((c) => c.split(";")[0]).join("; ");

  const jar = (path, init) => fetch(path, { ...init, headers: { ...init?.headers, cookie } });
  const client = await initClientFromCookies(base, { transport: { fetch: (path, init) => jar(new URL(path, base), init) } });
  assert.equal(client.user()?.email, "admin@localhost");

  const api = new URL("/api/records/v1/simple_strict_table?limit=1", base);
  assert.equal((await jar(api)).status, 200);
  const foreign = { method: "POST", headers: { "Content-Type": "application/json", Origin: "https://evil.example" }, body: "{}" };
  assert.equal((await jar(api, foreign)).status, 403, "a page of another origin cannot write with the user's cookies");
});

test("code flow with PKCE", async () => {
  const verifier = randomBytes(48).toString("base64url");
  const challenge = createHash("sha256").update(verifier).digest("base64url");
  const login = await post(`${auth}/login`, {
    email: "2@localhost",
    password,
    redirect_uri: "https://allowlisted.example.com",
    response_type: "code",
    pkce_code_challenge: challenge,
  });
  assert.equal(login.status, 303);
  const target = new URL(login.headers.get("location"));
  assert.equal(target.origin, "https://allowlisted.example.com");
  const authorization_code = target.searchParams.get("code");
  assert.match(authorization_code, /^[A-Za-z0-9]{48}$/);
  const exchange = (pkce_code_verifier) => post(`${auth}/token`, { authorization_code, pkce_code_verifier });
  assert.equal((await exchange(verifier.replace(/./, (c) => (c === "x" ? "y" : "x")))).status, 404);
  const tokens = await (await exchange(verifier)).json();
  assert.equal(initClient(base, { tokens }).user().email, "2@localhost");
  assert.equal((await exchange(verifier)).status, 404, "a code is good once");
});

test("the way to a provider", async () => {
  const { providers } = await (await fetch(new URL(`${auth}/oauth/providers`, base))).json();
  assert.deepEqual(providers, [["discord", "Discord"], ["oidc0", "My OIDC"]]);
  const response = await fetch(new URL(`${auth}/oauth/oidc0/login?redirect_uri=/_/auth/expected`, base), { redirect: "manual" });
  assert.equal(response.status, 303);
  const to = new URL(response.headers.get("location"));
  assert.equal(to.origin + to.pathname, "http://localhost:9088/authorize");
  assert.equal(to.searchParams.get("redirect_uri"), "http://localhost.trailbase.io:4000/api/auth/v1/oauth/oidc0/callback");
  assert.equal(to.searchParams.get("code_challenge_method"), "S256");
  assert.match(response.headers.getSetCookie()[0], /^oauth_state=/);
  const outside = await fetch(new URL(`${auth}/oauth/oidc0/login?redirect_uri=//evil.example`, base), { redirect: "manual" });
  assert.equal(outside.status, 400);
});

test("deleting an account", async () => {
  const response = await post(`${auth}/login_anonymous`, {});
  const tokens = await response.json();
  const client = initClient(base, { tokens });
  await client.deleteUser();
  const later = initClient(base, { tokens });
  await assert.rejects(later.records("simple_strict_table").list(), refused(403));
});
